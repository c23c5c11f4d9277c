//! The contact sheet: a column for each picture with its label above, the whole picture, and one region of it magnified.

use image::{RgbImage, imageops};

use crate::{
    error::{Error, Result},
    lab::draw::{Align, Canvas, Color, TextStyle, font},
};

/// Pixels of a column that a picture does not make narrower.
const COLUMN_PX: u32 = 512;
/// The narrowest column: a label must fit.
const MIN_COLUMN_PX: u32 = 320;
/// Space around and between the parts, as a part of a column.
const GAP: f32 = 1.0 / 24.0;
/// Height of the capitals of labels, of the title, and of details and captions, as a part of a column.
const LABEL: f32 = 1.0 / 22.0;
const TITLE: f32 = 1.0 / 32.0;
const DETAIL: f32 = 1.0 / 38.0;
/// How far the letters of a long label shrink before it is cut.
const SMALLEST_LABEL: f32 = 0.6;
/// The shortest text that is still read, in pixels.
const MIN_TEXT_PX: f32 = 8.0;

/// What is magnified: the middle of the region, as parts of height and width from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Focus {
    /// From 0 (top) to 1 (bottom).
    pub y: f64,
    /// From 0 (left) to 1 (right).
    pub x: f64,
}

impl Default for Focus {
    /// The centre.
    fn default() -> Self {
        Self { y: 0.5, x: 0.5 }
    }
}

/// Colours of the sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// Near black, which leaves the pictures alone.
    #[default]
    Dark,
    /// White, for paper.
    Light,
}

/// How a sheet looks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SheetOptions {
    /// What is magnified.
    pub focus: Focus,
    /// Colours.
    pub theme: Theme,
    /// A line above everything, such as the prompt; cut where it is too long.
    pub title: Option<String>,
}

/// What the sheet keeps of one picture: the picture itself may leave memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    label: String,
    detail: Option<String>,
    geometry: TileGeometry,
    whole: RgbImage,
    region: RgbImage,
}

/// Where the parts of a tile come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TileGeometry {
    /// Width and height of the picture.
    picture: [u32; 2],
    /// Width of the column.
    column: u32,
    /// Left and top of the region.
    corner: [u32; 2],
    /// Width and height of the region in the picture.
    region: [u32; 2],
    /// Pixels of the sheet for each pixel of the region, on each axis.
    zoom: u32,
}

impl TileGeometry {
    fn of(picture: [u32; 2], focus: Focus) -> Self {
        let column = picture[0].clamp(MIN_COLUMN_PX, COLUMN_PX);
        // Pixel for pixel where that shows at most half the width; small pictures are magnified to do so.
        let zoom = (2 * column).div_ceil(picture[0]).clamp(1, column);
        let width = (column / zoom).clamp(1, picture[0]);
        let column = width * zoom;
        let height = width.min((picture[1] / 2).max(1));
        let corner = |side: u32, region: u32, focus: f64| {
            let middle = focus.clamp(0.0, 1.0) * f64::from(side) - f64::from(region) / 2.0;
            // The cast saturates: what begins before the picture begins at 0.
            (middle.round() as u32).min(side - region)
        };
        let corner = [corner(picture[0], width, focus.x), corner(picture[1], height, focus.y)];
        Self { picture, column, corner, region: [width, height], zoom }
    }

    /// Height of the whole picture on the sheet.
    fn whole_height(&self) -> u32 {
        let [width, height] = self.picture.map(u64::from);
        ((height * u64::from(self.column) + width / 2) / width).max(1) as u32
    }

    fn scale(&self) -> f64 {
        f64::from(self.column) / f64::from(self.picture[0])
    }
}

impl Tile {
    /// Takes a picture's column: `label` above it, `detail` (a time, a measure) in small letters below the label.
    ///
    /// The whole picture is scaled to the column's width (about 320 to 512 px, Lanczos); the region, at most half of each side, is
    /// shown pixel for pixel, or with whole magnified pixels where the picture is small.
    ///
    /// # Errors
    /// [`Error::Request`] for a picture without pixels, and one so narrow that its column would be over 16,384 px high.
    pub fn new(label: &str, detail: Option<&str>, picture: &RgbImage, options: &SheetOptions) -> Result<Self> {
        const MAX_HEIGHT: u32 = 16_384;
        let sides = [picture.width(), picture.height()];
        let refuse =
            |why| Error::request(format!("no sheet of a picture of {} x {} px: {why}", sides[0], sides[1]), "");
        if sides.contains(&0) {
            return Err(refuse("it is empty"));
        }
        let geometry = TileGeometry::of(sides, options.focus);
        if geometry.whole_height() > MAX_HEIGHT {
            return Err(refuse("it is too narrow"));
        }
        let ([left, top], [width, height]) = (geometry.corner, geometry.region);
        let region = imageops::crop_imm(picture, left, top, width, height).to_image();
        let magnified = [width, height].map(|side| side * geometry.zoom);
        Ok(Self {
            label: label.to_owned(),
            detail: detail.map(str::to_owned),
            geometry,
            whole: imageops::resize(picture, geometry.column, geometry.whole_height(), imageops::Lanczos3),
            region: imageops::resize(&region, magnified[0], magnified[1], imageops::Nearest),
        })
    }
}

/// Puts tiles side by side, in their order.
///
/// # Errors
/// [`Error::Request`] when there is no tile, or their pictures differ in size or their regions in place.
pub fn sheet(tiles: &[Tile], options: &SheetOptions) -> Result<RgbImage> {
    let Some(first) = tiles.first() else {
        return Err(Error::request("no picture to compare", "name one method or more"));
    };
    if let Some(other) = tiles.iter().find(|tile| tile.geometry != first.geometry) {
        let size =
            |tile: &Tile| format!("{} ({} x {} px)", tile.label, tile.geometry.picture[0], tile.geometry.picture[1]);
        let what = format!("{} and {} do not fit into one sheet", size(first), size(other));
        return Err(Error::request(what, "compare pictures of one size, with one region"));
    }
    Ok(Layout::new(tiles, options).draw(tiles, options))
}

/// Where everything is, in pixels of the sheet.
struct Layout {
    geometry: TileGeometry,
    gap: u32,
    left: u32,
    label: f32,
    title: f32,
    detail: f32,
    title_y: f32,
    label_y: f32,
    detail_y: f32,
    whole_y: u32,
    region_y: u32,
    size: [u32; 2],
}

impl Layout {
    fn new(tiles: &[Tile], options: &SheetOptions) -> Self {
        let geometry = tiles[0].geometry;
        let column = geometry.column as f32;
        let gap = (column * GAP).round();
        let [label, title, detail] = [LABEL, TITLE, DETAIL].map(|part| (column * part).max(MIN_TEXT_PX));
        // The captions of the rows run upwards in the left margin.
        let left = (gap + 2.6 * detail).round() as u32;
        let mut y = gap;
        // Each line: its baseline, and then room for descenders and what else is below it.
        let mut line = |height: f32, room: f32, is_there: bool| {
            let baseline = y + height;
            y = if is_there { baseline + room } else { y };
            baseline
        };
        let title_y = line(title, 1.2 * label, options.title.is_some());
        let label_y = line(label, 0.8 * label, true);
        let detail_y = line(detail, 0.9 * detail, tiles.iter().any(|tile| tile.detail.is_some()));
        let whole_y = y.round() as u32;
        let region_y = whole_y + geometry.whole_height() + gap as u32;
        let gap = gap as u32;
        let width = left + tiles.len() as u32 * (geometry.column + gap);
        let size = [width, region_y + geometry.region[1] * geometry.zoom + gap];
        Self { geometry, gap, left, label, title, detail, title_y, label_y, detail_y, whole_y, region_y, size }
    }

    fn draw(&self, tiles: &[Tile], options: &SheetOptions) -> RgbImage {
        let colors = Colors::of(options.theme);
        let mut canvas = Canvas::filled(self.size[0], self.size[1], colors.background);
        if let Some(title) = &options.title {
            let width = (self.size[0] - self.left - self.gap) as f32;
            let style = text(self.title, colors.faint);
            canvas.text(&fitting(title, self.title, width), [self.left as f32, self.title_y], style);
        }
        self.captions(&mut canvas, &colors);
        for (index, tile) in tiles.iter().enumerate() {
            let x = self.left + index as u32 * (self.geometry.column + self.gap);
            self.column(&mut canvas, tile, x, &colors);
        }
        canvas.into_image()
    }

    fn column(&self, canvas: &mut Canvas, tile: &Tile, x: u32, colors: &Colors) {
        let width = self.geometry.column as f32;
        let height = self.label * (width / text_width(&tile.label, self.label)).clamp(SMALLEST_LABEL, 1.0);
        let label = fitting(&tile.label, height, width);
        canvas.text(&label, [x as f32, self.label_y], text(height, colors.ink));
        if let Some(detail) = &tile.detail {
            let detail = fitting(detail, self.detail, width);
            canvas.text(&detail, [x as f32, self.detail_y], text(self.detail, colors.faint));
        }
        canvas.paste(&tile.whole, x, self.whole_y);
        canvas.paste(&tile.region, x, self.region_y);
        self.mark(canvas, x);
    }

    /// The region's frame on the whole picture: white within black, so that it shows on any picture.
    fn mark(&self, canvas: &mut Canvas, x: u32) {
        let on_sheet =
            |at: u32, origin: u32| i64::from(origin) + (f64::from(at) * self.geometry.scale()).round() as i64;
        let ([left, top], [width, height]) = (self.geometry.corner, self.geometry.region);
        let from = [on_sheet(left, x), on_sheet(top, self.whole_y)];
        let to = [on_sheet(left + width, x), on_sheet(top + height, self.whole_y)];
        // Within the region, which is half the picture or less, so that the frame never leaves the picture.
        let inset = |by: i64| ([from[0] + by, from[1] + by], [to[0] - by, to[1] - by]);
        if to[0] - from[0] > 8 && to[1] - from[1] > 8 {
            let (outer, inner) = (inset(1), inset(2));
            canvas.frame(outer.0, outer.1, 1, [0; 3]);
            canvas.frame(inner.0, inner.1, 1, [255; 3]);
        }
    }

    fn captions(&self, canvas: &mut Canvas, colors: &Colors) {
        let TileGeometry { picture, region, zoom, .. } = self.geometry;
        let whole = format!("whole, {} x {} px", picture[0], picture[1]);
        let detail = match zoom {
            1 => format!("detail, {} x {} px, 1:1", region[0], region[1]),
            _ => format!("detail, {} x {} px, {zoom}:1", region[0], region[1]),
        };
        let rows = [(whole, self.whole_y, self.geometry.whole_height()), (detail, self.region_y, region[1] * zoom)];
        for (caption, top, height) in rows {
            let style = TextStyle { upwards: true, align: Align::Middle, ..text(self.detail, colors.faint) };
            let middle = top as f32 + height as f32 / 2.0;
            let x = self.left as f32 - 1.1 * self.detail;
            canvas.text(&fitting(&caption, self.detail, height as f32), [x, middle], style);
        }
    }
}

/// Colours of a theme.
struct Colors {
    background: Color,
    ink: Color,
    faint: Color,
}

impl Colors {
    fn of(theme: Theme) -> Self {
        match theme {
            Theme::Dark => Self { background: [22, 22, 24], ink: [240, 240, 242], faint: [160, 160, 168] },
            Theme::Light => Self { background: [255; 3], ink: [32, 32, 36], faint: [104, 104, 112] },
        }
    }
}

fn text(height: f32, color: Color) -> TextStyle {
    TextStyle { height, color, align: Align::Start, upwards: false }
}

/// Pixels that a text takes whose capitals are so high.
fn text_width(text: &str, height: f32) -> f32 {
    font::text_width(text) * (height / font::CAPITAL_HEIGHT)
}

/// The text, or as much of its start as fits into `width` pixels, with three dots.
fn fitting(text: &str, height: f32, width: f32) -> String {
    let fits = |text: &str| text_width(text, height) <= width;
    if fits(text) {
        return text.to_owned();
    }
    let mut shown = String::new();
    for letter in text.chars() {
        if !fits(&format!("{shown}{letter}...")) {
            break;
        }
        shown.push(letter);
    }
    format!("{}...", shown.trim_end())
}

#[cfg(test)]
mod tests;

//! A sheet with smooth lines, text and pictures.

use image::{Rgb, RgbImage, imageops};

use super::font;

/// Diameter of dots in text, in widths of its lines.
const DOT: f32 = 1.6;

/// A colour.
pub type Color = [u8; 3];
/// A point in pixels from the top left corner.
pub type Point = [f32; 2];

/// Where a text's anchor is along its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The text begins at the anchor.
    Start,
    /// The text's middle is at the anchor.
    Middle,
    /// The text ends at the anchor.
    End,
}

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextStyle {
    /// Height of capitals in pixels.
    pub height: f32,
    /// Its colour.
    pub color: Color,
    /// Where the anchor is along the line.
    pub align: Align,
    /// Written upwards instead of to the right.
    pub upwards: bool,
}

/// The sheet.
#[derive(Debug, Clone)]
pub struct Canvas {
    image: RgbImage,
}

impl Canvas {
    /// A white sheet of this many pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self::filled(width, height, [255; 3])
    }

    /// A sheet of one colour.
    pub fn filled(width: u32, height: u32, color: Color) -> Self {
        Self { image: RgbImage::from_pixel(width, height, Rgb(color)) }
    }

    /// The finished picture.
    pub fn into_image(self) -> RgbImage {
        self.image
    }

    /// A line with round ends.
    pub fn line(&mut self, from: Point, to: Point, width: f32, color: Color) {
        let radius = width / 2.0;
        let [left, right] = range(from[0], to[0], radius, self.image.width());
        let [top, bottom] = range(from[1], to[1], radius, self.image.height());
        for y in top..bottom {
            for x in left..right {
                let center = [x as f32 + 0.5, y as f32 + 0.5];
                let coverage = (radius + 0.5 - distance(center, from, to)).clamp(0.0, 1.0);
                self.blend(x, y, color, coverage);
            }
        }
    }

    /// A line of dashes and gaps of `dash` pixels each.
    pub fn dashed(&mut self, from: Point, to: Point, width: f32, color: Color, dash: f32) {
        let length = (to[0] - from[0]).hypot(to[1] - from[1]);
        let at = |distance: f32| {
            let part = (distance / length).min(1.0);
            [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])]
        };
        let dashes = (length / (2.0 * dash)).ceil() as usize;
        for index in 0..dashes {
            let start = index as f32 * 2.0 * dash;
            self.line(at(start), at(start + dash), width, color);
        }
    }

    /// A filled disc.
    pub fn dot(&mut self, center: Point, radius: f32, color: Color) {
        self.line(center, center, 2.0 * radius, color);
    }

    /// Lines from point to point.
    pub fn polyline(&mut self, points: &[Point], width: f32, color: Color) {
        for pair in points.windows(2) {
            self.line(pair[0], pair[1], width, color);
        }
    }

    /// A frame of `width` pixels just outside the rectangle from `from` to `to`, with square corners.
    pub fn frame(&mut self, from: [i64; 2], to: [i64; 2], width: i64, color: Color) {
        let sides = [i64::from(self.image.width()), i64::from(self.image.height())];
        let visible = |axis: usize| (from[axis] - width).max(0)..(to[axis] + width).min(sides[axis]);
        for y in visible(1) {
            for x in visible(0) {
                let is_inside = (from[0]..to[0]).contains(&x) && (from[1]..to[1]).contains(&y);
                if !is_inside {
                    self.image.put_pixel(x as u32, y as u32, Rgb(color));
                }
            }
        }
    }

    /// A picture with its top left corner at (x, y); what lies outside the sheet is cut off.
    pub fn paste(&mut self, picture: &RgbImage, x: u32, y: u32) {
        imageops::replace(&mut self.image, picture, i64::from(x), i64::from(y));
    }

    /// A line of text; `anchor` is on its baseline.
    pub fn text(&mut self, text: &str, anchor: Point, style: TextStyle) {
        let unit = style.height / font::CAPITAL_HEIGHT;
        let start = match style.align {
            Align::Start => 0.0,
            Align::Middle => -font::text_width(text) / 2.0,
            Align::End => -font::text_width(text),
        };
        let place = |left: f32, [x, y]: [f32; 2]| {
            let along = unit * (start + left + x);
            let down = unit * (y - font::CAPITAL_HEIGHT);
            if style.upwards { [anchor[0] + down, anchor[1] - along] } else { [anchor[0] + along, anchor[1] + down] }
        };
        let pen = (style.height / 8.0).max(1.2);
        for (left, glyph) in font::letters(text) {
            for stroke in &glyph.strokes {
                let points: Vec<Point> = stroke.iter().map(|point| place(left, *point)).collect();
                // A dot as thin as a line is lost between two digits.
                let is_dot = stroke.windows(2).all(|pair| pair[0] == pair[1]);
                self.polyline(&points, if is_dot { DOT * pen } else { pen }, style.color);
            }
        }
    }

    fn blend(&mut self, x: u32, y: u32, color: Color, coverage: f32) {
        if coverage > 0.0 {
            let pixel = self.image.get_pixel_mut(x, y);
            for (channel, ink) in pixel.0.iter_mut().zip(color) {
                *channel = (f32::from(*channel) * (1.0 - coverage) + f32::from(ink) * coverage).round() as u8;
            }
        }
    }
}

/// The rows or columns that a line from `a` to `b` can touch, within the sheet.
fn range(a: f32, b: f32, radius: f32, size: u32) -> [u32; 2] {
    // Casts of floats saturate: what lies outside the sheet is cut off.
    let low = (a.min(b) - radius - 1.0).floor() as u32;
    let high = (a.max(b) + radius + 2.0).ceil() as u32;
    [low.min(size), high.min(size)]
}

/// Distance of a point from the line between two others.
fn distance(point: Point, from: Point, to: Point) -> f32 {
    let [along_x, along_y] = [to[0] - from[0], to[1] - from[1]];
    let squared = along_x * along_x + along_y * along_y;
    let dot = (point[0] - from[0]) * along_x + (point[1] - from[1]) * along_y;
    let part = if squared > 0.0 { (dot / squared).clamp(0.0, 1.0) } else { 0.0 };
    (point[0] - from[0] - part * along_x).hypot(point[1] - from[1] - part * along_y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_covers_its_width_and_nothing_else() {
        let mut canvas = Canvas::new(20, 9);
        canvas.line([-100.0, 4.5], [100.0, 4.5], 3.0, [0, 0, 0]);
        let image = canvas.into_image();
        let column: Vec<u8> = (0..9).map(|y| image.get_pixel(10, y).0[0]).collect();
        assert_eq!(column, [255, 255, 255, 0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn a_frame_lies_around_its_rectangle_and_is_cut_at_the_sheet() {
        let mut canvas = Canvas::filled(6, 5, [9; 3]);
        canvas.frame([2, 2], [4, 9], 1, [200; 3]);
        let image = canvas.into_image();
        let row = |y: u32| -> Vec<u8> { (0..6).map(|x| image.get_pixel(x, y).0[0]).collect() };
        assert_eq!(row(0), [9; 6]);
        assert_eq!(row(1), [9, 200, 200, 200, 200, 9]);
        assert_eq!(row(4), [9, 200, 9, 9, 200, 9]);
    }

    #[test]
    fn text_is_where_its_anchor_says() {
        let mut canvas = Canvas::new(100, 40);
        let style = TextStyle { height: 12.0, color: [0; 3], align: Align::End, upwards: false };
        canvas.text("kappa", [90.0, 20.0], style);
        let image = canvas.into_image();
        let inked = image.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] < 128);
        let (right, count) = inked.fold((0, 0), |(right, count), (x, _, _)| (right.max(x), count + 1));
        assert!((87..=91).contains(&right), "{right}");
        assert!(count > 60, "{count}");
    }
}

//! The frequencies of an inspection as a picture: each pair's frequency as a part of its native one, over the pairs,
//! one curve for each of a few moments t. One panel per axis, or one for both where they are alike; beside them panels of the
//! amplitudes, where pairs have their own.

use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};

use super::inspect::{AxisInspection, Inspection, StepInspection};
use crate::{
    error::{Error, Result},
    lab::draw::{Align, Canvas, Color, Point, TextStyle, font},
    output::write_atomically,
};

/// The most curves that still can be told apart.
const CURVES: usize = 8;
/// The most gridlines on the vertical axis.
const TICKS: i32 = 9;
/// Colours over t, from the picture (t = 0) to pure noise (t = 1); each is dark enough on white.
const COLORS: [Color; 5] = [[38, 70, 160], [16, 138, 150], [84, 160, 60], [224, 140, 20], [196, 40, 48]];
const INK: Color = [40, 40, 44];
const GRID: Color = [226, 226, 230];
const GUIDE: Color = [130, 130, 138];

/// Pixels of the parts of the sheet.
const PANEL: [f32; 2] = [640.0, 520.0];
const MARGIN_LEFT: f32 = 124.0;
const MARGIN_TOP: f32 = 120.0;
const MARGIN_BOTTOM: f32 = 90.0;
const BETWEEN: f32 = 140.0;
const LEGEND: f32 = 340.0;
/// Height of the title's capitals, where it fits.
const TITLE: f32 = 18.0;

/// Draws an inspection.
pub fn draw(inspection: &Inspection) -> RgbImage {
    let curves = curves(inspection);
    let panels = panels(&curves);
    let width = MARGIN_LEFT + panels.len() as f32 * (PANEL[0] + BETWEEN) + LEGEND - BETWEEN;
    let mut canvas = Canvas::new(width as u32, (MARGIN_TOP + PANEL[1] + MARGIN_BOTTOM) as u32);
    let title = inspection.title();
    let fitting = font::CAPITAL_HEIGHT * (width - MARGIN_LEFT - 30.0) / font::text_width(&title);
    canvas.text(&title, [MARGIN_LEFT, 44.0], style(fitting.min(TITLE), Align::Start));
    for (index, (name, axis, quantity)) in panels.iter().enumerate() {
        let left = MARGIN_LEFT + index as f32 * (PANEL[0] + BETWEEN);
        draw_panel(&mut canvas, &Panel { left, quantity: *quantity, name, axis: *axis }, &curves);
    }
    let left = MARGIN_LEFT + panels.len() as f32 * (PANEL[0] + BETWEEN) - BETWEEN + 36.0;
    draw_legend(&mut canvas, left, inspection, &curves);
    canvas.into_image()
}

/// Draws an inspection into a PNG file and gives the path it got: where one is there already, the first free of `_2`, `_3`, ...; a
/// missing folder is made.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be written.
pub fn save(inspection: &Inspection, path: &Path) -> Result<PathBuf> {
    let mut png = std::io::Cursor::new(Vec::new());
    let encoded = draw(inspection).write_to(&mut png, ImageFormat::Png);
    encoded.map_err(|error| Error::disk("cannot encode", path, std::io::Error::other(error)))?;
    write_atomically(path, false, |file| file.write_all(png.get_ref()))
}

/// The steps that are drawn, in the schedule's order: those nearest to t evenly spread over its range; one where t
/// plays no part.
fn curves(inspection: &Inspection) -> Vec<&StepInspection> {
    let steps = &inspection.steps;
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Vec::new() };
    if !first.follows_t {
        return vec![first];
    }
    let mut chosen: Vec<&StepInspection> = Vec::with_capacity(CURVES);
    for index in 0..CURVES {
        let part = index as f64 / (CURVES - 1) as f64;
        let wanted = first.t + part * (last.t - first.t);
        let nearest = steps.iter().min_by(|a, b| (a.t - wanted).abs().total_cmp(&(b.t - wanted).abs()));
        chosen.extend(nearest.filter(|step| !chosen.iter().any(|other| other.step == step.step)));
    }
    chosen
}

/// A name for each panel, the axis it shows, and what of it.
fn panels(curves: &[&StepInspection]) -> Vec<(&'static str, usize, Quantity)> {
    let alike = |step: &&StepInspection| {
        let [height, width] = &step.axes;
        height.patches == width.patches && height.inv_freq == width.inv_freq && height.amplitude == width.amplitude
    };
    let names =
        if curves.iter().all(alike) { vec![("height and width", 0)] } else { vec![("height", 0), ("width", 1)] };
    let axes = || curves.iter().flat_map(|step| &step.axes);
    let mut quantities = vec![Quantity::Frequency { octaves: octaves(curves) }];
    if axes().any(|axis| axis.min_amplitude() < axis.max_amplitude()) {
        let most = axes().map(AxisInspection::max_amplitude).fold(1.0, f64::max);
        quantities.push(Quantity::Amplitude { most });
    }
    let panels =
        quantities.into_iter().flat_map(|quantity| names.iter().map(move |(name, axis)| (*name, *axis, quantity)));
    panels.collect()
}

/// What a panel shows of each pair, over which range.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    /// The frequency as a part of its native one, from 1 down by so many octaves.
    Frequency { octaves: f64 },
    /// The factor on cos and sin, from 1 up to the most.
    Amplitude { most: f64 },
}

impl Quantity {
    /// What is said beside the panel.
    fn label(self) -> &'static str {
        match self {
            Self::Frequency { .. } => "frequency / native",
            Self::Amplitude { .. } => "amplitude",
        }
    }

    /// The value of each pair.
    fn values(self, axis: &AxisInspection) -> Vec<f64> {
        match self {
            Self::Frequency { .. } => ratios(axis).collect(),
            Self::Amplitude { .. } => axis.amplitude.clone(),
        }
    }

    /// How far down its panel a value lies, 0 to 1.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Frequency { octaves } => -value.log2() / octaves,
            Self::Amplitude { most } => (most - value) / (most - 1.0),
        }
    }

    /// Where gridlines lie, and what they are called.
    fn ticks(self) -> Vec<(f64, String)> {
        match self {
            Self::Frequency { octaves } => {
                let every = (octaves as i32 / TICKS) + 1;
                let ticks = (0..=octaves as i32).step_by(every as usize);
                ticks.map(|octave| (f64::from(-octave).exp2(), octave_name(octave))).collect()
            }
            Self::Amplitude { most } => {
                let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
                let step = steps.into_iter().find(|step| (most - 1.0) / step < f64::from(TICKS)).unwrap_or(1.0);
                let ticks = (0..=TICKS).map(|tick| 1.0 + f64::from(tick) * step).filter(|value| *value <= most);
                ticks.map(|value| (value, short(value))).collect()
            }
        }
    }
}

/// How many octaves below native the lowest point of any curve lies, at least one.
fn octaves(curves: &[&StepInspection]) -> f64 {
    let axes = curves.iter().flat_map(|step| &step.axes);
    let lowest = axes.flat_map(ratios).fold(1.0, f64::min);
    (-lowest.log2() * 1.05).max(1.0)
}

/// Each pair's frequency as a part of its native one, in (0, 1].
fn ratios(axis: &AxisInspection) -> impl Iterator<Item = f64> {
    axis.inv_freq.iter().zip(&axis.native).map(|(found, native)| found / native)
}

/// One panel: its place on the sheet and its scale.
struct Panel<'a> {
    left: f32,
    quantity: Quantity,
    name: &'a str,
    axis: usize,
}

impl Panel<'_> {
    /// The point of a pair (of `pairs`) and its value. A little room is left at each side and on top.
    fn place(&self, pair: usize, pairs: usize, value: f64) -> Point {
        let last = pairs.saturating_sub(1).max(1) as f32;
        let x = 0.03 + 0.94 * pair as f32 / last;
        let y = 0.04 + 0.94 * self.quantity.place(value) as f32;
        [self.left + x * PANEL[0], MARGIN_TOP + y * PANEL[1]]
    }
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, curves: &[&StepInspection]) {
    let Some(axis) = curves.first().map(|step| &step.axes[panel.axis]) else { return };
    draw_frame(canvas, panel, axis);
    // The first t lies under the others: it is the farthest from native, and the rest must not hide behind it.
    for step in curves {
        let values = panel.quantity.values(&step.axes[panel.axis]);
        let points = values.iter().enumerate().map(|(pair, value)| panel.place(pair, values.len(), *value));
        let points: Vec<Point> = points.collect();
        canvas.polyline(&points, 2.4, color(step));
        for point in points {
            canvas.dot(point, 3.2, color(step));
        }
    }
}

/// Gridlines, their labels, the frame, and the line of position interpolation, 1/s.
fn draw_frame(canvas: &mut Canvas, panel: &Panel, axis: &AxisInspection) {
    let pairs = axis.native.len();
    let (left, right) = (panel.left, panel.left + PANEL[0]);
    let (top, bottom) = (MARGIN_TOP, MARGIN_TOP + PANEL[1]);
    for (value, name) in panel.quantity.ticks() {
        let y = panel.place(0, pairs, value)[1];
        canvas.line([left, y], [right, y], 1.0, GRID);
        canvas.text(&name, [left - 12.0, y + 6.0], style(12.0, Align::End));
    }
    let step = [1, 2, 4, 8, 16, 32, 64, 128].into_iter().find(|step| pairs / step <= 8).unwrap_or(256);
    for pair in (0..pairs).step_by(step) {
        let x = panel.place(pair, pairs, 1.0)[0];
        canvas.line([x, top], [x, bottom], 1.0, GRID);
        canvas.text(&pair.to_string(), [x, bottom + 24.0], style(12.0, Align::Middle));
    }
    if axis.scale > 1.0 && matches!(panel.quantity, Quantity::Frequency { .. }) {
        let y = panel.place(0, pairs, 1.0 / axis.scale)[1];
        canvas.dashed([left, y], [right, y], 1.6, GUIDE, 7.0);
        let label = format!("1/s = 1/{}", short(axis.scale));
        canvas.text(&label, [left + 12.0, y - 8.0], TextStyle { color: GUIDE, ..style(12.0, Align::Start) });
    }
    canvas.polyline(&[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], 1.5, INK);
    let (patches, scale, amplitude) = (axis.patches, short(axis.scale), axis.amplitude_text());
    let heading = format!("{}: {patches} patches, s = {scale}, amplitude {amplitude}", panel.name);
    canvas.text(&heading, [left, top - 18.0], style(14.0, Align::Start));
    let middle = [left + PANEL[0] / 2.0, bottom + 60.0];
    canvas.text("pair (from fast to slow)", middle, style(14.0, Align::Middle));
    let side = [left - 84.0, top + PANEL[1] / 2.0];
    canvas.text(panel.quantity.label(), side, TextStyle { upwards: true, ..style(14.0, Align::Middle) });
}

fn draw_legend(canvas: &mut Canvas, left: f32, inspection: &Inspection, curves: &[&StepInspection]) {
    let mut y = MARGIN_TOP + 14.0;
    let mut entry = |color: Color, dashed: bool, text: &str| {
        let (from, to) = ([left, y - 6.0], [left + 34.0, y - 6.0]);
        if dashed {
            canvas.dashed(from, to, 1.6, color, 7.0);
        } else {
            canvas.line(from, to, 2.4, color);
            canvas.dot([left + 17.0, y - 6.0], 3.2, color);
        }
        canvas.text(text, [left + 46.0, y], style(12.0, Align::Start));
        y += 30.0;
    };
    for step in curves {
        let text = match step.kappa {
            Some(kappa) => format!("t {:.3}   kappa {kappa:.3}", step.t),
            None if step.follows_t => format!("t {:.3}", step.t),
            None => "every t".to_owned(),
        };
        entry(color(step), false, &text);
    }
    if inspection.extrapolates() {
        entry(GUIDE, true, "interpolation, 1/s");
    }
}

fn style(height: f32, align: Align) -> TextStyle {
    TextStyle { height, color: INK, align, upwards: false }
}

/// "1", "1/2", "1/4" and so on; from 1/1024 on as a power, which stays short.
fn octave_name(octave: i32) -> String {
    match octave {
        0 => "1".into(),
        1..=9 => format!("1/{}", 1 << octave),
        _ => format!("2^-{octave}"),
    }
}

/// A number with up to two decimals.
fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The colour of a moment; ink where t plays no part.
fn color(step: &StepInspection) -> Color {
    if !step.follows_t {
        return INK;
    }
    let place = step.t.clamp(0.0, 1.0) * (COLORS.len() - 1) as f64;
    let index = (place as usize).min(COLORS.len() - 2);
    let part = place - index as f64;
    let mix = |channel: usize| {
        let [low, high] = [COLORS[index][channel], COLORS[index + 1][channel]].map(f64::from);
        (low + part * (high - low)).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

#[cfg(test)]
mod tests;

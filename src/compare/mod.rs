//! Pictures side by side: simple measures of each, and a labelled contact sheet.

mod fourier;
mod measures;
mod plane;
mod repetition;
mod sheet;
mod spectrum;

pub use measures::{EXPLANATIONS, Measures, sharpness};
pub use repetition::self_similarity;
pub use sheet::{Focus, SheetOptions, Theme, Tile, sheet};
pub use spectrum::spectrum_slope;

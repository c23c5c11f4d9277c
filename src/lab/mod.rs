//! Pictures and methods looked at: simple measures, a labelled contact sheet, frequencies as tables and plots.

pub mod draw;
mod fourier;
pub mod inspect;
mod measures;
mod plane;
pub mod plot;
mod repetition;
mod sheet;
mod spectrum;

pub use measures::{EXPLANATIONS, Measures, sharpness};
pub use repetition::self_similarity;
pub use sheet::{Focus, SheetOptions, Theme, Tile, sheet};
pub use spectrum::spectrum_slope;

//! Pictures and methods looked at: simple measures, a labelled contact sheet, frequencies as tables and plots.

mod draw;
mod inspect;
mod measures;
mod plane;
mod plot;
mod repetition;
mod sheet;
mod slope;

pub use inspect::{InspectSettings, inspect};
pub use measures::{EXPLANATIONS, Measures};
pub use plot::save as save_plot;
pub use repetition::self_similarity;
pub use sheet::{SheetOptions, Theme, Tile, sheet};
pub use slope::spectrum_slope;

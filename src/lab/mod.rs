//! Pictures and methods looked at: simple measures, a labelled contact sheet, a page to compare pictures on, frequencies as tables
//! and plots.

mod draw;
mod inspect;
mod link;
mod measures;
mod page;
mod plane;
mod plot;
mod repetition;
mod sheet;
mod slope;

pub use inspect::{InspectSettings, inspect};
pub use measures::{EXPLANATIONS, Measures};
pub use page::{Page, PagePicture};
pub use plot::save as save_plot;
pub use repetition::self_similarity;
pub use sheet::{SheetOptions, Theme, Tile, sheet};
pub use slope::spectrum_slope;

//! Pictures that somebody gives: read whatever their format, turned as their EXIF says, over white, resized, as rows for an encoder.

mod read;
mod resize;
mod rows;

pub use read::{Seen, changed, look, open};
pub use rows::Pixels;

//! Drawing on pictures: lines, boxes, pasted pictures, and text in a stroke font of our own.

mod canvas;
pub mod font;

pub use canvas::{Align, Canvas, Color, Point, TextStyle};

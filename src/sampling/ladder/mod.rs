//! A ladder of resolutions: a picture at the size of training, then larger ones, each started from the one below and led by
//! the course it took.
//!
//! Source: HiFlow (arXiv 2504.06232); where its paper and its authors' code differ, the code is followed. Its sampler is
//! Euler's, and positions are those of the method that is asked for, at each size.

mod bicubic;
mod climbing;
mod enlarged;
mod low_pass;
mod pull;

pub use bicubic::{Bicubic, resized};
pub use climbing::{Climb, Climbing, Guide, handed_up};
pub use enlarged::Enlarged;
pub use low_pass::LowPass;
pub use pull::{Channel, Pull};

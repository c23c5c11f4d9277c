//! From noise to latents: the list of sigmas, the starting noise, and the Euler loop between them.
//!
//! What predicts the velocity is behind [`Denoiser`]; nothing here knows the transformer.

mod cfg;
mod euler;
mod latents;
mod noise;
pub mod preview;
mod sigmas;
mod spectrum;

pub use crate::models::{MuRule, SchedulerConfig, TimeShift};
pub use cfg::{Cfg, Guided};
pub use euler::{After, Denoiser, Progress, State, StepInfo, denoise};
pub use latents::{pack, unpack};
pub use noise::noise;
pub use sigmas::{ScheduleFor, Shift, sigmas};
pub use spectrum::spectrum;

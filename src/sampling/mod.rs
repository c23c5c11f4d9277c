//! From noise to latents: the list of sigmas, the starting noise, and the loop of a sampler between them.
//!
//! What predicts the velocity is behind [`Denoiser`]; nothing here knows the transformer.

mod beta;
mod cfg;
mod denoise;
mod denoiser;
mod easy_cache;
pub mod ladder;
mod latents;
mod noise;
pub mod preview;
mod samplers;
mod sigmas;
mod spectrum;

pub use crate::models::{MuRule, SchedulerConfig, TimeShift};
pub use cfg::{Cfg, Guided};
pub use denoise::{After, Progress, denoise};
pub use denoiser::{Denoiser, Skips, State, StepInfo};
pub use easy_cache::{Decision, EasyCache, EasyRule};
pub use latents::{noised, pack, unpack};
pub use noise::{noise, noise_after};
pub use samplers::{Dpmpp2m, ErSde, Euler, Heun, Sampler};
pub use sigmas::{ScheduleFor, Shift, sigma_at, sigmas};
pub use spectrum::spectrum;

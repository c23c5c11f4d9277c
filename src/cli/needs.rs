//! What one square picture takes of a model, by dry passes.

use serde_json::{Map, Value, json};

use crate::{
    base::{device::DeviceKind, memory::Bytes},
    error::Result,
    models::{ForwardOptions, Model},
    nn::WeightsMode,
    plan::StagePeaks,
    recipe::{Recipe, Wanted},
    run::Item,
};

/// Sides of the pictures whose needs are told, in pixels.
pub const SIDES_PX: [usize; 2] = [1024, 4096];
/// The ways weights reach the device, and what to call them.
pub const MODES: [(WeightsMode, &str); 2] = [(WeightsMode::Resident, "resident"), (WeightsMode::Stream, "stream")];
/// A card whose plan stands for that of every card with bf16.
pub const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };

/// What one square picture takes at the least.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Its side.
    pub side_px: usize,
    /// What computes, in its usual numbers.
    pub kind: DeviceKind,
    /// Floating point operations of a step.
    pub step_flops: u128,
    /// The least peak with each of [`MODES`].
    pub peak_bytes: [u64; 2],
}

impl Need {
    /// On a kind of device.
    ///
    /// # Errors
    /// What planning may fail with.
    pub fn of(model: &dyn Model, side_px: usize, kind: DeviceKind) -> Result<Self> {
        let wanted = Wanted { height: Some(side_px), width: Some(side_px), ..Wanted::default() };
        let recipe = Recipe::new(&wanted, &model.facts().recipe)?;
        let (task, on) = (Item::task(&recipe, 1), (kind, kind.usual_dtype()));
        let least = |mode| StagePeaks::least(model, &task, on, mode).map(|peaks| peaks.most());
        let peak_bytes = [least(MODES[0].0)?, least(MODES[1].0)?];
        let tokens = [model.facts().latents.tokens(task.size).count(), task.text_tokens];
        let pass = model.step_cost(on, WeightsMode::Stream, tokens.into(), ForwardOptions::first(kind, on.1))?;
        Ok(Self { side_px, kind, step_flops: pass.flops * task.passes() as u128, peak_bytes })
    }

    /// "at least 26.1 GB of memory, 3.2 GB with streamed weights"
    pub fn memory(&self) -> String {
        let [resident, stream] = self.peak_bytes.map(Bytes);
        format!("at least {resident} of memory, {stream} with streamed weights")
    }

    /// The same for programs, whatever computes it.
    pub fn json(&self) -> Value {
        let peaks = MODES.iter().zip(self.peak_bytes).map(|((_, name), peak)| ((*name).to_owned(), json!(peak)));
        let peaks: Map<_, _> = peaks.collect();
        json!({ "side_px": self.side_px, "peak_bytes": peaks, "step_flops": self.step_flops as f64 })
    }
}

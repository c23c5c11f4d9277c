//! The plan of a ladder: one of each pass, with what is held there for the pass above and of the one below.

use super::{Encoding, Machine, PIXEL_BYTES, Plan, Task};
use crate::{
    base::{device::DeviceKind, geometry::LatentGeometry},
    error::{Error, Result},
    models::Model,
    sampling::ladder::{Enlarged, Guide},
};

/// What a pass holds that follows none and is followed by none: a picture of bytes.
pub(super) const ALONE: Beside =
    Beside { encode_bytes: 0, denoise_bytes: 0, led_bytes: 0, decode_bytes: 0, pixel_bytes: PIXEL_BYTES };
/// Bytes of a pixel of f32.
const FLOAT_PIXEL_BYTES: u64 = 12;

/// What the stages of a pass hold for the passes above it and of the one below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beside {
    /// While the picture below is encoded.
    pub(super) encode_bytes: u64,
    /// While it denoises.
    pub(super) denoise_bytes: u64,
    /// Once the model has given a velocity, while it is led, beyond those.
    pub(super) led_bytes: u64,
    /// While its own picture is decoded.
    pub(super) decode_bytes: u64,
    /// Of a pixel of the picture that is decoded.
    pub(super) pixel_bytes: u64,
}

impl Beside {
    /// Of pass number `pass` of these. Numbers are kept on the CPU, whatever the device.
    fn of(geometry: &LatentGeometry, tasks: &[Task], pass: usize, kind: DeviceKind) -> Self {
        let latents_bytes = |task: &Task| (4 * geometry.tokens(task.size).count() * geometry.token_channels()) as u64;
        let own = &tasks[pass];
        let above = tasks.get(pass + 1);
        let below = pass.checked_sub(1).map(|below| &tasks[below]);
        let keeps = above.map_or(0, |above| above.steps);
        let [kept, reference] = [latents_bytes(own), below.map_or(0, latents_bytes)];
        // Before a velocity is led, what the step was heading for is kept already, and what leads it is still there.
        let clean = |left: usize| (keeps + 1).saturating_sub(left) as u64 * kept + left as u64 * reference;
        let latents = |task: &Task| geometry.latents(geometry.tokens(task.size));
        let led = below.map_or([0, 0], |below| Guide::bytes([below, own].map(latents), geometry.channels));
        let on_cpu = |bytes: u64| if kind.is_cpu() { bytes } else { 0 };
        Self {
            encode_bytes: on_cpu(own.steps as u64 * reference),
            denoise_bytes: on_cpu(clean(1).max(clean(own.steps)) + led[0]),
            led_bytes: on_cpu(led[1]),
            decode_bytes: on_cpu(keeps as u64 * kept),
            pixel_bytes: above.map_or(ALONE.pixel_bytes, |_| FLOAT_PIXEL_BYTES),
        }
    }
}

impl Plan {
    /// Plans the passes of a picture, the last of which ends in it; all with the same way of holding weights. What it says of
    /// a step is of the last pass; peaks and all work are of the whole.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Request`] where there is no pass.
    pub fn of_passes(model: &dyn Model, tasks: &[Task], machine: &Machine) -> Result<Self> {
        let kind = DeviceKind::of(&machine.device);
        let none = || Error::request("a picture of no pass", "please report this");
        let (last, geometry) = (tasks.len().checked_sub(1).ok_or_else(none)?, &model.facts().latents);
        let of_pass = |pass: usize, machine: &Machine| {
            Self::of_pass((model, kind), &tasks[pass], &Beside::of(geometry, tasks, pass, kind), machine)
        };
        let top = of_pass(last, machine)?;
        let alike = Machine { weights: Some(top.choices.weights), ..machine.clone() };
        let below = (0..last).map(|pass| of_pass(pass, &alike)).collect::<Result<Vec<_>>>()?;
        Ok(top.over(below))
    }

    /// The plan of the whole, of that of its last pass and these below it.
    fn over(self, below: Vec<Self>) -> Self {
        let peaks = below.iter().fold(self.peak_bytes, |most, plan| most.max(plan.peak_bytes));
        let flops = below.iter().map(|plan| plan.total_flops).sum::<u128>();
        let largest = below.iter().map(|plan| plan.largest_tensor_elements).max().unwrap_or(0);
        Self {
            peak_bytes: peaks,
            total_flops: self.total_flops + flops,
            largest_tensor_elements: self.largest_tensor_elements.max(largest),
            below,
            ..self
        }
    }

    /// The plan of pass number `pass`, where there are several; else its own.
    pub fn pass(&self, pass: usize) -> &Self {
        self.below.get(pass).unwrap_or(self)
    }
}

/// What is held of the picture below while a pass's is encoded.
pub fn enlarging(geometry: &LatentGeometry, below: &Task, own: &Task) -> Encoding {
    let [from, to] = [below, own].map(|task| geometry.computed(task.size));
    Encoding { ready_bytes: 0, picture_bytes: Enlarged::bytes(from, to) }
}

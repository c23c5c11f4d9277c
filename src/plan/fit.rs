//! What would fit, where a device had less room than it was planned for.

use super::{Machine, Plan, Task};
use crate::{
    base::{device::DeviceKind, geometry::ImageSize, memory::Bytes},
    models::Model,
    nn::WeightsMode,
};

/// Advice after `plan` met a full device: the same picture in less memory where that can be planned, else the largest of
/// its shape that can. All of it is dry passes, for a device of this kind.
pub fn what_fits(model: &dyn Model, plan: &Plan, machine: &Machine, kind: DeviceKind) -> String {
    let budget = shrunk(plan.peak_bytes.most());
    let memory = budget.flag();
    let less = Machine { budget: Some(budget), weights: None, ..machine.clone() };
    let fitting = |size: ImageSize| Plan::on(model, &Task { size, ..plan.task.clone() }, &less, kind).ok();
    let close = "close what else uses the device";
    if let Some(smaller) = fitting(plan.task.size) {
        let is_resident = |plan: &Plan| plan.choices.weights == WeightsMode::Resident;
        let streams = is_resident(plan) && !is_resident(&smaller);
        let weights = if streams { " --weights stream" } else { "" };
        return format!("{close}, or try --memory {memory}{weights}, for which this picture can be planned too");
    }
    match sizes_below(plan.task.size, model.facts().latents.px_per_token()).find(|size| fitting(*size).is_some()) {
        Some(size) => {
            let ladder = if plan.below.is_empty() { "" } else { " --ladder auto" };
            format!(
                "{close}; in {budget} would fit --height {} --width {}{ladder} (with --memory {memory})",
                size.height_px, size.width_px
            )
        }
        None => format!("{close}: no picture can be made in {budget}"),
    }
}

/// As it will be printed, so that what is advised is what was planned.
fn shrunk(bytes: u64) -> Bytes {
    let shrunk = Bytes(bytes).shrunk().0;
    let unit = if shrunk < 1_000_000_000 { 1_000_000 } else { 100_000_000 };
    Bytes(shrunk / unit * unit)
}

/// Sizes of the same shape, by sixteenths of the side, the largest first.
fn sizes_below(size: ImageSize, side: usize) -> impl Iterator<Item = ImageSize> {
    let part = move |px: usize, sixteenths: usize| (px * sixteenths / 16).next_multiple_of(side);
    (1..16).rev().filter_map(move |k| ImageSize::new(part(size.height_px, k), part(size.width_px, k)).ok())
}

//! Where a picture is to be computed, and within how much memory.

use candle_core::{DType, Device};

use super::Task;
use crate::{
    base::memory::Bytes,
    nn::{WeightsMode, matrix_unit},
};

/// Share of free memory a run takes when it is not told how much.
const FREE_SHARE: f64 = 0.9;

/// Where it is to be computed, and within how much memory.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// The number type the transformer computes in.
    pub dtype: DType,
    /// The most memory of the device a run may take; `None` where nobody knows what is free.
    pub budget: Option<Bytes>,
    /// Resident or streamed weights, where the user decided.
    pub weights: Option<WeightsMode>,
}

impl Machine {
    /// What `--memory` says, else nearly all that is free on the device now.
    pub fn budget(device: &Device, limit: Option<Bytes>) -> Option<Bytes> {
        limit.or_else(|| free_bytes(device).map(|free| Bytes((free as f64 * FREE_SHARE) as u64)))
    }

    /// The same machine where limits of the process leave this much, if it has any, once the model's files are mapped; and whether
    /// it is those limits that leave no more.
    pub fn within(&self, process_bytes: Option<u64>) -> (Self, bool) {
        let left = process_bytes.map(|bytes| Bytes((bytes as f64 * FREE_SHARE) as u64));
        let budget = [self.budget, left].into_iter().flatten().min();
        // The budget may come from the same limits, a moment ago: then a little more or less was in use.
        let is_near = |left: Bytes| budget.is_some_and(|budget| left.0 <= budget.0.saturating_add(budget.0 / 4));
        (Self { budget, ..self.clone() }, left.is_some_and(is_near))
    }

    /// The device as `--device` takes it, without its number.
    pub fn device_name(&self) -> &'static str {
        match self.device {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    /// Device and number type, such as "cuda bf16" or "cpu f32, 8 threads, AMX": the name speeds are kept under.
    pub fn name(&self) -> String {
        let name = format!("{} {}", self.device_name(), self.dtype.as_str());
        if !self.device.is_cpu() {
            return name;
        }
        let unit = matrix_unit().map(|unit| format!(", {}", unit.name())).unwrap_or_default();
        match rayon::current_num_threads() {
            1 => format!("{name}, 1 thread{unit}"),
            threads => format!("{name}, {threads} threads{unit}"),
        }
    }

    /// The same with what makes this task's steps faster than others'.
    pub fn name_for(&self, task: &Task) -> String {
        let name = self.name();
        if task.products.int8 { format!("{name}, int8") } else { name }
    }
}

#[cfg(feature = "cuda")]
fn free_bytes(device: &Device) -> Option<u64> {
    match device {
        Device::Cuda(_) => {
            candle_core::cuda_backend::cudarc::driver::result::mem_get_info().ok().map(|(free, _)| free as u64)
        }
        Device::Cpu | Device::Metal(_) => crate::base::memory::available_bytes(),
    }
}

#[cfg(not(feature = "cuda"))]
fn free_bytes(_device: &Device) -> Option<u64> {
    crate::base::memory::available_bytes()
}

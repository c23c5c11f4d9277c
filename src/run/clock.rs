//! How long a stage takes, and what of that is attention.

use std::time::{Duration, Instant};

use candle_core::Device;

use crate::{nn, plan::Took};

/// A stopwatch over a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    attention: Duration,
}

impl Clock {
    /// From now on.
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), attention: nn::attention_time() }
    }

    /// Until now, on this device. One that computes on while it is asked does not tell attention apart.
    pub(super) fn took(&self, on: &Device) -> Took {
        let attention = nn::attention_time() - self.attention;
        Took { whole: self.started.elapsed(), attention: on.is_cpu().then_some(attention) }
    }
}

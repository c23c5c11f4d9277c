//! Matrix products in the tiles of a processor's matrix unit: bf16 with f32 sums, and numbers of f32 as sums of two bf16.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod choice;
mod operand;
mod product;
mod room;
#[cfg(test)]
mod tests;
mod unit;

pub use choice::{check_variable, unit};
pub use operand::{Operand, Terms};
pub use product::{Target, product};
pub use room::bytes;
pub use unit::{DEPTH, MatrixUnit, Model, SIDE};

/// A matrix unit that products may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Intel's AMX.
    Amx,
    /// A model of it, for tests.
    Model,
}

/// What is done with a unit, whichever it is.
pub trait Task {
    /// Does it.
    fn on<U: MatrixUnit>(self, unit: &mut U);
}

impl Unit {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "AMX",
            Self::Model => "a model of AMX",
        }
    }

    /// Does a task with this thread's unit.
    pub fn run(self, task: impl Task) {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => {
                assert!(amx::available(), "no AMX");
                // SAFETY: it is there; tasks run nothing else on their thread.
                task.on(&mut unsafe { amx::Amx::new() });
            }
            #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
            Self::Amx => unreachable!("no AMX on this system"),
            Self::Model => task.on(&mut Model::new()),
        }
    }
}

//! What pictures are made with: settings, the file of prompts, the list of seeds, and the part of the list that one
//! machine takes.

mod file_name;
mod prompts;
mod seeds;
pub mod settings;
mod shard;

pub use file_name::reference_name;
pub use prompts::{Line, MAX_LINE_BYTES, MAX_SEQUENCE_LENGTH, MAX_STEPS, Overrides, read_prompts};
pub use seeds::{MAX_SEEDS, consecutive, parse_seeds};
pub use shard::Shard;

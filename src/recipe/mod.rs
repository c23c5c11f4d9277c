//! What a picture is made with. Settings are declared in one place; what several sources want of them is merged, and becomes a
//! [`Recipe`] by one constructor. Beside them the file of prompts, the list of seeds, and the part of a batch that one machine
//! takes.

mod card;
mod cfg;
mod facts;
mod fields;
mod file_name;
mod gaps;
mod image;
mod kinds;
mod ladder;
mod loras;
mod noise_source;
mod numbers;
mod prompts;
mod resolved;
mod sampler;
mod seeds;
mod setting;
mod shard;
mod shift;
mod spelt;
mod step_cache;
mod wanted;

pub use card::Card;
pub use cfg::{CfgRescale, CfgRule, CfgStart};
pub use facts::ModelFacts;
pub(crate) use fields::{FIELDS, declared};
pub use fields::{Recipe, Wanted};
pub use file_name::reference_name;
pub use gaps::CFG_SCALE;
pub use image::{ImageChoice, UPSCALE_STRENGTH};
pub(crate) use kinds::{Kind, Style};
pub use ladder::Ladder;
pub use loras::{LoraChoice, LoraList, Loras};
pub use noise_source::Rng;
pub(crate) use numbers::SIDE_PX;
pub use prompts::{Line, read_prompt, read_prompts};
pub use sampler::{SamplerName, Spacing};
pub use seeds::{consecutive, is_drawn, parse_seeds};
pub(crate) use setting::{Field, Group};
pub use shard::Shard;
pub use shift::Mu;
pub use step_cache::StepCache;
pub use wanted::{Merged, Source, known_by};

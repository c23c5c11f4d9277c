//! One file a command.

pub mod compare;
pub mod completions;
pub mod convert;
pub mod decode;
pub mod dry_run;
pub mod export_demo;
pub mod generate;
pub mod info;
pub mod info_model;
pub mod inspect;
pub mod man;
pub mod models;
pub mod replay;
pub mod upscale;
pub mod version;

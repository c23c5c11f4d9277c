//! One file a command.

pub mod compare;
pub mod decode;
pub mod export_demo;
pub mod generate;
pub mod info;
pub mod inspect;
pub mod replay;
pub mod shell;
pub mod version;

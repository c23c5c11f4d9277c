//! What a file is that is no safetensors file, by its first bytes.

use std::borrow::Cow;

use crate::base::excerpt::{excerpt, is_text};

/// A kind of file, in words.
pub(super) struct Kind {
    /// "this is a text, …"
    pub(super) what: Cow<'static, str>,
    pub(super) hint: &'static str,
}

const OTHER_FORMAT: &str = "give the model as .safetensors or .gguf";

/// A file that is no safetensors file, recognised by how it begins.
pub(super) fn kind_of_bytes(file: &[u8]) -> Option<Kind> {
    let starts = |magic: &[u8]| file.starts_with(magic);
    let (what, hint) = if file.is_empty() {
        ("the file is empty", "delete it and run again, so that it is fetched anew")
    } else if starts(b"PK\x03\x04") || starts(b"\x80\x02") || starts(b"\x80\x04") {
        ("this is a PyTorch pickle (.ckpt, .pt, .bin), not a safetensors file", OTHER_FORMAT)
    } else if starts(b"version https://git-lfs") {
        ("this is a git-lfs pointer, not the file itself", "run `git lfs pull` in the model's folder")
    } else {
        return text(file);
    };
    Some(Kind { what: what.into(), hint })
}

/// An answer of a server in place of the file. A safetensors file is no text: it begins with a length, whose last bytes are 0.
fn text(file: &[u8]) -> Option<Kind> {
    if !is_text(file) {
        return None;
    }
    let kind = if file.trim_ascii_start().starts_with(b"<") { "a web page" } else { "a text" };
    let shown = excerpt(file).map_or_else(String::new, |text| format!(": {text:?}"));
    let what = format!("this is {kind}, not a model{shown}");
    let hint = "delete it and download the file again; a gated model needs a token (HF_TOKEN, or `hf auth login`)";
    Some(Kind { what: what.into(), hint })
}

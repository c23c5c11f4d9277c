//! A LoRA file: its tensors, what their names say, and what its header says of all of them.

use std::{fs::File, io, path::Path, sync::Arc};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    super::{Files, TensorFiles, TensorSource},
    keys::Keys,
};
use crate::{
    base::hex::hex,
    error::{Error, Result},
};

/// The key of the header under which diffusers writes peft's settings, as JSON.
const ADAPTER_METADATA: &str = "lora_adapter_metadata";

/// What peft calls the file it saves, and what it says of it beside.
const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
const PEFT_CONFIG: &str = "adapter_config.json";

/// A LoRA file, open: its header is read, no number is.
#[derive(Clone)]
pub struct LoraFile {
    pub(super) source: Arc<dyn TensorSource>,
    pub(super) keys: Arc<Keys>,
    pub(super) settings: Settings,
    /// What messages call it.
    name: String,
}

impl std::fmt::Debug for LoraFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoraFile({}, {} layers)", self.name, self.keys.layers.len())
    }
}

impl LoraFile {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Disk`] when it cannot be read; [`Error::Model`] when it is no safetensors file, or holds no LoRA.
    pub fn open(path: &Path, files: &Files) -> Result<Self> {
        let store = files.open(&[path.to_path_buf()])?;
        let settings = peft_settings(&path.to_string_lossy()).map(|_| path.with_file_name(PEFT_CONFIG));
        let beside = settings.filter(|path| files.is_file(path)).map(|path| files.read_json(&path)).transpose()?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        Self::of(store, name, beside)
    }

    fn of(store: TensorFiles, name: String, beside: Option<Map<String, Value>>) -> Result<Self> {
        let settings = store.metadata(ADAPTER_METADATA).map(Settings::of).or(beside.map(Settings)).unwrap_or_default();
        let keys = Keys::of(store.names());
        if !keys.has_changes() {
            let names = store.names();
            let first = keys.others.first().or(names.first());
            let first = first.map_or_else(|| "no tensor".into(), |first| format!("a tensor {first}"));
            let what = format!("{}: there is no LoRA in this file; it holds {first}", store.describe());
            return Err(Error::model(what, "give a LoRA (LyCORIS and DoRA are taken too); a model goes to --model"));
        }
        Ok(Self { source: Arc::new(store), keys: Arc::new(keys), settings, name })
    }

    /// How many tensors it has.
    pub fn tensors(&self) -> usize {
        self.source.names().len()
    }

    /// What messages call it: its file's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The file of peft's settings beside a file of that path, where that is called as peft calls what it saves.
pub fn peft_settings(weights: &str) -> Option<String> {
    let folder =
        weights.strip_suffix(PEFT_WEIGHTS).filter(|folder| folder.is_empty() || folder.ends_with(['/', '\\']))?;
    Some(format!("{folder}{PEFT_CONFIG}"))
}

/// The sha256 of a file, in hexadecimal.
///
/// # Errors
/// [`Error::Disk`] when it cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut HashWriter(&mut hash)));
    read.map_err(|error| Error::disk("cannot read", path, error))?;
    Ok(hex(&hash.finalize()))
}

struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// peft's settings, as the header has them: `{prefix}lora_alpha` and the like.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    fn of(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Self(map),
            _ => Self::default(),
        }
    }

    /// What the change of a layer of this rank is multiplied by, where the header says so. `prefix` stands before the layer's
    /// name in the file, and before each key here.
    pub fn scale(&self, prefix: &str, layer: &str, rank: usize) -> Option<f64> {
        let get = |key: &str| self.0.get(&format!("{prefix}{key}")).or_else(|| self.0.get(key));
        let own = get("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let is_of = |pattern: &str| {
                let name = pattern.trim_start_matches('^');
                layer.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            };
            patterns.iter().find(|(pattern, _)| is_of(pattern)).and_then(|(_, alpha)| alpha.as_f64())
        });
        let alpha = own.or_else(|| get("lora_alpha")?.as_f64())?;
        let is_stabilised = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(alpha / if is_stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_header_hold_for_layers_by_the_ends_of_their_names() {
        let text = r#"{"transformer.lora_alpha": 8.0, "transformer.alpha_pattern": {"attn.to_out.0": 4, "to_x": 1}}"#;
        let settings = Settings::of(text);
        let scale = |layer: &str| settings.scale("transformer.", layer, 4);
        assert_eq!(scale("blocks.0.attn.to_q"), Some(2.0));
        assert_eq!(scale("blocks.0.attn.to_out.0"), Some(1.0));
        assert_eq!(scale("attn.to_out.0"), Some(1.0));
        assert_eq!(scale("blocks.0.into_x"), Some(2.0), "not the end of a word");
        assert_eq!(settings.scale("text_encoder.", "q", 4), None);
        let stabilised = Settings::of(r#"{"lora_alpha": 6, "use_rslora": true}"#);
        assert_eq!(stabilised.scale("transformer.", "q", 9), Some(2.0));
        for text in ["", "[]", "{", r#"{"lora_alpha": "x"}"#] {
            assert_eq!(Settings::of(text).scale("", "q", 1), None, "{text}");
        }
    }
}

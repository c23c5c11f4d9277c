//! Configs: every key that the reference's classes know, with its default there, and what becomes of it here.
//!
//! A key is computed with, refused by name when it says what is not computed, or idle: it changes nothing of a picture. What a
//! file does not say, and what it says is null, is what the reference takes then.

mod key;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    base::json::read_json,
    error::{Error, Result},
    weights::{Expected, TensorSource, check_all},
};

#[cfg(test)]
pub(crate) use key::json;
pub(crate) use key::{Key, computed, each, idle, one_of, optional, other_name};

/// A config, as the type that is computed with.
pub(crate) trait Config: DeserializeOwned {
    /// Every key of the reference's class, and those of our own, in tables.
    const KEYS: &'static [&'static [Key]];
    /// Objects in it whose keys count as its own, and win: what one version of a file says on top another says in there.
    const WITHIN: &'static [&'static str] = &[];
    /// What to do about a value that is refused.
    const ADVICE: &'static str;

    /// Refuses what no model of this kind can have. The one check of such a config, wherever it comes from.
    ///
    /// # Errors
    /// [`Error::Model`] that names the key and its value.
    fn check(&self) -> Result<()>;
}

/// A config, checked, and where it comes from.
pub(crate) struct Said<C> {
    pub(crate) config: C,
    /// Its file, or that of the weights whose shapes it comes from.
    pub(crate) file: String,
    /// Keys that are computed with and that the file does not say.
    unsaid: Vec<&'static Key>,
}

impl<C: Config> Said<C> {
    /// What a file says.
    ///
    /// # Errors
    /// [`Error::Model`] that names the file, the key, its value and what was expected.
    pub(crate) fn by_file(value: &Value, path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let (config, unsaid) = from_value(value).map_err(|error| error.in_file(&file))?;
        Ok(Self { config, file, unsaid })
    }

    /// What the shapes of weights say.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub(crate) fn by_shapes(config: C, source: &dyn TensorSource) -> Result<Self> {
        let file = source.describe();
        config.check().map_err(|error| error.in_file(&file))?;
        Ok(Self { config, file, unsaid: Vec::new() })
    }

    /// What a config beside a file says, where the file's weights are as it says, else what their shapes say.
    ///
    /// # Errors
    /// As [`Said::by_file`]; and what the weights lack of a config beside them, where their shapes do not say enough.
    pub(crate) fn by_beside(
        beside: Option<(&Value, &Path)>,
        source: &dyn TensorSource,
        infer: impl FnOnce(&dyn TensorSource) -> Result<C>,
        tensors: impl FnOnce(&C) -> Result<Vec<Expected>>,
    ) -> Result<Self> {
        let by_shapes = || Self::by_shapes(infer(source)?, source);
        let Some((value, path)) = beside else { return by_shapes() };
        let said = Self::by_file(value, path)?;
        match tensors(&said.config).and_then(|expected| said.check_weights(source, &expected)) {
            Ok(()) => Ok(said),
            Err(misfit) => by_shapes().map_err(|_| misfit),
        }
    }

    /// The source has every tensor that this config stands for; else it is told what the config leaves open.
    ///
    /// # Errors
    /// As [`check_all`].
    pub(crate) fn check_weights(&self, source: &dyn TensorSource, expected: &[Expected]) -> Result<()> {
        check_all(source, expected).map_err(|misfit| self.with_unsaid(misfit))
    }

    /// Why something does not fit, with what the config leaves open.
    pub(crate) fn with_unsaid(&self, misfit: Error) -> Error {
        match misfit {
            Error::Model { what, hint } if !self.unsaid.is_empty() => {
                let keys: Vec<_> = self.unsaid.iter().map(|key| format!("{} ({})", key.name, key.default)).collect();
                let (file, unsaid) = (&self.file, keys.join(", "));
                Error::model(what, format!("{hint}; what {file} does not say was taken as usual: {unsaid}"))
            }
            other => other,
        }
    }
}

/// Reads and checks a config; beside it the keys that are computed with and that it does not say.
pub(crate) fn from_value<C: Config>(value: &Value) -> Result<(C, Vec<&'static Key>)> {
    let refuse = |what: String| Error::model(what, C::ADVICE);
    let said = value.as_object().ok_or_else(|| refuse("this is JSON, but not a config (an object)".into()))?;
    if let Some(how) = said.get("quantization_config").and_then(quantisation) {
        let hint = "quantized models are not supported; give the model in bf16, f16 or f32";
        return Err(Error::model(format!("its weights are quantized by {how}"), hint));
    }
    let said = &flattened(said, C::WITHIN);
    let resolved = resolve(C::KEYS, said).map_err(refuse)?;
    let is_unsaid = |key: &&Key| key.is_filled() && said.get(key.name).is_none_or(Value::is_null);
    let unsaid = C::KEYS.iter().copied().flatten().filter(is_unsaid).collect();
    let config: C = serde_json::from_value(Value::Object(resolved)).map_err(|e| refuse(e.to_string()))?;
    config.check()?;
    Ok((config, unsaid))
}

/// A config with the keys of these objects beside its own; they are looked for one after another, and may lie in each other.
fn flattened(said: &Map<String, Value>, within: &[&str]) -> Map<String, Value> {
    let mut flat = said.clone();
    for name in within {
        if let Some(Value::Object(inner)) = flat.get(*name) {
            let inner = inner.clone();
            flat.remove(*name);
            flat.extend(inner.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }
    flat
}

/// The value of every key.
pub(crate) fn resolve(tables: &[&'static [Key]], said: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let keys = || tables.iter().copied().flatten();
    let mut resolved = Map::new();
    for key in keys().filter(|key| key.stands_for().is_none()) {
        resolved.insert(key.name.into(), key.resolve(said.get(key.name))?);
    }
    // As in the reference, another name of a key comes last and wins.
    for key in keys() {
        let said = said.get(key.name).filter(|value| !value.is_null());
        if let Some((name, value)) = key.stands_for().zip(said) {
            resolved.insert(name.into(), key.resolve(Some(value))?);
        }
    }
    Ok(resolved)
}

/// Reads and checks the config in a file.
///
/// # Errors
/// [`Error::Disk`] when it cannot be read; [`Error::Model`] as [`Said::by_file`].
pub(crate) fn read<C: Config>(path: &Path) -> Result<C> {
    Ok(Said::by_file(&read_json(path)?, path)?.config)
}

/// Who quantized the weights, by a `quantization_config` of transformers or diffusers.
fn quantisation(config: &Value) -> Option<String> {
    let method = config.as_object()?.get("quant_method").and_then(Value::as_str).unwrap_or("an unknown method");
    let is = |key| config.get(key).and_then(Value::as_bool) == Some(true);
    let method = match method {
        "bitsandbytes" if is("load_in_4bit") => "bitsandbytes (4 bits)",
        "bitsandbytes" if is("load_in_8bit") => "bitsandbytes (8 bits)",
        "bitsandbytes_4bit" => "bitsandbytes (4 bits)",
        "bitsandbytes_8bit" => "bitsandbytes (8 bits)",
        other => other,
    };
    Some(method.to_owned())
}

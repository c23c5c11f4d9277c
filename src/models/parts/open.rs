//! Opening one part: its config, read or inferred, and its tensors.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    models::Place,
    weights::{Files, STEMS, TensorSource, Weights},
};

/// Most layers, channels or tokens a config may ask for: far above any model, far below what would overflow.
pub(crate) const LARGEST: usize = 1 << 20;
/// Most layers of one kind.
pub(crate) const MOST_LAYERS: usize = 1 << 10;

const DAMAGED: &str = "the file is damaged or belongs to another kind of model; delete it and fetch it again";

/// A part, open: its dimensions and its tensors.
#[derive(Clone)]
pub struct ModelPart<C> {
    /// Its dimensions.
    pub config: C,
    /// Its tensors, by diffusers' names.
    pub source: Arc<dyn TensorSource>,
}

impl<C> ModelPart<C> {
    /// Its tensors as `dtype` on `device`.
    pub fn weights(&self, dtype: DType, device: &Device) -> Weights {
        Weights::new(Arc::clone(&self.source), dtype, device.clone())
    }
}

/// Refuses sizes that no model has, and kinds of layers that come too often, before they are multiplied or divided by.
///
/// # Errors
/// [`Error::Model`] that names the first of them.
pub(crate) fn check_range(sizes: &[(&str, usize)], layers: &[(&str, usize)], advice: &str) -> Result<()> {
    let odd = sizes.iter().find(|(_, size)| !(1..=LARGEST).contains(size));
    match odd.or_else(|| layers.iter().find(|(_, count)| *count > MOST_LAYERS)) {
        Some((name, value)) => {
            Err(Error::model(format!("its dimensions are out of any range: {name} is {value}"), advice))
        }
        None => Ok(()),
    }
}

/// The tensors of the part at a place.
///
/// # Errors
/// [`Error::Model`] when there are none or a file is damaged; [`Error::Disk`] when one cannot be read.
pub(crate) fn source_at(place: &Place, files: &Files) -> Result<Arc<dyn TensorSource>> {
    Ok(match place {
        Place::Folder(folder) => Arc::new(files.open_folder(folder)?),
        Place::File(path) => Arc::new(files.open(std::slice::from_ref(path))?),
        Place::Inside(file) => Arc::clone(file),
    })
}

/// The `config.json` of the part at a place. It belongs to a file under one of the usual names of a part's folder; a file of
/// its own name (`ae.safetensors`) stands for itself: whatever lies beside it may be of something else.
pub(crate) fn config_file_at(place: &Place, files: &Files) -> Option<PathBuf> {
    match place {
        Place::Folder(folder) => Some(folder.join("config.json")),
        Place::File(path) => {
            let config = path.with_file_name("config.json");
            let stem = path.file_stem()?.to_str()?;
            (STEMS.contains(&stem) && files.is_file(&config)).then_some(config)
        }
        Place::Inside(_) => None,
    }
}

/// Reads a config whose `key`, where it has one, must be `class`; `hint` says what to give instead.
///
/// # Errors
/// [`Error::Model`] when it is not an object or of another class; [`Error::Disk`] when it cannot be read.
pub(crate) fn read_config(files: &Files, path: &Path, [key, class, hint]: [&str; 3]) -> Result<Value> {
    let config: Value = files.read_json(path)?;
    if !config.is_object() {
        let what = format!("{}: this is JSON, but not a model's config (an object)", path.display());
        return Err(Error::model(what, DAMAGED));
    }
    match config.get(key).and_then(Value::as_str).filter(|found| *found != class) {
        Some(found) => Err(Error::model(format!("{}: its {key} is {found}, not {class}", path.display()), hint)),
        None => Ok(config),
    }
}

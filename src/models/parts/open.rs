//! Opening one part: its config, read or inferred, and its tensors.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device};
use serde_json::Value;

use super::config::{Config, Said};
use crate::{
    error::{Error, Result},
    models::{Place, strangers::check_not_quantized},
    weights::{Files, TensorSource, Weights, is_usual_name, scales::is_of_inputs},
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

    /// What a text encoder gives is as wide as what the transformer takes; `advice` says which encoder to give.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not.
    pub(crate) fn check_width(&self, gives: usize, takes: usize, advice: &str) -> Result<()> {
        if gives == takes {
            return Ok(());
        }
        let what =
            format!("{} gives embeddings of width {gives}, the transformer takes {takes}", self.source.describe());
        Err(Error::model(what, format!("this text encoder is of another model; give {advice}")))
    }

    /// What of its files is passed over, and why, in words: scales by which others round a layer's inputs to 8 bits.
    pub fn passed_over(&self) -> Option<String> {
        match self.source.names().iter().filter(|name| is_of_inputs(name)).count() {
            0 => None,
            count => {
                let file = self.source.describe();
                Some(format!(
                    "{file}: its {count} scales of inputs are not used; inputs are not rounded to 8 bits here"
                ))
            }
        }
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

/// Refuses rotary axes that do not make a head of `dim` channels, which the config calls `head`, in pairs.
///
/// # Errors
/// [`Error::Model`] that names them.
pub(crate) fn check_axes(name: &str, axes: &[usize], (head, dim): (&str, usize), advice: &str) -> Result<()> {
    let sum = axes.iter().try_fold(0_usize, |sum, &axis| sum.checked_add(axis));
    if sum == Some(dim) && axes.iter().all(|axis| axis.is_multiple_of(2)) {
        return Ok(());
    }
    let what = format!("{name} {axes:?} are not even numbers that add up to {dim}, {head}");
    Err(Error::model(what, advice))
}

/// The tensors of the part at a place.
///
/// # Errors
/// [`Error::Model`] when there are none, a file is damaged, or they are quantized; [`Error::Disk`] when one cannot be read.
pub(crate) fn source_at(place: &Place, files: &Files) -> Result<Arc<dyn TensorSource>> {
    let source = tensors_at(place, files)?;
    check_not_quantized(&*source)?;
    Ok(source)
}

/// The same, quantized or not.
///
/// # Errors
/// As [`source_at`], but for what is quantized.
pub(crate) fn tensors_at(place: &Place, files: &Files) -> Result<Arc<dyn TensorSource>> {
    Ok(match place {
        Place::Folder(folder) => Arc::new(files.open_folder(folder)?),
        Place::File(file) => Arc::new(files.open(std::slice::from_ref(&file.path))?),
        Place::Inside(holder) => Arc::clone(&holder.source),
    })
}

/// A part's `config.json`, read.
pub(crate) enum ConfigFile {
    /// It is the part's own.
    Its(Value, PathBuf),
    /// It lies beside a file with a name of its own (`clip_l.safetensors`) and is of the part's class; whether it is of this file
    /// the weights must show.
    Beside(Value, PathBuf),
}

impl ConfigFile {
    /// What the part's own says.
    ///
    /// # Errors
    /// As [`Said::by_file`].
    pub(crate) fn own<C: Config>(&self) -> Result<Option<Said<C>>> {
        match self {
            Self::Its(value, path) => Said::by_file(value, path).map(Some),
            Self::Beside(..) => Ok(None),
        }
    }

    /// The one that lies beside a file.
    pub(crate) fn beside(&self) -> Option<(&Value, &Path)> {
        match self {
            Self::Its(..) => None,
            Self::Beside(value, path) => Some((value, path)),
        }
    }

    /// Where it was read.
    pub(crate) fn path(&self) -> &Path {
        let (Self::Its(_, path) | Self::Beside(_, path)) = self;
        path
    }

    /// What it says.
    pub(crate) fn into_value(self) -> Value {
        let (Self::Its(value, _) | Self::Beside(value, _)) = self;
        value
    }
}

/// The `config.json` of the part at a place: that of its folder, also for a file under one of the usual names of a part's folder.
/// Whatever else lies beside a file, also one that holds several parts, may be of something else, and so may the config of the part that
/// a file stands in for.
///
/// # Errors
/// As [`read_config`], for the part's own.
pub(crate) fn config_at(place: &Place, files: &Files, class: [&str; 3]) -> Result<Option<ConfigFile>> {
    let (its, others) = match place {
        Place::Folder(folder) => (Some(folder.join("config.json")), Vec::new()),
        Place::File(file) => {
            let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let its = is_usual_name(name).then(|| file.path.with_file_name("config.json"));
            (its.filter(|path| files.is_file(path)), file.configs().collect())
        }
        Place::Inside(holder) => (None, vec![holder.path.with_file_name("config.json")]),
    };
    match its {
        Some(path) => Ok(Some(ConfigFile::Its(read_config(files, &path, class)?, path))),
        None => Ok(beside(files, others, class).map(|(value, path)| ConfigFile::Beside(value, path))),
    }
}

/// The first of these configs that is there and says of itself that it is of a class.
pub(crate) fn beside(
    files: &Files,
    paths: impl IntoIterator<Item = PathBuf>,
    [key, class, _]: [&str; 3],
) -> Option<(Value, PathBuf)> {
    paths.into_iter().find_map(|path| {
        let value: Value = files.read_json(&path).ok()?;
        (value.get(key)?.as_str()? == class).then_some((value, path))
    })
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

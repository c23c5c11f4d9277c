//! What files of weights hold, by their headers: number types, counts, and which parts of which family's models.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    Family, ModelRequest, PartKind, Place, Seen,
    parts::open,
    strangers::{check_not_quantized, looks_like, lora_of},
    whose::{family_of_folder, surest},
};
use crate::{
    error::Result,
    weights::{TensorSource, lora},
};

/// What a file or folder of weights holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inventory {
    /// The family whose model it is; `None` where it holds no transformer of a known one.
    pub family: Option<&'static str>,
    /// The parts of a family's models that are inside.
    pub parts: Vec<&'static str>,
    /// What it is otherwise, or why it cannot be run, in words.
    pub remark: Option<String>,
    /// What it changes of a model, where it is a LoRA or of its kin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<lora::Summary>,
    /// All its tensors.
    #[serde(flatten)]
    pub all: Count,
    /// The same by number type.
    pub types: BTreeMap<String, Count>,
}

/// Tensors counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Tensors.
    pub tensors: u64,
    /// Numbers in them.
    pub parameters: u64,
    /// Bytes they take.
    pub bytes: u64,
}

impl Inventory {
    /// Whether it holds a model that can be run, once its other parts are there.
    pub fn is_model(&self) -> bool {
        self.family.is_some() && self.remark.is_none()
    }

    fn empty() -> Self {
        Self {
            family: None,
            parts: Vec::new(),
            remark: None,
            lora: None,
            all: Count::default(),
            types: BTreeMap::new(),
        }
    }

    fn count(&mut self, source: &dyn TensorSource) {
        for name in source.names() {
            let parameters = source.shape(&name).map_or(0, |shape| shape.iter().product::<usize>() as u64);
            let bytes = source.bytes(&name).unwrap_or(0);
            let of_type = self.types.entry(type_of(source, &name, parameters, bytes)).or_default();
            for count in [&mut self.all, of_type] {
                count.tensors += 1;
                count.parameters += parameters;
                count.bytes += bytes;
            }
        }
    }
}

/// What a number type is called.
fn type_of(source: &dyn TensorSource, name: &str, parameters: u64, bytes: u64) -> String {
    match source.file_dtype(name) {
        Some(dtype) if dtype.size_in_bytes() as u64 * parameters == bytes => dtype.as_str().to_owned(),
        _ => source.type_name(name).unwrap_or_else(|| "another".to_owned()),
    }
}

/// What is at `request.model`.
///
/// # Errors
/// [`crate::Error::Model`] for what holds no tensors; [`crate::Error::Disk`] when a file cannot be read.
pub(super) fn of(request: &ModelRequest, families: &[&'static dyn Family]) -> Result<Inventory> {
    let mut inventory = Inventory::empty();
    if request.files.is_dir(&request.model) {
        of_folder(request, families, &mut inventory)?;
    } else {
        of_file(&open::tensors_at(&request.model.clone().into(), &request.files)?, families, &mut inventory);
    }
    Ok(inventory)
}

/// A folder in diffusers layout: the parts that lie in it.
fn of_folder(request: &ModelRequest, families: &[&'static dyn Family], inventory: &mut Inventory) -> Result<()> {
    let family = family_of_folder(&request.model, &request.files, families)?;
    inventory.family = Some(family.name());
    for part in family.parts() {
        let folder = request.model.join(part.name);
        if !part.is_in(&folder, &request.files) {
            continue;
        }
        inventory.parts.push(part.name);
        if part.has_weights() {
            let source = open::tensors_at(&Place::Folder(folder), &request.files)?;
            inventory.count(&*source);
            inventory.remark = inventory.remark.take().or_else(|| refusal(&*source));
        }
    }
    Ok(())
}

fn of_file(source: &Arc<dyn TensorSource>, families: &[&'static dyn Family], inventory: &mut Inventory) {
    inventory.count(&**source);
    let seen = Seen { tensors: Some(Arc::clone(source)), ..Seen::default() };
    let family = surest(&seen, families);
    inventory.family = family.map(|family| family.name());
    inventory.lora = family.is_none().then(|| lora::Summary::of(&**source)).flatten();
    let among = family.map_or_else(|| families.to_vec(), |family| vec![family]);
    for part in among.iter().flat_map(|family| family.parts()) {
        let is_here = match part.kind {
            PartKind::Denoiser => family.is_some(),
            _ => (part.is_inside)(source),
        };
        if is_here && !inventory.parts.contains(&part.name) {
            inventory.parts.push(part.name);
        }
    }
    if inventory.lora.is_some() {
        let made_for = lora_of(&source.names()).map_or_else(String::new, |family| format!(" of {family}"));
        inventory.remark = Some(format!("it changes a model{made_for}: give it with --lora"));
        return;
    }
    inventory.remark = refusal(&**source).or_else(|| inventory.parts.is_empty().then(|| looks_like(&**source)));
}

/// Why weights cannot be used.
fn refusal(source: &dyn TensorSource) -> Option<String> {
    check_not_quantized(source).err().map(|_| looks_like(source))
}

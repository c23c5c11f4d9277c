//! What a LoRA file holds, by its header: kinds of change, ranks, and whose way of naming it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    super::TensorSource,
    keys::{Keys, Pieces, Role, Side},
    kinds::Kind,
};

/// What names of layers give away, and who writes them; the first that is found counts.
const DIALECTS: &[(&str, &str)] = &[
    ("lora_transformer_", "OneTrainer"),
    ("lycoris_", "SimpleTuner's LyCORIS"),
    ("lora_unet_", "kohya's sd-scripts"),
    ("lora_te", "kohya's sd-scripts"),
    (".processor.", "XLabs"),
    ("base_model.model.", "peft"),
    ("diffusion_model.", "ComfyUI"),
    ("text_encoders.", "ComfyUI"),
    ("transformer.", "diffusers"),
    ("text_encoder.", "diffusers"),
];

/// What a LoRA file holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How many layers are changed, by kind of change.
    pub layers: BTreeMap<&'static str, usize>,
    /// The ranks that occur, from the lowest; none for kinds without.
    pub ranks: BTreeSet<usize>,
    /// Whose way of naming it is; `None` for bare names of layers.
    pub dialect: Option<&'static str>,
}

impl Summary {
    /// Of a file's tensors; `None` where they change no layer.
    pub fn of(source: &dyn TensorSource) -> Option<Self> {
        let keys = Keys::of(source.names());
        let mut layers = BTreeMap::new();
        let mut ranks = BTreeSet::new();
        for pieces in keys.layers.values() {
            let Some(kind) = Kind::of(pieces, &mut Vec::new()) else { continue };
            *layers.entry(kind.name()).or_default() += 1;
            ranks.extend(rank(pieces, source));
        }
        let says = |(word, _): &&(&str, &str)| keys.layers.keys().any(|layer| layer.contains(word));
        let dialect = DIALECTS.iter().find(says).map(|(_, writer)| *writer);
        (!layers.is_empty()).then_some(Self { layers, ranks, dialect })
    }
}

/// The rank of a layer's product, of the first where there are several.
fn rank(pieces: &Pieces, source: &dyn TensorSource) -> Option<usize> {
    let places = [
        (Role::Down, 0),
        (Role::Hadamard(0, Side::Left), 1),
        (Role::KroneckerFactor(0, Side::Left), 1),
        (Role::KroneckerFactor(1, Side::Left), 1),
    ];
    places.into_iter().find_map(|(role, axis)| source.shape(pieces.get(&role)?)?.get(axis).copied())
}

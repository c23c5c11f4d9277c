//! Which layer of a network a file's name means. Names whose dots are underscores cannot be parsed (`to_out_0`, `img_in`), so
//! the network's own names are spelt in each way and looked up.

use std::{collections::HashMap, sync::Arc};

use super::super::{Cut, TensorSource};

/// A layer that can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name, as the network asks for it.
    pub name: String,
    /// What it is.
    pub kind: LayerKind,
    /// out; of what is not linear the first dimension.
    pub outputs: usize,
    /// in; of what is not linear the other dimensions, of a vector 1.
    pub inputs: usize,
    /// Whether it has a bias.
    pub has_bias: bool,
}

/// What a layer is, which says where its change is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A matrix `{name}.weight` that is multiplied with: beside it, where it computes.
    Linear,
    /// Numbers `{name}.weight` that are used as they are, such as a norm's: to them, as they are read.
    Plain,
    /// The same of one tensor `{name}`.
    Bare,
}

impl Layer {
    /// The name of its weight.
    pub fn weight(&self) -> String {
        if self.kind == LayerKind::Bare { self.name.clone() } else { format!("{}.weight", self.name) }
    }

    /// Whether it can be given a bias: a linear layer can, where it has none too.
    pub fn takes_bias(&self) -> bool {
        self.has_bias || self.kind == LayerKind::Linear
    }
}

/// Another name that layers have in files of another layout: theirs together where they are one tensor there.
#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    /// That name, without a prefix.
    pub name: String,
    /// The layers, and what of the whole each is.
    pub parts: Vec<(String, Cut)>,
}

impl Alias {
    /// Of all of one layer.
    pub fn of_layer(name: String, layer: &str) -> Self {
        Self { name, parts: vec![(layer.to_owned(), Cut::Whole)] }
    }

    /// Of a layer whose weight is stored as these; of none where it is stored as nothing.
    pub fn of_weight(name: String, stored: Option<Vec<(String, Cut)>>) -> Self {
        let layer = |(name, cut): (String, Cut)| Some((name.strip_suffix(".weight")?.to_owned(), cut));
        Self { name, parts: stored.unwrap_or_default().into_iter().filter_map(layer).collect() }
    }
}

/// A network of a model, as names in LoRA files are looked up among its layers.
#[derive(Clone)]
pub struct Network {
    /// The model's part that it is, such as "transformer".
    pub part: &'static str,
    /// Its tensors, by the names it asks for.
    pub source: Arc<dyn TensorSource>,
    /// Its layers, by the names it asks for.
    pub layers: Vec<Layer>,
    /// The names of other layouts.
    pub aliases: Vec<Alias>,
    /// What stands before a name with dots; several of these may stand in a row.
    pub prefixes: &'static [&'static str],
    /// What stands before a name whose dots are underscores.
    pub flat_prefixes: &'static [&'static str],
}

impl Network {
    /// Whether a layer's name in a file, known or not, is one of this network's: others' begin otherwise.
    pub fn is_addressed(&self, name: &str) -> bool {
        // A transformer's may begin with nothing.
        if self.prefixes.contains(&"") {
            return !TEXT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        }
        self.prefixes.iter().chain(self.flat_prefixes).any(|prefix| name.starts_with(prefix))
    }

    /// A model's transformer.
    pub fn transformer(source: &Arc<dyn TensorSource>, layers: Vec<Layer>, aliases: Vec<Alias>) -> Self {
        Self {
            part: TRANSFORMER,
            source: Arc::clone(source),
            layers,
            aliases,
            prefixes: TRANSFORMER_PREFIXES,
            flat_prefixes: TRANSFORMER_FLAT_PREFIXES,
        }
    }
}

/// The part that every model's transformer is.
pub const TRANSFORMER: &str = "transformer";

/// Before the names of text encoders' layers: diffusers, ComfyUI; kohya's sd-scripts, OneTrainer.
const TEXT_PREFIXES: [&str; 2] = ["text_encoder", "lora_te"];

/// Before the names of a transformer's layers, in whatever order and number: none (peft, BFL), diffusers, ComfyUI, peft's own and fal's
/// files; what PyTorch's wrappers add where nobody takes it off (`DistributedDataParallel`, FSDP, `torch.compile`); names that
/// trainers give the network they hold.
const TRANSFORMER_PREFIXES: &[&str] = &[
    "",
    "transformer.",
    "diffusion_model.",
    "base_model.",
    "model.",
    "module.",
    "_fsdp_wrapped_module.",
    "_orig_mod.",
    "unet.",
    "dit.",
    "net.",
];
/// The same where dots are underscores: kohya's sd-scripts, OneTrainer, SimpleTuner's LyCORIS.
const TRANSFORMER_FLAT_PREFIXES: &[&str] = &["lora_unet_", "lora_transformer_", "lycoris_"];

/// One layer of what a name means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub layer: Layer,
    pub cut: Cut,
}

/// What a name in a file means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meaning {
    /// Which of the networks.
    pub network: usize,
    /// What stood before the name.
    pub prefix: String,
    /// The layers it means.
    pub parts: Vec<Part>,
}

/// The names of some networks in every spelling.
pub(super) struct Names<'n> {
    networks: &'n [Network],
    /// For each network the parts by name, with dots and with underscores.
    spelt: Vec<[HashMap<String, Vec<Part>>; 2]>,
}

impl<'n> Names<'n> {
    pub fn of(networks: &'n [Network]) -> Self {
        Self { networks, spelt: networks.iter().map(spelt).collect() }
    }

    /// What a layer's name in a file means.
    pub fn meaning(&self, name: &str) -> Option<Meaning> {
        self.networks.iter().zip(&self.spelt).enumerate().find_map(|(network, (named, [dotted, flat]))| {
            let look = |rest: &str, names: &HashMap<String, Vec<Part>>| {
                let prefix = name[..name.len() - rest.len()].to_owned();
                Some(Meaning { network, prefix, parts: names.get(rest)?.clone() })
            };
            let mut flat_rest = named.flat_prefixes.iter().filter_map(|prefix| name.strip_prefix(prefix));
            unwrapped(name, named.prefixes)
                .find_map(|rest| look(rest, dotted))
                .or_else(|| flat_rest.find_map(|rest| look(rest, flat)))
        })
    }

    /// What stands before a name of dots that means no layer and would without it.
    pub fn strange_prefix<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.meaning(name).is_some() {
            return None;
        }
        let mut rests = name.match_indices('.').map(|(at, _)| at + 1);
        rests.find(|at| self.meaning(&name[*at..]).is_some()).map(|at| &name[..at])
    }
}

/// A name without one prefix, two and so on; the name itself first, where it need not have any.
fn unwrapped<'a>(name: &'a str, prefixes: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let without = move |name: &&'a str| {
        prefixes.iter().filter(|prefix| !prefix.is_empty()).find_map(|prefix| name.strip_prefix(prefix))
    };
    std::iter::successors(Some(name), without).skip(usize::from(!prefixes.contains(&"")))
}

fn spelt(network: &Network) -> [HashMap<String, Vec<Part>>; 2] {
    let by_name: HashMap<&str, &Layer> = network.layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let mut dotted = HashMap::new();
    for Alias { name, parts } in &network.aliases {
        let part = |(layer, cut): &(String, Cut)| {
            let layer = (*by_name.get(layer.as_str())?).clone();
            Some(Part { layer, cut: cut.clone() })
        };
        if let Some(parts) = parts.iter().map(part).collect() {
            dotted.insert(name.clone(), parts);
        }
    }
    for layer in &network.layers {
        dotted.insert(layer.name.clone(), vec![Part { layer: layer.clone(), cut: Cut::Whole }]);
    }
    let flat = dotted.iter().map(|(name, parts)| (name.replace('.', "_"), parts.clone())).collect();
    [dotted, flat]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let layer = |name: &str| Layer {
            name: name.to_owned(),
            kind: LayerKind::Linear,
            outputs: 4,
            inputs: 4,
            has_bias: true,
        };
        let rows = |part: usize| Cut::Rows(4 * part..4 * part + 4);
        Network {
            part: "transformer",
            source: Arc::new(super::super::super::Nothing),
            layers: ["blocks.0.to_q", "blocks.0.to_k", "blocks.0.to_out.0"].map(layer).to_vec(),
            aliases: vec![Alias {
                name: "double.0.qk".into(),
                parts: vec![("blocks.0.to_q".into(), rows(0)), ("blocks.0.to_k".into(), rows(1))],
            }],
            prefixes: TRANSFORMER_PREFIXES,
            flat_prefixes: TRANSFORMER_FLAT_PREFIXES,
        }
    }

    #[test]
    fn a_name_is_looked_up_in_every_spelling() {
        let networks = [network()];
        let names = Names::of(&networks);
        for (name, layers) in [
            ("blocks.0.to_out.0", &["blocks.0.to_out.0"][..]),
            ("transformer.blocks.0.to_out.0", &["blocks.0.to_out.0"]),
            ("lora_transformer_blocks_0_to_out_0", &["blocks.0.to_out.0"]),
            ("lora_unet_double_0_qk", &["blocks.0.to_q", "blocks.0.to_k"]),
            ("diffusion_model.double.0.qk", &["blocks.0.to_q", "blocks.0.to_k"]),
            ("base_model.model.double.0.qk", &["blocks.0.to_q", "blocks.0.to_k"]),
            ("unet.blocks.0.to_q", &["blocks.0.to_q"]),
            ("transformer.module.blocks.0.to_q", &["blocks.0.to_q"]),
            ("base_model.model._orig_mod.double.0.qk", &["blocks.0.to_q", "blocks.0.to_k"]),
        ] {
            let meaning = names.meaning(name).unwrap_or_else(|| panic!("{name} means a layer"));
            let found: Vec<_> = meaning.parts.iter().map(|part| part.layer.name.as_str()).collect();
            assert_eq!(found, layers, "{name}");
            assert!(name.starts_with(&meaning.prefix) && !meaning.prefix.contains("blocks"), "{name}: {meaning:?}");
        }
        for name in ["blocks.1.to_q", "blocks_0_to_q", "lora_te1_blocks_0_to_q", "lora_unet_", ""] {
            assert_eq!(names.meaning(name), None, "{name}");
        }
        assert_eq!(names.strange_prefix("controlnet.x.blocks.0.to_q"), Some("controlnet.x."));
        assert_eq!(names.strange_prefix("controlnet.x.blocks.9.to_q"), None);
    }
}

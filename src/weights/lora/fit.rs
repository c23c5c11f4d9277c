//! A LoRA file held against a model's layers: which of them it changes, and whether every piece fits, told by its header alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Adapter, LayerKind, LoraFile, Network,
    keys::{Pieces, Role},
    kinds::{DECOMPOSED, Kind},
    names::{Meaning, Names},
    shapes::Place,
};
use crate::error::{Error, Result};

/// What to do about a file that does not fit.
pub(super) const OTHER_MODEL: &str = "the LoRA was made for another model, or is damaged; take one for this model";

/// What a file changes of a model.
#[derive(Debug)]
pub struct Fitted {
    /// For each network the changes of its layers, by their names.
    pub adapters: Vec<HashMap<String, Vec<Adapter>>>,
    /// Layers, as the file names them, that the model has.
    pub known: usize,
    /// Layers, as the file names them, that it has not.
    pub unknown: Vec<String>,
    /// What stands before names of layers it has not, where it would have them without.
    pub strange_prefix: Option<String>,
    /// Layers, as the file names them, that the model has and whose pieces make no change.
    pub halves: Vec<String>,
    /// Tensors that change nothing.
    pub unused: Vec<String>,
    /// How many layers hold each kind of change.
    pub kinds: BTreeMap<&'static str, usize>,
}

impl Fitted {
    /// Whether a weight is decomposed (DoRA), so that the strength is no plain factor.
    pub fn is_decomposed(&self) -> bool {
        self.kinds.contains_key(DECOMPOSED)
    }
}

impl LoraFile {
    /// What the file changes of these networks at this strength. Nothing but its header is read.
    ///
    /// # Errors
    /// [`Error::Model`] for a piece whose shape or number type does not fit, and for a kind of change that cannot be computed.
    pub fn fit(&self, networks: &[Network], strength: f64) -> Result<Fitted> {
        let names = Names::of(networks);
        let mut fitted = Fitted {
            adapters: networks.iter().map(|_| HashMap::new()).collect(),
            known: 0,
            unknown: Vec::new(),
            strange_prefix: None,
            halves: Vec::new(),
            unused: self.keys.others.clone(),
            kinds: BTreeMap::new(),
        };
        let mut seen = HashSet::new();
        for (name, pieces) in &self.keys.layers {
            let Some(meaning) = names.meaning(name) else {
                fitted.unknown.push(name.clone());
                fitted.unused.extend(pieces.values().cloned());
                continue;
            };
            self.refuse_foreign(name, pieces)?;
            // Under two names the same change is meant, as every program takes it.
            if !seen.insert((meaning.network, meaning.spelt())) {
                fitted.unused.extend(pieces.values().cloned());
                continue;
            }
            let Some(mut kind) = Kind::of(pieces, &mut fitted.unused) else {
                fitted.halves.push(name.clone());
                continue;
            };
            if !meaning.takes_bias() {
                fitted.unused.extend(kind.take_biases());
                if kind.weight.is_none() {
                    fitted.unknown.push(name.clone());
                    continue;
                }
            }
            fitted.known += 1;
            *fitted.kinds.entry(kind.name()).or_default() += 1;
            self.add(&mut fitted, networks, (name, &meaning), (&kind, strength))?;
        }
        fitted.strange_prefix = fitted.unknown.iter().find_map(|name| names.strange_prefix(name)).map(str::to_owned);
        fitted.unused.sort();
        Ok(fitted)
    }

    fn refuse_foreign(&self, name: &str, pieces: &Pieces) -> Result<()> {
        let foreign = pieces.keys().find_map(|role| if let Role::Foreign(kind) = role { Some(kind) } else { None });
        match foreign {
            None => Ok(()),
            Some(kind) => {
                let what =
                    format!("{}: {name} is changed by {kind}, which dype does not compute", self.source.describe());
                Err(Error::model(what, "LoRA, DoRA, LoHa, LoKr and whole differences are computed; take one of those"))
            }
        }
    }

    fn add(
        &self,
        fitted: &mut Fitted,
        networks: &[Network],
        (name, meaning): (&str, &Meaning),
        (kind, strength): (&Kind, f64),
    ) -> Result<()> {
        let network = &networks[meaning.network];
        let rows = meaning.rows();
        let first = &meaning.parts[0].layer;
        let is_linear = first.kind == LayerKind::Linear;
        let place = Place { file: self, name, prefix: &meaning.prefix, is_linear, rows, inputs: first.inputs };
        let made = place.check(kind, strength)?;
        for part in &meaning.parts {
            let adapter = made.adapter(part, &network.source)?;
            fitted.adapters[meaning.network].entry(part.layer.name.clone()).or_default().push(adapter);
        }
        Ok(())
    }
}

//! How files of other programs hold a network: what each of their tensors is made of. Whoever writes such a file asks for this.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::parts::single_file::TRANSFORMER_PREFIXES;
use crate::{
    error::{Error, Result},
    weights::{
        Cut,
        lora::{Alias, Network},
        scales::is_beside_weights,
        write::Key,
    },
};

/// A network, and how files hold it.
pub struct Exchange {
    /// Its tensors, and what LoRA files may change of it.
    pub network: Network,
    /// Beginnings of names of tensors that are few and matter much: kept as they are where the rest is rounded to 8 bits or fewer.
    pub kept: &'static [&'static str],
    /// The same of tables that are looked up and not multiplied: no program reads them in fp8 with a scale.
    pub tables: &'static [&'static str],
    /// How GGUF files hold it; `None` where no program reads one.
    pub gguf: Option<GgufNames>,
}

/// How GGUF files hold a network.
pub struct GgufNames {
    /// What they say they were made for.
    pub architecture: &'static str,
    /// Names that are not the network's own, of one layer's weight or several as one.
    pub layers: Vec<Alias>,
    /// The name of any other tensor; `None` of one that such files have not.
    pub name: fn(&str) -> Option<String>,
    /// More keys, behind `general.`
    pub keys: Vec<(&'static str, Key)>,
}

/// A tensor of a file, made of rows of the network's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whose rows it holds, and which, in their order.
    pub rows: Vec<(String, Range<usize>)>,
}

/// What stands before the names of text encoders in files that hold several networks; a name of any letters follows.
const TEXT_ENCODERS: &str = "text_encoders.";

impl Exchange {
    /// The tensors of a file in the layout that the network's own file has, without what stands before all names in files of several
    /// networks.
    ///
    /// # Errors
    /// [`Error::Model`] for a file that holds a part of a tensor.
    pub fn as_stored(&self) -> Result<Vec<Composed>> {
        let mut stored: BTreeMap<String, Vec<(String, Cut)>> = BTreeMap::new();
        for name in self.names() {
            let Some((of, cut)) = self.network.source.stored_as(&name) else { continue };
            stored.entry(of).or_default().push((name, cut));
        }
        stored.into_iter().map(|(name, parts)| self.composed(without_prefix(&name).to_owned(), parts)).collect()
    }

    /// The tensors of a GGUF file, and the network's own that such files have not.
    ///
    /// # Errors
    /// [`Error::Model`] where no program reads one.
    pub fn as_gguf(&self, names: &GgufNames) -> Result<(Vec<Composed>, Vec<String>)> {
        let own: BTreeSet<String> = self.names().into_iter().collect();
        let (mut composed, mut used, mut left) = (Vec::new(), BTreeSet::new(), Vec::new());
        for alias in &names.layers {
            for kind in ["weight", "bias"] {
                let parts: Vec<_> =
                    alias.parts.iter().map(|(layer, cut)| (format!("{layer}.{kind}"), cut.clone())).collect();
                if parts.iter().all(|(name, _)| own.contains(name)) {
                    used.extend(parts.iter().map(|(name, _)| name.clone()));
                    composed.push(self.composed(format!("{}.{kind}", alias.name), parts)?);
                }
            }
        }
        let mut seen: BTreeSet<String> = composed.iter().map(|tensor| tensor.name.clone()).collect();
        for name in own.into_iter().filter(|name| !used.contains(name)) {
            match (names.name)(&name) {
                // One tensor may have several names here.
                Some(new) if !seen.insert(new.clone()) => {}
                Some(new) => composed.push(self.composed(new, vec![(name, Cut::Whole)])?),
                None => left.push(name),
            }
        }
        Ok((composed, left))
    }

    /// Names of the network's tensors, without those that only say how others are to be read.
    fn names(&self) -> Vec<String> {
        self.network.source.names().into_iter().filter(|name| !is_beside_weights(name)).collect()
    }

    /// The tensor that is made of these.
    fn composed(&self, name: String, mut parts: Vec<(String, Cut)>) -> Result<Composed> {
        let odd = || {
            let file = self.network.source.describe();
            Error::model(format!("{file}: what {name} holds is not known whole"), "please report this")
        };
        let start = |cut: &Cut| if let Cut::Rows(rows) = cut { rows.start } else { 0 };
        // Of several names of the same the one that LoRA files change.
        let is_layer = |name: &str| {
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            self.network.layers.iter().any(|known| known.name == layer)
        };
        parts.sort_by_cached_key(|(name, cut)| (start(cut), !is_layer(name)));
        parts.dedup_by(|(_, one), (_, other)| one == other);
        let (mut rows, mut count, mut shape) = (Vec::new(), 0, Vec::new());
        for (part, cut) in parts {
            let own = self.network.source.shape(&part).ok_or_else(odd)?;
            let all = own.first().copied().unwrap_or(1);
            match &cut {
                Cut::Whole if count == 0 => rows.push((part, 0..all)),
                Cut::SwappedHalves if count == 0 => {
                    rows.extend([(part.clone(), all - all / 2..all), (part, 0..all - all / 2)]);
                }
                Cut::Rows(at) if *at == (count..count + all) => rows.push((part, 0..all)),
                _ => return Err(odd()),
            }
            count += all;
            shape = own;
        }
        if let Some(first) = shape.first_mut() {
            *first = count;
        }
        Ok(Composed { name, shape, rows })
    }
}

/// A name without what stands before it in files that hold several networks.
fn without_prefix(name: &str) -> &str {
    let mut prefixes = TRANSFORMER_PREFIXES.iter().filter(|prefix| !prefix.is_empty());
    if let Some(rest) = prefixes.find_map(|prefix| name.strip_prefix(prefix)) {
        return rest;
    }
    let within = name.strip_prefix(TEXT_ENCODERS).and_then(|rest| rest.split_once('.'));
    within.map_or(name, |(_, rest)| rest.strip_prefix("transformer.").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_names_of_files_of_several_networks_is_left_out() {
        for (name, expected) in [
            ("model.diffusion_model.img_in.weight", "img_in.weight"),
            ("diffusion_model.img_in.weight", "img_in.weight"),
            ("text_encoders.t5xxl.transformer.shared.weight", "shared.weight"),
            ("text_encoders.clip_l.text_model.x", "text_model.x"),
            ("model.layers.0.x", "model.layers.0.x"),
            ("text_model.x", "text_model.x"),
        ] {
            assert_eq!(without_prefix(name), expected);
        }
    }
}

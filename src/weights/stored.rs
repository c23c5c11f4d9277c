//! How a folder stores one part's weights, by the names of its files: whole or in shards, plainly or in a variant.
//!
//! A variant is a word behind a dot, where diffusers and transformers write it: `model.fp16.safetensors`,
//! `model.safetensors.index.fp16.json`, and for shards `model.fp16-00001-of-00002.safetensors` or
//! `model-00001-of-00002.fp16.safetensors`.

use std::{collections::BTreeSet, path::Path};

/// The names a part's weights may have before `.safetensors`: diffusers' and transformers'.
pub const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

const ENDING: &str = ".safetensors";
const INDEX: &str = ".safetensors.index";

/// What a file is among a part's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Index,
    Whole,
    Shard,
}

/// A file's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name<'a> {
    stem: &'a str,
    variant: Option<&'a str>,
    form: Form,
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let word = |text: &'a str| text.strip_prefix('.').filter(|word| !word.is_empty() && !word.contains('.'));
        let whole = |name: &'a str| -> Option<(&'a str, Option<&'a str>)> {
            let at = name.find('.').unwrap_or(name.len());
            let (stem, rest) = name.split_at(at);
            Some((stem, if rest.is_empty() { None } else { Some(word(rest)?) })).filter(|(stem, _)| !stem.is_empty())
        };
        if let Some((stem, rest)) = name.strip_suffix(".json").and_then(|name| name.split_once(INDEX)) {
            let (stem, before) = whole(stem)?;
            let behind = if rest.is_empty() { None } else { Some(word(rest)?) };
            let is_one = before.is_none() || behind.is_none();
            return is_one.then_some(Self { stem, variant: before.or(behind), form: Form::Index });
        }
        let (stem, variant) = whole(name.strip_suffix(ENDING)?)?;
        // The numbers of a shard stand behind the variant, or before it.
        let (cut_stem, cut_variant) = (without_numbers(stem), variant.map(without_numbers));
        let form = if cut_stem != stem || cut_variant != variant { Form::Shard } else { Form::Whole };
        Some(Self { stem: cut_stem, variant: cut_variant, form })
    }
}

/// Whether a file's name ends as those of safetensors and GGUF files do.
pub(crate) fn has_weights_ending(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ["safetensors", "sft", "gguf"].iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Whether a file is called as the weights in a part's own folder are, whatever variant or shard it is.
pub fn is_usual_name(name: &str) -> bool {
    Name::of(name).is_some_and(|name| STEMS.contains(&name.stem))
}

/// Whether a file is one of several that hold one part's weights together.
pub fn is_shard(name: &str) -> bool {
    Name::of(name).is_some_and(|name| name.form == Form::Shard)
}

/// "model" of "model-00001-of-00002".
fn without_numbers(text: &str) -> &str {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let cut = || {
        let (head, last) = text.rsplit_once("-of-")?;
        let (head, first) = head.rsplit_once('-')?;
        (is_number(first) && is_number(last) && !head.is_empty()).then_some(head)
    };
    cut().unwrap_or(text)
}

/// How a folder stores a part's weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The variant, where they are there in one only or it was asked for.
    pub variant: Option<String>,
    /// The file that holds them all, or the index that says which file holds what.
    pub main: String,
    /// Whether it is an index.
    pub is_sharded: bool,
}

impl Stored {
    /// What a folder of these files holds: the variant that is `wanted` where it is there, else plain weights, else the only
    /// variant there is; `None` where it holds no weights.
    ///
    /// # Errors
    /// The variants, when there are several and none of them was asked for.
    pub fn among<'a>(
        names: impl IntoIterator<Item = &'a str>,
        wanted: Option<&str>,
    ) -> Result<Option<Self>, BTreeSet<String>> {
        let place = |stem: &str| STEMS.iter().position(|known| *known == stem);
        let mut mains: Vec<(Name<'_>, &str)> =
            names.into_iter().filter_map(|name| Some((Name::of(name)?, name))).collect();
        mains.retain(|(name, _)| name.form != Form::Shard && place(name.stem).is_some());
        mains.sort_by_key(|(name, _)| (name.form, place(name.stem)));
        let variants: BTreeSet<&str> = mains.iter().filter_map(|(name, _)| name.variant).collect();
        let has_plain = mains.iter().any(|(name, _)| name.variant.is_none());
        let chosen = match wanted.filter(|wanted| variants.contains(wanted)) {
            None if has_plain => None,
            None if variants.len() > 1 => return Err(variants.into_iter().map(str::to_owned).collect()),
            None => variants.first().copied(),
            wanted => wanted,
        };
        let main = mains.into_iter().find(|(name, _)| name.variant == chosen);
        Ok(main.map(|(name, file)| Self {
            variant: name.variant.map(str::to_owned),
            main: file.to_owned(),
            is_sharded: name.form == Form::Index,
        }))
    }

    /// Whether the file of this name is, or may be, one that holds these weights or says where they are.
    pub fn takes(&self, name: &str) -> bool {
        let of_the_same = |parsed: Name<'_>| parsed.form == Form::Shard && parsed.variant == self.variant.as_deref();
        name == self.main || (self.is_sharded && Name::of(name).is_some_and(of_the_same))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(names: &str, wanted: Option<&str>) -> Result<Option<Stored>, BTreeSet<String>> {
        Stored::among(names.split_whitespace(), wanted)
    }

    #[test]
    fn names_are_taken_apart() {
        let cases = [
            ("model.safetensors", Some(("model", None, Form::Whole))),
            ("model.fp16.safetensors", Some(("model", Some("fp16"), Form::Whole))),
            ("model.safetensors.index.json", Some(("model", None, Form::Index))),
            ("model.safetensors.index.fp16.json", Some(("model", Some("fp16"), Form::Index))),
            ("model.fp16.safetensors.index.json", Some(("model", Some("fp16"), Form::Index))),
            ("model.fp16.safetensors.index.fp16.json", None),
            ("model-00001-of-00002.safetensors", Some(("model", None, Form::Shard))),
            ("model.fp16-00001-of-00002.safetensors", Some(("model", Some("fp16"), Form::Shard))),
            ("model-00001-of-00002.bf16.safetensors", Some(("model", Some("bf16"), Form::Shard))),
            ("flux-of-dreams.safetensors", Some(("flux-of-dreams", None, Form::Whole))),
            (".safetensors", None),
            ("model..safetensors", None),
            ("a.b.c.safetensors", None),
            ("model.bin", None),
            ("model.safetensors.index.json.bak", None),
            ("config.json", None),
        ];
        for (name, expected) in cases {
            let parsed = Name::of(name).map(|name| (name.stem, name.variant, name.form));
            assert_eq!(parsed, expected, "{name}");
        }
    }

    #[test]
    fn files_of_weights_are_told_by_their_endings_in_any_case() {
        for (name, is_one) in
            [("a.safetensors", true), ("b/a.v1.GGUF", true), ("a.sft", true), ("gguf", false), ("a.gguf.json", false)]
        {
            assert_eq!(has_weights_ending(name), is_one, "{name}");
        }
    }

    #[test]
    fn plain_weights_go_before_a_variant_and_a_wanted_variant_before_them() {
        let main = |names: &str, wanted| among(names, wanted).map(|stored| stored.map(|stored| stored.main));
        let one = "model.fp16.safetensors";
        let both = "model.safetensors model.fp16.safetensors";
        let two = "model.bf16.safetensors model.fp16.safetensors";
        let file = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(main(one, None), file(one));
        assert_eq!(main(both, None), file("model.safetensors"));
        assert_eq!(main(both, Some("fp16")), file(one));
        assert_eq!(main(both, Some("bf16")), file("model.safetensors"), "not there: plainly");
        assert_eq!(main(two, Some("fp16")), file(one));
        assert_eq!(main(two, None), Err(["bf16", "fp16"].map(str::to_owned).into()));
        assert_eq!(main("other.safetensors config.json", None), Ok(None));
        assert_eq!(main("model-00001-of-00002.safetensors", None), Ok(None), "shards without an index");
    }

    #[test]
    fn an_index_takes_the_shards_of_its_variant() {
        let names = "diffusion_pytorch_model.safetensors.index.fp16.json diffusion_pytorch_model.fp16-00001-of-00001.safetensors \
                     diffusion_pytorch_model-00001-of-00001.fp16.safetensors diffusion_pytorch_model-00001-of-00001.safetensors \
                     diffusion_pytorch_model.fp16.safetensors config.json";
        let stored = among(names, None).expect("one variant").expect("weights");
        assert_eq!((stored.variant.as_deref(), stored.is_sharded), (Some("fp16"), true));
        let taken: Vec<_> = names.split_whitespace().filter(|name| stored.takes(name)).collect();
        assert_eq!(taken, names.split_whitespace().take(3).collect::<Vec<_>>());
        let whole = among("model.safetensors", None).expect("plain").expect("weights");
        assert!(whole.takes("model.safetensors") && !whole.takes("model-00001-of-00001.safetensors"));
    }
}

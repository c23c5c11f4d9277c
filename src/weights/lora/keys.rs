//! What the names of a LoRA file's tensors say: a layer in some spelling, and which piece of its change a tensor is.

use std::collections::BTreeMap;

/// A piece of a layer's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A of B·A, [rank, in].
    Down,
    /// B of B·A, [out, rank].
    Up,
    /// The bias of B, \[out\].
    UpBias,
    /// What the product is multiplied by, times its rank.
    Alpha,
    /// The length of each row of a weight that is decomposed (DoRA).
    Magnitude,
    /// A factor of a Hadamard product (LoHa): of its first or second matrix, left or right.
    Hadamard(usize, Side),
    /// The first or second matrix of a Kronecker product (LoKr).
    Kronecker(usize),
    /// The same as a product.
    KroneckerFactor(usize, Side),
    /// What is added to the weight.
    Difference,
    /// What is added to the bias.
    BiasDifference,
    /// A kind of change that cannot be computed here.
    Foreign(&'static str),
}

/// Of a product of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Left,
    Right,
}

/// Ends of names. One that another ends with comes after it.
const ENDS: &[(&str, Role)] = &[
    // peft and diffusers.
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A", Role::Down),
    (".lora_B", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    // kohya's sd-scripts, OneTrainer, ComfyUI; diffusers before peft; XLabs.
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".down.weight", Role::Down),
    (".up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
    // LyCORIS.
    (".hada_w1_a", Role::Hadamard(0, Side::Left)),
    (".hada_w1_b", Role::Hadamard(0, Side::Right)),
    (".hada_w2_a", Role::Hadamard(1, Side::Left)),
    (".hada_w2_b", Role::Hadamard(1, Side::Right)),
    (".lokr_w1", Role::Kronecker(0)),
    (".lokr_w2", Role::Kronecker(1)),
    (".lokr_w1_a", Role::KroneckerFactor(0, Side::Left)),
    (".lokr_w1_b", Role::KroneckerFactor(0, Side::Right)),
    (".lokr_w2_a", Role::KroneckerFactor(1, Side::Left)),
    (".lokr_w2_b", Role::KroneckerFactor(1, Side::Right)),
    // ComfyUI, which spells a bias's name whole or leaves it away; LyCORIS of norms.
    (".weight.diff", Role::Difference),
    (".bias.diff", Role::BiasDifference),
    (".diff", Role::Difference),
    (".diff_b", Role::BiasDifference),
    (".w_norm", Role::Difference),
    (".b_norm", Role::BiasDifference),
    // Kinds that change a layer in another way.
    (".lora_mid.weight", Role::Foreign("LoCon in Tucker form")),
    (".hada_t1", Role::Foreign("LoHa in Tucker form")),
    (".hada_t2", Role::Foreign("LoHa in Tucker form")),
    (".lokr_t2", Role::Foreign("LoKr in Tucker form")),
    (".oft_blocks", Role::Foreign("OFT")),
    (".oft_diag", Role::Foreign("OFT")),
    (".oft_R.weight", Role::Foreign("OFT")),
    (".a1.weight", Role::Foreign("GLoRA")),
    (".a2.weight", Role::Foreign("GLoRA")),
    (".b1.weight", Role::Foreign("GLoRA")),
    (".b2.weight", Role::Foreign("GLoRA")),
    (".on_input", Role::Foreign("IA3")),
    (".vera_lambda_b", Role::Foreign("VeRA")),
    (".set_weight", Role::Foreign("whole weights")),
];

/// Words of peft's behind which a model keeps an adapter's name: `lora_A.NAME.weight`.
const NAMED: [&str; 3] = [".lora_A", ".lora_B", ".lora_magnitude_vector"];

/// A name without an adapter's name.
fn without_adapter(name: &str) -> Option<String> {
    let (rest, last) = name.rsplit_once('.')?;
    let (word, _) = rest.rsplit_once('.')?;
    NAMED.iter().any(|named| word.ends_with(named)).then(|| format!("{word}.{last}"))
}

/// The pieces of one layer's change, by what they are: names of tensors.
pub(super) type Pieces = BTreeMap<Role, String>;

/// A file's names, told apart.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// By the layer's name as the file spells it.
    pub layers: BTreeMap<String, Pieces>,
    /// Names that say no piece of a change.
    pub others: Vec<String>,
}

impl Keys {
    /// Of these names.
    pub fn of(names: Vec<String>) -> Self {
        let mut keys = Self::default();
        for name in names {
            let plain = without_adapter(&name);
            let plain = plain.as_deref().unwrap_or(&name);
            let found = ENDS.iter().find_map(|(end, role)| Some((plain.strip_suffix(end)?.to_owned(), *role)));
            match found {
                Some((layer, role)) if !layer.is_empty() => {
                    if let Some(other) = keys.layers.entry(layer).or_default().insert(role, name) {
                        keys.others.push(other);
                    }
                }
                _ => keys.others.push(name),
            }
        }
        keys
    }

    /// Whether there is any piece of a change but numbers that go with one.
    pub fn has_changes(&self) -> bool {
        let is_change = |role: &Role| !matches!(role, Role::Alpha | Role::Magnitude | Role::UpBias);
        self.layers.values().any(|pieces| pieces.keys().any(is_change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_their_ends() {
        let names = [
            "transformer.x.to_q.lora_A.weight",
            "transformer.x.to_q.lora_B.weight",
            "transformer.x.to_k.lora_A.my_lora.weight",
            "transformer.x.to_k.lora_magnitude_vector.default_0.weight",
            "x.lora.down.weight",
            "x.processor.qkv_lora1.down.weight",
            "lora_unet_a.alpha",
            "lora_unet_a.lokr_w2_b",
            "x.bias.diff",
            "x.norm.w_norm",
            "x.norm.b_norm",
            "optimizer.step",
            ".alpha",
        ];
        let keys = Keys::of(names.map(str::to_owned).to_vec());
        let layers: Vec<_> = keys.layers.keys().map(String::as_str).collect();
        let expected =
            ["lora_unet_a", "transformer.x.to_k", "transformer.x.to_q", "x", "x.norm", "x.processor.qkv_lora1"];
        assert_eq!(layers, expected);
        assert!(keys.layers["x"].keys().eq([&Role::Down, &Role::BiasDifference]));
        assert!(keys.layers["x.norm"].keys().eq([&Role::Difference, &Role::BiasDifference]));
        assert_eq!(keys.layers["transformer.x.to_q"].len(), 2);
        assert!(keys.layers["transformer.x.to_k"].keys().eq([&Role::Down, &Role::Magnitude]));
        assert_eq!(keys.layers["lora_unet_a"][&Role::KroneckerFactor(1, Side::Right)], "lora_unet_a.lokr_w2_b");
        assert_eq!(keys.others, ["optimizer.step", ".alpha"]);
    }

    #[test]
    fn an_end_that_another_ends_with_comes_after_it() {
        for (index, (end, _)) in ENDS.iter().enumerate() {
            let hidden = ENDS[..index].iter().find(|(earlier, _)| end.ends_with(earlier));
            assert_eq!(hidden, None, "{end}");
        }
    }
}

//! The kinds of change, and which pieces make one.

use super::keys::{Pieces, Role, Side};

/// What a LoRA is called where each row of the changed weight gets a length of its own.
pub(super) const DECOMPOSED: &str = "DoRA";

/// The names of tensors that make a layer's change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    pub weight: Option<OfWeight>,
    pub alpha: Option<String>,
    pub magnitude: Option<String>,
    pub up_bias: Option<String>,
    pub bias: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum OfWeight {
    Product([String; 2]),
    Hadamard([[String; 2]; 2]),
    Kronecker([Factor; 2]),
    Difference(String),
}

/// A matrix, whole or as a product.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factor {
    Whole(String),
    Product([String; 2]),
}

impl Kind {
    /// Of a layer's pieces; `None` where they make no change. Pieces that it has no use for are put to `unused`.
    pub fn of(pieces: &Pieces, unused: &mut Vec<String>) -> Option<Self> {
        let get = |role: Role| pieces.get(&role).cloned();
        let pair = |left, right| Some([get(left)?, get(right)?]);
        let sides = |role: fn(usize, Side) -> Role, of| pair(role(of, Side::Left), role(of, Side::Right));
        let factor = |of| {
            let product = || sides(Role::KroneckerFactor, of).map(Factor::Product);
            get(Role::Kronecker(of)).map(Factor::Whole).or_else(product)
        };
        let hadamard = || Some(OfWeight::Hadamard([sides(Role::Hadamard, 0)?, sides(Role::Hadamard, 1)?]));
        let kronecker = || Some(OfWeight::Kronecker([factor(0)?, factor(1)?]));
        let weight = pair(Role::Down, Role::Up)
            .map(OfWeight::Product)
            .or_else(hadamard)
            .or_else(kronecker)
            .or_else(|| get(Role::Difference).map(OfWeight::Difference));
        let is_product = matches!(weight, Some(OfWeight::Product(_)));
        let kind = Self {
            alpha: get(Role::Alpha).filter(|_| weight.is_some()),
            magnitude: get(Role::Magnitude).filter(|_| weight.is_some()),
            up_bias: get(Role::UpBias).filter(|_| is_product),
            bias: get(Role::BiasDifference),
            weight,
        };
        let used = kind.names();
        unused.extend(pieces.values().filter(|name| !used.contains(name)).cloned());
        (kind.weight.is_some() || kind.bias.is_some()).then_some(kind)
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match &self.weight {
            Some(OfWeight::Product(_)) if self.magnitude.is_some() => DECOMPOSED,
            Some(OfWeight::Product(_)) => "LoRA",
            Some(OfWeight::Hadamard(_)) => "LoHa",
            Some(OfWeight::Kronecker(_)) => "LoKr",
            Some(OfWeight::Difference(_)) | None => "difference",
        }
    }

    /// Leaves out what is added to a bias; gives the names of those tensors.
    pub fn take_biases(&mut self) -> impl Iterator<Item = String> + use<> {
        [self.up_bias.take(), self.bias.take()].into_iter().flatten()
    }

    /// Whether each row of the changed weight gets a length of its own.
    pub fn is_decomposed(&self) -> bool {
        self.magnitude.is_some()
    }

    /// The tensors it is made of.
    pub fn names(&self) -> Vec<&String> {
        let mut names: Vec<&String> = match &self.weight {
            Some(OfWeight::Product(pair)) => pair.iter().collect(),
            Some(OfWeight::Hadamard(pairs)) => pairs.iter().flatten().collect(),
            Some(OfWeight::Kronecker(factors)) => factors.iter().flat_map(Factor::names).collect(),
            Some(OfWeight::Difference(name)) => vec![name],
            None => vec![],
        };
        names.extend([&self.alpha, &self.magnitude, &self.up_bias, &self.bias].into_iter().flatten());
        names
    }
}

impl Factor {
    fn names(&self) -> Vec<&String> {
        match self {
            Self::Whole(name) => vec![name],
            Self::Product(pair) => pair.iter().collect(),
        }
    }
}

//! Whether the pieces of a change have the shapes and number types they must have, told by the file's header.

use std::sync::Arc;

use super::{
    super::Cut,
    LoraFile,
    fit::OTHER_MODEL,
    kinds::{Factor, Kind, OfWeight},
    made::{Made, Scale},
    names::{Meaning, Part},
    numbers::is_whole_number,
};
use crate::error::{Error, Result};

impl Meaning {
    /// The layers and what of the whole each is, to tell one meaning from another.
    pub fn spelt(&self) -> Vec<String> {
        self.parts.iter().map(|Part { layer, cut }| format!("{} {cut:?}", layer.name)).collect()
    }

    /// Whether every layer can be given a bias.
    pub fn takes_bias(&self) -> bool {
        self.parts.iter().all(|part| part.layer.takes_bias())
    }

    /// Rows of the whole that the layers are parts of.
    pub fn rows(&self) -> usize {
        let end = |part: &Part| if let Cut::Rows(rows) = &part.cut { rows.end } else { part.layer.outputs };
        self.parts.iter().map(end).max().unwrap_or(0)
    }
}

/// A layer, or several as one, that a file changes.
pub(super) struct Place<'p> {
    pub file: &'p LoraFile,
    /// Its name in the file.
    pub name: &'p str,
    /// What stands before it.
    pub prefix: &'p str,
    /// Whether it is multiplied with.
    pub is_linear: bool,
    /// out, of all together.
    pub rows: usize,
    /// in
    pub inputs: usize,
}

impl Place<'_> {
    /// Whether every piece has the shape it must have.
    pub fn check(&self, kind: &Kind, strength: f64) -> Result<Made> {
        let ranks = match &kind.weight {
            Some(OfWeight::Product(pair)) => [self.check_product(pair)?, 0],
            Some(OfWeight::Hadamard(pairs)) => {
                let product = |[left, right]: &[String; 2]| self.check_product(&[right.clone(), left.clone()]);
                [product(&pairs[0])?, product(&pairs[1])?]
            }
            Some(OfWeight::Kronecker(factors)) => self.check_kronecker(factors)?,
            Some(OfWeight::Difference(name)) => self.check_difference(name)?,
            None => [0, 0],
        };
        for name in [&kind.magnitude, &kind.up_bias, &kind.bias].into_iter().flatten() {
            self.is(name, self.count(name)? == self.rows, || [self.rows, 1])?;
        }
        if let Some(alpha) = &kind.alpha {
            let count = if is_whole_number(&*self.file.source, alpha) { 1 } else { self.count(alpha)? };
            self.is(alpha, count == 1, || [1, 1])?;
        }
        self.check_decomposed(kind)?;
        let scale = self.scale(kind, ranks, strength);
        let source = Arc::clone(&self.file.source);
        Ok(Made { source, kind: kind.clone(), inputs: self.inputs, scale, ranks })
    }

    /// A difference has no rank.
    fn check_difference(&self, name: &str) -> Result<[usize; 2]> {
        let own = [self.rows, self.inputs];
        let fits = if self.is_linear {
            self.matrix(name)? == own
        } else {
            // A vector may be stored as a matrix of one row or column.
            self.check_type(name)?;
            let found = self.file.source.shape(name).unwrap_or_default();
            found.iter().filter(|size| **size != 1).eq(own.iter().filter(|size| **size != 1))
        };
        self.is(name, fits, || own)?;
        Ok([0, 0])
    }

    fn check_decomposed(&self, kind: &Kind) -> Result<()> {
        if !kind.is_decomposed() || self.is_linear && matches!(kind.weight, Some(OfWeight::Product(_))) {
            return Ok(());
        }
        let of = if self.is_linear { "" } else { ", of numbers that are no linear layer's" };
        let what = format!("{}: {} is {} with DoRA{of}", self.file.source.describe(), self.name, kind.name());
        Err(Error::model(what, "DoRA is computed of a plain LoRA of a linear layer alone; take one of those"))
    }

    /// The rank of `[right, left]`: right [rank, in], left [out, rank].
    fn check_product(&self, [right, left]: &[String; 2]) -> Result<usize> {
        let ([rank, inputs], [rows, left_rank]) = (self.matrix(right)?, self.matrix(left)?);
        self.is(right, inputs == self.inputs && rank > 0, || [rank.max(1), self.inputs])?;
        self.is(left, rows == self.rows, || [self.rows, rank])?;
        if rank != left_rank {
            let file = self.file.source.describe();
            let what = format!("{file}: the ranks of {right} and {left} differ: {rank} and {left_rank}");
            return Err(Error::model(what, OTHER_MODEL));
        }
        Ok(rank)
    }

    /// The ranks of both factors, 0 for one that is whole.
    fn check_kronecker(&self, factors: &[Factor; 2]) -> Result<[usize; 2]> {
        let shape = |factor: &Factor| -> Result<([usize; 2], usize)> {
            match factor {
                Factor::Whole(name) => Ok((self.matrix(name)?, 0)),
                Factor::Product([left, right]) => {
                    let ([rows, rank], [right_rank, columns]) = (self.matrix(left)?, self.matrix(right)?);
                    self.is(right, rank == right_rank && rank > 0, || [rank.max(1), columns])?;
                    Ok(([rows, columns], rank))
                }
            }
        };
        let (([a, b], first_rank), ([d, e], second_rank)) = (shape(&factors[0])?, shape(&factors[1])?);
        if (a.checked_mul(d), b.checked_mul(e)) != (Some(self.rows), Some(self.inputs)) {
            let what = format!(
                "{}: the factors of {}, [{a}, {b}] and [{d}, {e}], make no [{}, {}], which the layer has",
                self.file.source.describe(),
                self.name,
                self.rows,
                self.inputs
            );
            return Err(Error::model(what, OTHER_MODEL));
        }
        Ok([first_rank, second_rank])
    }

    fn scale(&self, kind: &Kind, ranks: [usize; 2], strength: f64) -> Scale {
        let plain = Scale { strength, alpha: None, else_scale: 1.0 };
        // Of LoKr the second rank goes before: LyCORIS takes it last. A difference has none, and alpha says nothing.
        let Some(rank) = ranks.into_iter().rev().find(|rank| *rank > 0) else { return plain };
        let rank = if matches!(kind.weight, Some(OfWeight::Hadamard(_))) { ranks[0] } else { rank };
        let layer = self.name.strip_prefix(self.prefix).unwrap_or(self.name);
        let else_scale = self.file.settings.scale(self.prefix, layer, rank).unwrap_or(1.0);
        Scale { alpha: kind.alpha.clone().map(|alpha| (alpha, rank)), else_scale, ..plain }
    }

    /// The shape of a matrix, which may be stored as a convolution of 1 x 1.
    fn matrix(&self, name: &str) -> Result<[usize; 2]> {
        self.check_type(name)?;
        match self.file.source.shape(name).unwrap_or_default().as_slice() {
            [rows, columns] | [rows, columns, 1] | [rows, columns, 1, 1] => Ok([*rows, *columns]),
            other => {
                let what =
                    format!("{}: tensor {name} has shape {other:?}, which is no matrix", self.file.source.describe());
                Err(Error::model(what, OTHER_MODEL))
            }
        }
    }

    fn count(&self, name: &str) -> Result<usize> {
        self.check_type(name)?;
        Ok(self.file.source.shape(name).unwrap_or_default().iter().product())
    }

    fn check_type(&self, name: &str) -> Result<()> {
        if self.file.source.is_weight(name) {
            return Ok(());
        }
        let what = format!("{}: tensor {name} is stored in a type that is no float", self.file.source.describe());
        Err(Error::model(what, "give a LoRA in f32, bf16 or f16"))
    }

    fn is(&self, name: &str, fits: bool, expected: impl FnOnce() -> [usize; 2]) -> Result<()> {
        if fits {
            return Ok(());
        }
        let (file, found) = (self.file.source.describe(), self.file.source.shape(name).unwrap_or_default());
        let [rows, columns] = expected();
        let expected = if columns == 1 { format!("{rows} numbers") } else { format!("[{rows}, {columns}]") };
        let what = format!("{file}: tensor {name} has shape {found:?}, and the model's layer takes {expected}");
        Err(Error::model(what, OTHER_MODEL))
    }
}

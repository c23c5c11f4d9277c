//! The transformer's blocks in their order, and how they are read.

use super::{
    FluxConfig,
    blocks::{NAMES, Pass, SingleBlock},
};
use crate::{
    error::Result,
    models::parts::double::DoubleBlock,
    nn::{Array, Blocks, Compute, Parameters, WeightsMode},
};

/// A block of either kind.
#[derive(Debug)]
pub enum Block {
    /// `transformer_blocks.{i}`
    Double(Box<DoubleBlock>),
    /// `single_transformer_blocks.{i}`
    Single(Box<SingleBlock>),
}

impl Block {
    /// Block `index` in the order of the forward pass: the double blocks, then the single ones.
    fn load(index: usize, config: &FluxConfig, parameters: &Parameters, compute: Compute) -> Result<Self> {
        let (block, parameters) = match index.checked_sub(config.num_layers) {
            None => {
                let parameters = parameters.pp("transformer_blocks").pp(index);
                (Self::Double(Box::new(DoubleBlock::load(&parameters, &NAMES, config.heads(), compute)?)), parameters)
            }
            Some(single) => {
                let parameters = parameters.pp("single_transformer_blocks").pp(single);
                (Self::Single(Box::new(SingleBlock::load(&parameters, config, compute)?)), parameters)
            }
        };
        // What was read is copied: its mapped pages would only make the process look, and be, larger than it is.
        parameters.release();
        Ok(block)
    }

    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Array, pass: &Pass) -> Result<()> {
        match self {
            Self::Double(block) => block.forward(x, pass, true),
            Self::Single(block) => block.forward(x, pass),
        }
    }
}

/// All blocks of one model; `parameters` stands at its root and says in which number type and where weights are held,
/// `compute` is what the blocks compute in.
///
/// # Errors
/// [`crate::Error::Model`] when a tensor is missing or has another shape (resident blocks only: streamed ones say so in the
/// forward pass).
pub fn blocks(
    config: &FluxConfig,
    parameters: &Parameters,
    mode: WeightsMode,
    compute: Compute,
) -> Result<Blocks<Block>> {
    let kinds = [config.num_layers, config.num_single_layers];
    let config = config.clone();
    Blocks::new(&kinds, mode, parameters, move |index, parameters| Block::load(index, &config, parameters, compute))
}

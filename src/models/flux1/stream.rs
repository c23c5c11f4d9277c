//! How blocks reach the forward pass: all resident, or one by one with the next being read meanwhile.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use candle_core::Tensor;

use super::{
    FluxConfig,
    blocks::{DoubleBlock, Pass, SingleBlock},
    layers::Compute,
};
use crate::{
    error::{Error, Result},
    weights::Weights,
};

/// Where the weights of the blocks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMode {
    /// All on the device, from the start to the end.
    Resident,
    /// At most two: the one that computes and the one that is being read.
    Stream,
}

/// A block of either kind.
#[derive(Debug)]
pub enum Block {
    /// `transformer_blocks.{i}`
    Double(DoubleBlock),
    /// `single_transformer_blocks.{i}`
    Single(SingleBlock),
}

impl Block {
    /// Updates x [N, C] in place.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<()> {
        match self {
            Self::Double(block) => block.forward(x, pass),
            Self::Single(block) => block.forward(x, pass),
        }
    }
}

/// What it takes to read any block of one model.
#[derive(Clone)]
struct Loader {
    config: FluxConfig,
    weights: Weights,
    compute: Compute,
}

impl Loader {
    fn count(&self) -> usize {
        self.config.num_layers + self.config.num_single_layers
    }

    /// Block `index` in the order of the forward pass: the double blocks, then the single ones.
    fn load(&self, index: usize) -> Result<Arc<Block>> {
        let (config, compute) = (&self.config, self.compute);
        let (block, weights) = match index.checked_sub(config.num_layers) {
            None => {
                let weights = self.weights.pp("transformer_blocks").pp(index);
                (Block::Double(DoubleBlock::load(&weights, config, compute)?), weights)
            }
            Some(single) => {
                let weights = self.weights.pp("single_transformer_blocks").pp(single);
                (Block::Single(SingleBlock::load(&weights, config, compute)?), weights)
            }
        };
        // What was read is copied: its mapped pages would only make the process look, and be, larger than it is.
        weights.release();
        Ok(Arc::new(block))
    }
}

/// All blocks of one model, in their order.
pub struct BlockSource {
    loader: Loader,
    resident: Option<Vec<Arc<Block>>>,
}

impl BlockSource {
    /// The blocks of a model; `weights` stands at its root and says in which number type and where weights are held,
    /// `compute` is what the blocks compute in.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor is missing or has another shape (resident blocks only: streamed ones say so in
    /// the forward pass).
    pub fn new(config: &FluxConfig, weights: &Weights, mode: WeightsMode, compute: Compute) -> Result<Self> {
        let weights = match mode {
            WeightsMode::Resident => weights.clone(),
            WeightsMode::Stream => weights.beside_computation()?,
        };
        let loader = Loader { config: config.clone(), weights, compute };
        let resident = match mode {
            WeightsMode::Resident => Some((0..loader.count()).map(|i| loader.load(i)).collect::<Result<_>>()?),
            WeightsMode::Stream => None,
        };
        Ok(Self { loader, resident })
    }

    /// Calls `visit` with every block in order. A streamed block is dropped when `visit` returns; the next is read meanwhile.
    ///
    /// # Errors
    /// What reading a block or `visit` says.
    pub fn for_each(&self, mut visit: impl FnMut(usize, Arc<Block>) -> Result<()>) -> Result<()> {
        match &self.resident {
            Some(blocks) => blocks.iter().enumerate().try_for_each(|(i, block)| visit(i, Arc::clone(block))),
            None => self.stream(visit),
        }
    }

    fn stream(&self, mut visit: impl FnMut(usize, Arc<Block>) -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            // No room in the channel: the reader holds one finished block until it is asked for, and reads no further.
            let (sender, receiver) = mpsc::sync_channel(0);
            let loader = &self.loader;
            scope.spawn(move || {
                for index in 0..loader.count() {
                    // A closed channel means that a visit failed: nobody wants the rest.
                    if sender.send(loader.load(index)).is_err() {
                        break;
                    }
                }
            });
            for index in 0..loader.count() {
                let block = receiver.recv().map_err(|_| Error::model("the thread that reads blocks is gone", ""))?;
                visit(index, block?)?;
            }
            Ok(())
        })
    }
}

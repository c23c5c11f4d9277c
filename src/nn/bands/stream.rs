//! Layers as streams: bands go in at the top of the picture and come out below, a row or two later.
//!
//! A 3 x 3 convolution can give a row once the next one is known, so it holds back one row; a residual block holds back
//! two. Nothing is computed twice at the borders of bands, and nothing depends on where they are.

use std::{borrow::Cow, collections::VecDeque};

use super::{Band, Before, Fifo, Kernels, Moments, Norm, Taps};
use crate::error::Result;

/// A 3 x 3 convolution whose rows come one band after another.
pub(crate) struct ConvStream<'a, K: Kernels> {
    filter: &'a K::Filter,
    norm: Option<&'a Norm>,
    window: Option<K::Window>,
    residual: Option<Fifo<K::Rows>>,
    moments: Option<Moments>,
}

impl<'a, K: Kernels> ConvStream<'a, K> {
    /// norm and SiLU (if there is a norm), then the convolution.
    pub fn new(filter: &'a K::Filter, norm: Option<&'a Norm>) -> Self {
        Self { filter, norm, window: None, residual: None, moments: None }
    }

    /// Adds these bands to the output.
    pub fn with_residual(self, bands: VecDeque<K::Rows>) -> Self {
        Self { residual: Some(Fifo::new(bands)), ..self }
    }

    /// Takes the next rows, or the end of the picture; gives the rows that became ready.
    fn feed(&mut self, kernels: &K, rows: Option<&K::Rows>) -> Result<Option<K::Rows>> {
        let before = self.norm.map_or(Before::Nothing, Before::NormSilu);
        let reach = self.filter.reach();
        let window = kernels.window(reach, self.window.take(), rows, before)?;
        let ready = reach.ready(window.height());
        let output = if ready == 0 {
            None
        } else {
            Some(kernels.convolve(self.filter, &window, self.residual.as_ref(), self.moments.as_mut())?)
        };
        if let Some(residual) = &mut self.residual {
            residual.advance(ready);
        }
        self.window = rows.is_some().then_some(window);
        Ok(output)
    }
}

/// One layer of a chain.
pub(crate) enum Node<'a, K: Kernels> {
    /// A convolution.
    Conv(ConvStream<'a, K>),
    /// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through a projection where the channels change.
    Residual {
        /// norm1, SiLU, conv1.
        first: ConvStream<'a, K>,
        /// norm2, SiLU, conv2, and the queue of x.
        second: ConvStream<'a, K>,
        /// The projection of x.
        shortcut: Option<&'a K::Projection>,
    },
}

impl<'a, K: Kernels> Node<'a, K> {
    /// A residual block.
    pub fn residual(first: ConvStream<'a, K>, second: ConvStream<'a, K>, shortcut: Option<&'a K::Projection>) -> Self {
        Self::Residual { first, second: second.with_residual(VecDeque::new()), shortcut }
    }

    fn last(&mut self) -> &mut ConvStream<'a, K> {
        match self {
            Self::Conv(conv) => conv,
            Self::Residual { second, .. } => second,
        }
    }

    fn feed(&mut self, kernels: &K, rows: Cow<'_, K::Rows>) -> Result<Option<K::Rows>> {
        match self {
            Self::Conv(conv) => conv.feed(kernels, Some(&rows)),
            Self::Residual { first, second, shortcut } => {
                let hidden = first.feed(kernels, Some(&rows))?;
                if let Some(queue) = &mut second.residual {
                    queue.push(match shortcut {
                        Some(filter) => kernels.project(filter, &rows, Before::Nothing, None)?,
                        None => rows.into_owned(),
                    });
                }
                hidden.map_or(Ok(None), |hidden| second.feed(kernels, Some(&hidden)))
            }
        }
    }

    fn finish(&mut self, kernels: &K) -> Result<Option<K::Rows>> {
        match self {
            Self::Conv(conv) => conv.feed(kernels, None),
            Self::Residual { first, second, .. } => {
                let above = match first.feed(kernels, None)? {
                    Some(hidden) => second.feed(kernels, Some(&hidden))?,
                    None => None,
                };
                match (above, second.feed(kernels, None)?) {
                    (Some(above), Some(below)) => Ok(Some(kernels.join(above, below)?)),
                    (above, below) => Ok(above.or(below)),
                }
            }
        }
    }
}

/// Layers one after another.
pub(crate) struct Chain<'a, K: Kernels> {
    kernels: &'a K,
    nodes: Vec<Node<'a, K>>,
}

impl<'a, K: Kernels> Chain<'a, K> {
    /// A chain of these layers.
    pub fn new(kernels: &'a K, nodes: Vec<Node<'a, K>>) -> Self {
        Self { kernels, nodes }
    }

    /// Gathers the statistics of the chain's output, which has `channels` channels.
    pub fn measured(mut self, channels: usize) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.last().moments = Some(Moments::new(channels));
        }
        self
    }

    /// Sends one band through.
    pub fn feed(&mut self, rows: Cow<'_, K::Rows>) -> Result<Option<K::Rows>> {
        Self::send(self.kernels, &mut self.nodes, rows)
    }

    fn send(kernels: &K, nodes: &mut [Node<'a, K>], rows: Cow<'_, K::Rows>) -> Result<Option<K::Rows>> {
        let Some((node, rest)) = nodes.split_first_mut() else {
            return Ok(Some(rows.into_owned()));
        };
        match node.feed(kernels, rows)? {
            Some(rows) => Self::send(kernels, rest, Cow::Owned(rows)),
            None => Ok(None),
        }
    }

    /// The picture ends: gives the rows still held back, and the statistics if they were asked for.
    pub fn finish(mut self, mut sink: impl FnMut(K::Rows) -> Result<()>) -> Result<Option<Moments>> {
        for at in 0..self.nodes.len() {
            let (upper, lower) = self.nodes.split_at_mut(at + 1);
            let Some(rows) = upper[at].finish(self.kernels)? else { continue };
            if let Some(rows) = Self::send(self.kernels, lower, Cow::Owned(rows))? {
                sink(rows)?;
            }
        }
        Ok(self.nodes.pop().and_then(|mut node| node.last().moments.take()))
    }
}

/// A stored feature map: its bands from top to bottom.
pub(crate) struct Map<R> {
    bands: VecDeque<R>,
}

impl<R: Band + Clone> Map<R> {
    /// A map without rows.
    pub fn new() -> Self {
        Self { bands: VecDeque::new() }
    }

    /// A map of these rows.
    pub fn of(band: R) -> Self {
        Self { bands: [band].into() }
    }

    /// Adds rows below, which are to stay; a small band joins the one above it, so that bands stay about `rows` high.
    pub fn push<K: Kernels<Rows = R>>(&mut self, kernels: &K, rows: usize, band: R) -> Result<()> {
        let band = match self.bands.pop_back() {
            Some(last) if last.height() + band.height() <= rows => kernels.join(last, band)?,
            last => {
                self.bands.extend(last);
                kernels.kept(band)?
            }
        };
        self.bands.push_back(band);
        Ok(())
    }

    /// Gives each band, at most `rows` high, and frees it afterwards.
    pub fn drain<K: Kernels<Rows = R>>(
        self,
        kernels: &K,
        rows: usize,
        mut each: impl FnMut(Cow<'_, R>) -> Result<()>,
    ) -> Result<()> {
        for band in self.bands {
            if band.height() <= rows {
                each(Cow::Owned(band))?;
            } else {
                in_slices(kernels, rows, &band, &mut each)?;
            }
        }
        Ok(())
    }

    /// Gives each band, at most `rows` high, and keeps the map.
    pub fn visit<K: Kernels<Rows = R>>(
        &self,
        kernels: &K,
        rows: usize,
        mut each: impl FnMut(Cow<'_, R>) -> Result<()>,
    ) -> Result<()> {
        for band in &self.bands {
            if band.height() <= rows {
                each(Cow::Borrowed(band))?;
            } else {
                in_slices(kernels, rows, band, &mut each)?;
            }
        }
        Ok(())
    }
}

fn in_slices<K: Kernels>(
    kernels: &K,
    rows: usize,
    band: &K::Rows,
    each: &mut impl FnMut(Cow<'_, K::Rows>) -> Result<()>,
) -> Result<()> {
    for first in (0..band.height()).step_by(rows) {
        each(Cow::Owned(kernels.slice(band, first, rows.min(band.height() - first))?))?;
    }
    Ok(())
}

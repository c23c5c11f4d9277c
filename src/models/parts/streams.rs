//! What transformers share in which text and picture meet in attention: one stream of tokens x [N, C], text first.
//!
//! Every block is two passes over the stream in chunks of tokens: the first makes the keys and values of all tokens, the
//! second finishes each chunk from its queries to its output. So queries, attention outputs and feed-forward activations
//! never exist for more than one chunk, and x is updated in place: once all keys and values are there, a token's old state
//! is needed by nobody but itself.

use std::{cell::RefCell, ops::Range, rc::Rc};

use candle_core::{DType, Device, Tensor};

use crate::{
    error::Result,
    methods::TextBias,
    models::{FirstBlock, ForwardCost, ForwardOptions, StepShape, VelocityAt},
    nn::{
        self, Array, Attention, AttentionTiles, Bias, Blocks, Compute, KeyBias, Ledger, Linear, NORM_EPS, Parameters,
        Place, Products, RopeTables, Rotation, Scale,
    },
};

/// What one forward pass gives each of its blocks.
pub struct Pass<C> {
    /// What modulates the blocks.
    pub vec: C,
    /// Cosines of every token's angles [N, D/2], f32.
    pub cos: Array,
    /// Sines of every token's angles [N, D/2], f32.
    pub sin: Array,
    /// Keys of all tokens [H, N, D]: room that every block fills anew.
    pub keys: Array,
    /// Values of all tokens [H, N, D].
    pub values: Array,
    /// N_txt: tokens of text, which come first.
    pub text_tokens: usize,
    /// What is added to the logits of the text's keys, where anything is.
    pub text_bias: Option<KeyBias>,
    /// What logits are multiplied by.
    pub logit_scale: f64,
    /// How attention multiplies.
    pub products: Products,
    /// Sizes of the pieces.
    pub options: ForwardOptions,
}

/// What a forward pass is given.
pub struct Inputs {
    /// Packed latents [1, N, C'], f32.
    pub img: Array,
    /// The prompt's embeddings [1, T, joint], f32.
    pub prompt_embeds: Array,
    /// Cosines of every token's angles [T + N, D/2], f32.
    pub cos: Array,
    /// Sines of every token's angles [T + N, D/2], f32.
    pub sin: Array,
    /// What is asked for beside.
    pub asked: Asked,
}

/// What a pass is asked for beside what the model was trained for; nothing by default.
pub struct Asked {
    /// What is added to the logits of the text's keys.
    pub text_bias: Option<f32>,
    /// What logits are multiplied by wherever the picture is among the tokens.
    pub logit_scale: f64,
    /// What may leave blocks out.
    pub first_block: Option<Rc<RefCell<FirstBlock>>>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { text_bias: None, logit_scale: 1.0, first_block: None }
    }
}

impl Asked {
    /// What is asked for at a moment.
    pub fn at(at: &VelocityAt<'_>) -> Self {
        let text_bias = at.text_bias.map(|TextBias(bias)| bias as f32);
        Self { text_bias, logit_scale: at.logit_scale, first_block: at.first_block.cloned() }
    }
}

impl Inputs {
    /// Of tensors: packed latents, the prompt's embeddings, and the tables of all tokens.
    pub fn new(img: &Tensor, prompt_embeds: &Tensor, rope: &RopeTables) -> Self {
        let real = |tensor: &Tensor| Array::from(tensor.clone());
        let (img, prompt_embeds) = (real(img), real(prompt_embeds));
        let (cos, sin) = (real(&rope.cos), real(&rope.sin));
        Self { img, prompt_embeds, cos, sin, asked: Asked::default() }
    }

    /// The same with what is asked for at a moment.
    pub fn at(img: &Tensor, prompt_embeds: &Tensor, at: &VelocityAt<'_>) -> Self {
        Self { asked: Asked::at(at), ..Self::new(img, prompt_embeds, at.rope) }
    }

    /// What a pass takes that `velocity` runs, by a dry pass over inputs of these widths: packed latents, embeddings, and a head. The
    /// model lies in `ledger`, and since `loaded_bytes` what `velocity` gives it beside these inputs.
    ///
    /// # Errors
    /// What `velocity` says.
    pub(crate) fn cost_of_pass(
        (ledger, loaded_bytes): (&Ledger, u64),
        place: &Place,
        step: StepShape,
        [latents, embeddings, head]: [usize; 3],
        velocity: impl Fn(&Self) -> Result<Array>,
    ) -> Result<ForwardCost> {
        let [image_tokens, text_tokens] = step.tokens;
        let zeros = |shape: &[usize]| place.zeros(shape, DType::F32);
        let img = zeros(&[1, image_tokens, latents])?;
        let prompt_embeds = zeros(&[1, text_tokens, embeddings])?;
        let input_bytes = ledger.now_bytes() - loaded_bytes;
        let angles = [text_tokens + image_tokens, head / 2];
        let mut inputs =
            Self { img, prompt_embeds, cos: zeros(&angles)?, sin: zeros(&angles)?, asked: Asked::default() };
        let kept_bytes = FirstBlock::dry(step.first_blocks, ledger, |cache| {
            inputs.asked.first_block = cache;
            velocity(&inputs).map(drop)
        })?;
        drop((inputs, velocity));
        Ok(ForwardCost::of(ledger, input_bytes).keeping(kept_bytes))
    }

    /// Runs the blocks over x [T + N, C], text first, but for those that may be left out behind the first.
    ///
    /// # Errors
    /// What reading a block or `visit` says, or when the device fails.
    pub(crate) fn run<B: Send, C>(
        &self,
        blocks: &Blocks<B>,
        (x, pass): (&Array, &Pass<C>),
        visit: impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        let [_, img] = pass.sides();
        FirstBlock::run_within(self.asked.first_block.as_deref(), blocks, 0, (x, img), visit)
    }

    /// Begins a pass of blocks that `vec` modulates, with room for keys and values of so many tokens of text and of picture;
    /// `compute` is what the streams compute in.
    ///
    /// # Errors
    /// When there are not as many tables as tokens, or the device fails.
    pub(crate) fn pass<C>(
        &self,
        vec: C,
        [text_tokens, image_tokens]: [usize; 2],
        heads: Heads,
        Compute { dtype, products }: Compute,
        options: ForwardOptions,
    ) -> Result<Pass<C>> {
        let (tokens, tables) = (text_tokens + image_tokens, self.cos.dim(0));
        if tables != tokens {
            return Err(nn::mismatch(format!("position tables of {tables} tokens for a picture of {tokens}")));
        }
        let shape = [heads.count, tokens, heads.dim];
        let keys = self.cos.place().zeros(&shape, dtype)?; // [H, N, D]
        let values = self.cos.place().zeros(&shape, dtype)?; // [H, N, D]
        let text_bias = self.asked.text_bias.map(|bias| KeyBias { runs: vec![(text_tokens, bias)] });
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let logit_scale = self.asked.logit_scale;
        Ok(Pass { vec, cos, sin, keys, values, text_tokens, text_bias, logit_scale, products, options })
    }
}

impl<C> Pass<C> {
    /// Calls `work` with (start, count) for pieces of `rows` of at most `token_chunk`.
    pub(crate) fn chunks(&self, rows: Range<usize>, work: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        self.keys.place().pieces(rows, self.options.token_chunk, work)
    }

    /// Rows of all tokens.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.cos.dim(0)
    }

    /// Rows of the text and of the picture.
    pub(crate) fn sides(&self) -> [Range<usize>; 2] {
        [0..self.text_tokens, self.text_tokens..self.all().end]
    }

    /// cos and sin of rows `start..start + count`.
    fn angles(&self, start: usize, count: usize) -> Result<(Array, Array)> {
        Ok((self.cos.narrow(0, start, count)?, self.sin.narrow(0, start, count)?))
    }

    /// Attention of q [H, C', D] over all tokens: [C', C].
    pub(crate) fn attend(&self, q: &Array) -> Result<Array> {
        let tiles = AttentionTiles { query_rows: self.options.query_rows, heads: self.options.heads };
        let bias = self.text_bias.as_ref().map_or(Bias::None, Bias::Keys);
        let scale = Scale::InverseRootTimes(self.logit_scale);
        nn::attention(q, &self.keys, &self.values, &Attention { scale, bias, tiles, products: self.products })
    }
}

/// How attention is parted into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// H
    pub count: usize,
    /// D: channels of each.
    pub dim: usize,
}

impl Heads {
    /// C: width of the streams.
    pub fn channels(self) -> usize {
        self.count * self.dim
    }
}

/// A linear layer with or without a bias.
///
/// # Errors
/// As [`Parameters::linear`].
pub(crate) fn linear(
    parameters: &Parameters,
    name: &str,
    [inputs, outputs]: [usize; 2],
    has_bias: bool,
    compute: Compute,
) -> Result<Linear> {
    match has_bias {
        true => parameters.linear(name, inputs, outputs, compute),
        false => parameters.linear_no_bias(name, inputs, outputs, compute),
    }
}

/// The projections of attention and the norms of its queries and keys.
#[derive(Debug)]
pub(crate) struct Projections {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    norm_q: Array,
    norm_k: Array,
}

impl Projections {
    /// `names`: to_q, to_k, to_v, norm_q, norm_k as this stream calls them.
    ///
    /// # Errors
    /// [`crate::Error::Model`] when a tensor is missing or has another shape.
    pub fn load(
        parameters: &Parameters,
        names: [&str; 5],
        heads: Heads,
        has_bias: bool,
        compute: Compute,
    ) -> Result<Self> {
        let sizes = [heads.channels(); 2];
        let [q, k, v, norm_q, norm_k] = names;
        let linear = |name| linear(parameters, name, sizes, has_bias, compute);
        // In f32 from the load on, whatever the streams are: norms are computed in it.
        let in_f32 = parameters.with_dtype(DType::F32);
        let norm = |name| in_f32.pp(name).get("weight", &[heads.dim]);
        Ok(Self { to_q: linear(q)?, to_k: linear(k)?, to_v: linear(v)?, norm_q: norm(norm_q)?, norm_k: norm(norm_k)? })
    }

    /// Keys and values of h [C', C], which holds the tokens from `start` on.
    ///
    /// # Errors
    /// When the device fails.
    pub fn write_keys_values<C>(&self, h: &Array, start: usize, pass: &Pass<C>) -> Result<()> {
        let (cos, sin) = pass.angles(start, h.dim(0))?;
        let rotation = Rotation { weight: &self.norm_k, eps: NORM_EPS, cos: &cos, sin: &sin };
        nn::split_heads(self.to_k.forward_unbiased(h)?, Some(rotation), &pass.keys, start)?;
        nn::split_heads(self.to_v.forward_unbiased(h)?, None, &pass.values, start)
    }

    /// Rotated queries of h [C', C], which holds the tokens from `start` on: [H, C', D].
    ///
    /// # Errors
    /// When the device fails.
    pub fn queries<C>(&self, h: &Array, start: usize, pass: &Pass<C>) -> Result<Array> {
        let (cos, sin) = pass.angles(start, h.dim(0))?;
        let rotation = Rotation { weight: &self.norm_q, eps: NORM_EPS, cos: &cos, sin: &sin };
        nn::heads_of(self.to_q.forward_unbiased(h)?, Some(rotation), pass.keys.dim(0)) // [H, C', D]
    }
}

/// One picture's tokens [1, N, C] as [N, C] in the number type of the streams.
///
/// # Errors
/// When they are of another shape, or the device fails.
pub(crate) fn tokens(tokens: &Array, channels: usize, dtype: DType) -> Result<Array> {
    match tokens.dims() {
        [1, _, found] if *found == channels => tokens.squeeze(0)?.to_dtype(dtype)?.contiguous(),
        found => Err(nn::mismatch(format!("expected tokens of shape [1, N, {channels}], found {found:?}"))),
    }
}

/// Tokens of the text and of the picture, each through its embedder, as one stream of so many channels: [T + N, C].
///
/// # Errors
/// When the device fails.
pub(crate) fn embed(sides: [(&Linear, &Array); 2], channels: usize, options: ForwardOptions) -> Result<Array> {
    let [(_, txt), (_, img)] = sides;
    let (place, text_tokens) = (img.place(), txt.dim(0));
    let x = place.zeros(&[text_tokens + img.dim(0), channels], img.dtype())?;
    for ((embedder, tokens), first) in sides.into_iter().zip([0, text_tokens]) {
        place.pieces(0..tokens.dim(0), options.token_chunk, |start, count| {
            x.slice_set(&embedder.forward(&tokens.narrow(0, start, count)?)?, 0, first + start) // [C', C]
        })?;
    }
    Ok(x)
}

/// The picture's rows of x [T + N, C], modulated by [shift, scale] and projected to so many channels: [1, N, channels] f32.
///
/// # Errors
/// When the device fails.
pub(crate) fn project<C>(
    x: &Array,
    pass: &Pass<C>,
    modulation: [&Array; 2],
    proj_out: &Linear,
    channels: usize,
) -> Result<Array> {
    let [_, img] = pass.sides();
    project_rows(x, (img, pass.options.token_chunk), modulation, proj_out, channels)?.unsqueeze(0)
}

/// These rows of x [N', C], so many at once, modulated by [shift, scale] and projected to so many channels: [N, channels] f32.
///
/// # Errors
/// When the device fails.
pub(crate) fn project_rows(
    x: &Array,
    (rows, at_once): (Range<usize>, usize),
    [shift, scale]: [&Array; 2],
    proj_out: &Linear,
    channels: usize,
) -> Result<Array> {
    let first = rows.start;
    let output = x.place().zeros(&[rows.len(), channels], DType::F32)?;
    x.place().pieces(rows, at_once, |start, count| {
        let h = nn::norm_modulate(x, start, count, shift, scale)?; // [C', C]
        let rows = proj_out.forward(&h)?.to_dtype(DType::F32)?; // [C', channels]
        output.slice_set(&rows, 0, start - first)
    })?;
    Ok(output)
}

/// The mean of a token embedder's weight over its outputs \[channels\]: what it makes of each channel alone, less what it makes
/// of nothing.
///
/// # Errors
/// When the device fails.
pub(crate) fn mean_embedding(embedder: &Linear, channels: usize, dtype: DType, device: &Device) -> Result<Vec<f64>> {
    let mean_of = |tokens: Tensor| -> Result<Tensor> {
        let embedded = embedder.forward(&Array::from(tokens.to_dtype(dtype)?))?; // [C', inner]
        Ok(embedded.real()?.to_dtype(DType::F64)?.mean(1)?)
    };
    let channels_alone = mean_of(Tensor::eye(channels, DType::F32, device)?)?; // [channels]
    let nothing = mean_of(Tensor::zeros((1, channels), DType::F32, device)?)?; // [1]
    Ok(channels_alone.broadcast_sub(&nothing)?.to_vec1()?)
}

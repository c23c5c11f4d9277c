//! A whole family: two axes of picture ids that are signed and text behind the picture on a third, no pooled vector,
//! latents of 3 channels whose patch is one latent, another scale and shift of the autoencoder.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::{device::DeviceKind, geometry::*, json::read_json, progress::Observer},
    methods::{Side, TextBias},
    models::{parts::*, *},
    nn::*,
    recipe::ModelFacts,
    sampling::SchedulerConfig,
    weights::{TensorSource, Weights, check_all, open_folder},
};

pub static TOY: Toy = Toy;
pub struct Toy;

/// C, H, D, letters of the alphabet, blocks.
const SIZES: [usize; 5] = [32, 2, 16, 256, 3];
const LATENTS: LatentGeometry = LatentGeometry { channels: 3, px_per_latent: 2, patch: 1 };

const fn part(name: &'static str, kind: PartKind, flag: Option<&'static str>) -> PartSpec {
    PartSpec { name, kind, flag, help: name, ..PartSpec::BARE }
}
static PARTS: [PartSpec; 3] = [
    part("toy_transformer", PartKind::Denoiser, None),
    part("letters", PartKind::Network, Some("letters")),
    part("vae", PartKind::Network, Some("vae")),
];

impl Family for Toy {
    fn name(&self) -> &'static str {
        "Toy"
    }
    fn examples(&self) -> Examples {
        Examples { file: "toy.safetensors", hub: "nobody/toy" }
    }
    fn recognise(&self, seen: &Seen) -> Option<Confidence> {
        (seen.pipeline.as_deref() == Some("ToyPipeline")).then_some(Confidence::Certain)
    }
    fn parts(&self) -> &'static [PartSpec] {
        &PARTS
    }
    fn facts(&self, _: &Found) -> Result<Facts> {
        Ok(self.usual())
    }
    fn usual(&self) -> Facts {
        let axis = |dim, side| PositionAxis { dim, theta: 50.0, side };
        let axes = vec![axis(4, None), axis(6, Some(Side::Height)), axis(6, Some(Side::Width))];
        let recipe = ModelFacts { text_tokens: 8, ..ModelFacts::of(16) };
        let latent_rgb = RgbFactors { factors: vec![[1.0, 0.5, 0.0]; 3].into(), bias: [0.0; 3] };
        Facts { latents: LATENTS, axes, recipe, scheduler: SchedulerConfig::default(), latent_rgb }
    }
    fn open(&self, found: Found) -> Result<Box<dyn Model>> {
        let source = |name: &str| Ok::<_, dype::testing::Error>(Arc::new(open_folder(&found.path(name)?)?));
        let (net, letters, vae) = (source("toy_transformer")?, source("letters")?, source("vae")?);
        check_all(&*net, &tensors()?)?;
        let config: kl::VaeConfig = read_json(&found.path("vae")?.join("config.json"))?;
        check_all(&*vae, &kl::tensors(&config, kl::Side::Decoder)?)?;
        let vae = Autoencoder { part: ModelPart { config, source: vae }, latent_rgb: None, geometry: LATENTS };
        Ok(Box::new(ToyModel { found, facts: self.usual(), net, letters, vae }))
    }
    fn autoencoder(&self, _: &Found) -> Result<Box<dyn Decode>> {
        unreachable!("no test decodes alone")
    }
}

struct ToyModel {
    found: Found,
    facts: Facts,
    net: Source,
    letters: Source,
    vae: Autoencoder,
}
type Source = Arc<dyn TensorSource>;

/// What the transformer's loader asks for.
pub fn tensors() -> Result<Vec<(String, Vec<usize>)>> {
    let dry = Parameters::of_configuration(DType::F32, &Ledger::new(DeviceKind::Cpu));
    Net::load(&dry, WeightsMode::Resident, ForwardOptions::default())?;
    Ok(dry.asked())
}

impl Model for ToyModel {
    fn identity(&self) -> &Identity {
        &self.found.identity
    }
    fn contents(&self) -> Result<Contents> {
        self.found.contents(&PARTS)
    }
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn text(&self, on: &On) -> Result<Box<dyn TextEncoders + '_>> {
        Ok(Box::new(Letters(Parameters::real(&Weights::new(self.letters.clone(), DType::F32, on.device.clone())))))
    }
    fn positions(&self, grid: TokenGrid, text: &Conditioning) -> PositionIds {
        let middle = [0, -(grid.height_patches as i64) / 2, -(grid.width_patches as i64) / 2];
        let picture = TokenRun::Grid { grid, origin: middle.to_vec() };
        let text = TokenRun::Line { tokens: text.text_tokens(), origin: vec![1, 0, 0], step: vec![1, 0, 0] };
        PositionIds { axes: self.facts.axes.clone(), runs: vec![picture, text] }
    }
    fn velocity(&self, on: &On, mode: WeightsMode, pieces: ForwardOptions) -> Result<Box<dyn Velocity>> {
        let weights = Weights::new(self.net.clone(), DType::F32, on.device.clone());
        Ok(Box::new(Net::load(&Parameters::real(&weights), mode, pieces)?))
    }
    fn decoder(&self) -> &dyn Decode {
        &self.vae
    }
    fn weights_bytes(&self) -> Result<Vec<NetworkBytes>> {
        let bytes = tensors()?.iter().filter_map(|(name, _)| self.net.bytes(name)).sum();
        Ok(vec![NetworkBytes { part: "toy_transformer", word: "toy", bytes }])
    }
    fn text_bytes(&self, (kind, _): (DeviceKind, DType), prompts: usize, tokens: usize) -> Result<u64> {
        let ledger = Ledger::new(kind);
        let ids = vec![(0..tokens as u32).map(|id| id % SIZES[3] as u32).collect(); prompts];
        let _held = embedding_rows(&Parameters::of_configuration(DType::F32, &ledger), [SIZES[3], SIZES[0]], &ids)?;
        Ok(ledger.peak_bytes())
    }
    fn conditioning_bytes(&self, tokens: usize) -> u64 {
        (4 * SIZES[0] * tokens) as u64
    }
    fn step_cost(
        &self,
        (kind, _): (DeviceKind, DType),
        mode: WeightsMode,
        StepShape { tokens: [image, text], .. }: StepShape,
        pieces: ForwardOptions,
    ) -> Result<ForwardCost> {
        let ledger = Ledger::new(kind);
        let net = Net::load(&Parameters::of_configuration(DType::F32, &ledger), mode, pieces)?;
        let (loaded, zeros) =
            (ledger.now_bytes(), |shape: &[usize]| Place::Dry(ledger.clone()).zeros(shape, DType::F32));
        let angles = [image + text, SIZES[2] / 2];
        let (x, words, cos, sin) =
            (zeros(&[1, image, 3])?, zeros(&[text, SIZES[0]])?, zeros(&angles)?, zeros(&angles)?);
        let input_bytes = ledger.now_bytes() - loaded;
        net.forward([&x, &words, &cos, &sin], 1.0, (Scale::InverseRoot, Bias::None))?;
        drop((x, words, cos, sin));
        Ok(ForwardCost::of(&ledger, input_bytes))
    }
}

struct Letters(Parameters);

impl TextEncoders for Letters {
    fn encode(&self, prompts: &[&str], tokens: usize, _: &dyn Observer) -> Result<Vec<Conditioning>> {
        let ids = |prompt: &&str| prompt.bytes().map(u32::from).chain(std::iter::repeat(0)).take(tokens).collect();
        let rows = embedding_rows(&self.0, [SIZES[3], SIZES[0]], &prompts.iter().map(ids).collect::<Vec<_>>())?;
        Ok(rows.into_iter().map(|rows| Conditioning::new(rows, tokens)).collect())
    }
}

struct Block {
    modulation: Linear,
    q: Linear,
    k: Linear,
    v: Linear,
    norm: Array,
}

struct Net {
    embed: Linear,
    blocks: Blocks<Block>,
    out: Linear,
    pieces: ForwardOptions,
}

impl Net {
    fn load(parameters: &Parameters, mode: WeightsMode, pieces: ForwardOptions) -> Result<Self> {
        let ([c, _, d, _, count], f32) = (SIZES, Compute::EXACT_F32);
        let blocks = Blocks::new(&[count], mode, parameters, move |index, parameters| {
            let p = parameters.pp(index);
            let square = |name| p.linear(name, c, c, f32);
            let modulation = p.linear("modulation", 1, 2 * c, f32)?;
            Ok(Block { modulation, q: square("q")?, k: square("k")?, v: square("v")?, norm: p.get("norm", &[d])? })
        })?;
        Ok(Self {
            embed: parameters.linear("embed", 3, c, f32)?,
            blocks,
            out: parameters.linear("out", c, 3, f32)?,
            pieces,
        })
    }

    fn forward(
        &self,
        [latents, words, cos, sin]: [&Array; 4],
        t: f64,
        (scale, bias): (Scale, Bias<'_>),
    ) -> Result<Array> {
        let ([c, heads, d, ..], image, place) = (SIZES, latents.dim(1), latents.place());
        let tokens = image + words.dim(0);
        let x = place.zeros(&[tokens, c], DType::F32)?; // [N + T, C]
        x.slice_set(&self.embed.forward(&latents.squeeze(0)?)?, 0, 0)?;
        x.slice_set(words, 0, image)?;
        let (time, one) =
            (place.zeros(&[1, 1], DType::F32)?.affine(1.0, t)?, place.zeros(&[c], DType::F32)?.affine(1.0, 1.0)?);
        self.blocks.for_each(|_, block| {
            let modulation = block.modulation.forward(&time)?.squeeze(0)?; // [2 C]
            let h = norm_modulate(&x, 0, tokens, &modulation.narrow(0, 0, c)?, &modulation.narrow(0, c, c)?)?;
            let rotation = Some(Rotation { weight: &block.norm, eps: NORM_EPS, cos, sin });
            let of = |linear: &Linear, rotation| -> Result<Array> {
                let out = place.zeros(&[heads, tokens, d], DType::F32)?; // [H, N + T, D]
                split_heads(&linear.forward(&h)?, rotation, &out, 0)?;
                Ok(out)
            };
            let tiles = AttentionTiles { query_rows: self.pieces.query_rows, heads: 1 };
            let how = Attention { scale, bias, ..Attention::plain(tiles) };
            let attended = attention(&of(&block.q, rotation)?, &of(&block.k, rotation)?, &of(&block.v, None)?, &how)?;
            add_gated(&x, 0, &one, &attended)
        })?;
        self.out.forward(&x.narrow(0, 0, image)?.contiguous()?)?.unsqueeze(0) // [1, N, 3]
    }
}

impl Velocity for Net {
    fn set_pieces(&mut self, pieces: ForwardOptions) {
        self.pieces = pieces;
    }
    fn token_reading(&self, _: &Device) -> Result<Vec<f64>> {
        Ok(vec![1.0 / 3.0; 3])
    }
    fn velocity(&self, latents: &Tensor, at: &VelocityAt<'_>) -> Result<Tensor> {
        let runs = at.text_bias.map(|TextBias(bias)| KeyBias {
            runs: vec![(latents.dims()[1], 0.0), (at.text.text_tokens(), bias as f32)],
        });
        let bias = runs.as_ref().map_or(Bias::None, Bias::Keys);
        let [x, cos, sin] = [latents, &at.rope.cos, &at.rope.sin].map(|tensor| Array::from(tensor.clone()));
        let how = (Scale::InverseRootTimes(at.logit_scale), bias);
        Ok(self.forward([&x, at.text.get::<Array>()?, &cos, &sin], at.t, how)?.real()?.clone())
    }
}

//! The settings of a picture, each declared once. Flags, environment variables, keys of files of prompts, what a picture says of
//! itself, `dype info`, replaying and the identity that `--resume` goes by all follow from here.
//!
//! A new setting is an entry of `settings!` and the place that uses it. Its name is its key and, with dashes, its flag. One
//! that came after the first version is `saved: Saved::UnlessUsual`: older pictures stay the pictures they are.

use super::{
    Mu, Rng, SamplerName, Spacing, StepCache,
    facts::MOST_TEXT_TOKENS,
    gaps::{CFG_SCALE, cfg_elsewhere, position, read, read_cfg, read_position, read_size},
    image::{DEFAULT_STRENGTH, Image, ImageChoice},
    kinds::{Kind, Noise, OneOf, Switch, Text},
    ladder::{Ladder, Sizes},
    loras::{LoraList, Loras},
    numbers::{CFG, FADING, GUIDANCE, LADDER_PULL, Number, SIDE_PX, STRENGTH, Seed, Whole},
    setting::{Declared, Entry, Face, Field, Fill, Gaps, Group, Held, Line, Off, Saved, Setting, shown},
    shift::SHIFT,
    spelt::Spelt,
    step_cache::STEP_CACHE,
};
use crate::methods::{
    self, AMPLITUDE, Amplitude, DYPE_EXPONENT, DYPE_SCALE, DYPE_THRESHOLDS, FADING_START, Fading, Method, SCALING,
    Scaling, TEXT_ANCHOR, Thresholds,
};

/// What help says of sides that nobody asks for.
const USUAL_SIDE: &str = "4096, or what the model's authors use";
/// The scene that is drawn when no prompt is given: the reference's dark-fantasy default, in other words.
const DEFAULT_PROMPT: &str = "A dark fantasy landscape: a lone hooded knight on a crumbling stone bridge before a \
    vast black castle, its towers lost in storm clouds, violet lightning over jagged mountains, ravens, torches \
    glowing in the mist, far below a drowned city, intricate detail, dramatic light, epic scale, painterly realism";
/// Guidance scale when none is given. Source: the reference's `run_dype.py`.
const DEFAULT_GUIDANCE: f64 = 4.5;

/// Declares the settings: for each its documentation, name, type as asked for and as held, and declaration.
macro_rules! settings {
    ($($(#[cfg($cfg:meta)])? $(#[doc = $doc:literal])+ $name:ident: $wanted:ty => $held:ty = $setting:expr;)+) => {
        /// What one source asks for; `None` leaves a setting to other sources, or to the model.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Wanted {
            $($(#[cfg($cfg)])? $(#[doc = $doc])+ pub $name: Option<$wanted>,)+
        }

        /// Everything that decides a picture, next to the model itself: resolved and checked. It is the only input of a run,
        /// and what a picture says of its settings. [`Recipe::new`] is the way to one.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct Recipe {
            $($(#[cfg($cfg)])? $(#[doc = $doc])+ pub $name: $held,)+
        }

        impl Recipe {
            /// The recipe with all gaps filled.
            pub(super) fn resolve(gaps: &Gaps<'_>) -> Self {
                Self { $($(#[cfg($cfg)])? $name: declared::$name.resolve(gaps),)+ }
            }
        }

        impl From<&Recipe> for Wanted {
            /// What gives the same recipe again.
            fn from(recipe: &Recipe) -> Self {
                Self { $($(#[cfg($cfg)])? $name: Held::value(&recipe.$name).cloned(),)+ }
            }
        }

        /// The settings by name.
        #[expect(non_upper_case_globals, reason = "each has the name of its setting")]
        pub(crate) mod declared {
            use super::*;

            $($(#[cfg($cfg)])? $(#[doc = $doc])+ pub static $name: Declared<$wanted, $held> = Declared {
                key: stringify!($name),
                no_key: concat!("no_", stringify!($name)),
                setting: $setting,
                wanted: |wanted| &wanted.$name,
                wanted_mut: |wanted| &mut wanted.$name,
                held: |recipe| &recipe.$name,
            };)+
        }

        /// The settings, in the order of help and of what pictures say.
        pub(crate) static FIELDS: &[&dyn Field] = &[$($(#[cfg($cfg)])? &declared::$name,)+];
    };
}

settings! {
    /// What is drawn.
    prompt: String => String = Setting {
        kind: &Text { may_hold_nul: true },
        fill: Fill::Usual { value: || DEFAULT_PROMPT.to_owned(), is_shown: false, keep: |text, _| text },
        face: Face {
            short: Some('p'),
            info: line(10, "prompt", |recipe| Some(recipe.prompt.clone())),
            default: Some("a dark-fantasy scene"),
            ..Face::new(Group::Picture, "TEXT", r#"What to draw; "-" reads it from stdin"#)
        },
    };

    /// Height in pixels.
    height: usize => usize = Setting {
        kind: &SIDE_PX,
        fill: Fill::Model(|asked, gaps| asked.unwrap_or_else(|| gaps.side_px())),
        face: Face {
            default: Some(USUAL_SIDE),
            info: line(20, "size", |recipe| Some(format!("{} x {} px (height x width)", recipe.height, recipe.width))),
            parameters: Some(Entry {
                line: Line { rank: 50, name: "Size", says: |recipe| Some(format!("{}x{}", recipe.width, recipe.height)) },
                reads: read_size,
            }),
            ..Face::new(Group::Extent, "PX", "Height in pixels, 16 or more")
        },
    };

    /// Width in pixels.
    width: usize => usize = Setting {
        kind: &SIDE_PX,
        fill: Fill::Model(|asked, gaps| asked.unwrap_or_else(|| gaps.side_px())),
        face: Face { default: Some(USUAL_SIDE), ..Face::new(Group::Extent, "PX", "Width in pixels, 16 or more") },
    };

    /// Denoising steps.
    steps: usize => usize = Setting {
        kind: &Whole {
            least: 1,
            most: 10_000,
            says: |least, most| format!("steps are a whole number from {least} to {most}; 28 is usual, 4 for schnell"),
        },
        fill: Fill::Model(|asked, gaps| asked.unwrap_or(gaps.facts.steps)),
        face: Face {
            default: Some("as many as the model is usually run in: 28 for FLUX.1, 4 for schnell"),
            info: line(30, "steps", |recipe| Some(recipe.steps.to_string())),
            parameters: Some(Entry {
                line: Line { rank: 10, name: "Steps", says: |recipe| Some(recipe.steps.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.steps),
            }),
            ..Face::new(Group::Extent, "N", "Denoising steps")
        },
    };

    /// How the velocities are followed from step to step.
    sampler: SamplerName => SamplerName = Setting {
        kind: &Spelt(SamplerName::WORDS),
        fill: shown(SamplerName::default),
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line { rank: 20, name: "Sampler", says: |recipe| Some(recipe.sampler.elsewhere().to_owned()) },
                reads: |text, wanted| read(text, &mut wanted.sampler),
            }),
            ..Face::new(
                Group::Picture,
                "NAME",
                "How steps follow the velocities: euler; heun asks twice a step; dpmpp-2m looks one step back; er-sde two, and adds \
                 fresh noise",
            )
        },
    };

    /// Which steps are taken from those before, instead of being computed.
    step_cache: StepCache => StepCache = Setting {
        kind: &STEP_CACHE,
        fill: Fill::Usual { value: StepCache::default, is_shown: false, keep: |asked, _| asked },
        face: Face {
            // `DYPE_CACHE` is the program's own folder.
            long: Some("cache"),
            also: Some("cache"),
            saved: Saved::UnlessUsual,
            default: Some("off"),
            info: line(32, "cache", |recipe| (recipe.step_cache != StepCache::Off).then(|| recipe.step_cache.in_words())),
            parameters: Some(Entry {
                line: Line {
                    rank: 78,
                    name: "Step cache",
                    says: |recipe| (recipe.step_cache != StepCache::Off).then(|| recipe.step_cache.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.step_cache),
            }),
            ..Face::new(
                Group::Picture,
                "THRESHOLD",
                "Skip steps whose velocity would hardly change: faster, and another picture. A number for EasyCache (0.1 to 0.3), or \
                 first-block[:NUMBER] by what the transformer's first block makes (0.05 to 0.15)",
            )
        },
    };

    /// Whether products with weights of e4m3 are computed in e4m3, where the device has such.
    fp8_products: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual { value: || false, is_shown: false, keep: |is_asked, _| is_asked },
        face: Face {
            saved: Saved::UnlessUsual,
            info: line(33, "products", |recipe| recipe.fp8_products.then(|| "in fp8 where weights are".to_owned())),
            parameters: Some(Entry {
                line: Line {
                    rank: 82,
                    name: "FP8 products",
                    says: |recipe| recipe.fp8_products.then(|| "true".to_owned()),
                },
                reads: |text, wanted| read(text, &mut wanted.fp8_products),
            }),
            ..Face::new(
                Group::Picture,
                "",
                "Multiply the transformer's fp8_e4m3fn weights in fp8: another picture, by cards of compute capability 8.9 and newer \
                 (RTX 40, H100)",
            )
        },
    };

    /// Whether inputs meet the transformer's weights in Q8_0 in 8 bits.
    int8_products: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual { value: || false, is_shown: false, keep: |is_asked, _| is_asked },
        face: Face {
            saved: Saved::UnlessUsual,
            info: line(34, "products", |recipe| recipe.int8_products.then(|| "in 8 bits where weights are Q8_0".to_owned())),
            parameters: Some(Entry {
                line: Line {
                    rank: 83,
                    name: "Int8 products",
                    says: |recipe| recipe.int8_products.then(|| "true".to_owned()),
                },
                reads: |text, wanted| read(text, &mut wanted.int8_products),
            }),
            ..Face::new(
                Group::Picture,
                "",
                "Multiply in 8 bits where the transformer's weights are Q8_0: faster than bf16 on a CPU with AVX512-VNNI, and a \
                 slightly different picture; on the CPU, in --dtype bf16, which it implies",
            )
        },
    };

    /// The stages it climbs from the training resolution to its size.
    ladder: Ladder => Ladder = Setting {
        kind: &Sizes,
        fill: Fill::Usual { value: Ladder::default, is_shown: false, keep: |_, gaps| gaps.ladder() },
        face: Face {
            saved: Saved::UnlessUsual,
            info: line(31, "ladder", |recipe| recipe.ladder.in_words()),
            default: Some("off"),
            parameters: Some(Entry {
                line: Line {
                    rank: 51,
                    name: "Ladder",
                    says: |recipe| recipe.ladder.in_words().map(|_| recipe.ladder.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.ladder),
            }),
            ..Face::new(
                Group::Picture,
                "SIZES",
                "Make the picture at the training size first, then larger in stages, each started from the one below and \
                 led by it: the longer side of each stage in pixels, the last the picture's (1024,2048,4096), or auto \
                 for equal factors of at most 2 from the base resolution. --steps is the first stage's, the second takes \
                 16 of 30, the others a third; --guidance is the second's, the first takes 7/9 of it, the others 4/3",
            )
        },
    };

    /// How strongly a stage is led by the one below. A recipe has none without a ladder.
    ladder_pull: f64 => Option<f64> = Setting {
        kind: &LADDER_PULL,
        fill: Fill::Usual {
            value: || 1.0,
            is_shown: false,
            keep: |pull, gaps| (gaps.ladder() != Ladder::Off).then_some(pull),
        },
        face: Face {
            saved: Saved::UnlessUsual,
            default: Some("1"),
            parameters: Some(Entry {
                line: Line {
                    rank: 52,
                    name: "Ladder pull",
                    says: |recipe| recipe.ladder_pull.filter(|pull| *pull != 1.0).map(|pull| pull.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.ladder_pull),
            }),
            ..Face::new(
                Group::Picture,
                "NUMBER",
                "How strongly a stage of --ladder is led by the one below, 0 to 1; at 0 it is image to image from that picture",
            )
        },
    };

    /// Seed of the noise.
    seed: u64 => u64 = Setting {
        kind: &Seed,
        fill: shown(|| 42),
        face: Face {
            info: line(40, "seed", |recipe| Some(format!("{}, noise of {}", recipe.seed, recipe.rng))),
            parameters: Some(Entry {
                line: Line { rank: 40, name: "Seed", says: |recipe| Some(recipe.seed.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.seed),
            }),
            ..Face::new(
                Group::Picture,
                "N",
                "Seed of the noise, 0 to 2^64 - 1 (torch-cpu: modulo 2^32), or random; the same seed is the same noise on every \
                 device",
            )
        },
    };

    /// Guidance scale: how strongly the prompt is followed. A recipe has none where the model takes none.
    guidance: f64 => Option<f64> = Setting {
        kind: &GUIDANCE,
        fill: Fill::Usual {
            value: || DEFAULT_GUIDANCE,
            is_shown: false,
            keep: |scale, gaps| gaps.facts.takes_guidance.then_some(scale),
        },
        face: Face {
            info: line(50, "guidance", |recipe| {
                Some(recipe.guidance.map_or_else(|| "none (the model takes none)".into(), |scale| scale.to_string()))
            }),
            parameters: Some(Entry {
                line: Line { rank: 30, name: "Distilled CFG Scale", says: |recipe| recipe.guidance.map(|scale| scale.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.guidance),
            }),
            default: Some("4.5"),
            ..Face::new(
                Group::Picture,
                "SCALE",
                "How strongly the prompt is followed; ignored by models without guidance (schnell)",
            )
        },
    };

    /// Scale of classifier-free guidance. A recipe has none where it is off, unless the model's own default is on.
    cfg: f64 => Option<f64> = Setting {
        kind: &CFG,
        fill: Fill::Model(|_, gaps| gaps.cfg()),
        face: Face {
            saved: Saved::UnlessUsual,
            info: line(51, "cfg", |recipe| recipe.cfg.map(|scale| scale.to_string())),
            parameters: Some(Entry {
                line: Line { rank: 25, name: CFG_SCALE, says: |recipe| Some(cfg_elsewhere(recipe.cfg)) },
                reads: read_cfg,
            }),
            default: Some("what the model's card says; off for FLUX.1"),
            ..Face::new(
                Group::Picture,
                "SCALE",
                "How strongly the picture is led away from --negative-prompt, as the model's card counts it (on above 1, for Z-Image \
                 above 0): true classifier-free guidance, at two forward passes a step",
            )
        },
    };

    /// What classifier-free guidance leads away from. A recipe has none where that is off.
    negative_prompt: String => Option<String> = Setting {
        kind: &Text { may_hold_nul: false },
        fill: Fill::Model(|asked, gaps| {
            asked.or_else(|| gaps.facts.negative_prompt.map(str::to_owned)).filter(|_| gaps.is_cfg_on())
        }),
        face: Face {
            saved: Saved::UnlessUsual,
            info: line(52, "negative", |recipe| recipe.negative_prompt.as_ref().map(|text| format!("{text:?}"))),
            default: Some("empty, or what the model's card says"),
            ..Face::new(Group::Picture, "TEXT", "What not to draw; acts with --cfg")
        },
    };

    /// Whether classifier-free guidance may make no velocity longer than the prompt alone makes it.
    cfg_normalization: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual { value: || false, is_shown: false, keep: |is_asked, gaps| is_asked && gaps.normalizes_cfg() },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line {
                    rank: 26,
                    name: "CFG normalization",
                    says: |recipe| recipe.cfg_normalization.then(|| "true".to_owned()),
                },
                reads: |text, wanted| read(text, &mut wanted.cfg_normalization),
            }),
            ..Face::new(
                Group::Picture,
                "",
                "With --cfg, scale a velocity down where it is longer than the prompt alone makes it; of Z-Image",
            )
        },
    };

    /// The picture it begins with, if it begins with one.
    image: ImageChoice => Option<ImageChoice> = Setting {
        kind: &Image,
        fill: Fill::Model(|asked, _| asked),
        face: Face {
            info: line(53, "image", |recipe| Some(recipe.image.as_ref()?.in_words())),
            parameters: Some(Entry {
                line: Line { rank: 66, name: "Image", says: |recipe| Some(recipe.image.as_ref()?.to_string()) },
                reads: ImageChoice::of_elsewhere,
            }),
            saved: Saved::UnlessUsual,
            ..Face::new(
                Group::Picture,
                "FILE",
                "Begin with this picture (PNG, JPEG, WebP, TIFF, GIF, BMP) instead of noise; a side that is not asked for follows it",
            )
        },
    };

    /// How much of the picture it begins with is made anew. A recipe has none without one.
    strength: f64 => Option<f64> = Setting {
        kind: &STRENGTH,
        fill: Fill::Model(|asked, gaps| gaps.wanted.image.as_ref().map(|_| asked.unwrap_or(DEFAULT_STRENGTH))),
        face: Face {
            info: line(54, "strength", |recipe| {
                let (number, begins) = (recipe.strength?, recipe.first_step() + 1);
                Some(format!("{number}: begins at step {begins} of {}", recipe.steps))
            }),
            parameters: Some(Entry {
                // As A1111's web UI and its kin call it.
                line: Line {
                    rank: 67,
                    name: "Denoising strength",
                    says: |recipe| recipe.strength.map(|number| number.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.strength),
            }),
            saved: Saved::UnlessUsual,
            default: Some("0.6; with --upscale 0.4"),
            ..Face::new(
                Group::Picture,
                "0..1",
                "How much of --image is made anew: so much of the steps is done, from its last ones; 0.3 keeps most, 1 nothing",
            )
        },
    };

    /// LoRA files, each with its strength.
    lora: Loras => Loras = Setting {
        kind: &LoraList,
        fill: Fill::Usual { value: Loras::default, is_shown: false, keep: |loras, _| loras },
        face: Face {
            also: Some("loras"),
            info: line(55, "LoRA", |recipe| recipe.lora.in_words()),
            parameters: Some(Entry {
                line: Line {
                    rank: 65,
                    name: "LoRA",
                    says: |recipe| Some(recipe.lora.to_string()).filter(|text| !text.is_empty()),
                },
                reads: |text, wanted| LoraList.parse(text).ok().map(|loras| wanted.lora = Some(loras)),
            }),
            saved: Saved::UnlessUsual,
            ..Face::new(
                Group::Picture,
                "FILE[:STRENGTH]",
                "LoRA that changes the model: a file, or a Hub id (owner/name[:file]), with its strength [default: 1]; may be given \
                 several times",
            )
        },
    };

    /// Tokens of text.
    max_sequence_length: usize => usize = Setting {
        kind: &Whole {
            least: 2,
            most: MOST_TEXT_TOKENS as u64,
            says: |least, most| format!("a prompt takes {least} to {most} tokens of text"),
        },
        fill: Fill::Model(|asked, gaps| asked.unwrap_or(gaps.facts.text_tokens)),
        face: Face {
            info: line(80, "text", |recipe| Some(format!("{} tokens", recipe.max_sequence_length))),
            default: Some("512; schnell: 256; fewer where the model reads fewer"),
            parameters: Some(Entry {
                line: Line { rank: 76, name: "Text tokens", says: |recipe| Some(recipe.max_sequence_length.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.max_sequence_length),
            }),
            ..Face::new(Group::Picture, "N", "Tokens of text the prompt may take")
        },
    };

    /// Source of the noise.
    rng: Rng => Rng = Setting {
        kind: &Noise,
        fill: shown(|| Rng::TorchCpu),
        face: Face {
            parameters: Some(Entry {
                line: Line { rank: 80, name: "RNG", says: |recipe| Some(recipe.rng.elsewhere().to_owned()) },
                reads: |text, wanted| Rng::of_elsewhere(text).map(|source| wanted.rng = Some(source)),
            }),
            ..Face::new(
                Group::Picture,
                "SOURCE",
                "Where the noise comes from: torch-cpu, torch-cuda (the card in use) or torch-cuda:CARD (h100, rtx4090, ...)",
            )
        },
    };

    /// How positions are scaled.
    method: Method => Method = Setting {
        kind: &OneOf(&Method::NAMES),
        fill: shown(Method::default),
        face: Face {
            info: line(60, "position", |recipe| Some(position(recipe))),
            parameters: Some(Entry {
                line: Line {
                    rank: 70,
                    name: "Position",
                    says: |recipe| Some(methods::label(recipe.method.name(), recipe.dype)),
                },
                reads: read_position,
            }),
            ..Face::new(
                Group::Choice,
                "METHOD",
                "How positions beyond the training resolution are made: yarn, ntk and pi rescale the rotary frequencies, sega \
                 also follows the latents' spectrum, base keeps them",
            )
        },
    };

    /// Whether the scaling follows the denoising steps.
    dype: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual { value: || true, is_shown: false, keep: |_, gaps| gaps.dype_schedule().is_some() },
        face: Face {
            off: Some(Off { name: "no_dype", excludes: &["dype_scale", "dype_exponent"] }),
            ..Face::new(Group::Choice, "", "Extrapolate the same at every step: no DyPE")
        },
    };

    /// lambda_s of kappa(t). A recipe has none without DyPE.
    dype_scale: f64 => Option<f64> = Setting {
        kind: &Number::of(&DYPE_SCALE),
        fill: Fill::Model(|_, gaps| gaps.dype_schedule().map(|kappa| kappa.scale)),
        face: Face {
            default: Some("the model's own, else the paper's: 1 for yarn, 2 for ntk; 2 for pi"),
            parameters: Some(Entry {
                line: Line { rank: 73, name: "DyPE scale", says: |recipe| recipe.dype_scale.map(|scale| scale.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.dype_scale),
            }),
            ..Face::new(Group::Tuning, "NUMBER", DYPE_SCALE.help)
        },
    };

    /// lambda_t of kappa(t). A recipe has none without DyPE.
    dype_exponent: f64 => Option<f64> = Setting {
        kind: &Number::of(&DYPE_EXPONENT),
        fill: Fill::Model(|_, gaps| gaps.dype_schedule().map(|kappa| kappa.exponent)),
        face: Face {
            default: Some("the model's own, else 2"),
            parameters: Some(Entry {
                line: Line {
                    rank: 74,
                    name: "DyPE exponent",
                    says: |recipe| recipe.dype_exponent.map(|exponent| exponent.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.dype_exponent),
            }),
            ..Face::new(Group::Tuning, "NUMBER", DYPE_EXPONENT.help)
        },
    };

    /// How kappa moves YaRN's thresholds.
    dype_thresholds: Thresholds => Thresholds = Setting {
        kind: &OneOf::of(&DYPE_THRESHOLDS),
        fill: Fill::Usual {
            value: Thresholds::default,
            is_shown: true,
            keep: |rule, gaps| if gaps.wanted.dype == Some(false) { Thresholds::default() } else { rule },
        },
        face: Face {
            parameters: Some(Entry {
                line: Line {
                    rank: 75,
                    name: "DyPE thresholds",
                    says: |recipe| recipe.dype.then(|| recipe.dype_thresholds.to_string()),
                },
                reads: |text, wanted| read(text, &mut wanted.dype_thresholds),
            }),
            ..Face::new(Group::Tuning, "RULE", DYPE_THRESHOLDS.help)
        },
    };

    /// Which side's length positions along a side are scaled by.
    scaling: Scaling => Scaling = Setting {
        kind: &OneOf::of(&SCALING),
        fill: Fill::Usual {
            value: Scaling::default,
            is_shown: true,
            keep: |rule, gaps| if gaps.has_knob(&SCALING) { rule } else { Scaling::default() },
        },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line { rank: 78, name: "Scaling", says: |recipe| unless_usual(recipe.scaling) },
                reads: |text, wanted| read(text, &mut wanted.scaling),
            }),
            ..Face::new(Group::Tuning, "RULE", SCALING.help)
        },
    };

    /// How YaRN's amplitude is made. Anchored text has its own.
    amplitude: Amplitude => Amplitude = Setting {
        kind: &OneOf::of(&AMPLITUDE),
        fill: Fill::Usual {
            value: Amplitude::default,
            is_shown: true,
            keep: |rule, gaps| {
                if gaps.takes_amplitude() { rule } else { Amplitude::default() }
            },
        },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line { rank: 79, name: "Amplitude", says: |recipe| unless_usual(recipe.amplitude) },
                reads: |text, wanted| read(text, &mut wanted.amplitude),
            }),
            ..Face::new(Group::Tuning, "RULE", AMPLITUDE.help)
        },
    };

    /// The t at which YaRN's amplitude begins to fade, where it does.
    fading_start: f64 => f64 = Setting {
        kind: &FADING,
        fill: Fill::Usual {
            value: || Fading::default().start,
            is_shown: true,
            keep: |start, gaps| if gaps.fades() { start } else { Fading::default().start },
        },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line { rank: 80, name: "Fading start", says: start_of_fading },
                reads: |text, wanted| read(text, &mut wanted.fading_start),
            }),
            ..Face::new(Group::Tuning, "T", FADING_START.help)
        },
    };

    /// Whether text is kept as strong against the picture as at the training resolution.
    text_anchor: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual {
            value: || false,
            is_shown: false,
            keep: |is_asked, gaps| is_asked && gaps.has_knob(&TEXT_ANCHOR),
        },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line { rank: 77, name: "Text anchor", says: |recipe| recipe.text_anchor.then(|| "true".to_owned()) },
                reads: |text, wanted| read(text, &mut wanted.text_anchor),
            }),
            ..Face::new(Group::Tuning, "", TEXT_ANCHOR.help)
        },
    };

    /// Whether attention to many tokens is kept as sharp as it was to those of the training resolution.
    proportional_attention: bool => bool = Setting {
        kind: &Switch,
        fill: Fill::Usual { value: || false, is_shown: false, keep: |is_asked, _| is_asked },
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line {
                    rank: 81,
                    name: "Proportional attention",
                    says: |recipe| recipe.proportional_attention.then(|| "true".to_owned()),
                },
                reads: |text, wanted| read(text, &mut wanted.proportional_attention),
            }),
            ..Face::new(
                Group::Tuning,
                "",
                "Keep attention to many tokens as sharp as it was in training: its logits grow by sqrt(ln n / ln n_train); for base, \
                 ntk and pi, since amplitudes of yarn and sega do the same in their way",
            )
        },
    };

    /// Training resolution in pixels that positions are scaled against.
    base_resolution: usize => usize = Setting {
        kind: &SIDE_PX,
        fill: Fill::Model(|asked, gaps| asked.unwrap_or(gaps.facts.base_resolution)),
        face: Face {
            default: Some("what the model says, else 1024"),
            parameters: Some(Entry {
                line: Line { rank: 71, name: "Base resolution", says: |recipe| Some(recipe.base_resolution.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.base_resolution),
            }),
            ..Face::new(Group::Tuning, "PX", "The resolution the model was trained at, in pixels")
        },
    };

    /// The time shift.
    mu: Mu => Mu = Setting {
        kind: &SHIFT,
        fill: Fill::Usual { value: Mu::default, is_shown: false, keep: |shift, _| shift },
        face: Face {
            info: line(70, "shift", |recipe| Some(format!("mu {}", recipe.mu))),
            default: Some("the model's own, pinned at large sizes"),
            parameters: Some(Entry {
                line: Line { rank: 72, name: "Shift mu", says: |recipe| Some(recipe.mu.to_string()) },
                reads: |text, wanted| read(text, &mut wanted.mu),
            }),
            ..Face::new(
                Group::Tuning,
                "MU",
                r#"Time shift: a number, "stock" for the model's own formula at every size, or "log" for TIDE's, which grows slower"#,
            )
        },
    };

    /// How the steps are spread over the sigmas.
    schedule: Spacing => Spacing = Setting {
        kind: &Spelt(Spacing::WORDS),
        fill: shown(Spacing::default),
        face: Face {
            saved: Saved::UnlessUsual,
            parameters: Some(Entry {
                line: Line {
                    rank: 21,
                    name: "Schedule type",
                    says: |recipe| recipe.schedule.elsewhere().map(str::to_owned),
                },
                reads: |text, wanted| read(text, &mut wanted.schedule),
            }),
            ..Face::new(
                Group::Tuning,
                "NAME",
                "How steps are spread before --mu shifts them: uniform; simple, the same from ComfyUI's table; beta, denser at both \
                 ends",
            )
        },
    };

    #[cfg(test)]
    /// A setting of the tests: what a new one needs is these lines, and the place that uses it.
    toy_strength: f64 => f64 = Setting {
        kind: &Number::from(0.0),
        fill: shown(|| 0.0),
        face: Face { saved: Saved::UnlessUsual, ..Face::new(Group::Picture, "NUMBER", "How toy-like it looks") },
    };
}

/// The start of a fading amplitude that is not the usual one.
fn start_of_fading(recipe: &Recipe) -> Option<String> {
    (recipe.fading_start != Fading::default().start).then(|| recipe.fading_start.to_string())
}

/// The word of a rule that is not the usual one.
fn unless_usual<T: Default + PartialEq + ToString>(rule: T) -> Option<String> {
    (rule != T::default()).then(|| rule.to_string())
}

const fn line(rank: u8, name: &'static str, says: fn(&Recipe) -> Option<String>) -> Option<Line> {
    Some(Line { rank, name, says })
}

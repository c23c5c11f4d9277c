//! The inside of the program as tests and benches reach it: this list, and nothing else, is public beside `main`. Whatever is
//! neither on it nor used by the program is dead, and the compiler says so.

pub use crate::error::{Error, Result};

/// Of `base`.
pub mod base {

    /// Of `base::device`.
    pub mod device {
        pub use crate::base::device::DeviceKind;
    }

    /// Of `base::geometry`.
    pub mod geometry {
        pub use crate::base::geometry::{ImageSize, LatentGeometry, LatentSize, TokenGrid};
    }

    /// Of `base::json`.
    pub mod json {
        pub use crate::base::json::{read_json, sorted};
    }

    /// Of `base::memory`.
    pub mod memory {
        pub use crate::base::memory::{Bytes, peak_resident_bytes};
    }

    /// Of `base::progress`.
    pub mod progress {
        pub use crate::base::progress::{Event, Observer, Silent, Stage};
    }
}

/// Of `cli`.
pub mod cli {

    /// Of `cli::pictured`.
    pub mod pictured {
        pub use crate::cli::pictured::{Pictured, json, read};
    }
}

/// Of `convert`.
pub mod convert {
    pub use crate::convert::{Format, Kind, Plan, write};
}

/// Of `hub`.
pub mod hub {
    pub use crate::hub::{DownloadPlan, Hub, HubModel, HubSettings, Token};
}

/// Of `input`.
pub mod input {
    pub use crate::input::{look, open};
}

/// Of `lab`.
pub mod lab {
    pub use crate::lab::{InspectSettings, Measures, SheetOptions, Theme, Tile, inspect, save_plot, sheet};
}

/// Of `methods`.
pub mod methods {
    pub use crate::methods::{
        Amplitude, AxisFrequencies, Base, Detail, DypeSettings, Fading, Knobs, Looks, Method, MethodSpec, Moment,
        PositionScaler, RotaryAxis, Scaling, Side, Spectrum, TextBias, Thresholds, Yarn, label, proportional,
    };
}

/// Of `models`.
pub mod models {
    pub use crate::models::{
        BUILT_IN, Conditioning, Confidence, Contents, Decode, Encode, Examples, Facts, Family, FirstBlock, ForwardCost,
        ForwardOptions, Found, Identity, Lender, Lent, Model, ModelRequest, NetworkBytes, On, PartKind, PartSpec,
        Published, Registry, RepositoryFiles, RgbFactors, Seen, StepShape, TextEncoders, Velocity, VelocityAt, adapt,
        never_inside,
    };

    /// Of `models::flux1`.
    pub mod flux1 {
        pub use crate::models::flux1::{
            Block, Compute, Flux1, FluxConfig, Forward, ForwardCost, ForwardOptions, LATENTS, Transformer, WeightsMode,
            block_stream, text_cost, transformer_layers, transformer_tensors,
        };

        /// Its autoencoder, which others took over.
        pub use crate::models::parts::{KL16_RGB as LATENT_RGB, kl16 as autoencoder};

        /// Of `models::flux1::bfl`.
        pub mod bfl {
            pub use crate::models::flux1::bfl::transformer;
        }

        /// Of `models::flux1::blocks`.
        pub mod blocks {
            pub use crate::models::flux1::blocks::Pass;
        }

        /// Of `models::flux1::text`.
        pub mod text {
            pub use crate::models::flux1::text::TextEncoders;
        }
    }

    /// Of `models::flux2`.
    pub mod flux2 {
        pub use crate::models::flux2::{
            FAMILY, Flux2, Flux2Autoencoder, Flux2Config, Flux2VaeConfig, LATENTS, TextEncoder, Transformer,
            encoder_tensors, transformer_names, transformer_tensors, vae_tensors,
        };
    }

    /// Of `models::z_image`.
    pub mod z_image {
        pub use crate::models::z_image::{FAMILY, Forward, Transformer, ZImage, ZImageConfig, transformer_tensors};

        /// Of `models::z_image::comfy`.
        pub mod comfy {
            pub use crate::models::z_image::comfy::transformer;
        }

        /// Of `models::z_image::text`.
        pub mod text {
            pub use crate::models::z_image::text::{Prompt, text_tensors};
        }
    }

    /// Of `models::qwen_image`.
    pub mod qwen_image {
        pub use crate::models::qwen_image::{QwenImage, QwenImageConfig, Transformer, transformer_tensors};
    }

    /// Of `models::parts`.
    pub mod parts {
        pub use crate::models::parts::{
            Autoencoder, CLIP_TOKENS, ChatTemplate, ChatTokenizer, ChatTokens, ClipConfig, ClipEncoder, HiddenStates,
            ModelPart, PromptTokenizer, Qwen3Config, Qwen25VlConfig, QwenConfig, QwenEncoder, Sequence, T5Config,
            T5Encoder, Tokenizers, clip_tensors, qwen_tensors, t5_tensors,
        };

        /// Of `models::parts::kl`.
        pub mod kl {
            pub use crate::models::parts::kl::{
                Banding, Cost, Decoder, Design, Encoder, Keep, LatentStatistics, Posterior, Side, VaeConfig, Ways,
                cost, cost_of_tensors, tensors,
            };
        }

        /// Of `models::parts::text_names`.
        pub mod text_names {
            pub use crate::models::parts::text_names::{clip, qwen3, qwen25_vl, t5};
        }

        /// Of `models::parts::wan`.
        pub mod wan {
            pub use crate::models::parts::wan::{WanConfig, names::wan as named};
        }

        /// Of `models::parts::vae_names`.
        pub mod vae_names {
            pub use crate::models::parts::vae_names::vae;
        }
    }
}

/// Of `nn`.
pub mod nn {
    pub use crate::nn::{
        Activation, Adapter, Array, Attention, AttentionTiles, Bias, Blocks, CodeProducts, Compute, Dense, Form,
        KeyBias, Kronecker, Ledger, Linear, LowRank, NORM_EPS, Parameters, Place, PositionAxis, PositionIds, Products,
        Quantised, RopeTables, Rotation, Scale, TokenRun, WeightsMode, add_gated, attention, attention_error,
        embedding_rows, launches, matrix_unit, norm_modulate, product, split_heads,
    };

    /// Of `nn::bands`.
    pub mod bands {
        pub use crate::nn::bands::ConvBand;
    }

    /// Of `nn::kernels`.
    pub mod kernels {

        /// Of `nn::kernels::cpu`.
        pub mod cpu {

            /// Of `nn::kernels::cpu::pairs`.
            pub mod pairs {
                pub use crate::nn::kernels::cpu::pairs::{available, pair, pay, round};
            }
        }

        /// Of `nn::kernels::tensors`.
        pub mod tensors {
            pub use crate::nn::kernels::tensors::{
                add_gated, after_product, attention, norm_modulate, product, split_heads,
            };
        }
    }
}

/// Of `output`.
pub mod output {
    pub use crate::output::{
        Format, LatentsFile, Parameters, Picture, Provenance, check_writable, is_whole, load_latents, parameters_text,
        read_parameters, read_provenance, remove_temporary_files, save, save_latents, write_atomically,
    };
}

/// Of `plan`.
pub mod plan {
    pub use crate::plan::{Encoding, Machine, Plan, Task, what_fits};
}

/// Of `recipe`.
pub mod recipe {
    pub use crate::recipe::{
        Card, ModelFacts, Mu, Recipe, Rng, SamplerName, Shard, Spacing, StepCache, Wanted, consecutive, parse_seeds,
        read_prompts, reference_name,
    };
}

/// Of `run`.
pub mod run {
    pub use crate::run::{Item, Listener, Made, Options, Runner};

    /// Of `run::pipeline`.
    pub mod pipeline {
        pub use crate::run::pipeline::{Pipeline, Texts};
    }
}

/// Of `sampling`.
pub mod sampling {
    pub use crate::sampling::{
        Decision, Denoiser, Dpmpp2m, EasyCache, EasyRule, ErSde, Euler, Heun, MuRule, Progress, Sampler, ScheduleFor,
        SchedulerConfig, Shift, State, StepInfo, TimeShift, denoise, noise, noise_after, noised, pack, sigmas,
        spectrum, unpack,
    };

    /// Of `sampling::ladder`.
    pub mod ladder {
        pub use crate::sampling::ladder::{
            Bicubic, Channel, Climb, Climbing, Enlarged, Guide, LowPass, Pull, handed_up, resized,
        };
    }

    /// Of `sampling::preview`.
    pub mod preview {
        pub use crate::sampling::preview::preview_rgb;
    }
}

/// Of `weights`.
pub mod weights {
    pub use crate::weights::{
        BlockType, Cut, Files, Float8, Renamed, ShardIndex, TensorFiles, TensorSource, Weights, check_all, open_folder,
    };

    /// Of `weights::lora`.
    pub mod lora {
        pub use crate::weights::lora::{Adapted, Layer, LayerKind, LoraFile, Network};
    }
}

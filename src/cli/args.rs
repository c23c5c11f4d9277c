//! The command line as it is typed: flags, their help and their first checks.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    batch_args::{ProgressArgs, SelectArgs},
    commands::compare::CompareArgs,
    commands::completions::CompletionsArgs,
    commands::convert::ConvertArgs,
    commands::decode::DecodeArgs,
    commands::export_demo::ExportDemoArgs,
    commands::info::InfoArgs,
    commands::inspect::InspectArgs,
    commands::man::ManArgs,
    commands::models::ModelsArgs,
    commands::replay::ReplayArgs,
    device::{DeviceChoice, DtypeArg},
    part_args::PartArgs,
    report::Verbosity,
    search_args::SearchArgs,
    setting_flags::{All, SettingFlags},
    values,
};
use crate::{base::memory::Bytes, nn::WeightsMode};

/// Model that is used when none is named.
pub const DEFAULT_MODEL: &str = "black-forest-labs/FLUX.1-Krea-dev";

const HELP_STYLES: clap::builder::Styles = clap::builder::Styles::plain();

/// Ultra-high-resolution pictures with FLUX.1, its successors and DyPE.
#[derive(Debug, Parser)]
#[command(
    name = "dype",
    about = "Ultra-high-resolution pictures with FLUX.1, its successors and DyPE, on the machine you have",
    after_help = "Examples:\n  \
        dype --prompt \"a castle above a stormy sea\" --width 4096 --height 4096\n  \
        dype --prompt \"a castle above a stormy sea\" --method ntk --no-dype\n  \
        dype --prompts list.txt --seeds 1-4 --resume\n  \
        dype --dry-run --memory 12GB\n\n\
        The path of each picture goes to stdout, everything else to stderr.\n\
        Exit codes: 0 done, 1 the run failed, 2 the request makes no sense, 130 interrupted.",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_version_flag = true,
    max_term_width = 100,
    styles = HELP_STYLES
)]
pub struct Cli {
    /// What to do instead of making a picture.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of picture making.
    #[command(flatten)]
    pub generate: GenerateArgs,
    /// Print the version (with -v: build features and devices)
    #[arg(short = 'V', long)]
    pub version: bool,
}

/// Everything but making a picture.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show t, kappa and each axis's frequencies, step by step, without a model
    Inspect(Box<InspectArgs>),
    /// Make one picture by each of several methods or settings, with a sheet and a page of all
    Compare(Box<CompareArgs>),
    /// Make a picture again from what it says of itself, but for what flags say
    Replay(Box<ReplayArgs>),
    /// Print how a picture was made, or what a model's file holds and what it would take to run
    Info(InfoArgs),
    /// List the known models: licence, size, steps, memory, and whether a copy is here
    Models(ModelsArgs),
    /// Decode saved latents to a picture
    Decode(DecodeArgs),
    /// Write a model's transformer or text encoder as one file in another number type
    Convert(ConvertArgs),
    /// Write the model inside this program to a folder, for other programs
    ExportDemo(ExportDemoArgs),
    /// Print completions for bash, zsh or fish
    Completions(CompletionsArgs),
    /// Print a man page
    Man(ManArgs),
}

/// Flags of picture making.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// Flags of the picture's settings.
    #[command(flatten)]
    pub settings: SettingFlags<All>,
    /// Take an empty prompt as it is, instead of refusing it
    #[arg(long, help_heading = "Picture")]
    pub allow_empty_prompt: bool,
    /// Make the picture of --image N times as large; one that dype made says its prompt, seed and settings itself, and flags go
    /// before what it says
    #[arg(long, value_name = "N", help_heading = "Picture", value_parser = values::factor)]
    pub upscale: Option<f64>,
    /// Batch flags.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Flags of what is kept on the way.
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Model flags.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Machine flags.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Output flags.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Cli {
    /// How much is told, as the command that was typed takes it.
    pub fn verbosity(&self) -> Verbosity {
        let output = match &self.command {
            Some(Command::Compare(args)) => &args.output,
            Some(Command::Replay(args)) => &args.flags.output,
            _ => &self.generate.output,
        };
        Verbosity::of(output)
    }
}

/// Which model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
#[allow(rustdoc::broken_intra_doc_links, reason = "help texts, printed as they stand")]
pub struct ModelArgs {
    /// Hub id (owner/name[@revision][:file]), folder in diffusers layout, single file, or demo: a small model of landscapes
    /// inside this program
    #[arg(long, value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub model: String,
    /// Weights in this variant where the model has it: fp16 takes model.fp16.safetensors [default: the plain ones, else the
    /// only variant there is]
    #[arg(long, value_name = "NAME", value_parser = values::variant)]
    pub variant: Option<String>,
    /// Parts from elsewhere.
    #[command(flatten)]
    pub parts: PartArgs,
    /// Where else to look.
    #[command(flatten)]
    pub search: SearchArgs,
}

/// Where and how it is computed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
#[allow(rustdoc::broken_intra_doc_links, reason = "help texts, printed as they stand")]
pub struct MachineArgs {
    /// auto, cpu, cuda[:N] or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    pub device: DeviceChoice,
    /// f32, bf16 or f16 [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_name = "DTYPE", hide_possible_values = true)]
    pub dtype: Option<DtypeArg>,
    /// The most memory a run may take, such as 6GB or 6GiB [default: what is free]
    #[arg(long, value_name = "LIMIT", value_parser = values::bytes)]
    pub memory: Option<Bytes>,
    /// Threads of the processor.
    #[command(flatten)]
    pub threads: ThreadsArgs,
    /// Transformer weights: resident, stream (block by block) or auto
    #[arg(long, value_name = "MODE", default_value = "auto", hide_possible_values = true)]
    pub weights: WeightsArg,
    /// Print what a run would need, and load nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// How much of the processor is used.
#[derive(Debug, Clone, Args)]
pub struct ThreadsArgs {
    /// Threads that compute on the processor [default: RAYON_NUM_THREADS, else one for each core this process may use]
    #[arg(long, value_name = "N", value_parser = values::threads, allow_negative_numbers = true)]
    pub threads: Option<usize>,
}

/// Where the picture goes and what is told.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// File (.png, .jpg, .webp), folder ending in "/", or "-" for stdout [default: outputs/seed_..._res_....png]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Replace an existing file (through a link, what it points to) instead of adding _2, _3, ... to the name
    #[arg(long)]
    pub overwrite: bool,
    /// Also save the final latents, as the model's own loop holds them, as safetensors: `dype decode` makes a picture of them
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
    /// Print one JSON object a picture instead of its path
    #[arg(long)]
    pub json: bool,
    /// Only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More detail: the plan of the run, and where latents went
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Names of the ways weights reach the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsArg {
    /// What fits.
    Auto,
    /// All at once.
    Resident,
    /// Block by block.
    Stream,
}

impl From<WeightsArg> for Option<WeightsMode> {
    fn from(arg: WeightsArg) -> Self {
        match arg {
            WeightsArg::Auto => None,
            WeightsArg::Resident => Some(WeightsMode::Resident),
            WeightsArg::Stream => Some(WeightsMode::Stream),
        }
    }
}

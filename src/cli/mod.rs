//! The command line: flags, commands, and what they tell.

mod args;
mod batch_args;
mod code_products;
mod commands;
mod device;
mod environment;
mod execute;
mod files;
mod image_source;
mod interrupts;
mod items;
mod latents_file;
mod listen;
mod loans;
mod lora_source;
mod model_source;
mod needs;
mod notes;
mod part_args;
mod paths;
pub mod pictured;
mod report;
mod search_args;
mod setting_flags;
mod target;
#[cfg(test)]
mod toy_setting;
mod usage;
mod values;
mod variants;

use std::{collections::HashSet, process::ExitCode};

use crate::{Error, base::allocator::has_huge_pages_everywhere};
use args::{Cli, Command};
use commands::{
    compare, completions, convert, decode, export_demo, generate, info, inspect, man, models, replay, version,
};
use environment::Parsed;
use report::{Report, Verbosity};

/// Exit code of a run that could not be done.
const FAILED: u8 = 1;

/// Parses the command line, runs it, and gives the exit code.
pub fn main() -> ExitCode {
    // Before much is allocated.
    has_huge_pages_everywhere();
    let Parsed { cli, typed } = match environment::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => return usage::tell(&error, &Report::new(Verbosity::Normal)),
    };
    let report = Report::new(cli.verbosity());
    if let Err(error) = interrupts::handle(left_behind(&cli)) {
        report.error(&error);
        return ExitCode::from(FAILED);
    }
    let code = match run(&cli, &typed, &report) {
        Ok(()) if report.has_lost_results() => ExitCode::from(FAILED),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.error(&error);
            let code = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map_or(FAILED, Error::exit_code);
            ExitCode::from(code)
        }
    };
    interrupts::claim_end();
    code
}

/// What is left of a command that is interrupted.
fn left_behind(cli: &Cli) -> &'static str {
    let (progress, machine) = match &cli.command {
        None => (&cli.generate.progress, &cli.generate.machine),
        Some(Command::Compare(args)) => (&args.progress, &args.machine),
        Some(Command::Replay(args)) => (&args.flags.progress, &args.flags.machine),
        _ => return "no partial file was left behind",
    };
    match progress.checkpoint_every {
        _ if machine.dry_run => "nothing was to be made",
        0 => "no partial picture was left behind",
        _ => "no partial picture was left behind, and --resume goes on from the last checkpoint",
    }
}

fn run(cli: &Cli, typed: &HashSet<String>, report: &Report) -> anyhow::Result<()> {
    match &cli.command {
        _ if cli.version => version::print(report, cli.generate.output.verbose > 0),
        Some(Command::Inspect(args)) => inspect::run(args, report),
        Some(Command::Compare(args)) => compare::run(args, report),
        Some(Command::Replay(args)) => replay::run(args, typed, report),
        Some(Command::Info(args)) => info::run(args, report),
        Some(Command::Models(args)) => models::run(args, report),
        Some(Command::Convert(args)) => convert::run(args, report),
        Some(Command::Decode(args)) => decode::run(args, report),
        Some(Command::ExportDemo(args)) => export_demo::run(args, report),
        Some(Command::Completions(args)) => completions::run(args, report),
        Some(Command::Man(args)) => man::run(args, report),
        None => generate::run(&cli.generate, typed, report),
    }
}

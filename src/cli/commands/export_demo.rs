//! `dype export-demo`: the model inside this program as a folder.

use std::path::PathBuf;

use clap::Args;

use crate::cli::report::Report;
use crate::models::demo;

/// Where to.
#[derive(Debug, Clone, Args)]
pub struct ExportDemoArgs {
    /// A new folder; diffusers and other programs load it as any FLUX model
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs `dype export-demo`.
pub fn run(args: &ExportDemoArgs, report: &Report) -> anyhow::Result<()> {
    demo::is_named_by(demo::NAME)?;
    demo::export(&args.folder)?;
    report.path(&args.folder);
    Ok(())
}

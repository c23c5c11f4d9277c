//! `dype man`: the manual, for the program or one command.

use clap::Args;

use crate::{
    cli::{environment, report::Report},
    error::Error,
};

/// For which command.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// A command's own page, such as compare
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Prints the man page, in roff.
pub fn run(args: &ManArgs, report: &Report) -> anyhow::Result<()> {
    let mut command = environment::command().version(env!("CARGO_PKG_VERSION"));
    command.build();
    let page = match &args.command {
        None => command,
        Some(name) => {
            let found = command.get_subcommands().find(|sub| sub.get_name() == name).cloned();
            let names = command.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ");
            let unknown = || Error::request(format!("there is no command {name}"), format!("the commands are {names}"));
            found.ok_or_else(unknown)?.name(format!("dype-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    report.result(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

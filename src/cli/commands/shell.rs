//! `dype completions` and `dype man`.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::cli::{environment, report::Report};
use crate::error::Error;

/// For which shell.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: ShellArg,
}

/// The shells that are completed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShellArg {
    /// `dype completions bash > ~/.local/share/bash-completion/completions/dype`
    Bash,
    /// `dype completions zsh > "${fpath[1]}/_dype"`
    Zsh,
    /// `dype completions fish > ~/.config/fish/completions/dype.fish`
    Fish,
}

/// For which command.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// A command's own page, such as compare
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Prints the completions.
pub fn completions(args: &CompletionsArgs, report: &Report) -> anyhow::Result<()> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut environment::command(), "dype", &mut text);
    report.result(String::from_utf8_lossy(&text).trim_end());
    Ok(())
}

/// Prints the man page, in roff.
pub fn man(args: &ManArgs, report: &Report) -> anyhow::Result<()> {
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

//! `dype completions`: what a shell needs to complete commands and flags.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::cli::{environment, report::Report};

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

/// Prints the completions.
pub fn run(args: &CompletionsArgs, report: &Report) -> anyhow::Result<()> {
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

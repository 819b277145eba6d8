//! `tensafe completions SHELL`: a script that completes commands and options.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Outcome, Page};
use crate::args::Cli;

const EXAMPLES: &str = "\
Examples:
  tensafe completions bash > ~/.local/share/bash-completion/completions/tensafe
  tensafe completions zsh > \"${fpath[1]}/_tensafe\"
  tensafe completions fish > ~/.config/fish/completions/tensafe.fish";

/// Print a script that completes commands and options in a shell
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tensafe", &mut script);
    Outcome { page: Page::Text(script), failures: Vec::new(), hints: Vec::new(), negative: false }
}

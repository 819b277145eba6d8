//! `tensafe man`: the manual page, in roff.

use clap::{Args, CommandFactory as _};

use super::{Failure, Outcome, Page};
use crate::args::Cli;

const EXAMPLES: &str = "\
Examples:
  tensafe man > tensafe.1
  tensafe man inspect | man -l -";

/// Print the manual page, or that of one command
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// The command
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(crate) fn run(args: &ManArgs) -> Outcome {
    let mut whole = Cli::command();
    whole.build();
    let mut page = Vec::new();
    let mut failures = Vec::new();
    let command = match &args.command {
        None => Some(whole.clone()),
        Some(name) => whole.find_subcommand(name).cloned(),
    };
    let rendered = command.map(|command| clap_mangen::Man::new(command).render(&mut page));
    match rendered {
        Some(Ok(())) => {}
        Some(Err(e)) => failures.push(Failure::new("man", format!("cannot render the page: {e}"))),
        None => {
            let name = args.command.as_deref().unwrap_or_default();
            failures.push(Failure::new(name, format!("no command is called `{name}`")));
        }
    }
    Outcome { page: Page::Text(page), failures, hints: Vec::new(), negative: false }
}

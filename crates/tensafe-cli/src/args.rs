//! The arguments of the program. Those of one command stand with the command.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::commands::{
    completions::CompletionsArgs, convert::ConvertArgs, inspect::InspectArgs, man::ManArgs, scan::ScanArgs,
    verify::VerifyArgs,
};

const EXAMPLES: &str = "\
Examples:
  tensafe model.safetensors            what is in it, in a few lines
  tensafe inspect model/               the tensors of a directory of shards, as a tree
  tensafe convert pytorch_model.bin    a pickle to safetensors, without executing it
  tensafe verify *.safetensors         every rule of the format, every finding
  tensafe scan model/                  what loading would run, nothing of it run
  tensafe inspect m.safetensors --format json | jq '.models[0].totals'

Exit codes:
  0  good    1  a file breaks a rule    2  an error, such as a file that cannot be read";

/// Convert model weights, look at them, and check them
#[derive(Debug, Parser)]
#[command(
    name = "tensafe",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    subcommand_precedence_over_arg = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    override_usage = "tensafe [OPTIONS] <PATH>...\n       tensafe [OPTIONS] <COMMAND>"
)]
pub(crate) struct Cli {
    /// Files, directories, indices of shards (`*.index.json`) or patterns to summarize
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) shared: Shared,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Convert(ConvertArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
    Scan(ScanArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// The options of every command.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Shared {
    /// How to print: for people, as JSON (see SCHEMA.md), or the bare answer, one a line; `scan`
    /// also as SARIF and CycloneDX
    #[arg(long, value_enum, default_value_t = Format::Human, global = true, value_name = "FORMAT")]
    pub(crate) format: Format,

    /// When to use colour; `auto` keeps to terminals and `NO_COLOR`
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true, value_name = "WHEN")]
    pub(crate) color: Color,

    /// Print names and metadata in full, however narrow the terminal
    #[arg(long, global = true)]
    pub(crate) no_truncate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[value(alias = "text")]
    Human,
    Json,
    Quiet,
    Sarif,
    Cyclonedx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The error for `tensafe verify --format sarif`.
pub(crate) fn format_of_scan() -> clap::Error {
    let text = "the formats `sarif` and `cyclonedx` are those of `tensafe scan`";
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}

/// The error for `tensafe model.safetensors verify`.
pub(crate) fn path_before_command() -> clap::Error {
    let text = "a command stands before its paths, as in `tensafe verify model.safetensors`";
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}

//! The command line of tensafe: `tensafe PATH`, `tensafe convert`, `tensafe inspect`, `tensafe verify`,
//! `tensafe scan`.
//!
//! [`run`] is the whole program; the binary and the Python package's console script call it. This
//! crate translates: arguments to calls of the library, results to text or JSON.
//!
//! The way through: `args` parses, `inputs` finds what is meant, a command returns data, and
//! `output` alone prints it. Data goes to stdout and all else to stderr. `SCHEMA.md` describes the
//! JSON.
//!
//! # What this crate does not do
//! It knows nothing of the format: the rules, trees and reports are those of the crate `tensafe`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod args;
mod commands;
mod inputs;
mod output;

use std::ffi::OsString;

use clap::Parser as _;

use crate::args::{Cli, Command, Format};

/// Runs the program on its arguments, the program's name first, and returns its exit code: 0 where
/// all is good, 1 for a negative answer, such as a file that breaks a rule, 2 for an error, 3 where a
/// scan could not judge.
///
/// # Cost
/// Blocks until everything is printed. Reads the headers of the files that the arguments name.
///
/// # Examples
/// ```
/// assert_eq!(tensafe_cli::run(["tensafe", "--version"].map(Into::into)), 0);
/// ```
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::show_usage(&error),
    };
    let settings = output::Settings::new(&cli.shared);
    let scans = matches!(cli.command, Some(Command::Scan(_)));
    if matches!(cli.shared.format, Format::Sarif | Format::Cyclonedx) && !scans {
        return output::show_usage(&args::format_of_scan());
    }
    let outcome = match cli.command {
        Some(command) if cli.paths.is_empty() => match command {
            Command::Convert(args) => commands::convert::run(&args),
            Command::Inspect(args) => commands::inspect::run(&args),
            Command::Verify(args) => commands::verify::run(&args),
            Command::Scan(args) => commands::scan::run(&args),
            Command::Completions(args) => commands::completions::run(&args),
            Command::Man(args) => commands::man::run(&args),
        },
        Some(_) => return output::show_usage(&args::path_before_command()),
        None => commands::summary::run(&cli.paths),
    };
    output::show(&outcome, &settings)
}

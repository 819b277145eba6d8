//! The program: maps the result of [`tensafe_cli::run`] to an exit code, nothing else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tensafe_cli::run(std::env::args_os()))
}

//! `tensafe scan`: what loading files would run, import or read, told without loading them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tensafe::trust::{Level, Policy, ScanOptions, ScanReport, Verdict, scan};

use super::{Failure, Outcome, Page};
use crate::inputs;

const EXAMPLES: &str = "\
Examples:
  tensafe scan model/                              every file below a directory
  tensafe scan *.pt --fail-on error                what is known to do harm, alone
  tensafe scan model/ --policy policy.toml         with what your policy allows and denies
  tensafe scan model/ --format sarif --output scan.sarif
  tensafe scan m.pkl --format json | jq '.files[].findings[]'

Nothing is loaded, imported or executed. What is not known to be harmless is a warning, what is
known to do harm an error, and what could not be judged is inconclusive, never clean.
docs/scan.md lists the rules (TS-101, ...).

Of the Python package the program takes `--engine local|ray` too, for very many files: see
`tensafe scan --engine local --help`.

Exit codes:
  0  nothing at or above the level of --fail-on    1  something    2  a path cannot be read
  3  nothing at or above the level, and not everything could be judged";

/// Tell what loading files would run, without loading them
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScanArgs {
    /// Files, directories with all that is below them, or patterns
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The level from which on findings make the exit code 1 [default: the policy's, else warning]
    #[arg(long, value_enum, value_name = "LEVEL")]
    fail_on: Option<FailOn>,

    /// A TOML file of what is allowed and denied
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Read every byte of archives and compare checksums
    #[arg(long)]
    crc: bool,

    /// Threads, each with one file at a time; 0 for as many as the machine has
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,

    /// Write the report to a file, not to stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    Note,
    Warning,
    Error,
}

/// What was found, and how it is to be told.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) report: ScanReport,
    pub(crate) fail_on: Level,
    pub(crate) output: Option<PathBuf>,
}

impl Scanned {
    pub(crate) fn inconclusive(&self) -> bool {
        self.report.is_inconclusive()
    }
}

pub(crate) fn run(args: &ScanArgs) -> Outcome {
    let policy = match args.policy.as_ref().map(policy).transpose() {
        Ok(policy) => policy,
        Err(failure) => return outcome(args, ScanReport::default(), Level::Warning, vec![failure]),
    };
    let asked = args.fail_on.map(|level| match level {
        FailOn::Note => Level::Note,
        FailOn::Warning => Level::Warning,
        FailOn::Error => Level::Error,
    });
    let fail_on = asked.or_else(|| policy.as_ref()?.fail_on()).unwrap_or(Level::Warning);
    let mut options = ScanOptions::default().with_crc(args.crc).with_threads(args.threads);
    if let Some(policy) = policy {
        options = options.with_policy(policy);
    }
    let (paths, failures) = inputs::expand_all(&args.paths);
    outcome(args, scan(paths, &options), fail_on, failures)
}

fn policy(path: &PathBuf) -> Result<Policy, Failure> {
    let label = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::new(&label, format!("{error}: {label}")))?;
    Policy::parse(&text).map_err(|error| Failure::new(&label, format!("policy {label}: {error}")))
}

fn outcome(args: &ScanArgs, report: ScanReport, fail_on: Level, mut failures: Vec<Failure>) -> Outcome {
    for file in report.files.iter().filter(|file| file.verdict() == Verdict::Unreadable) {
        let message = file.unreadable.as_deref().unwrap_or_default();
        let named = message.contains(&file.path);
        let text = if named { message.to_owned() } else { format!("{message}: {}", file.path) };
        failures.push(Failure::new(&file.path, text));
    }
    let negative = report.reaches(fail_on);
    let page = Page::Scan(Scanned { report, fail_on, output: args.output.clone() });
    Outcome { page, failures, hints: Vec::new(), negative }
}

//! `tensafe verify`: every finding about files that may be damaged.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tensafe::{FileReport, Finding, Level, Report, SegmentKind, Verdict, VerifyOptions};
use unicode_normalization::UnicodeNormalization as _;

use super::{Failure, Figures, Outcome, Page};
use crate::inputs;

const EXAMPLES: &str = "\
Examples:
  tensafe verify model.safetensors
  tensafe verify model/                         index and shards, and what they say of each other
  tensafe verify *.safetensors --format quiet   the bad ones, one a line
  tensafe verify model.safetensors --map        where every tensor lies
  tensafe verify model.safetensors --format json | jq '.models[].files[].findings[]'

An error is a broken rule of the format; a warning is a file that keeps the rules and still meets
trouble in some reader. Rules (S-01, ...) are those of docs/spec.md.

Of the Python package the program takes `--engine local|ray` too, for very many files: see
`tensafe verify --engine local --help`.

Exit codes:
  0  every file is good    1  a file breaks a rule    2  a file cannot be read";

/// Check files against every rule of the format, and tell all that is wrong
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Files, directories, indices of shards (`*.index.json`) or patterns
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Read data too: look for BOOL bytes other than 0 and 1
    #[arg(long)]
    deep: bool,

    /// Show the byte map of good files too
    #[arg(long)]
    map: bool,
}

/// The reports that were asked for.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) models: Vec<ModelReport>,
    pub(crate) map: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct ModelReport {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) verdict: &'static str,
    /// What concerns no file alone.
    pub(crate) findings: Vec<FindingFacts>,
    pub(crate) files: Vec<FileFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FileFacts {
    pub(crate) path: String,
    pub(crate) verdict: &'static str,
    pub(crate) bytes: u64,
    pub(crate) header_bytes: Option<u64>,
    pub(crate) totals: Figures,
    pub(crate) findings: Vec<FindingFacts>,
    pub(crate) segments: Vec<SegmentFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FindingFacts {
    pub(crate) level: &'static str,
    pub(crate) code: &'static str,
    pub(crate) rule: Option<String>,
    pub(crate) text: String,
    pub(crate) tensor: Option<String>,
    pub(crate) offset: Option<u64>,
    /// Whether the reference implementation reads past it.
    pub(crate) lenient: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct SegmentFacts {
    pub(crate) kind: &'static str,
    pub(crate) range: (u64, u64),
    pub(crate) tensors: Vec<String>,
}

pub(crate) fn options(deep: bool) -> VerifyOptions {
    VerifyOptions::default().with_deep(deep).with_normalize(|name| name.nfc().collect())
}

pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let (inputs, mut failures) = inputs::resolve(&args.paths);
    let mut models = Vec::new();
    let mut worst = Verdict::Good;
    for input in &inputs {
        let report = input.verify(&options(args.deep));
        worst = worst.max(report.verdict());
        failures.extend(unreadable(&input.label, &report));
        models.push(facts(input, report));
    }
    let negative = worst == Verdict::Bad;
    Outcome {
        page: Page::Verify(Verification { models, map: args.map }),
        failures,
        hints: Vec::new(),
        negative,
    }
}

/// What of a report could not be read.
pub(crate) fn unreadable(label: &str, report: &Report) -> Vec<Failure> {
    let of_file = |file: &FileReport| {
        let error = file.unreadable.as_ref()?;
        Some(Failure::of(&file.path.display().to_string(), error))
    };
    let whole = report.unreadable.as_ref().map(|error| Failure::of(label, error));
    whole.into_iter().chain(report.files.iter().filter_map(of_file)).collect()
}

pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Bad => "bad",
        Verdict::Unreadable => "unreadable",
    }
}

fn facts(input: &inputs::Input, report: Report) -> ModelReport {
    let verdict = verdict_word(report.verdict());
    ModelReport {
        path: input.label.clone(),
        kind: input.kind(),
        verdict,
        findings: report.findings.into_iter().map(finding).collect(),
        files: report.files.into_iter().map(file).collect(),
    }
}

fn file(file: FileReport) -> FileFacts {
    let (mut parameters, mut bytes) = (0u64, 0u64);
    for (_, totals) in file.dtypes() {
        parameters = parameters.saturating_add(totals.parameters);
        bytes = bytes.saturating_add(totals.bytes);
    }
    FileFacts {
        path: file.path.display().to_string(),
        verdict: verdict_word(file.verdict()),
        bytes: file.file_bytes,
        header_bytes: file.header_bytes,
        totals: Figures { tensors: file.tensors.len() as u64, parameters, bytes },
        findings: file.findings.into_iter().map(finding).collect(),
        segments: file
            .segments
            .into_iter()
            .map(|segment| SegmentFacts {
                kind: kind_word(segment.kind),
                range: (segment.range.start, segment.range.end),
                tensors: segment.tensors,
            })
            .collect(),
    }
}

fn finding(finding: Finding) -> FindingFacts {
    FindingFacts {
        level: match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        },
        code: finding.code,
        rule: finding.rule.map(|rule| rule.to_string()),
        text: finding.text,
        tensor: finding.tensor,
        offset: finding.offset,
        lenient: finding.lenient,
    }
}

fn kind_word(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Length => "length",
        SegmentKind::Header => "header",
        SegmentKind::Tensor => "tensor",
        SegmentKind::Gap => "gap",
        SegmentKind::Overlap => "overlap",
        SegmentKind::Trailing => "trailing",
        SegmentKind::Missing => "missing",
        _ => "unknown",
    }
}

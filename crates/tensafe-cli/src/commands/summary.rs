//! `tensafe PATH`: what is in it, in a few lines. Says what it can of a damaged file too.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Serialize;
use tensafe::{Level, Report, Totals, Verdict};

use super::{DtypeFigures, Figures, Outcome, Page, dtype_figures, verify};
use crate::inputs::{self, Input};

/// The summaries that were asked for.
#[derive(Debug)]
pub(crate) struct Summaries {
    pub(crate) models: Vec<Summary>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
    pub(crate) notes: usize,
    pub(crate) files: usize,
    /// Bytes of the files.
    pub(crate) file_bytes: u64,
    /// Bytes of their headers.
    pub(crate) header_bytes: u64,
    pub(crate) totals: Figures,
    pub(crate) dtypes: Vec<DtypeFigures>,
    pub(crate) metadata_keys: BTreeSet<String>,
}

pub(crate) fn run(paths: &[PathBuf]) -> Outcome {
    let (inputs, mut failures) = inputs::resolve(paths);
    let mut models = Vec::new();
    let mut worst = Verdict::Good;
    let mut hints = Vec::new();
    for input in &inputs {
        let report = input.verify(&verify::options(false));
        let verdict = report.verdict();
        worst = worst.max(verdict);
        let unreadable = verify::unreadable(&input.label, &report);
        let hint = (verdict == Verdict::Unreadable && looks_like_a_command(&input.label))
            .then(|| format!("`{}` is no command either, `tensafe --help` lists them", input.label));
        failures.extend(unreadable.into_iter().map(|failure| failure.with_hint(hint.clone())));
        if verdict != Verdict::Unreadable {
            hints.extend(next(input, &report));
            models.push(summary(input, &report));
        }
    }
    // What to do next is told for one model; a batch knows.
    if inputs.len() > 1 {
        hints.clear();
    }
    let negative = worst == Verdict::Bad;
    Outcome { page: Page::Summary(Summaries { models }), failures, hints, negative }
}

fn looks_like_a_command(label: &str) -> bool {
    label.chars().all(|c| c.is_ascii_alphabetic())
}

fn next(input: &Input, report: &Report) -> Vec<String> {
    let label = &input.label;
    let mut hints = Vec::new();
    if report.verdict() == Verdict::Good {
        hints.push(format!("`tensafe inspect {label}` shows the tensors"));
    }
    if report.verdict() == Verdict::Bad || report.count(Level::Warning) > 0 {
        hints.push(format!("`tensafe verify {label}` tells what was found"));
    }
    hints
}

fn summary(input: &Input, report: &Report) -> Summary {
    let dtypes = report.dtypes();
    let totals = dtypes.iter().fold(Totals::default(), |sum, (_, totals)| sum.plus(*totals));
    let keys = report.files.iter().filter_map(|file| file.metadata.as_ref()).flat_map(|m| m.keys().cloned());
    let sum =
        |of: fn(&tensafe::FileReport) -> u64| report.files.iter().map(of).fold(0u64, u64::saturating_add);
    Summary {
        path: input.label.clone(),
        kind: input.kind(),
        verdict: verify::verdict_word(report.verdict()),
        errors: report.count(Level::Error),
        warnings: report.count(Level::Warning),
        notes: report.count(Level::Note),
        files: report.files.len(),
        file_bytes: sum(|file| file.file_bytes),
        header_bytes: sum(|file| file.header_bytes.filter(|bytes| *bytes < file.file_bytes).unwrap_or(0)),
        totals: totals.into(),
        dtypes: dtype_figures(&dtypes),
        metadata_keys: keys.collect(),
    }
}

//! The corpora: no file that means harm is clean, and none that means no harm is an error.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tensafe_trust::{FileReport, Level, Rule, ScanOptions, Verdict, scan};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pickles")
}

fn manifest(name: &str) -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(corpus().join(name)).unwrap();
    match serde_json::from_str(&text).unwrap() {
        Value::Object(entries) => entries,
        other => panic!("{name} is {other}"),
    }
}

/// The report of one file, scanned alone: what lies beside it says nothing of it.
fn alone(path: &Path) -> FileReport {
    scan([path], &ScanOptions::default()).files.pop().unwrap()
}

/// Files that take time in proportion to their size and do nothing else.
const HARMLESS: &[&str] = &["dos_unicode_escapes.pkl"];

#[test]
fn no_hostile_file_is_clean() {
    let mut clean = Vec::new();
    let (mut harmful, mut told) = (0u64, 0u64);
    for (name, entry) in manifest("hostile.json") {
        let report = alone(&corpus().join("hostile").join(&name));
        if report.verdict() == Verdict::Clean && !HARMLESS.contains(&&*name) {
            clean.push(name.clone());
        }
        assert_ne!(report.verdict(), Verdict::Unreadable, "{name}");
        if matches!(entry["effect"].as_str(), Some("exec" | "file" | "network")) {
            harmful += 1;
            told += u64::from(report.worst() == Some(Level::Error));
        }
    }
    assert!(clean.is_empty(), "{clean:#?}");
    // The others cannot be opened here, or name what is unknown.
    assert!(told * 100 >= harmful * 90, "{told} of {harmful} are errors");
}

#[test]
fn symbols_of_raw_hostile_pickles_are_told() {
    let mut missed = Vec::new();
    for (name, entry) in manifest("hostile.json") {
        if entry["container"] != "raw" || !name.starts_with("call_") {
            continue;
        }
        let report = alone(&corpus().join("hostile").join(&name));
        for symbol in entry["symbols"].as_array().unwrap() {
            let symbol = symbol.as_str().unwrap().replace(':', ".");
            let last = symbol.rsplit('.').next().unwrap();
            let told = report.findings.iter().any(|finding| match &finding.symbol {
                // Python 2's names are told as Python 3 has them.
                Some(found) => *found == symbol || found.ends_with(last),
                None => finding.rule == Rule::OddArguments || finding.rule == Rule::NestedPickle,
            });
            if !told {
                missed.push(format!("{name}: {symbol}"));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn no_benign_file_is_an_error() {
    let root = corpus().join("benign");
    let report = scan([&root], &ScanOptions::default());
    assert!(report.files.len() > 500);
    let errors: Vec<String> = report
        .findings()
        .filter(|(_, finding)| finding.level == Level::Error)
        .map(|(file, finding)| format!("{} {} {}", file.path, finding.rule, finding.message))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let clean = report.files.iter().filter(|file| file.verdict() == Verdict::Clean).count();
    assert!(clean * 100 >= report.files.len() * 80, "{clean} of {} are clean", report.files.len());
    let inconclusive = report.files.iter().filter(|file| file.is_inconclusive()).count();
    assert!(inconclusive * 100 <= report.files.len() * 2, "{inconclusive} are inconclusive");
}

/// Rules that no hostile file of the corpus breaks; other tests do.
const ELSEWHERE: &[Rule] = &[
    Rule::Denied,
    Rule::BadChecksum,
    Rule::PickleBeside,
    Rule::Pointer,
    Rule::PythonCode,
    Rule::SafetensorsLenient,
];

#[test]
fn the_corpus_breaks_every_rule() {
    let report = scan([corpus().join("hostile")], &ScanOptions::default());
    let found: BTreeSet<Rule> = report.findings().map(|(_, finding)| finding.rule).collect();
    let missing: Vec<_> =
        Rule::ALL.iter().filter(|rule| !found.contains(rule) && !ELSEWHERE.contains(rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

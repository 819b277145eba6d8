//! The walk over `tests/corpus`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a reader is to say of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Read in both modes.
    Accept,
    /// Refused strictly, read leniently.
    Lenient,
    /// Refused in both modes.
    Reject,
}

/// One file of the corpus.
#[derive(Clone, Debug)]
pub struct Case {
    /// The path below `tests/corpus`, with `/` between its parts.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
    /// The verdict that its directory gives.
    pub verdict: Verdict,
}

/// The directory `tests/corpus`.
#[must_use]
pub fn corpus_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

/// Every safetensors file of the corpus, by path.
///
/// # Panics
/// Where a directory of the corpus can't be read or is empty.
#[must_use]
pub fn corpus() -> Vec<Case> {
    let directories =
        [("accept", Verdict::Accept), ("lenient", Verdict::Lenient), ("reject", Verdict::Reject)];
    directories.iter().flat_map(|(directory, verdict)| cases(directory, *verdict)).collect()
}

/// Every index of shards of the corpus, by path.
///
/// # Panics
/// Where a directory of the corpus can't be read or is empty.
#[must_use]
pub fn index_corpus() -> Vec<Case> {
    let directories = [("accept-index", Verdict::Accept), ("reject-index", Verdict::Reject)];
    directories.iter().flat_map(|(directory, verdict)| cases(directory, *verdict)).collect()
}

fn cases(directory: &str, verdict: Verdict) -> Vec<Case> {
    let entries = fs::read_dir(corpus_root().join(directory)).expect("the corpus is checked out");
    let mut cases: Vec<Case> = entries
        .map(|entry| {
            let entry = entry.expect("the directory stays readable");
            let name = entry.file_name().into_string().expect("names are ASCII");
            let bytes = fs::read(entry.path()).expect("the files are readable");
            Case { path: format!("{directory}/{name}"), bytes, verdict }
        })
        .collect();
    assert!(!cases.is_empty(), "no files in {directory}");
    cases.sort_by(|a, b| a.path.cmp(&b.path));
    cases
}

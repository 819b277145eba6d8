//! An index and its shards: S-32, and what a loader of the directory may stumble over.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
};

use tensafe_format::{Quoted, Rule, ShardIndex, is_hub_shard_name};

use super::{FileReport, Finding, Level, Report, VerifyOptions, judge_file};
use crate::ErrorKind;

/// The Hub's viewers refuse models of more shards.
const HUB_SHARDS: usize = 10_000;

/// S-32, both ways round; every disagreement is told.
pub(super) fn judge_index(
    report: &mut Report,
    directory: &Path,
    index: &ShardIndex,
    options: &VerifyOptions,
) {
    let mut wanted: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (name, file) in &index.weight_map {
        wanted.entry(file).or_default().insert(name);
    }
    let mut bytes = 0u64;
    let mut complete = true;
    for (file, names) in &wanted {
        let shard = judge_file(&directory.join(file), options);
        if shard.unreadable.as_ref().is_some_and(|e| e.kind() == ErrorKind::NotFound) {
            let clause = format!(
                "shard `{}`: there is no such file, the index places tensors in it: {}",
                Quoted(file),
                names.len()
            );
            report.findings.push(Finding::broken(Rule::INDEX_MATCHES, "shard-missing", &clause));
            complete = false;
            continue;
        }
        bytes = shard.tensors.iter().fold(bytes, |sum, tensor| {
            sum.saturating_add(tensor.range.end.saturating_sub(tensor.range.start))
        });
        if shard.unreadable.is_some() || !shard.complete {
            complete = false;
        } else {
            compare(&mut report.findings, file, names, &shard);
        }
        report.files.push(shard);
    }
    if let Some(claimed) = index.total_size.filter(|claimed| complete && *claimed != bytes) {
        let text = format!("index: `total_size` is {claimed}, the tensors hold {bytes} bytes");
        report.findings.push(Finding::new(Level::Warning, "total-size", text));
    }
    if wanted.len() > HUB_SHARDS {
        let text = format!("index: {} shards, viewers of the Hub give up above {HUB_SHARDS}", wanted.len());
        report.findings.push(Finding::new(Level::Warning, "hub-shards", text));
    }
    let plain = |file: &&&str| wanted.len() > 1 && !is_hub_shard_name(file);
    if let Some(file) = wanted.keys().find(plain) {
        let text = format!(
            "shard `{}`: not named as the Hub names shards, such as `model-00001-of-00002.safetensors`",
            Quoted(file)
        );
        report.findings.push(Finding::new(Level::Note, "shard-name", text));
    }
    note_strays(&mut report.findings, directory, &wanted);
}

fn compare(findings: &mut Vec<Finding>, file: &str, names: &HashSet<&str>, shard: &FileReport) {
    let there: HashSet<&str> = shard.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut absent: Vec<&str> = names.difference(&there).copied().collect();
    absent.sort_by(|a, b| crate::natural_cmp(a, b));
    for name in absent {
        let clause = format!(
            "tensor `{}`: the index places it in `{}`, which does not hold it",
            Quoted(name),
            Quoted(file)
        );
        findings.push(Finding::broken(Rule::INDEX_MATCHES, "tensor-missing", &clause).about(name));
    }
    let mut unnamed: Vec<&str> = there.difference(names).copied().collect();
    unnamed.sort_by(|a, b| crate::natural_cmp(a, b));
    for name in unnamed {
        let clause =
            format!("tensor `{}`: in `{}`, the index does not name it there", Quoted(name), Quoted(file));
        findings.push(Finding::broken(Rule::INDEX_MATCHES, "tensor-unnamed", &clause).about(name));
    }
}

/// Files beside the shards that a loader of the directory might take for part of the model.
fn note_strays(findings: &mut Vec<Finding>, directory: &Path, wanted: &BTreeMap<&str, HashSet<&str>>) {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut strays: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'))
        .filter(|name| !wanted.contains_key(name.as_str()))
        .collect();
    strays.sort();
    for name in strays {
        let text = format!("file `{}`: beside the shards, the index does not name it", Quoted(&name));
        findings.push(Finding::new(Level::Note, "stray-file", text));
    }
}

//! From the paths on the command line to models: patterns expanded, shards of one set joined.

use std::path::{Path, PathBuf};

use tensafe::{
    Checkpoint, Error, Located, OpenOptions, TensorFile, VerifyOptions, is_hub_shard_name, locate,
};

use crate::commands::Failure;

/// One model that the command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// How to call it.
    pub(crate) label: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Path(PathBuf),
    /// Files that were named one by one and are the shards of one model.
    Shards(Vec<PathBuf>),
}

impl Input {
    /// What kind of thing it is: a word that does not change, see SCHEMA.md.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.target {
            Target::Shards(_) => "shards",
            Target::Path(path) if path.is_dir() => match locate(path) {
                Ok(Located::Index { .. }) => "indexed-directory",
                _ => "directory",
            },
            Target::Path(path) if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) => "index",
            Target::Path(_) => "file",
        }
    }

    pub(crate) fn open(&self, options: &OpenOptions) -> Result<Checkpoint, Error> {
        match &self.target {
            Target::Path(path) => Checkpoint::open(path, options),
            Target::Shards(paths) => {
                let files = paths.iter().map(|path| TensorFile::open(path, options));
                Checkpoint::from_files(files.collect::<Result<_, _>>()?)
            }
        }
    }

    pub(crate) fn verify(&self, options: &VerifyOptions) -> tensafe::Report {
        match &self.target {
            Target::Path(path) => tensafe::verify(path, options),
            Target::Shards(paths) => tensafe::verify_files(paths, options),
        }
    }
}

/// The models that `paths` name, in their order. Shards of one set, `…-00001-of-00002.safetensors`,
/// make one model; each other path is one.
pub(crate) fn resolve(paths: &[PathBuf]) -> (Vec<Input>, Vec<Failure>) {
    let (found, failures) = expand_all(paths);
    (join_shards(found), failures)
}

/// The paths in their order. One that does not exist and reads as a pattern is expanded, for shells
/// that do not.
pub(crate) fn expand_all(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Failure>) {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for path in paths {
        match path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists()) {
            None => found.push(path.clone()),
            Some(pattern) => match expand(pattern) {
                Ok(paths) => found.extend(paths),
                Err(message) => failures.push(Failure::new(pattern, message)),
            },
        }
    }
    (found, failures)
}

fn expand(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let found = glob::glob_with(pattern, options);
    let found = found.map_err(|e| format!("pattern `{pattern}`: {} at character {}", e.msg, e.pos))?;
    let mut found: Vec<PathBuf> = found.flatten().collect();
    found.sort_by(|a, b| tensafe::natural_cmp(&a.to_string_lossy(), &b.to_string_lossy()));
    if found.is_empty() { Err(format!("pattern `{pattern}`: no file matches")) } else { Ok(found) }
}

fn join_shards(paths: Vec<PathBuf>) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        let label = set_of(&path);
        let same = label.as_ref().and_then(|label| inputs.iter_mut().find(|input| input.label == *label));
        match (label, same) {
            (_, Some(Input { target: Target::Shards(shards), .. })) => shards.push(path),
            (Some(label), _) => inputs.push(Input { label, target: Target::Shards(vec![path]) }),
            (None, _) => {
                inputs.push(Input { label: path.display().to_string(), target: Target::Path(path) });
            }
        }
    }
    for input in &mut inputs {
        if let Target::Shards(shards) = &input.target
            && let [only] = &shards[..]
        {
            *input = Input { label: only.display().to_string(), target: Target::Path(only.clone()) };
        }
    }
    inputs
}

/// The set that a shard belongs to, as a pattern; `None` for what is not named like a shard.
fn set_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str().filter(|name| is_hub_shard_name(name))?;
    let (before, count) = name.rsplit_once("-of-")?;
    let border = before.rfind(['-', '_'])?;
    let set = format!("{}*-of-{count}", before.get(..=border)?);
    Some(path.with_file_name(set).display().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{join_shards, set_of};

    #[test]
    fn joins_the_shards_of_one_set_and_nothing_else() {
        let paths = [
            "a/model-00001-of-00002.safetensors",
            "lora.safetensors",
            "a/model-00002-of-00002.safetensors",
            "b/model-00001-of-00002.safetensors",
        ];
        let labels: Vec<_> =
            join_shards(paths.iter().map(PathBuf::from).collect()).into_iter().map(|i| i.label).collect();
        assert_eq!(
            labels,
            ["a/model-*-of-00002.safetensors", "lora.safetensors", "b/model-00001-of-00002.safetensors"]
        );
        assert_eq!(set_of("model.safetensors".as_ref()), None);
    }
}

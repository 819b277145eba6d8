//! Which folder is a checkpoint of DeepSpeed, and which file in it is whose.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{Result, mismatch};
use crate::{Error, pickled::Refusal};

/// Files that name the folder of the last checkpoint.
const POINTERS: [&str; 2] = ["latest", "latest_universal"];

/// Bytes of such a file that are read.
const POINTER_BYTES: u64 = 4096;

/// What DeepSpeed puts beside the folders of its checkpoints.
const SCRIPT: &str = "zero_to_fp32.py";

const OPTIM_END: &str = "_optim_states.pt";
const MODEL_END: &str = "_model_states.pt";

/// The folder of one checkpoint.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) layout: Layout,
}

/// How the parameters lie in the folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Flat, a part in the file of each rank.
    Partitioned,
    /// Each in a folder of its own, `zero/NAME/fp32.pt`.
    Universal,
}

/// The files of a folder by rank.
pub(super) struct Files {
    pub(super) optim: Vec<PathBuf>,
    /// One for all ranks, or one of each.
    pub(super) model: Vec<PathBuf>,
}

impl Folder {
    /// The folder that `path` means: itself, or the one that its file `latest` names.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        if !path.is_dir() {
            return Ok(None);
        }
        for pointer in POINTERS {
            let file = path.join(pointer);
            if !file.is_file() {
                continue;
            }
            let tag = tag(&file)?;
            let folder = path.join(&tag);
            if let Some(layout) = layout(&folder)? {
                return Ok(Some(Self { path: folder, layout }));
            }
            if path.join(SCRIPT).is_file() {
                let needed = "a folder with files of ZeRO";
                return Err(mismatch(&file, format!("the folder {tag}"), "none", needed));
            }
        }
        Ok(layout(path)?.map(|layout| Self { path: path.to_owned(), layout }))
    }

    /// The files of all ranks.
    pub(super) fn files(&self) -> Result<Files> {
        let mut found = [BTreeMap::new(), BTreeMap::new()];
        for (name, path) in names(&self.path)? {
            let (kind, stem) = match (name.strip_suffix(OPTIM_END), name.strip_suffix(MODEL_END)) {
                (Some(stem), _) => (0, stem),
                (_, Some(stem)) => (1, stem),
                _ => continue,
            };
            let refuse =
                |why| Err(Error::refused(Some(&self.path), Refusal::Parallel { file: name.clone(), why }));
            let Some((rank, model_rank)) = ranks(stem) else {
                return refuse(
                    "a part of experts or of a pipeline, which is not put together with the others",
                );
            };
            if model_rank != 0 {
                return refuse("a part of a model that is split over ranks, needed `mp_rank_00` alone");
            }
            if let Some(other) = found[kind].insert(rank, path) {
                let other = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(mismatch(
                    &self.path,
                    format!("rank {rank}"),
                    format!("{name} and {other}"),
                    "one",
                ));
            }
        }
        let [optim, model] = found;
        let optim = self.all_ranks(optim, OPTIM_END)?;
        Ok(Files { optim, model: self.all_ranks(model, MODEL_END)? })
    }

    /// The files in the order of their ranks, none of which may be missing.
    fn all_ranks(&self, files: BTreeMap<u64, PathBuf>, end: &str) -> Result<Vec<PathBuf>> {
        let count = files.len();
        let missing = (0..).zip(files.keys()).find(|(needed, found)| needed != *found);
        if let Some((needed, _)) = missing {
            let what = format!("*{end} of rank {needed}");
            return Err(mismatch(&self.path, what, format!("none among {count}"), "one of each rank"));
        }
        Ok(files.into_values().collect())
    }
}

/// `bf16_zero_pp_rank_3_mp_rank_00` is rank 3 of the data, 0 of the model.
fn ranks(stem: &str) -> Option<(u64, u64)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    if let Some(model) = stem.strip_prefix("mp_rank_") {
        return Some((0, number(model)?));
    }
    let stem = stem.strip_prefix("bf16_").or_else(|| stem.strip_prefix("fp16_")).unwrap_or(stem);
    let (rank, model) = stem.strip_prefix("zero_pp_rank_")?.split_once("_mp_rank_")?;
    Some((number(rank)?, number(model)?))
}

/// The name in a file such as `latest`: of a folder beside it, never of one elsewhere.
fn tag(file: &Path) -> Result<String> {
    let failed = |e| Error::from(tensafe_io::Error::from_os("read", file, e));
    let mut text = String::new();
    fs::File::open(file).map_err(failed)?.take(POINTER_BYTES).read_to_string(&mut text).map_err(failed)?;
    let tag = text.trim();
    if tag.is_empty() || tag == "." || tag == ".." || tag.contains(['/', '\\', ':', '\0']) {
        let found = if tag.is_empty() { "nothing" } else { tag };
        return Err(mismatch(file, "the name", found, "that of a folder beside it"));
    }
    Ok(tag.to_owned())
}

fn layout(folder: &Path) -> Result<Option<Layout>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    if names(folder)?.iter().any(|(name, _)| name.ends_with(OPTIM_END)) {
        return Ok(Some(Layout::Partitioned));
    }
    let zero = folder.join("zero");
    let universal = zero.is_dir() && names(&zero)?.iter().any(|(_, path)| path.join("fp32.pt").is_file());
    Ok(universal.then_some(Layout::Universal))
}

/// What a directory holds, by name and in the order of names.
pub(super) fn names(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e| Error::from(tensafe_io::Error::from_os("list", directory, e));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

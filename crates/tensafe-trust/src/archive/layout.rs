//! What the names of an archive's members say that it is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tensafe_container::{Member, Zip};

use crate::text;

/// What the names of the members say that the archive is.
pub(super) struct Layout {
    /// Members called `data.pkl`.
    pub(super) roots: usize,
    /// Whether there is TorchScript.
    pub(super) script: bool,
    /// Whether every member is an array of numpy.
    pub(super) arrays: bool,
    /// Whether it is an archive of `torch.export`.
    export: bool,
    /// Where members called `data.pkl` lie.
    bases: HashSet<String>,
    /// Bytes of the members that hold storages, by root and key.
    storages: HashMap<String, Arc<HashMap<String, u64>>>,
}

impl Layout {
    pub(super) fn of(zip: &Zip) -> Self {
        let names = || zip.members().iter().map(Member::name);
        let pickles = || names().filter(|name| last(name) == "data.pkl");
        let bases = pickles().map(|name| root_of(name).to_owned()).collect();
        let roots = pickles().count();
        let script =
            roots > 0 && names().any(|name| last(name) == "constants.pkl" || name.contains("/code/"));
        let export =
            names().any(|name| matches!(last(name), "archive_format" | "serialized_exported_program.json"));
        let arrays = !zip.members().is_empty() && names().all(|name| text::ending(name) == "npy");
        let mut storages: HashMap<String, HashMap<String, u64>> = HashMap::new();
        for member in zip.members().iter().filter(|_| roots > 0) {
            if let Some((root, key)) = storage_of(member.name()) {
                storages.entry(root.to_owned()).or_default().insert(key.to_owned(), member.bytes());
            }
        }
        let storages = storages.into_iter().map(|(root, sizes)| (root, Arc::new(sizes))).collect();
        Self { roots, script, arrays, export, bases, storages }
    }

    /// Whether the member is the memory of a tensor.
    pub(super) fn is_storage(&self, name: &str) -> bool {
        let exported = self.export && (name.contains("/data/weights/") || name.contains("/data/constants/"));
        let beside_pickle = storage_of(name).is_some_and(|(root, _)| self.bases.contains(root));
        beside_pickle || (exported && text::ending(name).is_empty())
    }

    /// Bytes of the storages beside the pickle of this name.
    pub(super) fn storages(&self, name: &str) -> Option<Arc<HashMap<String, u64>>> {
        Some(self.storages.get(root_of(name)).cloned().unwrap_or_default())
    }
}

fn root_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(root, _)| root)
}

/// The root and the key of `<root>/data/<key>`; torch 1.4 called the directory `tensors`.
fn storage_of(name: &str) -> Option<(&str, &str)> {
    let (directory, key) = name.rsplit_once('/')?;
    let (root, directory) = directory.rsplit_once('/').unwrap_or(("", directory));
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
    (plain && matches!(directory, "data" | "tensors" | "constants")).then_some((root, key))
}

/// The last part of a member's name.
pub(super) fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

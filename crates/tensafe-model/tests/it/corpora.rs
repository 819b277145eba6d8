//! The corpora of `tests/pickles`: what real writers left is opened, what means harm yields nothing.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tensafe_model::{Conversion, ConvertOptions, ErrorKind, Pickled, PickledOptions};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pickles")
}

fn manifest(name: &str) -> serde_json::Map<String, Json> {
    let text = std::fs::read_to_string(corpus().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_real_writers_left_opens_and_plans() {
    let mut planned = 0;
    let manifest = manifest("benign.json");
    for (name, entry) in manifest["files"].as_object().unwrap() {
        if !entry["refused"].is_null() {
            continue;
        }
        let opened = Pickled::open(corpus().join("benign").join(name), &PickledOptions::default());
        let pickled = opened.unwrap_or_else(|error| panic!("{}", error.chain()));
        let mut found: Vec<&str> = pickled.names().collect();
        let mut needed: Vec<&str> =
            entry["tensors"].as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        needed.sort_unstable();
        // The one tensor of a file has no name in the manifest.
        if needed != [""] {
            assert_eq!(found, needed, "{name}");
        }
        let options = ConvertOptions::default();
        let conversion = Conversion::plan(pickled, Path::new("out.safetensors"), &options);
        let conversion = conversion.unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        let all = conversion.tensors().len() + conversion.aliases().len();
        assert_eq!(all, needed.len(), "{name}");
        for tensor in conversion.tensors().iter().filter(|_| needed != [""]) {
            let row = &entry["tensors"][&tensor.found];
            assert_eq!(row["dtype"], tensor.element, "{name} {}", tensor.found);
        }
        planned += 1;
    }
    assert!(planned > 500, "{planned}");
}

/// Bad by the manifest, and yet converted: the tensors are what the file says, and nothing else is
/// read. `tests/python/test_pickles.py` says why of each.
const INERT: [&str; 4] = [
    "cut_version_missing.pt",
    "legacy_view_is_its_root.pth",
    "storage_byteorder_big.pt",
    "storage_two_types_one_key.pt",
];

#[test]
fn what_means_harm_yields_no_tensor() {
    for (name, entry) in manifest("hostile.json") {
        let path = corpus().join("hostile").join(&name);
        let opened = Pickled::open(&path, &PickledOptions::default());
        if entry["verdict"] == "bad" && !INERT.contains(&&*name) {
            let count = opened.as_ref().map_or(0, |pickled| pickled.names().count());
            assert_eq!(count, 0, "{name}");
        }
        if let Err(error) = opened {
            let kinds = [ErrorKind::Format, ErrorKind::Limit, ErrorKind::NotFound, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{name}: {:?} {}", error.kind(), error.chain());
        }
    }
}

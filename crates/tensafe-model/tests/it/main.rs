//! Models as a whole: what is found under a path, what files say of each other, the tree of names,
//! the report on what is damaged, and checkpoints of other formats on their way to safetensors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod build;
mod checkpoint;
mod convert;
mod corpora;
mod failures;
mod pickled;
mod refusals;
mod sparse;
mod tree;
mod verify;

use std::{fs, path::Path};

use tensafe_format::{Dtype, LayoutOptions, Metadata, TensorSpec};
use tensafe_io::{ReplaceOptions, write_file};

/// Writes zeros under these names: `F32` of the given shape.
fn write(path: &Path, tensors: &[(&str, &[u64])]) {
    let metadata = Metadata::from([("format".to_owned(), "pt".to_owned())]);
    let zeros = vec![0; 4096];
    let tensors = tensors.iter().map(|(name, shape)| {
        let bytes = 4 * shape.iter().product::<u64>();
        (TensorSpec::new(*name, Dtype::F32, *shape), &zeros[..usize::try_from(bytes).unwrap()])
    });
    write_file(path, tensors, Some(&metadata), &LayoutOptions::default(), ReplaceOptions::default()).unwrap();
}

/// Writes a file of this text as its header, padded to 8, and so many bytes of data.
fn write_raw(path: &Path, header: &str, data_bytes: usize) {
    let text = header.to_owned() + &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    fs::write(path, bytes).unwrap();
}

/// Writes an index that names these tensors and files.
fn write_index(path: &Path, total_size: Option<u64>, map: &[(&str, &str)]) {
    let index = tensafe_format::ShardIndex {
        weight_map: map.iter().map(|(name, file)| ((*name).to_owned(), (*file).to_owned())).collect(),
        total_size,
        ..Default::default()
    };
    fs::write(path, index.to_json()).unwrap();
}

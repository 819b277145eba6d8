//! The integration tests of tensafe-io: one binary.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    unsafe_code,
    reason = "tests may panic, and promise that nobody else touches their temporary files"
)]

mod direct;
mod disk;
mod file_sink;
mod plan;
mod sources;
mod stage;
mod tensor_file;
mod tensor_writer;

use std::path::PathBuf;

use tensafe_format::{Dtype, TensorSpec};
use tensafe_io::{Access, MapPermit, OpenOptions, ReplaceOptions, write_file};

/// A directory of this test alone.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Every way to open a file.
fn accesses() -> [OpenOptions; 5] {
    // SAFETY: the files are in temporary directories that no other process knows; tests that change
    // a file do so for reads, not for mappings.
    let permit = unsafe { MapPermit::promised() };
    [Access::Read, Access::Direct, Access::Owned, Access::Map(permit), Access::Auto(permit)]
        .map(|a| OpenOptions::default().with_access(a))
}

/// The names of what is in a directory, in order.
fn names_in(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes that tell where they stand.
fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13) as u8).collect()
}

/// A file of one tensor `t`, U8 of the given shape, counting upwards.
fn file_of(directory: &tempfile::TempDir, shape: &[u64]) -> (PathBuf, Vec<u8>) {
    let path = directory.path().join("model.safetensors");
    let bytes: Vec<u8> = (0..shape.iter().product::<u64>()).map(|i| (i % 251) as u8).collect();
    let spec = TensorSpec::new("t", Dtype::U8, shape);
    let options = ReplaceOptions::default().with_durable(false);
    write_file(&path, [(spec, &bytes[..])], None, &Default::default(), options).unwrap();
    (path, bytes)
}

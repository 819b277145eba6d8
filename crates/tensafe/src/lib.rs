//! Model weights, stored safely and loaded fast: safetensors files, one or many.
//!
//! Open a model, look at it, take a tensor or a part of one:
//!
//! ```
//! use tensafe::{Dtype, Index, TensorSpec};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("model.safetensors");
//! let weight: Vec<u8> = (0u8..24).collect();
//! tensafe::save(&path, [(TensorSpec::new("weight", Dtype::U8, [4, 6]), &weight[..])], None)?;
//!
//! let model = tensafe::open(&path)?;
//! let (file, info) = model.find("weight")?;
//! assert_eq!((info.dtype(), info.shape()), (Dtype::U8, &[4, 6][..]));
//! assert_eq!(&*file.tensor("weight")?, weight);
//!
//! // Columns 1 and 2: only their bytes are read.
//! let (shape, bytes) = file.region("weight", &[Index::Ellipsis, Index::range(1..3)], Default::default())?;
//! assert_eq!(shape, [4, 2]);
//! assert_eq!(&*bytes, [1, 2, 7, 8, 13, 14, 19, 20]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Convert a checkpoint that is a pickle, without executing it:
//!
//! ```
//! use std::ops::ControlFlow;
//! use tensafe::{ConvertOptions, Dtype};
//!
//! # let directory = tempfile::tempdir()?;
//! # let (input, output) = (directory.path().join("checkpoint.pkl"), directory.path().join("model.safetensors"));
//! // By hand, a pickle of {"step": 3, "weight": …}: an array of numpy, 2 × 2 bytes.
//! let mut pickle = b"\x80\x04}(\x8c\x04stepK\x03\x8c\x06weight".to_vec();
//! pickle.extend(b"cnumpy.core.numeric\n_frombuffer\n(C\x04\x01\x02\x03\x04");
//! pickle.extend(b"cnumpy\ndtype\n\x8c\x02u1\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
//! pickle.extend(b"K\x02K\x02\x86\x8c\x01CtRu.");
//! std::fs::write(&input, pickle)?;
//!
//! let mut go_on = |_| ControlFlow::Continue(());
//! let conversion = tensafe::convert(&input, &output, &ConvertOptions::default(), &mut go_on)?;
//! assert_eq!(conversion.checkpoint().values()[0].path, ["step"]);
//!
//! let model = tensafe::open(&output)?;
//! let (file, info) = model.find("weight")?;
//! assert_eq!((info.dtype(), info.shape()), (Dtype::U8, &[2, 2][..]));
//! assert_eq!(&*file.tensor("weight")?, [1, 2, 3, 4]);
//!
//! // A pickle that would run something is refused; a scan tells what it would run.
//! std::fs::write(&input, b"cos\nsystem\n(S'id'\ntR.")?;
//! assert!(tensafe::convert(&input, &output, &ConvertOptions::default(), &mut go_on).is_err());
//! let report = tensafe::trust::scan([&input], &Default::default());
//! assert!(report.reaches(tensafe::trust::Level::Error));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`convert()`] writes the tensors of a checkpoint to safetensors files, [`load`] reads them into
//!   memory; [`Pickled`] is the open checkpoint and [`Conversion`] the plan.
//! - [`trust`] is `tensafe-trust`: it tells what loading a file would run, before it is loaded.
//!
//! This crate re-exports the public types of `tensafe-format` (bytes to header to byte runs),
//! `tensafe-io` (sources, memory, the atomic writer), `tensafe-model` (many files as one, other
//! formats converted) and `tensafe-trust` (the scanner), and adds [`open()`] and [`save`]. Use those
//! crates directly for less: `tensafe-format` is `no_std`.
//!
//! # What this crate does not do
//! It does not compute: tensors are bytes with a dtype and a shape. It does not execute pickles:
//! [`convert()`] and [`load`] read what they hold, and refuse what they would import.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::path::Path;

pub use tensafe_format::Error as FormatError;
pub use tensafe_format::{
    Bounds, DiagnosedTensor, Diagnosis, Dtype, Header, Index, Layout, LayoutOptions, Limits, Metadata, Mode,
    ParseOptions, Region, Rule, Runs, SafeTensors, ShardIndex, TensorInfo, TensorSpec, TensorView,
    header_range, is_hub_shard_name, shard_name, split_into_shards, tensor_bytes,
};
#[cfg(target_os = "linux")]
pub use tensafe_io::CudaStager;
pub use tensafe_io::Error as FileError;
pub use tensafe_io::{
    Access, Buffer, Cache, Chain, Control, CopyStager, Destination, DirectWrites, Entry, ExecuteOptions,
    Execution, Explain, ExplainedRange, FileSink, FileSource, FileSystem, Group, Identity, Latency, Loaded,
    MapPermit, MemorySource, Method, OpenOptions, Order, Plan, ReplaceOptions, Selection, Sink, Slab, Source,
    SourceInfo, Stager, TensorFile, TensorWriter, Why, WriteControl, copy_range, limit_pool, read_parallel,
    snapshot, trim_pool, write_file, write_file_with,
};
pub use tensafe_model::{
    Checkpoint, Conversion, ConvertOptions, Error, ErrorKind, FileReport, Finding, FoundValue, Level,
    Located, Node, OnProgress, Pickled, PickledOptions, PlannedFile, PlannedTensor, Progress, REPORT_SCHEMA,
    Report, SeenSymbol, Segment, SegmentKind, Structure, StructurePart, StructureTensor, TensorKind, Totals,
    Tree, Verdict, VerifyOptions, convert, foreign_format, load, locate, natural_cmp, parse_size, sidecar,
    verify, verify_files,
};

/// Files judged before they are loaded: what a pickle would run, what an archive hides.
pub use tensafe_trust as trust;

/// Opens a model: a file, a directory, or an index of shards. Strict, by positioned reads.
///
/// # Errors
/// As [`Checkpoint::open`].
///
/// # Cost
/// Reads the header of each file.
pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, Error> {
    Checkpoint::open(path, &OpenOptions::default())
}

/// Writes tensors as one file, atomically and durably, with the bytes that the reference writes.
///
/// # Errors
/// As [`write_file`].
///
/// # Cost
/// Blocks until the file is on the disk.
pub fn save<'d>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (TensorSpec, &'d [u8])>,
    metadata: Option<&Metadata>,
) -> Result<(), Error> {
    Ok(write_file(path, tensors, metadata, &LayoutOptions::default(), ReplaceOptions::default())?)
}

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

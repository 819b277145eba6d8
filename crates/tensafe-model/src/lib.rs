//! A model's weights as a whole: a file, a directory or an index of shards, seen as one map from
//! names to tensors, and checkpoints of other formats on their way to that.
//!
//! - [`Checkpoint`] is safetensors files as one model, [`verify()`] says what is wrong with them.
//! - [`Pickled`] is a checkpoint of another format, opened without being run; [`convert()`] writes it
//!   as safetensors.
//!
//! ```no_run
//! use tensafe_model::{Checkpoint, OpenOptions};
//!
//! let model = Checkpoint::open("path/to/model", &OpenOptions::default())?;
//! println!("{} tensors in {} files", model.len(), model.files().len());
//! let (file, info) = model.find("lm_head.weight")?;
//! let bytes = file.tensor(info.name())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What this crate does not do
//! It parses no header and reads no bytes itself: that is `tensafe-format` and `tensafe-io`. It
//! renders nothing: programs decide how a tree or a report looks.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cast;
mod checkpoint;
mod convert;
mod error;
mod gather;
mod locate;
mod pickled;
mod planned;
mod tree;
mod verify;
mod zero;

pub use checkpoint::Checkpoint;
pub use convert::{
    Conversion, ConvertOptions, OnProgress, PlannedFile, PlannedTensor, Progress, REPORT_SCHEMA, convert,
    load, parse_size, sidecar,
};
pub use error::{Error, ErrorKind};
pub use locate::{Located, locate};
pub use pickled::{
    FoundValue, Pickled, PickledOptions, SeenSymbol, Structure, StructurePart, StructureTensor, TensorKind,
    dtype_of,
};
pub use tensafe_io::{Access, OpenOptions};
pub use tree::{Node, Totals, Tree, natural_cmp};
pub use verify::{
    FileReport, Finding, Level, Report, Segment, SegmentKind, Verdict, VerifyOptions, foreign_format, verify,
    verify_files,
};

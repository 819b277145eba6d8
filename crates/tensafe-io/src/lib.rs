//! The bytes of safetensors files: where they come from, how they are read, and how they are
//! written so that a reader never sees half a file.
//!
//! - [`TensorFile`] is one open file: its [`Header`](tensafe_format::Header) and its bytes.
//! - [`Source`] is where bytes are read from: a file, memory, or what a caller brings.
//! - [`Buffer`] is memory that tensors live in; every view keeps it alive.
//! - [`Plan`] says what to load, from several files at once; [`Execution`] reads it, within a budget.
//! - [`Stager`] brings what is read to the memory of a device.
//! - [`Sink`] is where bytes are written to; nothing is visible before it commits. [`FileSink`]
//!   writes a temporary file and renames it.
//! - [`TensorWriter`] writes one file, each tensor when it is there.
//!
//! ```no_run
//! use tensafe_io::{OpenOptions, TensorFile};
//!
//! let file = TensorFile::open("model.safetensors", &OpenOptions::default())?;
//! for tensor in file.header().tensors() {
//!     println!("{} {:?}", tensor.name(), tensor.shape());
//! }
//! let bytes = file.tensor("embedding.weight")?;
//! # Ok::<(), tensafe_io::Error>(())
//! ```
//!
//! # What this crate does not do
//! It knows no JSON and no framework. Threads, not futures.
#![warn(missing_docs)]

mod ahead;
mod arena;
mod budget;
mod buffer;
mod content;
mod copy;
mod destination;
mod direct;
mod error;
mod execute;
mod explain;
mod file;
mod filesystem;
mod group;
mod hand_off;
mod header_cache;
mod lower;
mod mapping;
mod memory;
mod parallel;
mod perform;
mod plan;
mod pool;
mod program;
mod replace;
#[cfg(target_os = "linux")]
mod residency;
mod scatter;
mod sink;
mod source;
mod stage;
mod sync;
mod tensor_file;
mod worker;
mod write;

pub use buffer::Buffer;
pub use copy::{COPY_BYTES, copy_range};
pub use destination::Destination;
pub use error::{Chain, Error, ErrorKind};
pub use execute::{Control, ExecuteOptions, Execution, Loaded, explain, explain_staged};
pub use explain::{Explain, ExplainedRange, Method, Why};
pub use file::FileSource;
pub use filesystem::FileSystem;
pub use group::Group;
pub use mapping::MapPermit;
pub use memory::MemorySource;
pub use parallel::read_parallel;
pub use plan::{Entry, Order, Plan, Selection};
pub use pool::{limit_pool, trim_pool};
pub use replace::{FileSink, ReplaceOptions};
pub use sink::Sink;
pub use source::{Identity, Latency, Source, SourceInfo};
#[cfg(target_os = "linux")]
pub use stage::CudaStager;
pub use stage::{CopyStager, Slab, Stager};
pub use tensor_file::{Access, Cache, OpenOptions, TensorFile};
pub use write::{DirectWrites, TensorWriter, WriteControl, snapshot, write_file, write_file_with};

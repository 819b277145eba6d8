//! The safetensors format without I/O: from bytes to a checked [`Header`], from a list of tensors
//! to the [`Layout`] of a file, from an index expression to a [`Region`] and the byte runs that
//! hold it.
//!
//! - [`Header`] is what a file says of itself. It is parsed once and strictly; one that exists is
//!   valid.
//! - [`Region`] is a part of one tensor, chosen as numpy chooses: [`Region::runs`] yields its byte
//!   ranges one at a time, however many there are.
//! - [`Layout`] decides where a writer puts each tensor and renders the header, to the byte as the
//!   reference implementation does.
//!
//! [`SafeTensors`] joins a header with the bytes of a whole file in memory:
//!
//! ```
//! use tensafe_format::{Dtype, Layout, LayoutOptions, SafeTensors, TensorSpec};
//!
//! let specs = [TensorSpec::new("bias", Dtype::U8, [4])];
//! let layout = Layout::new(specs, None, &LayoutOptions::default())?;
//! let mut file = layout.header_bytes().to_vec();
//! file.extend([1, 2, 3, 4]);
//!
//! let tensors = SafeTensors::parse(&file)?;
//! assert_eq!(tensors.tensor("bias")?.data(), [1, 2, 3, 4]);
//! # Ok::<(), tensafe_format::Error>(())
//! ```
//!
//! # What this crate does not do
//! It opens no files, maps no memory, converts no values, and knows no framework. It needs `alloc`
//! and nothing else; the text of every rule is `docs/spec.md`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod dtype;
mod error;
mod header;
mod layout;
mod options;
mod region;
mod rule;
mod shards;
mod view;

pub use dtype::Dtype;
pub use error::{Error, ErrorKind, Quoted};
pub use header::{
    DiagnosedTensor, Diagnosis, Header, LENGTH_FIELD_BYTES, METADATA_NAME, Metadata, TensorInfo, header_range,
};
pub use layout::{Layout, LayoutOptions, TensorSpec, tensor_bytes};
pub use options::{Limits, Mode, ParseOptions};
pub use region::{Bounds, Index, Region, Runs};
pub use rule::Rule;
pub use shards::{ShardIndex, is_hub_shard_name, shard_name, split_into_shards};
pub use view::{SafeTensors, TensorView};

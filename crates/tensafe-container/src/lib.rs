//! What checkpoints are wrapped in: zip archives, tar archives, `.npy` headers and compressed
//! streams, told apart by their content and read strictly.
//!
//! - [`detect`] says what bytes are, whatever their file is called.
//! - [`Zip`] compares an archive's directory with every local header and keeps each [`Flaw`];
//!   [`Zip::open`] refuses archives that two readers could read differently.
//! - [`Tar`] lists entries, [`Npy`] reads the header of one array.
//! - [`decompress`] undoes one layer of compression within [`Limits`].
//!
//! What is found inside is a [`Source`](tensafe_io::Source) again: a [`Window`] of the file where
//! the bytes stand in it as they are, else memory or an unnamed temporary file.
//!
//! ```
//! use std::sync::Arc;
//! use tensafe_container::{Kind, Limits, Window, detect};
//! use tensafe_io::{Buffer, MemorySource, Source};
//!
//! let file: Arc<dyn Source> = Arc::new(MemorySource::new(Buffer::from_owner(b"..\x80\x02N.")));
//! let inner = Window::new(file, 2..6)?;
//! assert_eq!(detect(&inner)?, Kind::Pickle);
//! # Ok::<(), tensafe_container::Error>(())
//! ```
//!
//! # What this crate does not do
//! It writes nothing, knows no pickles or tensors, decrypts nothing, and does not say what members
//! an archive should have.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bytes;
mod detect;
mod error;
mod inflate;
mod limits;
mod npy;
mod tar;
mod window;
mod zip;

pub use detect::{Kind, detect};
pub use error::{Error, ErrorKind};
pub use inflate::decompress;
pub use limits::Limits;
pub use npy::{ByteOrder, Descr, Npy};
pub use tar::{Tar, TarEntry, TarFlaw, TarFlawKind, TarKind};
pub use window::Window;
pub use zip::{CrcState, Flaw, FlawKind, Member, Zip};

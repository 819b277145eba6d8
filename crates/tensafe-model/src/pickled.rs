//! Checkpoints of other formats, opened without being run: their tensors by name, and where the
//! bytes of each are.
//!
//! Containers are told by their content. Nothing of a pickle is imported or called; what it names
//! beyond the closed table of `tensafe-pickle` is refused, or left out on request. A [`Pickled`] that
//! exists has tensors whose every element lies within the bytes that are there.

mod elements;
mod flatten;
mod leaves;
mod open;
mod refusal;
mod sparse;
mod storages;
mod stream;
mod structure;
mod values;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value as Json;
use tensafe_format::Dtype;
use tensafe_io::{FileSource, Identity, Source};
use tensafe_pickle::Element;

use crate::{Error, zero};

pub use elements::dtype_of;
pub(crate) use elements::swapped_bytes;
pub(crate) use refusal::Refusal;
pub use structure::{Structure, StructurePart, StructureTensor, TensorKind};
pub(crate) use values::nested;

/// How a checkpoint is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PickledOptions {
    /// Whether what is unknown is left out, instead of being refused, and the tensors beside and
    /// below it are taken: the parameters, buffers and submodules of a module that was pickled whole.
    pub salvage: bool,
    /// Whether sparse tensors are written as dense ones, instead of being refused.
    pub dense: bool,
    /// Whether the checksums of a zip archive's tensors are compared, which reads every byte. That
    /// of the pickle always is.
    pub crc: bool,
    /// Whether the containers of a file of torch are kept, and the plain values in them: see
    /// [`Pickled::structure`]. What is neither a tensor nor plain is refused then.
    pub structure: bool,
    /// Upper bounds for the pickles.
    pub limits: tensafe_pickle::Limits,
    /// Upper bounds for archives and compressed streams.
    pub container_limits: tensafe_container::Limits,
}

impl Default for PickledOptions {
    fn default() -> Self {
        Self {
            salvage: false,
            dense: false,
            crc: false,
            structure: false,
            limits: tensafe_pickle::Limits::DEFAULT,
            container_limits: tensafe_container::Limits::DEFAULT,
        }
    }
}

impl PickledOptions {
    /// The same options, leaving out what is unknown or refusing it.
    #[must_use]
    pub const fn with_salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }

    /// The same options, writing sparse tensors as dense ones or refusing them.
    #[must_use]
    pub const fn with_dense(mut self, dense: bool) -> Self {
        self.dense = dense;
        self
    }

    /// The same options, comparing checksums of tensors or not.
    #[must_use]
    pub const fn with_crc(mut self, crc: bool) -> Self {
        self.crc = crc;
        self
    }

    /// The same options, keeping what stands around the tensors of a file of torch or not.
    #[must_use]
    pub const fn with_structure(mut self, structure: bool) -> Self {
        self.structure = structure;
        self
    }
}

/// A checkpoint of another format, open.
#[derive(Debug, Default)]
pub struct Pickled {
    pub(crate) tensors: Vec<FoundTensor>,
    pub(crate) storages: Vec<Placed>,
    pub(crate) values: Vec<FoundValue>,
    pub(crate) symbols: Vec<SeenSymbol>,
    pub(crate) notes: Vec<String>,
    /// What a safetensors file has of its own.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) torch: bool,
    structure: Option<Structure>,
    /// What floats become where nobody asks for another dtype.
    pub(crate) dtype: Option<Dtype>,
    path: Option<PathBuf>,
    /// What the tensors' bytes are read from, and what told its content from another when it was opened.
    opened: Vec<(Arc<dyn Source>, Option<Identity>)>,
}

/// A tensor, and the way over its storage.
#[derive(Clone, Debug)]
pub(crate) struct FoundTensor {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) shape: Vec<u64>,
    /// Elements from one to the next in each dimension.
    pub(crate) strides: Vec<i64>,
    /// The first element.
    pub(crate) offset: u64,
    pub(crate) storage: usize,
    pub(crate) conjugate: bool,
    pub(crate) negative: bool,
}

/// Where the bytes of a storage are.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) range: Range<u64>,
    pub(crate) big_endian: bool,
}

impl Placed {
    pub(crate) fn bytes(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

/// A value that is no tensor: where it stands, and what it is, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundValue {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// The value, as far as JSON can hold it.
    pub value: Json,
}

/// A name that a pickle would have imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSymbol {
    /// The member of the container, with those around it; empty for the file itself.
    pub member: String,
    /// The first byte of the instruction in the pickle.
    pub offset: u64,
    /// Module and name.
    pub symbol: String,
    /// Whether it is one that checkpoints are made of.
    pub known: bool,
}

#[cold]
pub(crate) fn changed(path: &Path) -> tensafe_io::Error {
    let changed = std::io::Error::other("the file was changed since its pickle was read");
    tensafe_io::Error::from_os("read", path, changed)
}

impl Pickled {
    /// Opens the checkpoint at `path`: a file, an index of shards (`pytorch_model.bin.index.json`), or
    /// a directory that holds one, or that is one of DeepSpeed's: the parts of all ranks, put together.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the container or a pickle is broken, a tensor does
    /// not keep to its storage, or two tensors have one name;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where it is of a format that is not read or names
    /// what is not known; [`Limit`](crate::ErrorKind::Limit); [`Io`](crate::ErrorKind::Io).
    ///
    /// # Cost
    /// Reads directories, headers and pickles, not the tensors' bytes. A compressed checkpoint is
    /// decompressed, beyond 32 MiB into a temporary file without a name.
    pub fn open(path: impl AsRef<Path>, options: &PickledOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut pickled = match zero::open(path, options)? {
            Some(pickled) => pickled,
            None => open::at_path(path, options)?,
        };
        pickled.path = Some(path.to_owned());
        Ok(pickled)
    }

    /// Opens the checkpoint that these bytes are.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(source: Arc<dyn Source>, options: &PickledOptions) -> Result<Self, Error> {
        open::source(source, options)
    }

    /// Opens a file that tensors, or pickles, are in.
    fn open_file(&mut self, path: &Path) -> Result<Arc<dyn Source>, Error> {
        let source: Arc<dyn Source> = Arc::new(FileSource::open(path)?);
        self.watch(&source)?;
        Ok(source)
    }

    /// Remembers what the content of a source is, before it is read.
    fn watch(&mut self, source: &Arc<dyn Source>) -> Result<(), Error> {
        let identity = source.identity()?;
        self.opened.push((Arc::clone(source), identity));
        Ok(())
    }

    /// Whether all that was read is of the content that was there when it was opened.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where a file was changed in place.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        for (source, identity) in &self.opened {
            if source.identity()? != *identity {
                return Err(changed(source.path().unwrap_or_else(|| Path::new(""))).into());
            }
        }
        Ok(())
    }

    /// What it was opened by.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The names of the tensors, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// The values that are no tensors, in the order of the file.
    #[must_use]
    pub fn values(&self) -> &[FoundValue] {
        &self.values
    }

    /// What stands around the tensors, where [`PickledOptions::structure`] asked for it and this is a
    /// file of `torch.save` since 0.1.10, and no TorchScript archive.
    #[must_use]
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    /// Takes it out.
    #[must_use]
    pub fn take_structure(&mut self) -> Option<Structure> {
        self.structure.take()
    }

    /// The names that the pickles would have imported, in the order of their bytes.
    #[must_use]
    pub fn symbols(&self) -> &[SeenSymbol] {
        &self.symbols
    }

    /// What was left out on the way, one sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

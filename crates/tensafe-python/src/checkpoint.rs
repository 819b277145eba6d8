//! An open model, as the Python package sees it: names, tables, and memory to make tensors of.

use std::{ops::Range, path::PathBuf, sync::Arc};

use pyo3::{exceptions::PyValueError, prelude::*, types::PyList};
use tensafe::{
    Access, Bounds, Buffer, Dtype, ErrorKind, FileError, FormatError, Header, Index, MemorySource, Metadata,
    Mode, OpenOptions, ParseOptions, Region, TensorFile, TensorInfo,
};

use crate::{
    buffer::{Held, Memory, dlpack, map_permit},
    errors::{raise, unsupported, usage},
    index,
    reader::Reader,
};

/// Files seen as one map of names.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Checkpoint {
    model: tensafe::Checkpoint,
}

/// Name, dtype, shape, file, begin, end: the offsets in bytes of the file's data section.
type Row<'a> = (&'a str, &'static str, &'a [u64], usize, u64, u64);

/// A tensor, and its bytes' place in the memory that holds them.
type Placed<'a> = (TensorInfo<'a>, Range<usize>);

fn parse_options(lenient: bool) -> ParseOptions {
    ParseOptions::with_mode(if lenient { Mode::Lenient } else { Mode::Strict })
}

#[pymethods]
impl Checkpoint {
    /// Opens a file, a directory or an index of shards.
    #[staticmethod]
    #[pyo3(signature = (path, *, io = "auto", lenient = false))]
    fn open(py: Python<'_>, path: PathBuf, io: &str, lenient: bool) -> PyResult<Self> {
        let access = match io {
            "auto" => Access::Auto(map_permit()),
            "mmap" => Access::Map(map_permit()),
            "pread" => Access::Read,
            other => {
                let text =
                    format!("io \"{other}\" is invalid (expected one of: \"auto\", \"mmap\", \"pread\")");
                return Err(PyValueError::new_err(text));
            }
        };
        let options = OpenOptions::default().with_parse(parse_options(lenient)).with_access(access);
        let opened = py.detach(|| tensafe::Checkpoint::open(&path, &options));
        Ok(Self { model: opened.map_err(raise)? })
    }

    /// Takes the bytes of a whole file. With `copy` each tensor is read out of them when it is asked
    /// for; without, tensors are views of them.
    #[staticmethod]
    #[pyo3(signature = (data, *, lenient = false, copy = true))]
    fn from_buffer(py: Python<'_>, data: &Bound<'_, PyAny>, lenient: bool, copy: bool) -> PyResult<Self> {
        let held = Buffer::from_owner(Held::of(data)?);
        let options = parse_options(lenient);
        let opened = py.detach(|| {
            let file = if copy {
                TensorFile::from_source(Arc::new(MemorySource::new(held)), &options)
            } else {
                TensorFile::from_memory(held, &options)
            };
            tensafe::Checkpoint::from_files(vec![file?])
        });
        Ok(Self { model: opened.map_err(raise)? })
    }

    /// Takes an object with `seek` and `read`.
    #[staticmethod]
    #[pyo3(signature = (reader, *, lenient = false))]
    fn from_reader(py: Python<'_>, reader: &Bound<'_, PyAny>, lenient: bool) -> PyResult<Self> {
        let source = Arc::new(Reader::new(reader)?);
        let opened = py.detach(|| {
            let file = TensorFile::from_source(source, &parse_options(lenient))?;
            tensafe::Checkpoint::from_files(vec![file])
        });
        Ok(Self { model: opened.map_err(raise)? })
    }

    fn __len__(&self) -> usize {
        self.model.len()
    }

    fn __contains__(&self, name: &str) -> bool {
        self.model.find(name).is_ok()
    }

    /// The names, sorted.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.model.names().map(|(name, _)| name))
    }

    /// The names in the order of the files and of the bytes in them.
    fn offset_names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows: Vec<_> = self.rows().map(|(name, ..)| name).collect();
        PyList::new(py, rows)
    }

    fn metadata(&self) -> Option<Metadata> {
        self.model.metadata()
    }

    /// The paths of the files, `None` for bytes that have none.
    fn files(&self) -> Vec<Option<PathBuf>> {
        self.model.files().iter().map(|file| file.path().map(PathBuf::from)).collect()
    }

    /// Whether every tensor's bytes are aligned for its elements.
    fn is_aligned(&self) -> bool {
        self.model.files().iter().all(|file| file.header().tensors().all(|t| is_aligned(file.header(), &t)))
    }

    /// What the header says of a tensor.
    fn info(&self, name: &str) -> PyResult<(&'static str, Vec<u64>, u64, u64)> {
        let (_, info) = self.model.find(name).map_err(raise)?;
        let range = info.data_offsets();
        Ok((info.dtype().name(), info.shape().to_vec(), range.start, range.end))
    }

    /// All tensors in the order of the files and of the bytes in them.
    fn infos<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows: Vec<Row<'_>> = self.rows().collect();
        PyList::new(py, rows)
    }

    /// Every tensor in the order of the files: name, dtype, shape, the memory that holds it, and where
    /// in that it begins. A mapped file is one memory; of a file that is read, each large tensor has
    /// memory of its own, and small ones share some.
    fn memories<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut rows = Vec::with_capacity(self.model.len());
        for file in self.model.files() {
            for (tensors, bytes) in self.loaded(py, file)? {
                let memory = Py::new(py, Memory(bytes))?;
                for (info, place) in tensors {
                    let (dtype, memory) = (info.dtype().name(), memory.clone_ref(py));
                    rows.push((info.name(), dtype, info.shape(), memory, place.start));
                }
            }
        }
        PyList::new(py, rows)
    }

    /// The bytes of one tensor, aligned for its elements.
    fn memory(&self, py: Python<'_>, name: &str) -> PyResult<Memory> {
        self.bytes_of(py, name).map(|(_, bytes)| Memory(bytes))
    }

    /// A part of one tensor: its shape and its bytes. With `clamp`, bounds beyond the end mean the
    /// end.
    #[pyo3(signature = (name, expression, *, clamp = false))]
    fn region(
        &self,
        py: Python<'_>,
        name: &str,
        expression: &Bound<'_, PyAny>,
        clamp: bool,
    ) -> PyResult<(Vec<u64>, Memory)> {
        let (_, shape, bytes) = self.region_bytes(py, name, expression, clamp)?;
        Ok((shape, Memory(bytes)))
    }

    /// The shape of a part of one tensor. Reads nothing.
    #[pyo3(signature = (name, expression, *, clamp = false))]
    fn region_shape(&self, name: &str, expression: &Bound<'_, PyAny>, clamp: bool) -> PyResult<Vec<u64>> {
        let (_, info) = self.model.find(name).map_err(raise)?;
        let items = index::parse(expression, info.shape())?;
        let region = Region::with_bounds(info.dtype(), info.shape(), &items, bounds(clamp));
        let region = region.map_err(|e| slicing_error(&items, &info, &e))?;
        Ok(region.shape().to_vec())
    }

    /// One tensor as a DLPack capsule; `raw` shows its bytes as `uint8`.
    #[pyo3(signature = (name, *, raw = false))]
    fn dlpack<'py>(&self, py: Python<'py>, name: &str, raw: bool) -> PyResult<Bound<'py, PyAny>> {
        let (info, bytes) = self.bytes_of(py, name)?;
        dlpack(py, bytes, info.dtype(), info.shape(), raw)
    }

    /// A part of one tensor as a DLPack capsule.
    #[pyo3(signature = (name, expression, *, raw = false, clamp = false))]
    fn dlpack_region<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        expression: &Bound<'_, PyAny>,
        raw: bool,
        clamp: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (dtype, shape, bytes) = self.region_bytes(py, name, expression, clamp)?;
        dlpack(py, bytes, dtype, &shape, raw)
    }

    /// Every tensor as a DLPack capsule, in one call: `(name, dtype, capsule)` in the order of the
    /// files. The dtypes named in `raw` show their bytes as `uint8`; those not in `known` are refused.
    fn dlpack_all<'py>(
        &self,
        py: Python<'py>,
        raw: Vec<String>,
        known: Vec<String>,
    ) -> PyResult<Bound<'py, PyList>> {
        if let Some((name, dtype, ..)) = self.rows().find(|(_, dtype, ..)| !known.iter().any(|k| k == dtype))
        {
            return Err(unsupported(name, dtype));
        }
        let mut rows = Vec::with_capacity(self.model.len());
        for file in self.model.files() {
            for (tensors, bytes) in self.loaded(py, file)? {
                for (info, place) in tensors {
                    let dtype = info.dtype();
                    let raw = raw.iter().any(|name| name == dtype.name());
                    let capsule = dlpack(py, bytes.slice(place), dtype, info.shape(), raw)?;
                    rows.push((info.name(), dtype.name(), capsule));
                }
            }
        }
        PyList::new(py, rows)
    }
}

impl Checkpoint {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let whole = self.model.is_whole();
        self.model.files().iter().enumerate().flat_map(move |(place, file)| {
            let known = move |info: &TensorInfo<'_>| whole || self.model.find(info.name()).is_ok();
            file.header().tensors().filter(known).map(move |info| {
                let range = info.data_offsets();
                (info.name(), info.dtype().name(), info.shape(), place, range.start, range.end)
            })
        })
    }

    /// The tensors of a file that belong to the model: those that share memory, with their places in it.
    fn loaded<'a>(&self, py: Python<'_>, file: &'a TensorFile) -> PyResult<Vec<(Vec<Placed<'a>>, Buffer)>> {
        let mut all = file.header().tensors();
        let groups = py.detach(|| file.groups()).map_err(raise)?;
        let groups = groups.into_iter().map(|group| {
            let tensors = all.by_ref().take(group.tensors.len());
            let known = tensors.filter(|info| self.model.find(info.name()).is_ok());
            let placed = known.map(|info| {
                let range = file.header().file_range(&info);
                let place = |at: u64| usize::try_from(at.saturating_sub(group.offset));
                Ok((info, place(range.start)?..place(range.end)?))
            });
            Ok((placed.collect::<PyResult<_>>()?, group.bytes))
        });
        groups.collect()
    }

    fn bytes_of(&self, py: Python<'_>, name: &str) -> PyResult<(TensorInfo<'_>, Buffer)> {
        let (file, info) = self.model.find(name).map_err(raise)?;
        let bytes = py.detach(|| file.tensor(name)?.aligned_to(info.dtype().alignment_bytes()));
        Ok((info, bytes.map_err(raise)?))
    }

    fn region_bytes(
        &self,
        py: Python<'_>,
        name: &str,
        expression: &Bound<'_, PyAny>,
        clamp: bool,
    ) -> PyResult<(Dtype, Vec<u64>, Buffer)> {
        let (file, info) = self.model.find(name).map_err(raise)?;
        let items = index::parse(expression, info.shape())?;
        let read = py.detach(|| {
            let (region, bytes) = file.region(name, &items, bounds(clamp))?;
            Ok((region.shape().to_vec(), bytes.aligned_to(info.dtype().alignment_bytes())?))
        });
        let (shape, bytes) = read.map_err(|e: FileError| match e.as_format() {
            Some(format) if e.kind() == ErrorKind::Usage => slicing_error(&items, &info, format),
            _ => raise(e),
        })?;
        Ok((info.dtype(), shape, bytes))
    }
}

fn bounds(clamp: bool) -> Bounds {
    if clamp { Bounds::Clamp } else { Bounds::Refuse }
}

fn slicing_error(items: &[Index], info: &TensorInfo<'_>, error: &FormatError) -> PyErr {
    usage(&format!("Error during slicing {} with shape {:?}: {error}", index::show(items), info.shape()))
}

fn is_aligned(header: &Header, info: &TensorInfo<'_>) -> bool {
    header.file_range(info).start.is_multiple_of(info.dtype().alignment_bytes())
}

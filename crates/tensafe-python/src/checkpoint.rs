//! An open model, as the Python package sees it: names, tables, and memory to make tensors of.

use std::{ops::Range, path::PathBuf, sync::Arc};

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyDict, PyList},
};
use tensafe::{
    Access, Bounds, Buffer, Cache, Dtype, ErrorKind, FileError, FormatError, Index, MemorySource, Metadata,
    Mode, OpenOptions, ParseOptions, Region, Rule, TensorFile, TensorInfo,
};

use crate::{
    buffer::{Capsule, CollectionsPaused, Held, Memory, map_permit},
    errors::{beyond, raise, unsupported, usage},
    handover::{Converter, Filling, Numpy},
    index,
    reader::Reader,
};

/// Files seen as one map of names.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Checkpoint {
    pub(crate) model: tensafe::Checkpoint,
}

/// Name, dtype, shape, file, begin, end: the offsets in bytes of the file's data section.
type Row<'a> = (&'a str, &'static str, &'a [u64], usize, u64, u64);

fn parse_options(lenient: bool) -> ParseOptions {
    ParseOptions::with_mode(if lenient { Mode::Lenient } else { Mode::Strict })
}

#[pymethods]
impl Checkpoint {
    /// Opens a file, a directory or an index of shards.
    #[staticmethod]
    #[pyo3(signature = (path, *, io = "auto", lenient = false, keep_cached = true))]
    fn open(py: Python<'_>, path: PathBuf, io: &str, lenient: bool, keep_cached: bool) -> PyResult<Self> {
        let access = match io {
            "auto" => Access::Auto(map_permit()),
            "mmap" => Access::Map(map_permit()),
            "pread" => Access::Read,
            "direct" => Access::Direct,
            "owned" => Access::Owned,
            other => {
                let text = format!(
                    "io \"{other}\" is invalid (expected one of: \"auto\", \"mmap\", \"pread\", \"direct\")"
                );
                return Err(PyValueError::new_err(text));
            }
        };
        let cache = if keep_cached { Cache::Keep } else { Cache::Drop };
        let options = OpenOptions::default().with_parse(parse_options(lenient)).with_access(access);
        let options = options.with_cache(cache);
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

    /// One tensor as a DLPack capsule; `raw` shows its bytes as `uint8`. `versioned` is DLPack 1;
    /// `copy` says yes or no to a copy.
    #[pyo3(signature = (name, *, raw = false, versioned = false, copy = None))]
    fn dlpack<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        raw: bool,
        versioned: bool,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (file, info) = self.model.find(name).map_err(raise)?;
        let bytes = py.detach(|| file.tensor(name)).map_err(raise)?;
        Capsule { raw, versioned, copy }.of(py, bytes, info.dtype(), info.shape())
    }

    /// A part of one tensor as a DLPack capsule.
    #[pyo3(signature = (name, expression, *, raw = false, clamp = false, versioned = false, copy = None))]
    #[expect(clippy::too_many_arguments, reason = "five are optional, by name alone")]
    fn dlpack_region<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        expression: &Bound<'_, PyAny>,
        raw: bool,
        clamp: bool,
        versioned: bool,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (dtype, shape, bytes) = self.region_bytes(py, name, expression, clamp)?;
        Capsule { raw, versioned, copy }.of(py, bytes, dtype, &shape)
    }

    /// Every tensor, in the order of the files and of the bytes in them, made by `convert` of a
    /// DLPack capsule. See `Converter` for the arguments; a dtype that is not in `known` is refused
    /// before anything is read.
    #[pyo3(signature = (convert, known, *, empty = None, versioned = false))]
    fn load_dlpack<'py>(
        &self,
        convert: Bound<'py, PyAny>,
        known: &Bound<'py, PyDict>,
        empty: Option<Bound<'py, PyAny>>,
        versioned: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = convert.py();
        let converter = Converter::new(convert, known, empty, versioned)?;
        if let Some(info) = self.tensors().find(|info| !converter.knows(info.dtype())) {
            return Err(unsupported(info.name(), info.dtype().name()));
        }
        self.hand_over(py, |info, memory, part| {
            let bytes = memory.get().0.slice(part);
            converter.tensor(info.name(), bytes, info.dtype(), info.shape())
        })
    }

    /// Every tensor as a numpy array, in the order of the files and of the bytes in them: a mapped
    /// file is one memory; of a file that is read, each large tensor has memory of its own, and small
    /// ones share some. See `Numpy` for the arguments; `dtype` is called before anything is read.
    fn load_numpy<'py>(
        &self,
        dtype: &Bound<'py, PyAny>,
        unpack: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let numpy = Numpy::new(dtype, unpack, self.tensors().map(|info| info.dtype()))?;
        self.hand_over(dtype.py(), |info, memory, part| {
            numpy.array(info.name(), memory, part, info.dtype(), info.shape())
        })
    }
}

impl Checkpoint {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.placed().map(|(place, info)| {
            let range = info.data_offsets();
            (info.name(), info.dtype().name(), info.shape(), place, range.start, range.end)
        })
    }

    /// The tensors in the order of the files and of the bytes in them.
    fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.placed().map(|(_, info)| info)
    }

    /// The tensors with the places of their files.
    fn placed(&self) -> impl Iterator<Item = (usize, TensorInfo<'_>)> {
        let all = self.model.is_whole();
        self.model.files().iter().enumerate().flat_map(move |(place, file)| {
            let tensors = file.header().tensors();
            tensors.filter(move |info| all || self.holds(file, info)).map(move |info| (place, info))
        })
    }

    /// Whether a tensor of `file` is the model's of that name.
    fn holds(&self, file: &TensorFile, info: &TensorInfo<'_>) -> bool {
        self.model.find(info.name()).is_ok_and(|(holder, _)| std::ptr::eq(holder, file))
    }

    /// The dict of what `make` makes of each tensor and of its bytes' place in the memory that holds
    /// them. Files are read one after the other, without the interpreter.
    fn hand_over<'py>(
        &self,
        py: Python<'py>,
        make: impl Fn(&TensorInfo<'_>, &Bound<'py, Memory>, Range<usize>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let all = self.model.is_whole();
        let mut filling = Filling::new(py);
        for file in self.model.files() {
            let mut tensors = file.header().tensors();
            let groups = py.detach(|| file.groups()).map_err(raise)?;
            let _paused = CollectionsPaused::new(py);
            for group in groups {
                let memory = Bound::new(py, Memory(group.bytes))?;
                let members = tensors.by_ref().take(group.tensors.len());
                for info in members.filter(|info| all || self.holds(file, info)) {
                    let range = file.header().file_range(&info);
                    let place = |at: u64| usize::try_from(at.saturating_sub(group.offset));
                    let part = place(range.start)?..place(range.end)?;
                    filling.insert(info.name(), &make(&info, &memory, part)?)?;
                }
            }
        }
        Ok(filling.finish())
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
            let (shape, bytes) = file.region(name, &items, bounds(clamp))?;
            Ok((shape, bytes.aligned_to(info.dtype().alignment_bytes())?))
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
    let text = format!("Error during slicing {} with shape {:?}: {error}", index::show(items), info.shape());
    // What is cut within a byte is there, but cannot be had so: no end of a loop.
    if error.rule() == Some(Rule::BYTE_BORDER) { usage(&text) } else { beyond(&text) }
}

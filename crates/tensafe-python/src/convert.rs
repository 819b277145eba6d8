//! Checkpoints of other formats: converted to files, or read into memory.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBool, PyDict, PyString},
};
use tensafe::{
    Buffer, ConvertOptions, Dtype, MemorySource, Pickled, PickledOptions, PlannedTensor, Progress, Source,
    parse_size, sidecar,
};

use crate::{
    buffer::{CollectionsPaused, Held, Memory},
    errors::{raise, usage},
    handover::{Converter, Filling, Numpy},
    reader::Reader,
    structure::Structure,
};

/// Tensors with their bytes.
type Rows = Vec<(PlannedTensor, Buffer)>;

/// Converts a checkpoint; returns the report and the values that are no tensors, as JSON.
#[pyfunction]
#[pyo3(signature = (input, output, options, progress = None))]
pub(crate) fn convert(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    options: &Bound<'_, PyDict>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, String)> {
    let options = options_of(options)?;
    let mut told = Told { progress, error: None };
    let done = py.detach(|| tensafe::convert(input, output, &options, &mut |at| told.tell(at)));
    let conversion = told.or(done)?;
    Ok((conversion.report().to_string(), sidecar(conversion.checkpoint()).to_string()))
}

/// Reads a checkpoint's tensors into memory, as numpy arrays by name. See `load_numpy` of
/// `Checkpoint` for `dtype` and `unpack`.
#[pyfunction]
pub(crate) fn load_pickle_numpy<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
    dtype: &Bound<'py, PyAny>,
    unpack: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rows, _) = loaded(py, source, options_of(options)?)?;
    let numpy = Numpy::new(dtype, unpack, rows.iter().map(|(tensor, _)| tensor.dtype))?;
    let mut filling = Filling::new(py);
    let _paused = CollectionsPaused::new(py);
    for (tensor, bytes) in rows {
        let part = 0..bytes.len();
        let memory = Bound::new(py, Memory(bytes))?;
        filling
            .insert(&tensor.name, &numpy.array(&tensor.name, &memory, part, tensor.dtype, &tensor.shape)?)?;
    }
    Ok(filling.finish())
}

/// Reads a checkpoint's tensors into memory, as a framework's tensors by name. See `load_dlpack` of
/// `Checkpoint` for the other arguments.
#[pyfunction]
#[pyo3(signature = (source, options, convert, known, *, versioned = false))]
pub(crate) fn load_pickle_dlpack<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
    convert: Bound<'py, PyAny>,
    known: &Bound<'py, PyDict>,
    versioned: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let converter = Converter::new(convert, known, None, versioned)?;
    let (rows, _) = loaded(py, source, options_of(options)?)?;
    converted(py, rows, &converter)
}

/// As `load_pickle_dlpack`, and what stands around the tensors: `None` where it is no file of torch.
#[pyfunction]
#[pyo3(signature = (source, convert, known, *, versioned = false))]
pub(crate) fn load_pickle_structure<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    convert: Bound<'py, PyAny>,
    known: &Bound<'py, PyDict>,
    versioned: bool,
) -> PyResult<(Bound<'py, PyDict>, Option<Structure>)> {
    let converter = Converter::new(convert, known, None, versioned)?;
    let mut options = ConvertOptions::default();
    options.read = options.read.with_structure(true);
    let (rows, structure) = loaded(py, source, options)?;
    Ok((converted(py, rows, &converter)?, structure.map(Structure)))
}

fn converted<'py>(py: Python<'py>, rows: Rows, converter: &Converter<'py>) -> PyResult<Bound<'py, PyDict>> {
    let mut filling = Filling::new(py);
    let _paused = CollectionsPaused::new(py);
    for (tensor, bytes) in rows {
        let made = converter.tensor(&tensor.name, bytes, tensor.dtype, &tensor.shape)?;
        filling.insert(&tensor.name, &made)?;
    }
    Ok(filling.finish())
}

fn loaded(
    py: Python<'_>,
    source: &Bound<'_, PyAny>,
    options: ConvertOptions,
) -> PyResult<(Rows, Option<tensafe::Structure>)> {
    let mut told = Told { progress: None, error: None };
    let opened = if source.is_instance_of::<PyString>() || source.hasattr("__fspath__")? {
        let path: PathBuf = source.extract()?;
        py.detach(|| Pickled::open(path, &options.read))
    } else {
        let source: Arc<dyn Source> = if source.hasattr("read")? && source.hasattr("seek")? {
            Arc::new(Reader::new(source)?)
        } else {
            Arc::new(MemorySource::new(Buffer::from_owner(Held::of(source)?)))
        };
        py.detach(|| Pickled::from_source(source, &options.read))
    };
    let done = py.detach(|| {
        let mut opened = opened?;
        let structure = opened.take_structure();
        Ok((tensafe::load(opened, &options, &mut |at| told.tell(at))?, structure))
    });
    told.or(done)
}

/// What the caller's function said of the progress.
struct Told {
    progress: Option<Py<PyAny>>,
    error: Option<PyErr>,
}

impl Told {
    /// Calls the function; what it raises, a `False`, or Ctrl-C ends the conversion.
    fn tell(&mut self, at: Progress) -> ControlFlow<()> {
        let said = Python::attach(|py| {
            py.check_signals()?;
            let Some(progress) = &self.progress else { return Ok(true) };
            let said = progress.call1(py, (at.done, at.total))?;
            // `False` alone: a function that returns a count of its own goes on.
            Ok(!said.bind(py).is(PyBool::new(py, false)))
        });
        match said {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn or<T>(self, done: Result<T, tensafe::Error>) -> PyResult<T> {
        match (self.error, done) {
            (Some(error), Err(_)) => Err(error),
            (_, done) => done.map_err(raise),
        }
    }
}

/// The options by the names of `tensafe.convert`.
fn options_of(given: &Bound<'_, PyDict>) -> PyResult<ConvertOptions> {
    let mut options = ConvertOptions::default();
    let mut read = PickledOptions::default();
    for (key, value) in given {
        let key: String = key.extract()?;
        match key.as_str() {
            "salvage" => read = read.with_salvage(value.extract()?),
            "dense" => read = read.with_dense(value.extract()?),
            "crc" => read = read.with_crc(value.extract()?),
            "select" => options.select = value.extract()?,
            "exclude" => options.exclude = value.extract()?,
            "rename" => options.rename = value.extract()?,
            "metadata" => options.metadata = value.extract()?,
            "duplicate" => options.duplicate = value.extract()?,
            "durable" => options.durable = value.extract()?,
            "overwrite" => options.overwrite = value.extract()?,
            "dtype" => {
                let name: String = value.extract()?;
                let known = |dtype: &&Dtype| {
                    dtype.name().eq_ignore_ascii_case(&name) || dtype.torch_name() == Some(name.as_str())
                };
                let dtype = Dtype::ALL.iter().find(known);
                let dtype = dtype.ok_or_else(|| usage(&format!("dtype `{name}` is not known")))?;
                options.dtype = Some(*dtype);
            }
            "max_shard_size" => {
                let bytes = match value.extract::<u64>() {
                    Ok(bytes) => bytes,
                    Err(_) => parse_size(&value.extract::<String>()?).map_err(raise)?,
                };
                options.max_shard_bytes = Some(bytes);
            }
            other => {
                return Err(PyTypeError::new_err(format!("`{other}` is no option of a conversion")));
            }
        }
    }
    options.read = read;
    Ok(options)
}

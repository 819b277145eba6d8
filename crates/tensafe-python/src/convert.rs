//! Checkpoints of other formats: converted to files, or read into memory.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBool, PyDict, PyList, PyString},
};
use tensafe::{
    Buffer, ConvertOptions, Dtype, MemorySource, Pickled, PickledOptions, PlannedTensor, Progress, Source,
    parse_size, sidecar,
};

use crate::{
    buffer::{Held, Memory, dlpack},
    errors::{raise, unsupported, usage},
    reader::Reader,
};

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

/// Reads a checkpoint's tensors into memory: name, dtype, shape, memory.
#[pyfunction]
pub(crate) fn load_pickle<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyList>> {
    let rows = loaded(py, source, options)?;
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(tensor, bytes)| (tensor.name, tensor.dtype.name(), tensor.shape, Memory(bytes)))
        .collect();
    PyList::new(py, rows)
}

/// Reads a checkpoint's tensors into memory: name, dtype, DLPack capsule. See `dlpack_all` of
/// `Checkpoint` for `raw` and `known`.
#[pyfunction]
pub(crate) fn load_pickle_dlpack<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    options: &Bound<'py, PyDict>,
    raw: Vec<String>,
    known: Vec<String>,
) -> PyResult<Bound<'py, PyList>> {
    let mut rows = Vec::new();
    for (tensor, bytes) in loaded(py, source, options)? {
        let dtype: Dtype = tensor.dtype;
        if !known.iter().any(|name| name == dtype.name()) {
            return Err(unsupported(&tensor.name, dtype.name()));
        }
        let raw = raw.iter().any(|name| name == dtype.name());
        let capsule = dlpack(py, bytes, dtype, &tensor.shape, raw)?;
        rows.push((tensor.name, dtype.name(), capsule));
    }
    PyList::new(py, rows)
}

fn loaded(
    py: Python<'_>,
    source: &Bound<'_, PyAny>,
    options: &Bound<'_, PyDict>,
) -> PyResult<Vec<(PlannedTensor, Buffer)>> {
    let options = options_of(options)?;
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
    let done = py.detach(|| tensafe::load(opened?, &options, &mut |at| told.tell(at)));
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

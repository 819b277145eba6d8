//! Writing: tensors whose bytes are buffers, or are made when their turn comes.

use std::path::{Path, PathBuf};

use pyo3::{exceptions::PyValueError, prelude::*};
use tensafe::{
    FileSink, Layout, LayoutOptions, Metadata, ReplaceOptions, Sink as _, TensorSpec, write_parallel,
};

use crate::{
    buffer::{Held, bytes_of},
    errors::raise,
    spec::known_dtype,
};

/// How a file is written.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) align: u64,
    pub(crate) durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { align: LayoutOptions::default().align, durable: true }
    }
}

/// Writes a file of tensors whose bytes are all there.
pub(crate) fn to_file(
    path: &Path,
    tensors: Vec<(TensorSpec, &[u8])>,
    metadata: Option<&Metadata>,
    options: Options,
) -> Result<(), tensafe::FileError> {
    let replace = ReplaceOptions::default().with_durable(options.durable);
    tensafe::write_file(path, tensors, metadata, &LayoutOptions::with_align(options.align), replace)
}

/// The bytes of a file of tensors whose bytes are all there.
pub(crate) fn to_bytes<'py>(
    py: Python<'py>,
    tensors: Vec<(TensorSpec, &[u8])>,
    metadata: Option<&Metadata>,
    align: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let format = |e| raise(tensafe::FileError::format(None, e));
    let (specs, data): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    let layout =
        Layout::new(specs.iter().cloned(), metadata, &LayoutOptions::with_align(align)).map_err(format)?;
    // Before memory is taken: a shape may be a lie about data that is not there.
    for (place, (spec, data)) in specs.iter().zip(&data).enumerate() {
        let range = layout.file_range(place).unwrap_or_default();
        check_size(&spec.name, data.len() as u64, range.end - range.start)?;
    }
    let mut parts = vec![layout.header_bytes()];
    parts.extend(layout.order().iter().map(|place| data[*place]));
    bytes_of(py, &parts)
}

fn check_size(name: &str, given: u64, needed: u64) -> PyResult<()> {
    if given == needed {
        return Ok(());
    }
    let error = tensafe::FormatError::buffer_size(name, given, needed);
    Err(raise(tensafe::FileError::format(None, error)))
}

/// Writes tensors as a file, or returns the file's bytes where `path` is `None`.
///
/// Each tensor is `(name, dtype, shape, bytes)`: the dtype as frameworks call it, the shape in
/// elements, the bytes an object with a contiguous buffer, or a function that returns one. A function
/// is called when its tensor's turn comes and its buffer is dropped before the next, so that tensors
/// of a device need the memory of one of them.
#[pyfunction]
#[pyo3(signature = (path, tensors, metadata = None, *, durable = true, align = 8))]
pub(crate) fn write<'py>(
    py: Python<'py>,
    path: Option<PathBuf>,
    tensors: Vec<(String, String, Vec<u64>, Bound<'py, PyAny>)>,
    metadata: Option<Metadata>,
    durable: bool,
    align: u64,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let mut specs = Vec::with_capacity(tensors.len());
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, data) in tensors {
        specs.push(TensorSpec::new(name, known_dtype(&dtype)?, shape));
        bytes.push(data);
    }
    let Some(path) = path else {
        let held = bytes.iter().map(|data| Held::of(&called(data)?)).collect::<PyResult<Vec<_>>>()?;
        let tensors = specs.into_iter().zip(held.iter().map(AsRef::as_ref)).collect();
        return to_bytes(py, tensors, metadata.as_ref(), align).map(Some);
    };
    let options = Options { align, durable };
    if bytes.iter().any(|data| data.is_callable()) {
        stream(py, &path, specs, &bytes, metadata.as_ref(), options)?;
    } else {
        let held = bytes.iter().map(Held::of).collect::<PyResult<Vec<_>>>()?;
        let tensors = specs.into_iter().zip(held.iter().map(AsRef::as_ref)).collect();
        py.detach(|| to_file(&path, tensors, metadata.as_ref(), options)).map_err(raise)?;
    }
    Ok(None)
}

/// Writes one tensor after the other, in the order of the file.
fn stream(
    py: Python<'_>,
    path: &Path,
    specs: Vec<TensorSpec>,
    bytes: &[Bound<'_, PyAny>],
    metadata: Option<&Metadata>,
    options: Options,
) -> PyResult<()> {
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    let layout = Layout::new(specs, metadata, &LayoutOptions::with_align(options.align));
    let layout = layout.map_err(|e| raise(tensafe::FileError::format(Some(path), e)))?;
    let replace = ReplaceOptions::default().with_durable(options.durable);
    let begun = py.detach(|| {
        let sink = FileSink::create(path, layout.file_bytes(), replace)?;
        sink.write_at(0, layout.header_bytes())?;
        Ok::<_, tensafe::FileError>(sink)
    });
    let mut sink = begun.map_err(raise)?;
    for place in layout.order() {
        let held = Held::of(&called(&bytes[*place])?)?;
        let range = layout.file_range(*place).unwrap_or_default();
        let data = held.as_ref();
        check_size(&names[*place], data.len() as u64, range.end - range.start)?;
        py.detach(|| write_parallel(&sink, &[(range.start, data)])).map_err(raise)?;
    }
    py.detach(|| sink.commit()).map_err(raise)
}

fn called<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !data.is_callable() {
        return Ok(data.clone());
    }
    let made = data.call0()?;
    if made.is_none() {
        return Err(PyValueError::new_err("the function of a tensor returned None, needed a buffer"));
    }
    Ok(made)
}

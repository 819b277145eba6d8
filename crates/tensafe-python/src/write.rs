//! Writing: tensors whose bytes are buffers, or are made when their turn comes.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use pyo3::{exceptions::PyValueError, prelude::*};
use tensafe::{
    FileSink, Layout, LayoutOptions, Metadata, ReplaceOptions, Sink as _, TensorSpec, WriteControl,
};

use crate::{
    buffer::{Held, Memory, bytes_of},
    errors::raise,
    spec::known_dtype,
};

/// Bytes that a function of a tensor is asked for at once. Two such pieces are in memory: one is
/// written while the next is fetched.
const FETCH_BYTES: u64 = 16 << 20;

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

/// How far a call of `write` is, and its end, for other threads.
#[pyclass(frozen, module = "tensafe._tensafe")]
#[derive(Default)]
pub(crate) struct SaveControl {
    cancel: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

#[pymethods]
impl SaveControl {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ends the write, unless the file is already put in its place.
    fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Bytes of the file that are written, and all of them: 0 before they are counted.
    fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// Where the bytes of a tensor come from.
enum Data {
    Here(Held),
    /// A function of the first byte that is wanted and the one after the last.
    Fetched(Py<PyAny>),
}

impl Data {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if object.is_callable() {
            Ok(Self::Fetched(object.clone().unbind()))
        } else {
            Held::of(object).map(Self::Here)
        }
    }

    fn into_held(self, py: Python<'_>, bytes: u64) -> PyResult<Held> {
        match self {
            Self::Here(held) => Ok(held),
            Self::Fetched(fetch) => fetched(py, &fetch, &(0..bytes)),
        }
    }
}

/// Writes tensors as a file, or returns the file's bytes where `path` is `None`.
///
/// Each tensor is `(name, dtype, shape, bytes)`: the dtype as frameworks call it, the shape in
/// elements, the bytes an object with a contiguous buffer, or a function `fetch(start, stop)` that
/// returns one of these bytes of the tensor. Functions are called from this thread, in the order of
/// the file, for ranges that begin at a multiple of 16 bytes: a tensor of a device needs no more memory
/// here than two of them.
#[pyfunction]
#[pyo3(signature = (path, tensors, metadata = None, *, durable = true, align = 8, control = None))]
pub(crate) fn write<'py>(
    py: Python<'py>,
    path: Option<PathBuf>,
    tensors: Vec<(String, String, Vec<u64>, Bound<'py, PyAny>)>,
    metadata: Option<Metadata>,
    durable: bool,
    align: u64,
    control: Option<Bound<'py, SaveControl>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let mut specs = Vec::with_capacity(tensors.len());
    let mut bytes = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, data) in tensors {
        specs.push(TensorSpec::new(name, known_dtype(&dtype)?, shape));
        bytes.push(Data::of(&data)?);
    }
    let Some(path) = path else {
        let sizes = Layout::new(specs.iter().cloned(), metadata.as_ref(), &LayoutOptions::with_align(align));
        let sizes = sizes.map_err(|e| raise(tensafe::FileError::format(None, e)))?;
        let size = |place| sizes.file_range(place).map_or(0, |range| range.end - range.start);
        let held = bytes.into_iter().enumerate().map(|(place, data)| data.into_held(py, size(place)));
        let held = held.collect::<PyResult<Vec<_>>>()?;
        let tensors = specs.into_iter().zip(held.iter().map(AsRef::as_ref)).collect();
        return to_bytes(py, tensors, metadata.as_ref(), align).map(Some);
    };
    let options = Options { align, durable };
    let unheard = SaveControl::default();
    let control = control.as_ref().map_or(&unheard, |control| control.get());
    py.detach(|| save(&path, specs, &bytes, metadata.as_ref(), options, control)).map(|()| None)
}

fn save(
    path: &Path,
    specs: Vec<TensorSpec>,
    bytes: &[Data],
    metadata: Option<&Metadata>,
    options: Options,
    control: &SaveControl,
) -> PyResult<()> {
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    let layout = Layout::new(specs, metadata, &LayoutOptions::with_align(options.align));
    let layout = layout.map_err(|e| raise(tensafe::FileError::format(Some(path), e)))?;
    let mut here = vec![(0, layout.header_bytes())];
    let mut fetched = Vec::new();
    for place in layout.order() {
        let range = layout.file_range(*place).unwrap_or_default();
        match &bytes[*place] {
            Data::Here(held) => {
                check_size(&names[*place], held.as_ref().len() as u64, range.end - range.start)?;
                here.push((range.start, held.as_ref()));
            }
            Data::Fetched(fetch) => fetched.push(Fetch { name: &names[*place], range, fetch }),
        }
    }
    control.total.store(layout.file_bytes(), Ordering::Relaxed);
    let told = |bytes| {
        control.done.fetch_add(bytes, Ordering::Relaxed);
    };
    let follow = WriteControl::default().with_cancel(&control.cancel).with_progress(&told);
    let replace = ReplaceOptions::default().with_durable(options.durable);
    let mut sink = FileSink::create(path, layout.file_bytes(), replace).map_err(raise)?;
    sink.write_pieces(&here, &follow).map_err(raise)?;
    stream(&sink, &fetched, &follow)?;
    // The last block may have been written when the end was asked for.
    follow.check(path).and_then(|()| sink.commit()).map_err(raise)
}

/// A tensor that is fetched: its name for errors, and its bytes in the file.
struct Fetch<'f> {
    name: &'f str,
    range: Range<u64>,
    fetch: &'f Py<PyAny>,
}

/// Writes what functions return, each piece while the next is fetched.
fn stream(sink: &FileSink, tensors: &[Fetch<'_>], control: &WriteControl<'_>) -> PyResult<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    thread::scope(|scope| {
        // Nothing waits in it: a piece is handed over when the one before is written.
        let (send, receive) = sync_channel::<(u64, Held)>(0);
        let writer = scope.spawn(move || {
            receive
                .iter()
                .try_for_each(|(offset, held)| sink.write_pieces(&[(offset, held.as_ref())], control))
        });
        // Whoever cannot hand over stops, and the writer knows why.
        let fetched = tensors
            .iter()
            .try_for_each(|tensor| tensor.pieces(|offset, held| send.send((offset, held)).is_ok()));
        drop(send);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.map_err(raise)?;
        fetched
    })
}

impl Fetch<'_> {
    /// Fetches one piece after the other, until `take` says no.
    fn pieces(&self, mut take: impl FnMut(u64, Held) -> bool) -> PyResult<()> {
        let bytes = self.range.end - self.range.start;
        let mut start = 0;
        while start < bytes {
            let part = start..bytes.min(start + FETCH_BYTES);
            let held = Python::attach(|py| fetched(py, self.fetch, &part))?;
            check_size(self.name, held.as_ref().len() as u64, part.end - part.start)?;
            if !take(self.range.start + start, held) {
                break;
            }
            start = part.end;
        }
        Ok(())
    }
}

fn fetched(py: Python<'_>, fetch: &Py<PyAny>, part: &Range<u64>) -> PyResult<Held> {
    let made = fetch.bind(py).call1((part.start, part.end))?;
    if made.is_none() {
        return Err(PyValueError::new_err("the function of a tensor returned None, needed a buffer"));
    }
    Held::of(&made)
}

/// Copies of buffers, made in parallel.
#[pyfunction]
pub(crate) fn snapshot(py: Python<'_>, buffers: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Memory>> {
    let held = buffers.iter().map(Held::of).collect::<PyResult<Vec<_>>>()?;
    let copied = py.detach(|| {
        let parts: Vec<&[u8]> = held.iter().map(AsRef::as_ref).collect();
        tensafe::snapshot(&parts)
    });
    Ok(copied.map_err(raise)?.into_iter().map(Memory).collect())
}

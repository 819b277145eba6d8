//! A file that is written tensor by tensor, by one process or by several.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pyo3::prelude::*;
use tensafe::{Dtype, LayoutOptions, Metadata, ReplaceOptions, TensorSpec, TensorWriter};

use crate::{
    buffer::Held,
    errors::{raise, usage},
};

/// A `TensorWriter`, until it is finished or dropped.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Writer(Mutex<Option<Arc<TensorWriter>>>);

#[pymethods]
impl Writer {
    /// `tensors` are `(name, dtype, shape)`, the dtype as the header calls it. `shared` is of a
    /// file that several processes write: its token, and whether this one begins it or joins.
    #[new]
    #[pyo3(signature = (path, tensors, metadata = None, *, durable = true, align = 8, shared = None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        tensors: Vec<(String, String, Vec<u64>)>,
        metadata: Option<Metadata>,
        durable: bool,
        align: u64,
        shared: Option<(String, bool)>,
    ) -> PyResult<Self> {
        let mut specs = Vec::with_capacity(tensors.len());
        for (name, dtype, shape) in tensors {
            let dtype = Dtype::from_name(&dtype).ok_or_else(|| usage(&format!("no dtype `{dtype}`")))?;
            specs.push(TensorSpec::new(name, dtype, shape));
        }
        let (metadata, layout) = (metadata.as_ref(), LayoutOptions::with_align(align));
        let options = ReplaceOptions::default().with_durable(durable);
        let begun = py.detach(|| match &shared {
            None => TensorWriter::create(path, specs, metadata, &layout, options),
            Some((token, true)) => TensorWriter::share(path, specs, metadata, &layout, options, token),
            Some((token, false)) => TensorWriter::join(path, specs, metadata, &layout, options, token),
        });
        begun.map(|writer| Self(Mutex::new(Some(Arc::new(writer))))).map_err(raise)
    }

    /// Writes a tensor's bytes: all of them, or those from `offset` on.
    #[pyo3(signature = (name, data, offset = None))]
    fn write(
        &self,
        py: Python<'_>,
        name: &str,
        data: &Bound<'_, PyAny>,
        offset: Option<u64>,
    ) -> PyResult<()> {
        let (writer, held) = (self.open()?, Held::of(data)?);
        let written = py.detach(|| match offset {
            None => writer.write(name, held.as_ref()),
            Some(offset) => writer.write_part(name, offset, held.as_ref()),
        });
        written.map_err(raise)
    }

    /// The bytes of the file that this writer wrote: half-open ranges, ascending.
    fn written(&self) -> PyResult<Vec<(u64, u64)>> {
        Ok(self.open()?.written().into_iter().map(|range| (range.start, range.end)).collect())
    }

    fn absorb(&self, ranges: Vec<(u64, u64)>) -> PyResult<()> {
        self.open()?.absorb(ranges.into_iter().map(|(start, end)| start..end)).map_err(raise)
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let writer = self.open()?;
        py.detach(|| writer.flush()).map_err(raise)
    }

    /// Puts the file in its place; the writer is closed then, also where this fails.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let mut place = self.lock();
        let writer = place.take().ok_or_else(closed)?;
        match Arc::try_unwrap(writer) {
            Ok(writer) => {
                drop(place);
                py.detach(|| writer.finish()).map_err(raise)
            }
            Err(writer) => {
                *place = Some(writer);
                Err(usage("the writer cannot be closed while another thread writes with it"))
            }
        }
    }

    /// Drops the file. A write that is under way in another thread ends first.
    fn abort(&self, py: Python<'_>) {
        let writer = self.lock().take();
        py.detach(|| drop(writer));
    }
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<TensorWriter>>> {
        // Held for an instant, and never while the interpreter is waited for.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> PyResult<Arc<TensorWriter>> {
        self.lock().as_ref().map(Arc::clone).ok_or_else(closed)
    }
}

#[cold]
fn closed() -> PyErr {
    usage("the writer is closed")
}

//! Plans, and plans under way, as the Python package sees them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};
#[cfg(target_os = "linux")]
use tensafe::CudaStager;
use tensafe::{
    Bounds, Control, CopyStager, Dtype, ExecuteOptions, Explain, Order, Selection, Stager, parse_size,
};

use crate::{
    buffer::{Lent, Memory},
    checkpoint::Checkpoint,
    errors::{raise, unsupported, usage},
    handover::{Converter, Filling},
    index,
};

/// What to load of a model: the names of tensors, and which part of each.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Plan {
    checkpoint: Py<Checkpoint>,
    state: Mutex<State>,
}

struct State {
    plan: tensafe::Plan,
    /// The place of each tensor among the entries of the plan.
    places: HashMap<String, usize>,
    /// Memory of the caller, by the name of the tensor that is read into it.
    lent: HashMap<String, Py<PyAny>>,
}

#[pymethods]
impl Plan {
    #[new]
    #[pyo3(signature = (checkpoint, *, budget = None, in_order = false, local_ranks = 1))]
    fn new(
        checkpoint: Py<Checkpoint>,
        budget: Option<Bound<'_, PyAny>>,
        in_order: bool,
        local_ranks: usize,
    ) -> PyResult<Self> {
        let budget = budget.map(|budget| match budget.extract::<u64>() {
            Ok(bytes) => Ok(bytes),
            Err(_) => parse_size(&budget.extract::<String>()?).map_err(raise),
        });
        let order = if in_order { Order::Plan } else { Order::File };
        let plan = tensafe::Plan::new().with_order(order).with_budget(budget.transpose()?);
        let plan = plan.with_local_ranks(local_ranks);
        Ok(Self {
            checkpoint,
            state: Mutex::new(State { plan, places: HashMap::new(), lent: HashMap::new() }),
        })
    }

    /// Adds a tensor, or the part that one of the others says: an index expression; dimension, rank and
    /// world; a dimension and half-open intervals of it. Returns its shape.
    #[pyo3(signature = (name, *, expression = None, clamp = false, shard = None, intervals = None))]
    fn add(
        &self,
        py: Python<'_>,
        name: &str,
        expression: Option<&Bound<'_, PyAny>>,
        clamp: bool,
        shard: Option<(usize, u64, u64)>,
        intervals: Option<(usize, Vec<(u64, u64)>)>,
    ) -> PyResult<Vec<u64>> {
        let checkpoint = self.checkpoint.bind(py).get();
        let selection = match (expression, shard, intervals) {
            (Some(expression), ..) => {
                let (_, info) = checkpoint.model.find(name).map_err(raise)?;
                let bounds = if clamp { Bounds::Clamp } else { Bounds::Refuse };
                Selection::Index(index::parse(expression, info.shape())?, bounds)
            }
            (_, Some((dimension, rank, world)), _) => Selection::Shard { dimension, rank, world },
            (.., Some((dimension, ranges))) => {
                let ranges = ranges.into_iter().map(|(start, end)| start..end).collect();
                Selection::Intervals { dimension, ranges }
            }
            _ => Selection::Whole,
        };
        let mut state = self.state();
        let entry = checkpoint.model.add_to(&mut state.plan, name, &selection).map_err(raise)?;
        state.places.insert(name.to_owned(), entry);
        Ok(state.plan.entries().get(entry).map(|entry| entry.shape().to_vec()).unwrap_or_default())
    }

    /// Has a tensor read into the memory of `out`, an object with `__dlpack__` or a buffer.
    fn lend(&self, name: &str, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let lent = Lent::of(out)?;
        let mut state = self.state();
        let place = state.places.get(name).copied();
        let found = place.and_then(|place| Some((place, state.plan.entries().get(place)?)));
        let Some((place, entry)) = found else {
            return Err(usage(&format!("tensor `{name}` is not in the plan")));
        };
        if lent.shape != entry.shape() || lent.element_bytes.saturating_mul(8) != entry.dtype().bits() {
            let (dtype, shape, bits) = (entry.dtype(), entry.shape(), entry.dtype().bits());
            return Err(usage(&format!(
                "tensor `{name}`: memory of shape {:?} with elements of {} bits to read into, needed {dtype} \
                 {shape:?} of {bits} bits",
                lent.shape,
                lent.element_bytes.saturating_mul(8)
            )));
        }
        state.plan.read_into(place, &lent.strides).map_err(raise)?;
        state.lent.insert(name.to_owned(), out.clone().unbind());
        Ok(())
    }

    /// Keeps the tensors whose names are in `names`.
    fn keep(&self, names: HashSet<String>) {
        let mut state = self.state();
        state.plan.retain(|entry| names.contains(entry.name()));
        state.lent.retain(|name, _| names.contains(name));
        let entries = state.plan.entries().iter().enumerate();
        state.places = entries.map(|(place, entry)| (entry.name().to_owned(), place)).collect();
    }

    /// Name, dtype, shape and bytes of each tensor, in the order in which they were added.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let state = self.state();
        let entries = state.plan.entries().iter();
        let rows: Vec<_> = entries.map(|e| (e.name(), e.dtype().name(), e.shape(), e.bytes())).collect();
        PyList::new(py, rows)
    }

    fn __len__(&self) -> usize {
        self.state().plan.entries().len()
    }

    /// A number that equal plans have in common, in every process of the same build.
    fn fingerprint(&self) -> u64 {
        self.state().plan.fingerprint()
    }

    /// What carrying it out would cost now: `(name, value)` rows of numbers, rows of ranges, and a text.
    /// `staged`: all that has no memory of the caller goes to a device.
    #[pyo3(signature = (*, staged = false))]
    fn explain<'py>(&self, py: Python<'py>, staged: bool) -> PyResult<Bound<'py, PyDict>> {
        let mut plan = self.state().plan.clone();
        let model = &self.checkpoint.bind(py).get().model;
        let explain = if staged {
            read_all_out(&mut plan)?;
            py.detach(|| model.explain_staged(&plan))
        } else {
            py.detach(|| model.explain(&plan))
        };
        let explain = explain.map_err(raise)?;
        let files: Vec<Arc<str>> = model
            .files()
            .iter()
            .map(|file| file.path().map_or_else(String::new, |path| path.display().to_string()).into())
            .collect();
        explained(py, &explain, &files)
    }

    /// Begins to carry it out. `device` is the number of a device of CUDA or of ROCm, or -1 for memory of
    /// the host in a device's place: all that has no memory of the caller goes there, into memory that
    /// `Execution.give` gives.
    #[pyo3(signature = (*, device = None))]
    fn execute(&self, py: Python<'_>, device: Option<i64>) -> PyResult<Execution> {
        // Nothing of Python is called while the lock is held.
        let (plan, lent) = {
            let state = self.state();
            let lent = state.lent.iter().map(|(name, out)| (name.clone(), out.clone_ref(py)));
            (state.plan.clone(), lent.collect::<HashMap<_, _>>())
        };
        let mut options = ExecuteOptions::default();
        for (place, entry) in
            plan.entries().iter().enumerate().filter(|(_, entry)| entry.destination_strides().is_some())
        {
            let out = lent.get(entry.name());
            let out = out.ok_or_else(|| usage(&format!("tensor `{}` has no memory", entry.name())))?;
            options = options.with_destination(place, Lent::of(out.bind(py))?.memory);
        }
        let mut plan = plan;
        if let Some(device) = device {
            options = options.with_stager(stager(device)?);
            read_all_out(&mut plan)?;
        }
        let plan = Arc::new(plan);
        let model = &self.checkpoint.bind(py).get().model;
        let started = py.detach(|| model.execute(Arc::clone(&plan), options)).map_err(raise)?;
        let order = started.order().collect();
        let control = started.control();
        Ok(Execution { plan, control, order, device, under_way: Mutex::new(Some(started)) })
    }
}

impl Plan {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has all that has no memory of the caller read into dense memory that comes later.
fn read_all_out(plan: &mut tensafe::Plan) -> PyResult<()> {
    (0..plan.entries().len()).try_for_each(|entry| plan.read_into_dense(entry)).map_err(raise)
}

/// The stager for a device by its number, or for memory of the host in its place.
fn stager(device: i64) -> PyResult<Arc<dyn Stager>> {
    let Ok(device) = u32::try_from(device) else { return Ok(Arc::new(CopyStager)) };
    #[cfg(target_os = "linux")]
    return Ok(Arc::new(CudaStager::of_device(device).map_err(raise)?));
    #[cfg(not(target_os = "linux"))]
    Err(usage(&format!("device {device}: copies to devices are made on Linux")))
}

/// Whether the runtime of CUDA or of ROCm that this process has loaded, if any, can be used.
#[pyfunction]
pub(crate) fn can_stage(device: u32) -> bool {
    stager(i64::from(device)).is_ok()
}

fn explained<'py>(py: Python<'py>, explain: &Explain, files: &[Arc<str>]) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("tensors", explain.tensors)?;
    row.set_item("bytes_needed", explain.bytes_needed)?;
    row.set_item("bytes_read", explain.bytes_read)?;
    row.set_item("amplification", explain.amplification())?;
    row.set_item("requests", explain.requests)?;
    row.set_item("workers", explain.workers)?;
    row.set_item("peak_memory", explain.peak_memory)?;
    row.set_item("budget", explain.budget)?;
    let ranges = explain.ranges.iter().map(|r| {
        let file = files.get(r.file).map(|name| name.to_string());
        let (start, end) = (r.range.start, r.range.end);
        (file, start, end, r.method.name(), r.why.text(), r.needed, r.read, r.requests)
    });
    row.set_item("ranges", ranges.collect::<Vec<_>>())?;
    row.set_item("text", explain.display(files).to_string())?;
    Ok(row)
}

/// A plan under way.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Execution {
    plan: Arc<tensafe::Plan>,
    control: Control,
    /// Places in the plan, in the order in which tensors are handed out.
    order: Vec<usize>,
    device: Option<i64>,
    under_way: Mutex<Option<tensafe::Execution>>,
}

/// Name, dtype, shape, and the bytes; `None` where they went to memory of the caller.
type Row<'a> = (&'a str, &'static str, &'a [u64], Option<Memory>);

#[pymethods]
impl Execution {
    /// Waits for the next tensor.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(loaded) = self.advance(py)? else { return Ok(None) };
        let Some(entry) = self.plan.entries().get(loaded.entry) else { return Ok(None) };
        let alignment = entry.dtype().alignment_bytes();
        let memory = match entry.destination_strides() {
            Some(_) => None,
            None => Some(Memory(loaded.bytes.aligned_to(alignment).map_err(raise)?)),
        };
        let row: Row<'_> = (entry.name(), entry.dtype().name(), entry.shape(), memory);
        Ok(Some(row.into_pyobject(py)?.into_any().unbind()))
    }

    /// All tensors that are left, made by `convert` of a DLPack capsule; see `Checkpoint.load_dlpack`.
    /// Those that were read into memory of the caller are not among them.
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
        let mut filling = Filling::new(py);
        while let Some(loaded) = self.advance(py)? {
            let entry = self.plan.entries().get(loaded.entry);
            let Some(entry) = entry.filter(|entry| entry.destination_strides().is_none()) else { continue };
            let tensor = converter.tensor(entry.name(), loaded.bytes, entry.dtype(), entry.shape())?;
            filling.insert(entry.name(), &tensor)?;
        }
        Ok(filling.finish())
    }

    /// Name, dtype, shape and bytes of each tensor, in the order in which they are handed out; whether its
    /// memory is the caller's, given by `give` or earlier.
    fn order<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let entries = self.order.iter().filter_map(|place| self.plan.entries().get(*place));
        let rows: Vec<_> = entries.map(|e| (e.name(), e.dtype().name(), e.shape(), e.bytes())).collect();
        PyList::new(py, rows)
    }

    /// How many of the next tensors need memory by `give` before the next one can be handed out.
    fn lacks(&self, py: Python<'_>) -> usize {
        self.lock(py).as_ref().map_or(0, |execution| execution.not_given().len())
    }

    /// Gives memory of the device for the tensor at a place of the order: a dense tensor of as many bytes.
    fn give(&self, place: usize, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let entry = self.order.get(place).copied();
        let Some((entry, device)) = entry.zip(self.device) else {
            return Err(usage(&format!("no memory of a device is needed for the tensor {place}")));
        };
        let lent = Lent::on_device(out, device < 0)?;
        let bytes = lent.shape.iter().fold(lent.element_bytes, |bytes, size| bytes.saturating_mul(*size));
        if lent.memory.len() as u64 != bytes {
            return Err(usage("memory of a device that is read into is dense"));
        }
        self.control.give(entry, lent.memory).map_err(raise)
    }

    /// Refuses dtypes whose names are not in `known`.
    fn check(&self, known: &Bound<'_, PyDict>) -> PyResult<()> {
        let all = Dtype::ALL.iter();
        let unknown: Vec<_> = all.filter(|dtype| !known.contains(dtype.name()).unwrap_or(false)).collect();
        match self.plan.entries().iter().find(|entry| unknown.contains(&&entry.dtype())) {
            Some(entry) => Err(unsupported(entry.name(), entry.dtype().name())),
            None => Ok(()),
        }
    }

    /// Bytes that were read, and bytes that will be.
    fn progress(&self) -> (u64, u64) {
        self.control.progress()
    }

    /// Ends it: who waits for the next tensor gets an error.
    fn cancel(&self) {
        self.control.cancel();
    }

    /// Ends it, and waits for the requests under way.
    fn close(&self, py: Python<'_>) {
        self.control.cancel();
        let under_way = self.lock(py).take();
        py.detach(|| drop(under_way));
    }
}

impl Drop for Execution {
    /// Whoever drops it holds the interpreter, and workers that read a file object of Python wait for
    /// that: it is let go while they end.
    fn drop(&mut self) {
        self.control.cancel();
        let under_way = self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if under_way.is_some() {
            Python::attach(|py| py.detach(|| drop(under_way)));
        }
    }
}

impl Execution {
    /// The lock, for which the interpreter is let go: who has it waits for the disk.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Option<tensafe::Execution>> {
        use pyo3::sync::MutexExt as _;
        self.under_way.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, py: Python<'_>) -> PyResult<Option<tensafe::Loaded>> {
        let mut under_way = self.lock(py);
        let Some(execution) = under_way.as_mut() else { return Ok(None) };
        // A tensor that is there is handed out without letting the interpreter go.
        let next = if execution.is_ready() { execution.next() } else { py.detach(|| execution.next()) };
        next.transpose().map_err(raise)
    }
}

//! Memory that crosses the border between Rust and Python, in both directions. All unsafe code of
//! the extension is here and in the modules below: `dlpack` makes capsules, `lent` takes
//! them, `numpy` makes arrays.
#![allow(
    unsafe_code,
    reason = "the buffer protocol, DLPack, numpy and the addresses of TensorSpec are C interfaces"
)]

mod dlpack;
mod lent;
mod numpy;

use std::{ffi::c_int, mem::MaybeUninit, ptr};

use pyo3::{
    buffer::PyUntypedBuffer,
    exceptions::{PyBufferError, PyMemoryError, PyValueError},
    ffi,
    prelude::*,
    types::PyMemoryView,
};
use tensafe::{Buffer, Dtype, MapPermit};

pub(crate) use self::{
    dlpack::{Capsule, call_with},
    lent::Lent,
    numpy::{ArrayType, Arrays},
};
use crate::{errors::raise, spec::TensorSpec};

/// The permission to map files that users of the Python package give by choosing a mapping.
pub(crate) fn map_permit() -> MapPermit {
    // SAFETY: the documentation of `io=` and of `safe_open` hands the promise on to the caller, as
    // the reference does for its default: the file is not cut or changed while tensors of it live.
    unsafe { MapPermit::promised() }
}

/// Bytes of the core, seen by Python through the buffer protocol. Writable where the memory is the
/// process's own: what is written to a mapping stays in this process.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Memory(pub(crate) Buffer);

#[pymethods]
impl Memory {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Whether the bytes are a mapping of a file.
    #[getter]
    fn mapped(&self) -> bool {
        self.0.is_mapped()
    }

    /// The bytes as a DLPack capsule of a tensor; `raw` shows them as `uint8`.
    #[pyo3(signature = (dtype, shape, *, raw = false, versioned = false))]
    fn dlpack<'py>(
        &self,
        py: Python<'py>,
        dtype: &str,
        shape: Vec<u64>,
        raw: bool,
        versioned: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let dtype = Dtype::from_name(dtype).ok_or_else(|| PyValueError::new_err("an unknown dtype"))?;
        let needed = tensafe::tensor_bytes("", dtype, &shape)
            .map_err(|e| raise(tensafe::FileError::format(None, e)))?;
        if needed != self.0.len() as u64 {
            let text = format!("{dtype} {shape:?} needs {needed} bytes, the memory has {}", self.0.len());
            return Err(PyValueError::new_err(text));
        }
        Capsule { raw, versioned, copy: None }.of(py, self.0.clone(), dtype, &shape)
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let buffer = &slf.get().0;
        let len = ffi::Py_ssize_t::try_from(buffer.len())
            .map_err(|_| PyBufferError::new_err("the memory is larger than this host can address"))?;
        let readonly = c_int::from(!buffer.is_writable());
        let address = buffer.as_mut_ptr().cast();
        // SAFETY: `view` comes from the interpreter; `address` is good for `len` bytes as long as
        // `slf` lives, of which the view takes a reference.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, len, readonly, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// The buffer of `object`, and whether that has no dimensions: it then has no list of them, which the library
/// takes for an error, and is shown as one dimension of its bytes.
fn buffer_of(object: &Bound<'_, PyAny>) -> PyResult<(PyUntypedBuffer, bool)> {
    PyUntypedBuffer::get(object).map(|buffer| (buffer, false)).or_else(|refused| {
        let view = PyMemoryView::from(object).map_err(|_| refused.clone_ref(object.py()))?;
        if view.getattr("ndim")?.extract::<usize>()? > 0 {
            return Err(refused);
        }
        PyUntypedBuffer::get(&view.call_method1("cast", ("B",))?).map(|buffer| (buffer, true))
    })
}

/// A Python object's buffer, held for as long as Rust reads it.
pub(crate) struct Held(PyUntypedBuffer);

impl Held {
    /// The buffer of `object`, whatever its item type.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (buffer, _) = buffer_of(object)?;
        if buffer.is_c_contiguous() {
            Ok(Self(buffer))
        } else {
            Err(PyValueError::new_err("the buffer is not contiguous in row-major order"))
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        let len = self.0.len_bytes();
        if len == 0 {
            return &[];
        }
        // SAFETY: the held buffer is contiguous and stays where it is, `len` bytes long, until it is
        // released, which only dropping `self` does. That nobody writes to it meanwhile is what the
        // documentation of every function that takes a buffer asks of its caller.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), len) }
    }
}

/// Bytes below which letting other threads run costs more than the copy.
const WORTH_RELEASING: usize = 64 << 10;

/// A new `bytes` object of these parts, one after the other. Other threads run while it is filled.
pub(crate) fn bytes_of<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyAny>> {
    let (len, signed) = total(parts)?;
    // SAFETY: no bytes to copy are given: the object is made without content.
    let object = unsafe { ffi::PyBytes_FromStringAndSize(ptr::null(), signed) };
    // SAFETY: a new reference that is ours, or null with an exception set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    // SAFETY: a `bytes` object.
    let start = unsafe { ffi::PyBytes_AsString(object.as_ptr()) };
    // SAFETY: the object has `len` bytes at `start`, and nobody else knows it before it is returned.
    let place = unsafe { std::slice::from_raw_parts_mut(start.cast(), len) };
    fill(py, place, parts);
    Ok(object)
}

/// A new `bytearray` of these bytes. Other threads run while it is filled.
pub(crate) fn bytearray_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let (len, signed) = total(&[bytes])?;
    // SAFETY: no bytes to copy are given: the object is made without content.
    let object = unsafe { ffi::PyByteArray_FromStringAndSize(ptr::null(), signed) };
    // SAFETY: a new reference that is ours, or null with an exception set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    // SAFETY: a `bytearray`.
    let start = unsafe { ffi::PyByteArray_AsString(object.as_ptr()) };
    // SAFETY: the object has `len` bytes at `start`, and nobody else knows it before it is returned.
    let place = unsafe { std::slice::from_raw_parts_mut(start.cast(), len) };
    fill(py, place, &[bytes]);
    Ok(object)
}

fn total(parts: &[&[u8]]) -> PyResult<(usize, ffi::Py_ssize_t)> {
    let len = parts.iter().try_fold(0usize, |len, part| len.checked_add(part.len()));
    let both = len.and_then(|len| Some((len, ffi::Py_ssize_t::try_from(len).ok()?)));
    both.ok_or_else(|| PyMemoryError::new_err("the bytes are more than this host can address"))
}

/// Copies the parts to `place`, which is as long as all of them together.
fn fill(py: Python<'_>, place: &mut [MaybeUninit<u8>], parts: &[&[u8]]) {
    let copy = |mut place: &mut [MaybeUninit<u8>]| {
        for part in parts {
            let (to, rest) = place.split_at_mut(part.len());
            // SAFETY: both are `part.len()` bytes long, and what is borrowed for writing overlaps
            // nothing that is borrowed for reading.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), to.as_mut_ptr().cast(), to.len()) };
            place = rest;
        }
        assert!(place.is_empty(), "every byte of a new object is written");
    };
    if place.len() < WORTH_RELEASING { copy(place) } else { py.detach(|| copy(place)) }
}

/// The tensors that specs describe, with the bytes that they point to.
///
/// Whoever made a `TensorSpec` promised, by its documentation, that its memory is good for reads and
/// does not change until the call that takes it returns: callers let no slice outlive that call.
pub(crate) fn with_bytes(
    specs: &[(tensafe::TensorSpec, Py<TensorSpec>)],
) -> Vec<(tensafe::TensorSpec, &[u8])> {
    specs.iter().map(|(described, spec)| (described.clone(), bytes_at(spec.get()))).collect()
}

fn bytes_at(spec: &TensorSpec) -> &[u8] {
    if spec.data_len == 0 || spec.data_ptr == 0 {
        return &[];
    }
    let address = ptr::with_exposed_provenance(spec.data_ptr);
    // SAFETY: the promise of the spec's maker; the slice lives no longer than the borrow of the spec,
    // which the call holds.
    unsafe { std::slice::from_raw_parts(address, spec.data_len) }
}

/// Keeps the interpreter from looking for garbage until it is dropped: a dict of new tensors has
/// none, and each look at them costs as much as making them.
///
/// The switch is the process's: who turns collections off meanwhile, in another thread, finds them
/// on again afterwards.
pub(crate) struct CollectionsPaused<'py> {
    _py: Python<'py>,
    resume: bool,
}

impl<'py> CollectionsPaused<'py> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        // SAFETY: the interpreter is attached, as `py` shows.
        let was_on = unsafe { ffi::PyGC_Disable() };
        Self { _py: py, resume: was_on != 0 }
    }
}

impl Drop for CollectionsPaused<'_> {
    fn drop(&mut self) {
        if self.resume {
            // SAFETY: the interpreter is attached, as `_py` shows.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

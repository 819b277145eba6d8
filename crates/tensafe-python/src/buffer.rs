//! Memory that crosses the border between Rust and Python, in both directions. All unsafe code of
//! the extension is here.
#![allow(
    unsafe_code,
    reason = "the buffer protocol, DLPack and the addresses of TensorSpec are C interfaces"
)]

use std::{
    ffi::{CStr, c_int, c_void},
    mem::MaybeUninit,
    ptr,
};

use pyo3::{
    buffer::PyUntypedBuffer,
    exceptions::{PyBufferError, PyMemoryError, PyValueError},
    ffi,
    prelude::*,
};
use tensafe::{Buffer, Dtype, MapPermit};

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

/// A Python object's buffer, held for as long as Rust reads it.
pub(crate) struct Held(PyUntypedBuffer);

impl Held {
    /// The buffer of `object`, whatever its item type.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
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

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor` of DLPack.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor` of DLPack.
#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

/// What a capsule owns: the tensor that it shows, first, and what that points into.
#[repr(C)]
struct Export {
    managed: Managed,
    shape: Vec<i64>,
    _memory: Buffer,
}

const NAME: &CStr = c"dltensor";
const CPU: i32 = 1;

/// A DLPack capsule of `memory`, which keeps it alive: a contiguous CPU tensor.
///
/// `raw` shows the bytes of an element type that consumers of DLPack may not know, as `uint8`; the
/// last dimension of sub-byte elements then counts bytes.
pub(crate) fn dlpack<'py>(
    py: Python<'py>,
    memory: Buffer,
    dtype: Dtype,
    shape: &[u64],
    raw: bool,
) -> PyResult<Bound<'py, PyAny>> {
    // A consumer may write: memory that is not ours to write is copied.
    let alignment = dtype.alignment_bytes();
    let own = || if memory.is_writable() { memory.aligned_to(alignment) } else { memory.to_owned_memory() };
    let memory = if memory.len() < WORTH_RELEASING { own() } else { py.detach(own) }.map_err(raise)?;
    let mut shape = shape
        .iter()
        .map(|d| i64::try_from(*d).map_err(|_| PyValueError::new_err("a dimension is beyond 2^63 - 1")))
        .collect::<PyResult<Vec<_>>>()?;
    if raw && dtype.is_sub_byte() {
        let per_byte = i64::try_from(dtype.bits()).unwrap_or(8);
        let last = shape.last_mut().filter(|last| (**last * per_byte) % 8 == 0);
        let last = last.ok_or_else(|| {
            PyValueError::new_err(format!("{dtype} needs a last dimension that fills whole bytes"))
        })?;
        *last = *last * per_byte / 8;
    }
    let (code, bits) = if raw { (1, 8) } else { dtype.dlpack() };
    let dimensions = i32::try_from(shape.len()).map_err(|_| PyValueError::new_err("too many dimensions"))?;
    let mut export = Box::new(Export {
        managed: Managed {
            tensor: Tensor {
                data: memory.as_mut_ptr().cast(),
                device: Device { kind: CPU, id: 0 },
                dimensions,
                dtype: DataType { code, bits, lanes: 1 },
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            },
            context: ptr::null_mut(),
            deleter: Some(delete),
        },
        shape,
        _memory: memory,
    });
    export.managed.tensor.shape = export.shape.as_mut_ptr();
    let export = Box::into_raw(export);
    // SAFETY: what `export` points to and `NAME` outlive the capsule: the destructor or the consumer
    // frees the one, the other is static.
    let capsule = unsafe { ffi::PyCapsule_New(export.cast(), NAME.as_ptr(), Some(drop_capsule)) };
    if capsule.is_null() {
        // SAFETY: no capsule took it over.
        drop(unsafe { Box::from_raw(export) });
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference that is ours.
    Ok(unsafe { Bound::from_owned_ptr(py, capsule) })
}

/// Frees a tensor: called once, by the consumer or by the capsule that found none.
unsafe extern "C" fn delete(managed: *mut Managed) {
    if managed.is_null() {
        return;
    }
    // SAFETY: `managed` is the first field of the box that `dlpack` made, which only this call frees.
    drop(unsafe { Box::from_raw(managed.cast::<Export>()) });
}

/// A consumer renames the capsule it has taken; one that kept its name was never taken.
unsafe extern "C" fn drop_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this with the capsule that it frees.
    if unsafe { ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) } == 0 {
        return;
    }
    // SAFETY: valid under this name, so that the pointer is the one that `dlpack` put in.
    let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()) };
    // SAFETY: the capsule was not taken: this is the only call.
    unsafe { delete(managed.cast()) };
}

//! Memory of frameworks that tensors are read into: taken by DLPack, or by the buffer protocol.

use std::ffi::{CStr, c_void};

use pyo3::{
    exceptions::{PyBufferError, PyValueError},
    ffi, intern,
    prelude::*,
};
use tensafe::Destination;

use super::{buffer_of, dlpack::Unversioned};

/// Memory of a device that the runtime of CUDA or of ROCm copies to.
const DEVICES: [i32; 2] = [2, 10];

/// Memory on the host that DLPack calls the CPU's, and memory of the host that a device may use too.
const HOST: [i32; 3] = [1, 3, 11];

const NAME: &CStr = c"dltensor";

/// A tensor's memory, lent to be read into.
pub(crate) struct Lent {
    pub(crate) memory: Destination,
    /// Bytes of an element.
    pub(crate) element_bytes: u64,
    /// In elements.
    pub(crate) shape: Vec<u64>,
    /// In bytes.
    pub(crate) strides: Vec<u64>,
}

impl Lent {
    /// The memory of `object`: a tensor on the host that may be written.
    ///
    /// # Errors
    /// `BufferError` where it is elsewhere, may not be written, or is walked backwards.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let protocol = object.getattr_opt(intern!(py, "__dlpack__"))?;
        // numpy's dtypes from elsewhere have no word in DLPack, but their arrays are buffers.
        match protocol.filter(|_| !is_array(object)) {
            Some(export) => Self::of_capsule(&export.call0()?, &HOST, false),
            None => Self::of_buffer(object),
        }
    }

    /// The memory of `object`, a tensor, that a stager copies to: a device's, or with `host` the host's
    /// in its place.
    ///
    /// # Errors
    /// `BufferError` where it is elsewhere, or is walked backwards.
    pub(crate) fn on_device(object: &Bound<'_, PyAny>, host: bool) -> PyResult<Self> {
        let capsule = object.call_method0(intern!(object.py(), "__dlpack__"))?;
        Self::of_capsule(&capsule, if host { &HOST } else { &DEVICES }, true)
    }

    fn of_capsule(capsule: &Bound<'_, PyAny>, kinds: &[i32], on_device: bool) -> PyResult<Self> {
        // SAFETY: any object may be asked; a capsule that was taken, or is none, is an error.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), NAME.as_ptr()) };
        if managed.is_null() {
            return Err(PyErr::fetch(capsule.py()));
        }
        // SAFETY: a capsule of this name holds a `DLManagedTensor` until somebody takes it, which nobody
        // does while we have it.
        let tensor = unsafe { &(*managed.cast::<Unversioned>()).tensor };
        if !kinds.contains(&tensor.device.kind) {
            let needed = if kinds == HOST { "the host's" } else { "that of a device that is copied to" };
            let text = format!("memory of the device kind {} is not {needed}", tensor.device.kind);
            return Err(PyBufferError::new_err(text));
        }
        let dimensions = usize::try_from(tensor.dimensions).unwrap_or(0);
        let numbers = |start: *const i64| {
            if start.is_null() || dimensions == 0 {
                return Vec::new();
            }
            // SAFETY: the standard has as many numbers there as the tensor has dimensions.
            unsafe { std::slice::from_raw_parts(start, dimensions) }.to_vec()
        };
        let (shape, strides) = (numbers(tensor.shape), numbers(tensor.strides));
        let element_bytes = u64::from(tensor.dtype.bits).saturating_mul(u64::from(tensor.dtype.lanes)) / 8;
        let shape = unsigned(&shape)?;
        let strides = if strides.is_empty() { dense(&shape) } else { unsigned(&strides)? };
        let strides: Vec<u64> = strides.iter().map(|stride| stride.saturating_mul(element_bytes)).collect();
        let offset = usize::try_from(tensor.byte_offset).unwrap_or(usize::MAX);
        let start = tensor.data.cast::<u8>().wrapping_add(offset);
        Self::new(start.cast(), element_bytes, shape, strides, on_device, capsule.clone().unbind())
    }

    fn of_buffer(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (buffer, is_scalar) = buffer_of(object)?;
        if buffer.readonly() {
            return Err(PyBufferError::new_err("the memory to read into may not be written"));
        }
        if is_scalar {
            let (start, element) = (buffer.buf_ptr(), buffer.len_bytes() as u64);
            return Self::new(start, element, Vec::new(), Vec::new(), false, buffer);
        }
        let sizes = |numbers: &[usize]| numbers.iter().map(|n| *n as u64).collect::<Vec<_>>();
        let shape = sizes(buffer.shape());
        let strides: Vec<i64> = buffer.strides().iter().map(|stride| *stride as i64).collect();
        let (start, element) = (buffer.buf_ptr(), buffer.item_size() as u64);
        Self::new(start, element, shape, unsigned(&strides)?, false, buffer)
    }

    fn new(
        start: *mut c_void,
        element_bytes: u64,
        shape: Vec<u64>,
        strides: Vec<u64>,
        on_device: bool,
        owner: impl Send + 'static,
    ) -> PyResult<Self> {
        let empty = shape.contains(&0);
        let last = shape.iter().zip(&strides).try_fold(0u64, |sum, (size, stride)| {
            sum.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
        });
        let len =
            last.and_then(|last| last.checked_add(element_bytes)).and_then(|len| usize::try_from(len).ok());
        let len =
            len.ok_or_else(|| PyValueError::new_err("strides reach beyond what this host can address"))?;
        let (start, len) = (start.cast(), if empty { 0 } else { len });
        if on_device {
            // SAFETY: as below; the adapter has waited for what the device was to do with the memory before.
            let memory = unsafe { Destination::on_device(start, len, owner) };
            return Ok(Self { memory, element_bytes, shape, strides });
        }
        // SAFETY: the exporter of the capsule or of the buffer keeps the bytes that shape and strides
        // reach for as long as the owner is held. That nobody else uses them until the plan was carried
        // out is what the documentation of `Plan.into` asks of its caller.
        let memory = unsafe { Destination::new(start, len, owner) };
        Ok(Self { memory, element_bytes, shape, strides })
    }
}

/// Whether an object is an array of numpy, without importing it.
fn is_array(object: &Bound<'_, PyAny>) -> bool {
    object.hasattr(intern!(object.py(), "__array_interface__")).unwrap_or(false)
}

fn unsigned(numbers: &[i64]) -> PyResult<Vec<u64>> {
    let unsigned = numbers.iter().map(|n| u64::try_from(*n)).collect::<Result<Vec<_>, _>>();
    unsigned.map_err(|_| PyBufferError::new_err("memory that is walked backwards cannot be read into"))
}

/// Row-major strides, in elements.
fn dense(shape: &[u64]) -> Vec<u64> {
    let mut stride = 1u64;
    let mut strides: Vec<u64> = shape
        .iter()
        .rev()
        .map(|size| {
            let here = stride;
            stride = stride.saturating_mul((*size).max(1));
            here
        })
        .collect();
    strides.reverse();
    strides
}

//! DLPack capsules of the core's memory: contiguous CPU tensors, of both layouts that the standard
//! has had. A capsule is one allocation, whatever the number of dimensions.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ffi::{CStr, c_void},
    mem::offset_of,
    ptr::{self, NonNull},
};

use pyo3::{
    exceptions::{PyBufferError, PyValueError},
    ffi,
    prelude::*,
};
use tensafe::{Buffer, Dtype};

use super::WORTH_RELEASING;
use crate::errors::{raise, unsupported_packing};

#[repr(C)]
pub(super) struct Device {
    pub(super) kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct DataType {
    code: u8,
    pub(super) bits: u8,
    pub(super) lanes: u16,
}

/// `DLTensor` of DLPack.
#[repr(C)]
pub(super) struct Tensor {
    pub(super) data: *mut c_void,
    pub(super) device: Device,
    pub(super) dimensions: i32,
    pub(super) dtype: DataType,
    pub(super) shape: *mut i64,
    pub(super) strides: *mut i64,
    pub(super) byte_offset: u64,
}

/// `DLManagedTensor` of DLPack.
#[repr(C)]
pub(super) struct Unversioned {
    pub(super) tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

/// `DLManagedTensorVersioned` of DLPack 1.
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
    flags: u64,
    tensor: Tensor,
}

/// What a consumer sees of a tensor.
///
/// # Safety
/// An implementor is the `repr(C)` structure that the standard keeps in capsules called `NAME`.
unsafe trait Managed: Sized {
    /// The name of a capsule that nobody has taken.
    const NAME: &'static CStr;

    fn new(tensor: Tensor, flags: u64, deleter: unsafe extern "C" fn(*mut Self)) -> Self;
}

// SAFETY: the two fields of `DLManagedTensor` after its tensor, in order.
unsafe impl Managed for Unversioned {
    const NAME: &'static CStr = c"dltensor";

    fn new(tensor: Tensor, _flags: u64, deleter: unsafe extern "C" fn(*mut Self)) -> Self {
        Self { tensor, context: ptr::null_mut(), deleter: Some(deleter) }
    }
}

// SAFETY: the fields of `DLManagedTensorVersioned`, in order.
unsafe impl Managed for Versioned {
    const NAME: &'static CStr = c"dltensor_versioned";

    fn new(tensor: Tensor, flags: u64, deleter: unsafe extern "C" fn(*mut Self)) -> Self {
        // 1.1 has the codes of the dtypes of 8 bits and less.
        Self { version: [1, 1], context: ptr::null_mut(), deleter: Some(deleter), flags, tensor }
    }
}

/// What a capsule owns: what the consumer sees, first, and the memory. Shape and strides follow it
/// in the same allocation, `dimensions` of each.
#[repr(C)]
struct Export<M> {
    managed: M,
    memory: Buffer,
    dimensions: usize,
    tail: [i64; 0],
}

const CPU: i32 = 1;
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;

/// How memory is to be shown.
#[derive(Clone, Copy, Default)]
pub(crate) struct Capsule {
    /// The bytes of an element type that the consumer may not know, as `uint8`; the last dimension
    /// of sub-byte elements then counts bytes.
    pub(crate) raw: bool,
    /// By the structure of DLPack 1, which has flags.
    pub(crate) versioned: bool,
    /// `Some(true)`: memory that nobody else sees. `Some(false)`: an error where a copy is needed;
    /// memory that is not ours to write is then shown by its flag, or refused where there is none.
    pub(crate) copy: Option<bool>,
}

impl Capsule {
    /// A capsule of `memory`, which it keeps alive: a contiguous tensor that its consumer may write,
    /// at an address aligned for its elements.
    ///
    /// # Errors
    /// `BufferError` where `copy` forbids a copy that is needed; `ValueError` for a dimension beyond
    /// 2^63 - 1; where the memory for a copy cannot be reserved.
    pub(crate) fn of<'py>(
        self,
        py: Python<'py>,
        memory: Buffer,
        dtype: Dtype,
        shape: &[u64],
    ) -> PyResult<Bound<'py, PyAny>> {
        let (memory, flags) = self.memory(py, memory, dtype)?;
        let (code, bits) = if self.raw { (1, 8) } else { dtype.dlpack() };
        let dtype_seen = DataType { code, bits, lanes: 1 };
        let packed = (self.raw && dtype.is_sub_byte()).then_some(dtype);
        if self.versioned {
            capsule::<Versioned>(py, memory, flags, dtype_seen, shape, packed)
        } else {
            capsule::<Unversioned>(py, memory, flags, dtype_seen, shape, packed)
        }
    }

    /// The memory to show, and what is said of it.
    fn memory(self, py: Python<'_>, memory: Buffer, dtype: Dtype) -> PyResult<(Buffer, u64)> {
        // Memory of ours was filled for this call alone.
        let fresh = memory.is_writable() && !memory.is_mapped();
        let aligned = memory.is_aligned_to(dtype.alignment_bytes());
        let needed = !aligned || !(memory.is_writable() || (self.versioned && self.copy == Some(false)));
        if needed && self.copy == Some(false) {
            return Err(PyBufferError::new_err(
                "these bytes are not aligned for their dtype, or not to be written: copy=False cannot be kept",
            ));
        }
        if !needed && (fresh || self.copy != Some(true)) {
            let read_only = if memory.is_writable() { 0 } else { READ_ONLY };
            let copied = if self.copy == Some(true) { IS_COPIED } else { 0 };
            return Ok((memory, read_only | copied));
        }
        let own = || memory.to_owned_memory();
        let own = if memory.len() < WORTH_RELEASING { own() } else { py.detach(own) };
        Ok((own.map_err(raise)?, IS_COPIED))
    }
}

fn capsule<'py, M: Managed>(
    py: Python<'py>,
    memory: Buffer,
    flags: u64,
    dtype: DataType,
    shape: &[u64],
    packed: Option<Dtype>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut export = Exported::<M>::new(memory, flags, dtype, shape)?;
    if let Some(dtype) = packed {
        count_bytes(export.shape_mut(), dtype)?;
    }
    export.set_strides();
    let export = export.into_raw();
    // SAFETY: what `export` points to and `NAME` outlive the capsule: the destructor or the consumer
    // frees the one, the other is static.
    let made =
        unsafe { ffi::PyCapsule_New(export.as_ptr().cast(), M::NAME.as_ptr(), Some(drop_capsule::<M>)) };
    if made.is_null() {
        drop(Exported(export));
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference that is ours.
    Ok(unsafe { Bound::from_owned_ptr(py, made) })
}

/// Makes the last dimension of elements of less than a byte count bytes.
fn count_bytes(shape: &mut [i64], dtype: Dtype) -> PyResult<()> {
    let bits = i64::try_from(dtype.bits()).unwrap_or(8);
    let last = shape.last_mut().and_then(|last| Some((last.checked_mul(bits)?, last)));
    let (total, last) =
        last.filter(|(total, _)| total % 8 == 0).ok_or_else(|| unsupported_packing(dtype.name()))?;
    *last = total / 8;
    Ok(())
}

/// An export that no capsule has taken over yet.
struct Exported<M: Managed>(NonNull<Export<M>>);

impl<M: Managed> Exported<M> {
    fn new(memory: Buffer, flags: u64, dtype: DataType, shape: &[u64]) -> PyResult<Self> {
        let too_many = || PyValueError::new_err("too many dimensions");
        let dimensions = i32::try_from(shape.len()).map_err(|_| too_many())?;
        let layout = layout_of::<M>(shape.len()).ok_or_else(too_many)?;
        // SAFETY: the layout is that of an `Export`, which is not empty, and more.
        let start = NonNull::new(unsafe { alloc(layout) }.cast::<Export<M>>());
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        let tail = start.as_ptr().cast::<u8>().wrapping_add(offset_of!(Export<M>, tail)).cast::<i64>();
        let tensor = Tensor {
            data: memory.as_mut_ptr().cast(),
            device: Device { kind: CPU, id: 0 },
            dimensions,
            dtype,
            shape: tail,
            strides: tail.wrapping_add(shape.len()),
            byte_offset: 0,
        };
        let managed = M::new(tensor, flags, delete::<M>);
        // SAFETY: new memory of this type's layout, which nothing has been put into.
        unsafe { start.write(Export { managed, memory, dimensions: shape.len(), tail: [] }) };
        // SAFETY: the tail is as long as two times the dimensions, and zeros are numbers.
        unsafe { tail.write_bytes(0, 2 * shape.len()) };
        let mut export = Self(start);
        for (place, dimension) in export.tail_mut().iter_mut().zip(shape) {
            *place = i64::try_from(*dimension)
                .map_err(|_| PyValueError::new_err("a dimension is beyond 2^63 - 1"))?;
        }
        Ok(export)
    }

    /// The shape, and the strides after it.
    fn tail_mut(&mut self) -> &mut [i64] {
        let start = self.0.as_ptr().cast::<u8>();
        let tail = start.wrapping_add(offset_of!(Export<M>, tail)).cast::<i64>();
        // SAFETY: `new` wrote the export before it made `self`.
        let dimensions = unsafe { self.0.as_ref() }.dimensions;
        // SAFETY: `new` allocated and wrote so many numbers there; `self` is borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(tail, 2 * dimensions) }
    }

    fn shape_mut(&mut self) -> &mut [i64] {
        let tail = self.tail_mut();
        let dimensions = tail.len() / 2;
        tail.split_at_mut(dimensions).0
    }

    /// Row-major strides, in elements.
    fn set_strides(&mut self) {
        let tail = self.tail_mut();
        let (shape, strides) = tail.split_at_mut(tail.len() / 2);
        let mut stride = 1i64;
        for (dimension, place) in shape.iter().zip(strides).rev() {
            *place = stride;
            // Of a tensor without elements no stride is ever followed.
            stride = stride.saturating_mul((*dimension).max(1));
        }
    }

    fn into_raw(self) -> NonNull<Export<M>> {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl<M: Managed> Drop for Exported<M> {
    fn drop(&mut self) {
        // SAFETY: `new` wrote the export, and nothing else frees what no capsule has taken over.
        let dimensions = unsafe { self.0.as_ref() }.dimensions;
        // SAFETY: as above; it is not used again.
        unsafe { self.0.drop_in_place() };
        if let Some(layout) = layout_of::<M>(dimensions) {
            // SAFETY: allocated by `new` with the layout of so many dimensions.
            unsafe { dealloc(self.0.as_ptr().cast(), layout) };
        }
    }
}

/// The layout of an export with room for shape and strides.
fn layout_of<M>(dimensions: usize) -> Option<Layout> {
    let tail = Layout::array::<i64>(dimensions.checked_mul(2)?).ok()?;
    let (layout, at) = Layout::new::<Export<M>>().extend(tail).ok()?;
    // The structure ends where its empty last field begins, at most padded to its alignment.
    (at == offset_of!(Export<M>, tail)).then_some(layout)
}

/// Frees a tensor: called once, by the consumer or by the capsule that found none.
unsafe extern "C" fn delete<M: Managed>(managed: *mut M) {
    // `managed` is the first field of an export that `into_raw` gave away, which only this call frees.
    if let Some(export) = NonNull::new(managed.cast::<Export<M>>()) {
        drop(Exported(export));
    }
}

/// A consumer renames the capsule it has taken; one that kept its name was never taken.
unsafe extern "C" fn drop_capsule<M: Managed>(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this with the capsule that it frees.
    if unsafe { ffi::PyCapsule_IsValid(capsule, M::NAME.as_ptr()) } == 0 {
        return;
    }
    // SAFETY: valid under this name, so that the pointer is the one that `capsule` put in.
    let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, M::NAME.as_ptr()) };
    // SAFETY: the capsule was not taken: this is the only call.
    unsafe { delete(managed.cast::<M>()) };
}

/// `function(argument)`, without a tuple for the one argument.
pub(crate) fn call_with<'py>(
    function: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let end = ptr::null_mut::<ffi::PyObject>();
    // SAFETY: objects that live through the call, and the null that ends the arguments.
    let result = unsafe { ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end) };
    // SAFETY: a new reference that is ours, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), result) }
}

//! numpy's arrays over the core's memory, by numpy's C interface. numpy is looked for when the first
//! array is asked for; without it the module is as good as ever.

use std::{
    ffi::{c_int, c_uint, c_void},
    mem::transmute,
    ops::Range,
    ptr,
};

use pyo3::{
    exceptions::{PyImportError, PyModuleNotFoundError, PyTypeError, PyValueError},
    ffi, intern,
    prelude::*,
    types::PyType,
};
use tensafe::Dtype;

use super::Memory;

type Version = unsafe extern "C" fn() -> c_uint;
type NewFromDescr = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
type SetBaseObject = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;

// Places in numpy's table of functions. They are part of its binary interface: the same in every
// version of the two that `Arrays::import` accepts.
const VERSION: usize = 0;
const NEW_FROM_DESCR: usize = 94;
const SET_BASE_OBJECT: usize = 282;

const C_CONTIGUOUS: c_int = 0x1;
const ALIGNED: c_int = 0x100;
const WRITABLE: c_int = 0x400;

/// No version of numpy has arrays of more dimensions.
const MOST_DIMENSIONS: usize = 64;

/// The parts of numpy that make arrays.
pub(crate) struct Arrays<'py> {
    new_from_descr: NewFromDescr,
    set_base_object: SetBaseObject,
    ndarray: Bound<'py, PyType>,
    dtype: Bound<'py, PyType>,
}

/// A dtype of numpy whose elements are plain bytes, as many as the core's dtype has.
pub(crate) struct ArrayType<'py> {
    descr: Bound<'py, PyAny>,
    bytes: usize,
    alignment: usize,
}

impl<'py> Arrays<'py> {
    /// Finds numpy.
    ///
    /// # Errors
    /// `ImportError` where there is none, or one of another binary interface.
    pub(crate) fn import(py: Python<'py>) -> PyResult<Self> {
        let module = match py.import(intern!(py, "numpy._core._multiarray_umath")) {
            Err(error) if error.is_instance_of::<PyModuleNotFoundError>(py) => {
                // Its name before numpy 2.
                py.import(intern!(py, "numpy.core._multiarray_umath"))
            }
            found => found,
        }?;
        let table = module.getattr(intern!(py, "_ARRAY_API"))?;
        // SAFETY: any object may be asked; numpy's capsule has no name, and one of another is an error.
        let table = unsafe { ffi::PyCapsule_GetPointer(table.as_ptr(), ptr::null()) };
        if table.is_null() {
            return Err(PyErr::fetch(py));
        }
        let function = |place: usize| {
            let place = table.cast::<*const c_void>().wrapping_add(place);
            // SAFETY: numpy's table of functions is static and longer than this.
            unsafe { place.read() }
        };
        // SAFETY: the first function of every version's table.
        let version = unsafe { transmute::<*const c_void, Version>(function(VERSION)) };
        // SAFETY: takes nothing and reads a constant.
        let version = unsafe { version() } >> 24;
        if !matches!(version, 1 | 2) {
            let text = format!("numpy has the binary interface {version}, 1 or 2 is needed");
            return Err(PyImportError::new_err(text));
        }
        let kind = |name| module.getattr(name)?.cast_into::<PyType>().map_err(PyErr::from);
        Ok(Self {
            // SAFETY: the function of this type that stands at this place in both versions.
            new_from_descr: unsafe { transmute::<*const c_void, NewFromDescr>(function(NEW_FROM_DESCR)) },
            // SAFETY: the function of this type that stands at this place in both versions.
            set_base_object: unsafe { transmute::<*const c_void, SetBaseObject>(function(SET_BASE_OBJECT)) },
            ndarray: kind(intern!(py, "ndarray"))?,
            dtype: kind(intern!(py, "dtype"))?,
        })
    }

    /// Takes the `numpy.dtype` that stands for `dtype`: `uint8` where its elements are parts of bytes.
    ///
    /// # Errors
    /// `TypeError` for anything else than a dtype of plain elements of the right size.
    pub(crate) fn array_type(&self, descr: Bound<'py, PyAny>, dtype: Dtype) -> PyResult<ArrayType<'py>> {
        let py = descr.py();
        let is_dtype = descr.is_instance(&self.dtype)?;
        let bytes = usize::try_from(dtype.bits().div_ceil(8)).unwrap_or(usize::MAX);
        if !is_dtype
            || descr.getattr(intern!(py, "itemsize"))?.extract::<usize>()? != bytes
            || descr.getattr(intern!(py, "hasobject"))?.extract()?
            || !descr.getattr(intern!(py, "subdtype"))?.is_none()
        {
            return Err(PyTypeError::new_err(format!("{dtype} needs a numpy.dtype of {bytes} bytes")));
        }
        let alignment = usize::try_from(dtype.alignment_bytes()).unwrap_or(usize::MAX);
        Ok(ArrayType { descr, bytes, alignment })
    }

    /// An array over a part of `memory`, in bytes, which it keeps alive: row-major, writable where the
    /// memory is, marked as aligned where the part is.
    ///
    /// # Errors
    /// `ValueError` where shape and part differ in size, and where numpy has no array of such a shape.
    pub(crate) fn array(
        &self,
        element: &ArrayType<'py>,
        shape: &[u64],
        memory: &Bound<'py, Memory>,
        part: Range<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut dimensions = [0isize; MOST_DIMENSIONS];
        let (count, data) = self.checked(element, shape, memory, part, &mut dimensions)?;
        let writable = if memory.get().0.is_writable() { WRITABLE } else { 0 };
        let aligned = if data.addr().is_multiple_of(element.alignment) { ALIGNED } else { 0 };
        let descr = element.descr.clone().into_ptr();
        // SAFETY: numpy's function takes over the reference to the dtype, reads `count` dimensions and
        // keeps `data`, which is good for as many bytes as these need, by the check above, as long as
        // `memory` lives: the array's base.
        let array = unsafe {
            (self.new_from_descr)(
                self.ndarray.as_type_ptr(),
                descr,
                count,
                dimensions.as_ptr(),
                ptr::null(),
                data,
                C_CONTIGUOUS | aligned | writable,
                ptr::null_mut(),
            )
        };
        // SAFETY: a new reference that is ours, or null with an exception set.
        let array = unsafe { Bound::from_owned_ptr_or_err(memory.py(), array) }?;
        // SAFETY: a new array without a base; the function takes over the reference, whatever it returns.
        let set = unsafe { (self.set_base_object)(array.as_ptr(), memory.clone().into_ptr()) };
        if set == 0 { Ok(array) } else { Err(PyErr::fetch(memory.py())) }
    }

    /// Writes `shape` as numpy's integers; returns their number and the address of the part.
    fn checked(
        &self,
        element: &ArrayType<'py>,
        shape: &[u64],
        memory: &Bound<'py, Memory>,
        part: Range<usize>,
        dimensions: &mut [isize; MOST_DIMENSIONS],
    ) -> PyResult<(c_int, *mut c_void)> {
        let count = shape.len();
        if count > MOST_DIMENSIONS {
            let text = format!("it has {count} dimensions, numpy has at most {MOST_DIMENSIONS}");
            return Err(PyValueError::new_err(text));
        }
        let mut needed = Some(element.bytes);
        for (to, size) in dimensions.iter_mut().zip(shape) {
            let size = isize::try_from(*size).map_err(|_| {
                PyValueError::new_err(format!("a dimension of {size} is more than this host can address"))
            })?;
            *to = size;
            // Of no elements, whatever the dimensions before and after the empty one.
            let empty = needed == Some(0) || size == 0;
            needed = if empty { Some(0) } else { needed.and_then(|n| n.checked_mul(size.unsigned_abs())) };
        }
        let bytes = &memory.get().0;
        let end = needed.and_then(|needed| part.start.checked_add(needed));
        if part.end > bytes.len() || end != Some(part.end) {
            return Err(PyValueError::new_err("the shape needs another number of bytes"));
        }
        let count = c_int::try_from(count).map_err(|_| PyValueError::new_err("too many dimensions"))?;
        Ok((count, bytes.as_mut_ptr().wrapping_add(part.start).cast()))
    }
}

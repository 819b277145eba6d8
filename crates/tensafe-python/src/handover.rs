//! All tensors of a model handed over to a framework in one call: one dict, in the order of the files
//! and of the bytes in them. Knows no framework by itself: it calls what the adapter in Python gives.

use std::ops::Range;

use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};
use tensafe::{Buffer, Dtype};

use crate::{
    buffer::{ArrayType, Arrays, Capsule, Memory, call_with},
    errors::{raise, unsupported, unsupported_shape},
};

/// Tensors between two looks for Ctrl-C: a millisecond or two.
const BETWEEN_SIGNALS: usize = 4096;

/// The dict of a load as it fills.
pub(crate) struct Filling<'py> {
    dict: Bound<'py, PyDict>,
    filled: usize,
}

impl<'py> Filling<'py> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        Self { dict: PyDict::new(py), filled: 0 }
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// What a handler of signals raises, such as `KeyboardInterrupt`.
    pub(crate) fn insert(&mut self, name: &str, tensor: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.dict.py();
        self.filled = self.filled.wrapping_add(1);
        if self.filled.is_multiple_of(BETWEEN_SIGNALS) {
            py.check_signals()?;
        }
        self.dict.set_item(PyString::new(py, name), tensor)
    }

    pub(crate) fn finish(self) -> Bound<'py, PyDict> {
        self.dict
    }
}

/// A value for each dtype of the format that has one.
struct ByDtype<T>(Vec<Option<T>>);

impl<T> ByDtype<T> {
    fn new(value: impl FnMut(Dtype) -> PyResult<Option<T>>) -> PyResult<Self> {
        Dtype::ALL.iter().copied().map(value).collect::<PyResult<_>>().map(Self)
    }

    fn get(&self, dtype: Dtype) -> Option<&T> {
        self.0.get(dtype as usize)?.as_ref()
    }
}

/// How a dtype crosses by DLPack.
enum Crossing<'py> {
    AsItIs,
    /// As bytes, which the framework views as the dtype.
    Viewed(Bound<'py, PyAny>),
}

/// A framework that takes DLPack capsules.
pub(crate) struct Converter<'py> {
    convert: Bound<'py, PyAny>,
    known: ByDtype<Crossing<'py>>,
    empty: Option<Bound<'py, PyAny>>,
    versioned: bool,
}

impl<'py> Converter<'py> {
    /// `convert` makes a tensor of a capsule. `known` has the names of the dtypes that the framework
    /// has, with `None` where its DLPack takes them, else the dtype to call `view` of a tensor with,
    /// which then holds bytes. `empty`, if any, makes tensors without elements, from shape and name
    /// of the dtype. `versioned` capsules are those of DLPack 1.
    pub(crate) fn new(
        convert: Bound<'py, PyAny>,
        known: &Bound<'py, PyDict>,
        empty: Option<Bound<'py, PyAny>>,
        versioned: bool,
    ) -> PyResult<Self> {
        let known = ByDtype::new(|dtype| {
            let view = known.get_item(dtype.name())?;
            Ok(view.map(|view| if view.is_none() { Crossing::AsItIs } else { Crossing::Viewed(view) }))
        })?;
        Ok(Self { convert, known, empty, versioned })
    }

    pub(crate) fn knows(&self, dtype: Dtype) -> bool {
        self.known.get(dtype).is_some()
    }

    /// The tensor of these bytes.
    pub(crate) fn tensor(
        &self,
        name: &str,
        bytes: Buffer,
        dtype: Dtype,
        shape: &[u64],
    ) -> PyResult<Bound<'py, PyAny>> {
        let crossing = self.known.get(dtype).ok_or_else(|| unsupported(name, dtype.name()))?;
        if let Some(empty) = self.empty.as_ref().filter(|_| bytes.is_empty()) {
            return empty.call1((shape, dtype.name()));
        }
        let raw = matches!(crossing, Crossing::Viewed(_));
        let capsule = Capsule { raw, versioned: self.versioned, copy: None };
        let capsule = capsule.of(self.convert.py(), bytes, dtype, shape)?;
        let tensor = call_with(&self.convert, &capsule)?;
        match crossing {
            Crossing::AsItIs => Ok(tensor),
            Crossing::Viewed(dtype) => tensor.call_method1(intern!(tensor.py(), "view"), (dtype,)),
        }
    }
}

/// numpy, and its dtypes for those of a model.
pub(crate) struct Numpy<'py> {
    arrays: Arrays<'py>,
    types: ByDtype<ArrayType<'py>>,
    unpack: Bound<'py, PyAny>,
}

impl<'py> Numpy<'py> {
    /// `dtype` gives the `numpy.dtype` for a name, and is asked for each of `present` once.
    /// `unpack` makes an array of elements that are parts of bytes, from an array of these bytes, the
    /// dtype's name, and the shape.
    pub(crate) fn new(
        dtype: &Bound<'py, PyAny>,
        unpack: Bound<'py, PyAny>,
        present: impl Iterator<Item = Dtype>,
    ) -> PyResult<Self> {
        let arrays = Arrays::import(dtype.py())?;
        let mut is_present = [false; Dtype::ALL.len()];
        for code in present {
            is_present[code as usize] = true;
        }
        let types = ByDtype::new(|code| {
            if !is_present[code as usize] {
                return Ok(None);
            }
            let mut descr = dtype.call1((code.name(),))?;
            if code.is_sub_byte() {
                descr = dtype.call1((Dtype::U8.name(),))?;
            }
            arrays.array_type(descr, code).map(Some)
        })?;
        Ok(Self { arrays, types, unpack })
    }

    /// The array of a part of `memory`, in bytes; a copy where that is not aligned for its elements.
    pub(crate) fn array(
        &self,
        name: &str,
        memory: &Bound<'py, Memory>,
        part: Range<usize>,
        dtype: Dtype,
        shape: &[u64],
    ) -> PyResult<Bound<'py, PyAny>> {
        let element = self.types.get(dtype).ok_or_else(|| unsupported(name, dtype.name()))?;
        if dtype.is_sub_byte() {
            let len = part.len() as u64;
            let bytes = self.arrays.array(element, &[len], memory, part)?;
            return self.unpack.call1((bytes, dtype.name(), shape));
        }
        let start = memory.get().0.as_mut_ptr().addr().wrapping_add(part.start) as u64;
        let made = if part.is_empty() || start.is_multiple_of(dtype.alignment_bytes()) {
            self.arrays.array(element, shape, memory, part)
        } else {
            let copy = memory.get().0.slice(part).to_owned_memory().map_err(raise)?;
            let part = 0..copy.len();
            self.arrays.array(element, shape, &Bound::new(memory.py(), Memory(copy))?, part)
        };
        made.map_err(|error| {
            // More dimensions, or larger ones, than numpy has.
            if error.is_instance_of::<PyValueError>(memory.py()) {
                unsupported_shape(shape, &error)
            } else {
                error
            }
        })
    }
}

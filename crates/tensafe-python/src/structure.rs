//! What stands around the tensors of a file of torch, made of Python's objects.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyFrozenSet, PyList, PySet, PyTuple},
};
use tensafe::StructurePart as Part;

use crate::errors::usage;

/// The value of a file of torch, with its tensors by name.
#[pyclass(frozen, module = "tensafe._tensafe")]
pub(crate) struct Structure(pub(crate) tensafe::Structure);

#[pymethods]
impl Structure {
    /// Makes the value: what is shared is one object.
    ///
    /// `leaf(name, kind, location, requires_grad)` gives what stands for a tensor, of kind `tensor`,
    /// `parameter` or `array`; `named(kind, arguments)` what torch has a class for: `dtype`, `device`,
    /// `size`.
    fn make<'py>(
        &self,
        py: Python<'py>,
        leaf: &Bound<'py, PyAny>,
        named: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ordered = py.import("collections")?.getattr("OrderedDict")?;
        let mut made: Vec<Bound<'py, PyAny>> = Vec::with_capacity(self.0.parts().len());
        for part in self.0.parts() {
            // Those that a part is made of stand before it.
            let items =
                |places: &[usize]| places.iter().map(|place| made[*place].clone()).collect::<Vec<_>>();
            let object = match part {
                Part::None => py.None().into_bound(py),
                Part::Bool(value) => value.into_pyobject(py)?.to_owned().into_any(),
                Part::Int(value) => value.into_pyobject(py)?.into_any(),
                Part::Long(bytes) => {
                    let signed = PyDict::new(py);
                    signed.set_item("signed", true)?;
                    let int = py.get_type::<pyo3::types::PyInt>();
                    int.call_method("from_bytes", (PyBytes::new(py, bytes), "little"), Some(&signed))?
                }
                Part::Float(value) => value.into_pyobject(py)?.into_any(),
                Part::Text(text) => text.into_pyobject(py)?.into_any(),
                Part::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
                Part::Tuple(places) => PyTuple::new(py, items(places))?.into_any(),
                Part::List(places) => PyList::new(py, items(places))?.into_any(),
                Part::Set { items: places, frozen: false } => PySet::new(py, items(places))?.into_any(),
                Part::Set { items: places, frozen: true } => PyFrozenSet::new(py, items(places))?.into_any(),
                Part::Dict { entries, ordered: is_ordered, metadata } => {
                    let dict = if *is_ordered { ordered.call0()? } else { PyDict::new(py).into_any() };
                    for (key, value) in entries {
                        dict.set_item(&made[*key], &made[*value])?;
                    }
                    if let Some(place) = metadata {
                        dict.setattr("_metadata", &made[*place])?;
                    }
                    dict
                }
                Part::Dtype(name) => named.call1(("dtype", name))?,
                Part::Device(places) => named.call1(("device", PyTuple::new(py, items(places))?))?,
                Part::Size(places) => named.call1(("size", PyTuple::new(py, items(places))?))?,
                Part::Tensor(tensor) => {
                    let (name, kind, location) = (&tensor.name, tensor.kind.name(), &tensor.location);
                    leaf.call1((name, kind, location, tensor.requires_grad))?
                }
                _ => return Err(usage("a part of the structure that is not known")),
            };
            made.push(object);
        }
        Ok(made.pop().unwrap_or_else(|| py.None().into_bound(py)))
    }
}

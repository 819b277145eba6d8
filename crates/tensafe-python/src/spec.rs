//! The reference's lowest layer: `TensorSpec`, `serialize`, `serialize_file`, `deserialize`.

use std::path::PathBuf;

use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use tensafe::{Dtype, Metadata, ParseOptions, SafeTensors};

use crate::{
    buffer::{Held, bytearray_of, with_bytes},
    errors::raise,
    write::{Options, to_bytes, to_file},
};

/// One tensor to be written: dtype, shape, and the address of its bytes.
///
/// Whoever makes one keeps the memory alive and unchanged until the call that takes it returns.
#[pyclass(frozen, get_all, module = "tensafe._tensafe")]
pub(crate) struct TensorSpec {
    /// The name of the dtype in the header, such as `F32`.
    pub(crate) dtype: &'static str,
    /// The shape in elements: the last dimension of packed dtypes counts elements, not bytes.
    pub(crate) shape: Vec<u64>,
    pub(crate) data_ptr: usize,
    pub(crate) data_len: usize,
}

#[pymethods]
impl TensorSpec {
    #[new]
    #[pyo3(signature = (*, dtype, shape, data_ptr, data_len))]
    fn new(dtype: &str, mut shape: Vec<u64>, data_ptr: usize, data_len: usize) -> PyResult<Self> {
        let known = known_dtype(dtype)?;
        if dtype == "float4_e2m1fn_x2" {
            let last = shape
                .last_mut()
                .ok_or_else(|| PyValueError::new_err(format!("{dtype} needs at least one dimension")))?;
            *last = last.checked_mul(2).ok_or_else(|| {
                let text =
                    format!("{dtype}: a last dimension of {last} pairs has more than 2^64 - 1 elements");
                PyValueError::new_err(text)
            })?;
        }
        Ok(Self { dtype: known.name(), shape, data_ptr, data_len })
    }

    fn __repr__(&self) -> String {
        format!("TensorSpec(dtype={}, shape={:?}, data_len={})", self.dtype, self.shape, self.data_len)
    }
}

/// The dtype that frameworks call `name`.
pub(crate) fn known_dtype(name: &str) -> PyResult<Dtype> {
    Dtype::from_framework_name(name).ok_or_else(|| {
        let known: Vec<_> =
            Dtype::ALL.iter().map(|d| d.torch_name().unwrap_or_else(|| d.numpy_name())).collect();
        let text = format!("Unknown dtype \"{name}\". Supported dtypes: {}", known.join(", "));
        crate::errors::usage(&text)
    })
}

fn specs(tensor_dict: &Bound<'_, PyDict>) -> PyResult<Vec<(tensafe::TensorSpec, Py<TensorSpec>)>> {
    let mut specs = Vec::with_capacity(tensor_dict.len());
    for (name, spec) in tensor_dict {
        let spec = spec.cast_into::<TensorSpec>()?;
        let dtype = Dtype::from_name(spec.get().dtype);
        let dtype = dtype.ok_or_else(|| PyValueError::new_err("a TensorSpec of another module"))?;
        let described = tensafe::TensorSpec::new(name.extract::<String>()?, dtype, spec.get().shape.clone());
        specs.push((described, spec.unbind()));
    }
    Ok(specs)
}

/// The bytes of a file of these tensors.
#[pyfunction]
#[pyo3(signature = (tensor_dict, metadata = None))]
pub(crate) fn serialize<'py>(
    py: Python<'py>,
    tensor_dict: &Bound<'py, PyDict>,
    metadata: Option<Metadata>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = specs(tensor_dict)?;
    to_bytes(py, with_bytes(&specs), metadata.as_ref(), 8)
}

/// Writes a file of these tensors.
#[pyfunction]
#[pyo3(signature = (tensor_dict, filename, metadata = None))]
pub(crate) fn serialize_file(
    py: Python<'_>,
    tensor_dict: &Bound<'_, PyDict>,
    filename: PathBuf,
    metadata: Option<Metadata>,
) -> PyResult<()> {
    let specs = specs(tensor_dict)?;
    let tensors = with_bytes(&specs);
    py.detach(|| to_file(&filename, tensors, metadata.as_ref(), Options::default())).map_err(raise)
}

/// The tensors of a file's bytes: `(name, {"shape", "dtype", "data"})`, the data copied.
#[pyfunction]
#[pyo3(signature = (bytes, *, lenient = false))]
pub(crate) fn deserialize<'py>(
    py: Python<'py>,
    bytes: &Bound<'py, PyAny>,
    lenient: bool,
) -> PyResult<Vec<(String, Bound<'py, PyDict>)>> {
    let held = Held::of(bytes)?;
    let mode = if lenient { tensafe::Mode::Lenient } else { tensafe::Mode::Strict };
    let options = ParseOptions::with_mode(mode);
    let file = py.detach(|| SafeTensors::parse_with(held.as_ref(), &options));
    let file = file.map_err(|e| raise(tensafe::FileError::format(None, e)))?;
    file.tensors()
        .map(|tensor| {
            let row = PyDict::new(py);
            row.set_item("shape", tensor.shape())?;
            row.set_item("dtype", tensor.dtype().name())?;
            row.set_item("data", bytearray_of(py, tensor.data())?)?;
            Ok((tensor.name().to_owned(), row))
        })
        .collect()
}

//! `tensafe._tensafe`: the Rust core as Python sees it.
//!
//! Each function extracts its arguments, releases the interpreter, calls one function of the crate
//! `tensafe`, and maps the error. Frameworks are the business of the Python files beside it; memory
//! that crosses the border is the business of `buffer`, the one module here with unsafe code.

mod buffer;
mod checkpoint;
mod convert;
mod errors;
mod handover;
mod index;
mod plan;
mod reader;
mod scan;
mod spec;
mod structure;
mod write;
mod writer;

use std::ffi::OsString;

use pyo3::prelude::*;
use tensafe::Dtype;

#[pymodule]
mod _tensafe {
    #[pymodule_export]
    use crate::{
        buffer::Memory,
        checkpoint::Checkpoint,
        convert::{convert, load_pickle_dlpack, load_pickle_numpy, load_pickle_structure},
        plan::{Execution, Plan, can_stage},
        scan::scan,
        spec::{TensorSpec, deserialize, serialize, serialize_file},
        structure::Structure,
        write::{SaveControl, snapshot, write},
        writer::Writer,
    };

    use super::{Bound, Dtype, OsString, PyModule, PyModuleMethods as _, PyResult, Python, pyfunction};

    /// The command line, on arguments that begin with the program's name; returns the exit code.
    #[pyfunction]
    fn cli(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
        py.detach(|| tensafe_cli::run(arguments))
    }

    /// Gives memory that is kept for the next load back to the system, until `keep` bytes are left.
    /// Returns how many bytes were given back.
    #[pyfunction]
    #[pyo3(signature = (keep = 0))]
    fn trim_memory(py: Python<'_>, keep: usize) -> usize {
        py.detach(|| tensafe::trim_pool(keep))
    }

    /// Sets how many bytes of memory are kept for the next load, at most.
    #[pyfunction]
    fn limit_memory(py: Python<'_>, bytes: usize) {
        py.detach(|| tensafe::limit_pool(bytes));
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let dtypes: Vec<_> =
            Dtype::ALL.iter().map(|d| (d.name(), d.bits(), d.numpy_name(), d.torch_name())).collect();
        module.add("DTYPES", dtypes)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

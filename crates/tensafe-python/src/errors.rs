//! From the core's errors to the exceptions of `tensafe._errors`.

use std::{error::Error as StdError, io};

use pyo3::{exceptions::PyException, prelude::*, types::PyModule};
use tensafe::{Error, ErrorKind};

/// The Python exception for an error of the core: its class by kind, its text the whole chain, its cause what
/// an object of Python raised. What is no error there, as an interrupt, is raised as it is.
#[cold]
pub(crate) fn raise(error: impl Into<Error>) -> PyErr {
    let error = error.into();
    let file = error.as_file();
    let format = file.and_then(|file| file.as_format());
    let kind = match error.kind() {
        ErrorKind::Io => "io",
        ErrorKind::Limit => "limit",
        ErrorKind::NotFound if format.is_none() && error.path().is_some() => "file",
        ErrorKind::NotFound => "tensor",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Usage => "usage",
        ErrorKind::Cancelled => "cancelled",
        _ => "format",
    };
    let tensor = format.and_then(|e| e.tensor());
    let path = error.path();
    let cause = raised(&error);
    let errno = file.and_then(tensafe::FileError::raw_os_error);
    let rule = error.rule().map(|rule| rule.to_string());
    let mut text = error.chain().to_string();
    if format.is_some_and(tensafe::FormatError::is_lenient) {
        text.push_str("; lenient=True reads past it");
    }
    Python::attach(|py| {
        let cause = cause.map(|cause| cause.clone_ref(py));
        if let Some(cause) = cause.as_ref().filter(|cause| !cause.is_instance_of::<PyException>(py)) {
            return cause.clone_ref(py);
        }
        let of_cause = || cause.as_ref()?.value(py).getattr("errno").ok()?.extract::<i32>().ok();
        let errno = errno.or_else(of_cause);
        let make = PyModule::import(py, "tensafe._errors").and_then(|m| m.getattr("make"));
        let made = make
            .and_then(|make| make.call1((kind, text, errno, path, tensor, rule)))
            .map_or_else(|e| e, PyErr::from_value);
        if cause.is_some() {
            made.set_cause(py, cause);
        }
        made
    })
}

/// What an object of Python raised, where that is the reason of an error.
fn raised<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e PyErr> {
    let mut reason = Some(error);
    while let Some(error) = reason {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.get_ref()?.downcast_ref();
        }
        reason = error.source();
    }
    None
}

/// The exception for a request that makes no sense.
#[cold]
pub(crate) fn usage(text: &str) -> PyErr {
    of_class("UsageError", text)
}

/// The exception for an index that is beyond the tensor: whoever loops over rows by their numbers ends there.
#[cold]
pub(crate) fn beyond(text: &str) -> PyErr {
    of_class("UsageIndexError", text)
}

/// The exception for a dtype that a framework has no name for.
#[cold]
pub(crate) fn unsupported(name: &str, dtype: &str) -> PyErr {
    let text = format!(
        "Dtype not understood: {dtype}, of tensor `{name}`: the framework has none for it; \
         tensafe.open(...)[name].bytes() gives its bytes"
    );
    of_class("UnsupportedError", &text)
}

/// The exception for a shape that numpy has no array of.
#[cold]
pub(crate) fn unsupported_shape(shape: &[u64], why: &PyErr) -> PyErr {
    let why = Python::attach(|py| why.value(py).to_string());
    of_class("UnsupportedError", &format!("numpy cannot hold a tensor of shape {shape:?}: {why}"))
}

/// The exception for elements of less than a byte that no tensor of bytes can hold.
#[cold]
pub(crate) fn unsupported_packing(dtype: &str) -> PyErr {
    of_class("UnsupportedError", &format!("{dtype} needs a last dimension that fills whole bytes"))
}

fn of_class(class: &str, text: &str) -> PyErr {
    Python::attach(|py| {
        let class = PyModule::import(py, "tensafe._errors").and_then(|m| m.getattr(class));
        class.and_then(|class| class.call1((text,))).map_or_else(|e| e, PyErr::from_value)
    })
}

//! From an index expression of Python to the core's.

use pyo3::{
    exceptions::PyOverflowError,
    prelude::*,
    types::{PyBool, PyEllipsis, PyList, PySlice, PyTuple},
};
use tensafe::Index;

use crate::errors::{beyond, usage};

/// Reads `expression` for a tensor of `shape`: integers, slices and one ellipsis, alone or in a
/// tuple; an empty list selects nothing.
///
/// # Errors
/// `UsageError` for anything else, in the words that callers of the reference know.
pub(crate) fn parse(expression: &Bound<'_, PyAny>, shape: &[u64]) -> PyResult<Vec<Index>> {
    if let Ok(list) = expression.cast::<PyList>() {
        return match list.len() {
            0 => Ok(vec![Index::Range { start: Some(0), stop: Some(0), step: 1 }]),
            _ => Err(usage("Non empty lists are not implemented")),
        };
    }
    let items: Vec<Bound<'_, PyAny>> = match expression.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().collect(),
        Err(_) => vec![expression.clone()],
    };
    let ellipsis = items.iter().position(|item| item.cast::<PyEllipsis>().is_ok());
    items
        .iter()
        .enumerate()
        .map(|(position, item)| {
            // The dimension that the item is about, for the words of an error.
            let dimension = match ellipsis {
                Some(at) if position > at => (shape.len() + position).saturating_sub(items.len()),
                _ => position,
            };
            self::item(item, position, dimension, shape.get(dimension).copied())
        })
        .collect()
}

fn item(item: &Bound<'_, PyAny>, position: usize, dimension: usize, size: Option<u64>) -> PyResult<Index> {
    if item.cast::<PyEllipsis>().is_ok() {
        return Ok(Index::Ellipsis);
    }
    if let Ok(slice) = item.cast::<PySlice>() {
        let bound = |name| -> PyResult<Option<i64>> {
            let bound = slice.getattr(name)?;
            if bound.is_none() { Ok(None) } else { saturated(&bound).map(Some) }
        };
        let step = bound("step")?.unwrap_or(1);
        let step = u64::try_from(step).ok().filter(|step| *step > 0);
        let step = step.map_or_else(|| Err(not_positive(&slice.getattr("step")?)), Ok)?;
        return Ok(Index::Range { start: bound("start")?, stop: bound("stop")?, step });
    }
    let unsupported = || {
        usage(&format!("Unsupported slice index at position {position}: expected slice, int, or ellipsis"))
    };
    if item.is_instance_of::<PyBool>() {
        return Err(unsupported());
    }
    match item.extract::<i64>() {
        Ok(at) if size.is_some_and(|size| at < 0 && at.unsigned_abs() > size) => {
            Err(invalid(item, dimension, size))
        }
        Ok(at) => Ok(Index::At(at)),
        Err(e) if e.is_instance_of::<PyOverflowError>(item.py()) => Err(invalid(item, dimension, size)),
        Err(_) => Err(unsupported()),
    }
}

/// A bound of a slice. One that no tensor reaches is as good as any other such.
fn saturated(bound: &Bound<'_, PyAny>) -> PyResult<i64> {
    match bound.extract::<i64>() {
        Err(e) if e.is_instance_of::<PyOverflowError>(bound.py()) => {
            Ok(if bound.lt(0)? { i64::MIN } else { i64::MAX })
        }
        extracted => extracted,
    }
}

#[cold]
fn not_positive(step: &Bound<'_, PyAny>) -> PyErr {
    usage(&format!("Slice step must be a positive integer, got {step}"))
}

#[cold]
fn invalid(at: &Bound<'_, PyAny>, dimension: usize, size: Option<u64>) -> PyErr {
    let size = size.map_or(String::new(), |size| format!(" of size {size}"));
    beyond(&format!("Invalid index {at} for dimension {dimension}{size}"))
}

/// The expression as a person would type it, without the brackets' spaces: `[2:, 20]`.
pub(crate) fn show(items: &[Index]) -> String {
    let mut text = String::from("[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        match item {
            Index::At(at) => text.push_str(&at.to_string()),
            Index::Ellipsis => text.push_str("..."),
            Index::Range { start, stop, step } => {
                let bound = |b: &Option<i64>| b.map_or(String::new(), |b| b.to_string());
                text.push_str(&bound(start));
                text.push(':');
                text.push_str(&bound(stop));
                if *step != 1 {
                    text.push(':');
                    text.push_str(&step.to_string());
                }
            }
        }
    }
    text.push(']');
    text
}

//! Scans: what loading files would run, told without loading them.

use std::path::PathBuf;

use pyo3::{exceptions::PyValueError, prelude::*};
use tensafe::trust::ScanReport;
use tensafe::trust::{Policy, ScanOptions, scan as scan_paths, scan_bytes, to_cyclonedx, to_json, to_sarif};

use crate::{buffer::Held, errors::usage};

/// Scans files and directories, or the bytes of one file; returns the report in a format.
#[pyfunction]
#[pyo3(signature = (paths, data, policy, crc, threads, format))]
pub(crate) fn scan(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    data: Option<&Bound<'_, PyAny>>,
    policy: Option<&str>,
    crc: bool,
    threads: usize,
    format: &str,
) -> PyResult<String> {
    let mut options = ScanOptions::default().with_crc(crc).with_threads(threads);
    if let Some(text) = policy {
        options = options.with_policy(Policy::parse(text).map_err(|error| usage(&error.to_string()))?);
    }
    let render = match format {
        "json" => to_json,
        "sarif" => to_sarif,
        "cyclonedx" => to_cyclonedx,
        other => return Err(PyValueError::new_err(format!("format `{other}` is not known"))),
    };
    let held = data.map(Held::of).transpose()?;
    let report = py.detach(|| match &held {
        Some(bytes) => ScanReport::new(vec![scan_bytes("<bytes>", bytes.as_ref(), &options)]),
        None => scan_paths(paths, &options),
    });
    Ok(render(&report))
}

//! From a checkpoint of another format to safetensors files: plan, write, report.
//!
//! Bytes move from file to file. What has to be rewritten, because it is strided, swapped or cast,
//! passes through bounded memory; the size of the model does not matter.

mod options;
mod plan;
mod report;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;

use tensafe_io::Buffer;

use crate::{Error, Pickled};

pub use options::{ConvertOptions, parse_size};
pub use plan::{Conversion, PlannedFile, PlannedTensor};
pub use report::{REPORT_SCHEMA, sidecar};
pub use write::{OnProgress, Progress};

/// Converts the checkpoint at `input` into safetensors at `output`: a file, or a directory where the
/// path is one or ends with a separator, which then holds `model.safetensors`. With a limit on the
/// size of shards, their names and index are those of the Hub.
///
/// # Errors
/// As [`Pickled::open`] and [`Conversion::plan`]; [`Io`](crate::ErrorKind::Io) where the output
/// cannot be written; [`Cancelled`](crate::ErrorKind::Cancelled) where `progress` says so. What was
/// there before is then still there, and nothing else is.
///
/// # Cost
/// Reads and writes each byte once, by the kernel where it can. Memory does not grow with the size
/// of the tensors. Blocks until the files are on the disk, unless the options say otherwise.
pub fn convert(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: OnProgress<'_>,
) -> Result<Conversion, Error> {
    let conversion = Conversion::plan(Pickled::open(input, &options.read)?, output.as_ref(), options)?;
    conversion.write(progress)?;
    Ok(conversion)
}

/// Reads the checkpoint's tensors into memory instead of writing them: for each the name, what it
/// is, and its bytes, row-major and little-endian. Names that share a tensor share its memory.
///
/// # Errors
/// As [`convert`].
///
/// # Cost
/// Memory for the tensors that the options select.
pub fn load(
    pickled: Pickled,
    options: &ConvertOptions,
    progress: OnProgress<'_>,
) -> Result<Vec<(PlannedTensor, Buffer)>, Error> {
    Conversion::select(pickled, Path::new(""), options)?.read(progress)
}

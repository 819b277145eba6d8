//! What a conversion did, as JSON.

use serde_json::{Value as Json, json};

use super::Conversion;
use crate::pickled::{Pickled, nested};

/// The name and version of the report's schema, which is described in `docs/convert.md`.
pub const REPORT_SCHEMA: &str = "tensafe.convert/1";

impl Conversion {
    /// The report: every file and tensor that is written, every alias, every value that is not, and
    /// every name that the pickles would have imported.
    #[must_use]
    pub fn report(&self) -> Json {
        let files: Vec<Json> = self
            .files
            .iter()
            .map(|file| json!({ "path": file.path.display().to_string(), "bytes": file.bytes(), "tensors": file.tensors.len() }))
            .collect();
        let tensors: Vec<Json> = self
            .tensors
            .iter()
            .map(|tensor| {
                json!({
                    "name": tensor.name,
                    "found_as": tensor.found,
                    "dtype": tensor.dtype.name(),
                    "found_dtype": tensor.element,
                    "shape": tensor.shape,
                    "bytes": tensor.bytes,
                    "aliases": tensor.aliases,
                })
            })
            .collect();
        let dropped: Vec<Json> = self
            .pickled
            .values()
            .iter()
            .map(|found| json!({ "path": found.path, "value": found.value }))
            .collect();
        let symbols: Vec<Json> = self
            .pickled
            .symbols()
            .iter()
            .map(|seen| {
                json!({ "symbol": seen.symbol, "known": seen.known, "member": seen.member, "offset": seen.offset })
            })
            .collect();
        json!({
            "schema": REPORT_SCHEMA,
            "input": self.pickled.path().map(|path| path.display().to_string()),
            "output": self.output.display().to_string(),
            "index": self.index.as_ref().map(|path| path.display().to_string()),
            "bytes": self.bytes(),
            "files": files,
            "tensors": tensors,
            "aliases": self.aliases,
            "not_selected": self.left_out,
            "dropped": dropped,
            "notes": self.pickled.notes(),
            "symbols": symbols,
        })
    }
}

/// The values that are no tensors as one document, objects within objects by their keys. Bytes are
/// spelled in hexadecimal digits up to 4 KiB and counted beyond; what is not finite is text.
#[must_use]
pub fn sidecar(pickled: &Pickled) -> Json {
    nested(pickled.values())
}

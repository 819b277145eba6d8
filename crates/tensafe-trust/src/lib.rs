//! What loading a model file would do, told without loading it.
//!
//! [`scan`] looks into files and directories, [`scan_bytes`] into bytes. Both return a report of
//! [`Finding`]s, each of a [`Rule`] with a number that does not change.
//!
//! - What a pickle would import or call is judged by a list of what is known to be harmless.
//!   Anything else is a finding, and what is known to run code is an error.
//! - What could not be understood is *inconclusive*, never clean.
//! - Nothing is executed, imported, or loaded. Of tensors the first bytes are read, and more where
//!   they look like what a loader would take.
//!
//! ```
//! use tensafe_trust::{ScanOptions, Verdict, scan_bytes};
//!
//! // What `pickle.loads` would call `os.system("id")` for.
//! let report = scan_bytes("model.pkl", b"cos\nsystem\n(S'id'\ntR.", &ScanOptions::default());
//! assert_eq!(report.verdict(), Verdict::Findings);
//! assert_eq!(report.findings[0].symbol.as_deref(), Some("os.system"));
//! ```
//!
//! # What this crate does not do
//! It does not tell whether a model answers well, finds no back doors in weights, and checks no
//! native code. A clean report says what loading would run, not who made the file.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod archive;
mod content;
mod fields;
mod file;
mod finding;
mod foreign;
mod input;
mod nested;
mod options;
mod output;
mod pickle;
mod policy;
mod preview;
mod rule;
mod scan;
mod sequence;
mod symbols;
mod text;
mod weights;

pub use file::{scan, scan_bytes, scan_with};
pub use finding::{FileReport, Finding, Level, ScanReport, Verdict};
pub use options::{Limits, ScanOptions};
pub use output::{to_cyclonedx, to_json, to_sarif};
pub use policy::{Policy, PolicyError};
pub use rule::Rule;

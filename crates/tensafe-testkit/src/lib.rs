//! What the tests of tensafe share. A dev-dependency, never published.
//!
//! - [`corpus`] and [`index_corpus`] walk `tests/corpus`: files whose directory is their verdict.
//! - [`naive`] reads files and picks elements in the slowest and most obvious way.
//! - [`strategies`] generates tensors and whole files for proptest.
//! - [`checks`] are properties of a file's bytes, shared by tests and fuzz targets.
//!
//! # What this crate does not do
//! It tests nothing by itself, and it shares no code with what it helps to test: the naive readers
//! use `tensafe-format` for its vocabulary (dtypes, indices) alone.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod checks;
mod corpus;
pub mod naive;
pub mod strategies;

pub use corpus::{Case, Verdict, corpus, corpus_root, index_corpus};

//! What containers are read as, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod compressed;
mod detect;
mod flaws;
mod hostile;
mod large;
mod npy;
mod python;
mod tar;
mod zip;
mod zips;

use std::sync::Arc;

use tensafe_io::{Buffer, MemorySource, Source};

/// Bytes as a source.
fn memory(bytes: impl AsRef<[u8]>) -> Arc<dyn Source> {
    Arc::new(MemorySource::new(Buffer::from_owner(bytes.as_ref().to_vec())))
}

/// All bytes of a source.
fn all(source: &dyn Source) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(source.len()).unwrap()];
    source.read_at(0, &mut out).unwrap();
    out
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    tensafe_io::Chain(error).to_string()
}

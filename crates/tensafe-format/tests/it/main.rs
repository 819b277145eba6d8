//! The integration tests of `tensafe-format`: what its public API says of whole files.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod corpus;
mod diagnosis;
mod differential;
mod limits;
mod region;
mod spec;

use tensafe_format::{Error, Header, Mode, ParseOptions};

fn parse(file: &[u8], mode: Mode) -> Result<Header, Error> {
    Header::parse(file, file.len() as u64, &ParseOptions::with_mode(mode))
}

/// A file with this text as its header.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

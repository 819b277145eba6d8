//! Reports as text for programs: JSON of our own, SARIF for code hosts, CycloneDX for inventories.
//!
//! Pure functions. Equal reports give equal text: no times, no random numbers.

mod cyclonedx;
mod json;
mod sarif;

pub use cyclonedx::to_cyclonedx;
pub use json::to_json;
pub use sarif::to_sarif;

use crate::Level;

/// The word for a level where a format knows `none`, `note`, `warning` and `error`.
fn sarif_level(level: Level) -> &'static str {
    match level {
        Level::Inconclusive => "none",
        Level::Note => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

/// A path as a relative reference of a URI.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            b'\\' if cfg!(windows) => out.push('/'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    // `a:b` would be a scheme, `//a` a host.
    if out.starts_with("//") { out.trim_start_matches('/').to_owned() } else { out }
}

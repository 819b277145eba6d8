//! Files and directories: which are scanned, in parallel, and the report of each.

use crate::{
    FileReport, ScanOptions,
    input::Input,
    scan::{Place, Scan},
};

/// Scans bytes as if they were a file called `name`.
///
/// # Cost
/// Copies the bytes once. Never fails: what cannot be understood is a finding.
#[must_use]
pub fn scan_bytes(name: &str, bytes: &[u8], options: &ScanOptions) -> FileReport {
    report(name, &Input::of_bytes(bytes.to_vec()), options)
}

fn report(path: &str, input: &Input, options: &ScanOptions) -> FileReport {
    let mut scan = Scan::new(path, options);
    let kind = scan.content(path, input, Place::ROOT);
    let mut findings = scan.findings.into_sorted();
    if let Some(policy) = &options.policy {
        policy.apply(path, &mut findings);
    }
    FileReport { path: path.to_owned(), kind, bytes: input.len(), findings, unreadable: None }
}

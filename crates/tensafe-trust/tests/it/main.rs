//! Each rule with the smallest bytes that break it, the corpora, and the reports. Nothing is loaded.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod archive;
mod corpus;
mod evasions;
mod formats;
mod pickles;
mod reports;
mod robust;
mod texts;

use tensafe_trust::{Finding, ScanOptions, scan_bytes};

/// Findings as `error TS-101 @0 os.system`.
fn shown(findings: &[Finding]) -> Vec<String> {
    let one = |finding: &Finding| {
        let mut text = format!("{} {}", finding.level, finding.rule);
        if let Some(member) = &finding.member {
            text += &format!(" {member}");
        }
        if let Some(offset) = finding.offset {
            text += &format!(" @{offset}");
        }
        if let Some(symbol) = &finding.symbol {
            text += &format!(" {symbol}");
        }
        text
    };
    findings.iter().map(one).collect()
}

fn found(name: &str, bytes: &[u8]) -> Vec<String> {
    shown(&scan_bytes(name, bytes, &ScanOptions::default()).findings)
}

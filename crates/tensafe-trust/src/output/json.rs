//! The JSON of a scan, schema `tensafe.scan/1`: docs/scan.md describes it.

use serde::Serialize;

use crate::{Finding, Level, ScanReport, Verdict};

#[derive(Serialize)]
struct Document<'r> {
    schema: &'static str,
    summary: Summary,
    files: Vec<File<'r>>,
    errors: Vec<Failure<'r>>,
}

#[derive(Serialize)]
struct Summary {
    files: usize,
    clean: usize,
    findings: usize,
    inconclusive: usize,
    unreadable: usize,
    error: usize,
    warning: usize,
    note: usize,
}

#[derive(Serialize)]
struct File<'r> {
    path: &'r str,
    kind: &'static str,
    bytes: u64,
    verdict: Verdict,
    inconclusive: bool,
    findings: Vec<Row<'r>>,
}

#[derive(Serialize)]
struct Row<'r> {
    rule: &'static str,
    name: &'static str,
    level: Level,
    message: &'r str,
    member: Option<&'r str>,
    offset: Option<u64>,
    symbol: Option<&'r str>,
    opcode: Option<&'static str>,
    count: u64,
    allowed: Option<&'r str>,
}

#[derive(Serialize)]
struct Failure<'r> {
    path: &'r str,
    message: &'r str,
}

/// The report as one line of JSON.
#[must_use]
pub fn to_json(report: &ScanReport) -> String {
    let of_level = |level| report.findings().filter(|(_, f)| f.level == level && f.allowed.is_none()).count();
    let of_verdict = |verdict| report.files.iter().filter(|file| file.verdict() == verdict).count();
    let document = Document {
        schema: "tensafe.scan/1",
        summary: Summary {
            files: report.files.len(),
            clean: of_verdict(Verdict::Clean),
            findings: of_verdict(Verdict::Findings),
            inconclusive: of_verdict(Verdict::Inconclusive),
            unreadable: of_verdict(Verdict::Unreadable),
            error: of_level(Level::Error),
            warning: of_level(Level::Warning),
            note: of_level(Level::Note),
        },
        files: report
            .files
            .iter()
            .map(|file| File {
                path: &file.path,
                kind: file.kind,
                bytes: file.bytes,
                verdict: file.verdict(),
                inconclusive: file.is_inconclusive(),
                findings: file.findings.iter().map(row).collect(),
            })
            .collect(),
        errors: report
            .files
            .iter()
            .filter_map(|file| Some(Failure { path: &file.path, message: file.unreadable.as_deref()? }))
            .collect(),
    };
    serde_json::to_string(&document).unwrap_or_default()
}

fn row(finding: &Finding) -> Row<'_> {
    Row {
        rule: finding.rule.id(),
        name: finding.rule.name(),
        level: finding.level,
        message: &finding.message,
        member: finding.member.as_deref(),
        offset: finding.offset,
        symbol: finding.symbol.as_deref(),
        opcode: finding.opcode,
        count: finding.count,
        allowed: finding.allowed.as_deref(),
    }
}

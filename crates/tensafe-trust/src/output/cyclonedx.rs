//! CycloneDX 1.6: each file a component, each finding a vulnerability that affects it.
//!
//! Carries no hashes, since a scan does not read the tensors; and no serial number and no time, so that
//! equal files give equal text.

use serde_json::{Value, json};

use super::uri;
use crate::{FileReport, Finding, Level, ScanReport, Verdict};

/// The report as a bill of materials.
#[must_use]
pub fn to_cyclonedx(report: &ScanReport) -> String {
    let vulnerabilities: Vec<Value> = report
        .findings()
        .enumerate()
        .map(|(place, (file, finding))| vulnerability(place, file, finding))
        .collect();
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "tools": { "components": [{
            "type": "application",
            "name": "tensafe",
            "version": env!("CARGO_PKG_VERSION"),
        }]}},
        "components": report.files.iter().map(component).collect::<Vec<_>>(),
        "vulnerabilities": vulnerabilities,
    });
    document.to_string()
}

fn reference(file: &FileReport) -> String {
    format!("file:{}", uri(&file.path))
}

fn component(file: &FileReport) -> Value {
    let verdict = match file.verdict() {
        Verdict::Clean => "clean",
        Verdict::Findings => "findings",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Unreadable => "unreadable",
    };
    json!({
        "type": "file",
        "bom-ref": reference(file),
        "name": file.path,
        "properties": [
            { "name": "tensafe:kind", "value": file.kind },
            { "name": "tensafe:bytes", "value": file.bytes.to_string() },
            { "name": "tensafe:verdict", "value": verdict },
        ],
    })
}

fn vulnerability(place: usize, file: &FileReport, finding: &Finding) -> Value {
    let severity = match finding.level {
        Level::Error => "critical",
        Level::Warning => "medium",
        Level::Note => "info",
        Level::Inconclusive => "unknown",
    };
    let mut properties = vec![json!({ "name": "tensafe:rule", "value": finding.rule.name() })];
    let offset = finding.offset.map(|offset| offset.to_string());
    for (name, value) in [
        ("member", finding.member.as_ref()),
        ("offset", offset.as_ref()),
        ("symbol", finding.symbol.as_ref()),
    ] {
        if let Some(value) = value {
            properties.push(json!({ "name": format!("tensafe:{name}"), "value": value }));
        }
    }
    let mut found = json!({
        "bom-ref": format!("finding:{place}"),
        "id": finding.rule.id(),
        "source": { "name": "tensafe" },
        "ratings": [{ "severity": severity, "method": "other" }],
        "description": finding.rule.what(),
        "detail": finding.message,
        "recommendation": finding.rule.advice(),
        "affects": [{ "ref": reference(file) }],
        "properties": properties,
    });
    if let Some(reason) = &finding.allowed {
        found["analysis"] = json!({ "state": "not_affected", "detail": reason });
    }
    found
}

//! SARIF 2.1.0, the exchange format of static analysis.
//!
//! An inconclusive finding is a result of kind `open` and level `none`: the standard's words for what
//! could not be decided. What a policy allows is suppressed, with the reason.

use serde_json::{Value, json};

use super::{sarif_level, uri};
use crate::{FileReport, Finding, Level, Rule, ScanReport};

/// The report as a log of one run.
#[must_use]
pub fn to_sarif(report: &ScanReport) -> String {
    let results: Vec<Value> = report.findings().map(|(file, finding)| result(file, finding)).collect();
    let notifications: Vec<Value> = report.files.iter().filter_map(notification).collect();
    let run = json!({
        "tool": { "driver": {
            "name": "tensafe",
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": Rule::ALL.iter().map(|rule| descriptor(*rule)).collect::<Vec<_>>(),
        }},
        "invocations": [{
            "executionSuccessful": notifications.is_empty(),
            "toolExecutionNotifications": notifications,
        }],
        "artifacts": report.files.iter().map(artifact).collect::<Vec<_>>(),
        "results": results,
    });
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    });
    log.to_string()
}

fn descriptor(rule: Rule) -> Value {
    json!({
        "id": rule.id(),
        "name": rule.name(),
        "shortDescription": { "text": rule.what() },
        "help": { "text": rule.advice() },
        "defaultConfiguration": { "level": sarif_level(rule.level()) },
        "properties": { "tags": ["security"], "security-severity": severity(rule.level()) },
    })
}

/// The number that code hosts sort by, from 0 to 10.
fn severity(level: Level) -> &'static str {
    match level {
        Level::Error => "9.0",
        Level::Warning => "5.0",
        Level::Inconclusive => "3.0",
        Level::Note => "1.0",
    }
}

fn artifact(file: &FileReport) -> Value {
    json!({
        "location": { "uri": uri(&file.path) },
        "length": i64::try_from(file.bytes).unwrap_or(i64::MAX),
        "properties": { "kind": file.kind, "verdict": file.verdict() },
    })
}

fn notification(file: &FileReport) -> Option<Value> {
    let message = file.unreadable.as_deref()?;
    Some(json!({
        "level": "error",
        "message": { "text": message },
        "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(&file.path) } } }],
    }))
}

fn result(file: &FileReport, finding: &Finding) -> Value {
    let place = Rule::ALL.iter().position(|rule| *rule == finding.rule);
    let mut physical = json!({ "artifactLocation": { "uri": uri(&file.path) } });
    let mut location = json!({});
    let mut properties = json!({});
    let offset = finding.offset.and_then(|offset| i64::try_from(offset).ok());
    match (&finding.member, offset) {
        (None, Some(offset)) => physical["region"] = json!({ "byteOffset": offset, "byteLength": 1 }),
        (Some(member), offset) => {
            location["logicalLocations"] = json!([{ "fullyQualifiedName": member, "kind": "member" }]);
            properties["member"] = json!(member);
            if let Some(offset) = offset {
                properties["memberOffset"] = json!(offset);
            }
        }
        (None, None) => {}
    }
    location["physicalLocation"] = physical;
    if let Some(symbol) = &finding.symbol {
        properties["symbol"] = json!(symbol);
    }
    if let Some(opcode) = finding.opcode {
        properties["opcode"] = json!(opcode);
    }
    let open = finding.level == Level::Inconclusive;
    let mut result = json!({
        "ruleId": finding.rule.id(),
        "ruleIndex": place,
        "kind": if open { "open" } else { "fail" },
        "level": sarif_level(finding.level),
        "message": { "text": text(finding) },
        "locations": [location],
        "occurrenceCount": i64::try_from(finding.count).unwrap_or(i64::MAX),
        "partialFingerprints": { "tensafe/v1": fingerprint(file, finding) },
        "properties": properties,
    });
    if let Some(reason) = &finding.allowed {
        result["suppressions"] = json!([{ "kind": "external", "justification": reason }]);
    }
    result
}

fn text(finding: &Finding) -> String {
    match &finding.member {
        Some(member) => format!("{member}: {}", finding.message),
        None => finding.message.clone(),
    }
}

/// What stays the same when the file is scanned again, or grows elsewhere: no offsets.
fn fingerprint(file: &FileReport, finding: &Finding) -> String {
    let parts = [
        finding.rule.id(),
        &file.path,
        finding.member.as_deref().unwrap_or_default(),
        finding.symbol.as_deref().unwrap_or(&finding.message),
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

//! Policies, and reports as JSON, SARIF and CycloneDX.

use std::collections::HashSet;

use serde_json::Value;
use tensafe_trust::{
    Level, Policy, Rule, ScanOptions, ScanReport, Verdict, scan_bytes, to_cyclonedx, to_json, to_sarif,
};

const UNKNOWN: &[u8] = b"\x80\x02csklearn.svm\nSVC\n)\x81.";
const PAYLOAD: &[u8] = b"cos\nsystem\n(S'id'\ntR.";

fn report(policy: &str) -> ScanReport {
    let options = ScanOptions::default().with_policy(Policy::parse(policy).unwrap());
    let files = [("models/a b.pkl", UNKNOWN), ("models/evil.pkl", PAYLOAD), ("x.7z", b"7z\xbc\xaf\x27\x1c")];
    ScanReport::new(files.iter().map(|(name, bytes)| scan_bytes(name, bytes, &options)).collect())
}

#[test]
fn what_is_allowed_stays_in_the_report_and_makes_no_verdict() {
    let allowed = |policy: &str| report(policy).files[0].verdict() == Verdict::Clean;
    assert!(!allowed(""));
    assert!(allowed("[[allow]]\nsymbol = 'sklearn.*'\nreason = 'ours'"));
    assert!(allowed("[[allow]]\nrule = 'TS-105'\nreason = 'ours'"));
    assert!(allowed("[[allow]]\nrule = 'calls-unknown'\npath = 'models/*.pkl'\nreason = 'ours'"));
    assert!(allowed("[[allow]]\npath = 'a b.pkl'\nreason = 'ours'"));
    assert!(!allowed("[[allow]]\nsymbol = 'torch.*'\nreason = 'ours'"));
    assert!(!allowed("[[allow]]\npath = '*.pkl'\nrule = 'TS-101'\nreason = 'ours'"));
    let report = report("[[allow]]\nsymbol = 'sklearn.*'\nreason = 'ours'");
    assert_eq!(report.files[0].findings[0].allowed.as_deref(), Some("ours"));
}

#[test]
fn what_is_denied_is_an_error_also_where_it_is_harmless() {
    let denied = |policy: &str, bytes: &[u8]| {
        let options = ScanOptions::default().with_policy(Policy::parse(policy).unwrap());
        scan_bytes("m/a.pkl", bytes, &options).worst()
    };
    let harmless = b"\x80\x02ccollections\nOrderedDict\n)R.";
    assert_eq!(denied("", harmless), None);
    assert_eq!(denied("[[deny]]\nsymbol = 'collections.*'", harmless), Some(Level::Error));
    assert_eq!(denied("[[deny]]\npath = '**/*.pkl'", harmless), Some(Level::Error));
    assert_eq!(denied("[[deny]]\nrule = 'TS-105'", UNKNOWN), Some(Level::Error));
    let both = "[[deny]]\nrule = 'TS-105'\n[[allow]]\nrule = 'TS-105'\nreason = 'x'";
    assert_eq!(denied(both, UNKNOWN), Some(Level::Error));
    assert_eq!(Policy::parse("fail-on = 'error'").unwrap().fail_on(), Some(Level::Error));
}

#[test]
fn json_has_what_docs_scan_md_says() {
    let value: Value = serde_json::from_str(&to_json(&report(""))).unwrap();
    assert_eq!(value["schema"], "tensafe.scan/1");
    assert_eq!(value["summary"]["files"], 3);
    assert_eq!(value["summary"]["findings"], 2);
    assert_eq!(value["summary"]["inconclusive"], 1);
    let finding = &value["files"][1]["findings"][0];
    let keys: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
    let docs = include_str!("../../../../docs/scan.md");
    for key in keys {
        assert!(docs.contains(&format!("| `{key}` |")), "{key} is not described");
    }
    assert_eq!((&finding["rule"], &finding["symbol"]), (&"TS-101".into(), &"os.system".into()));
    assert_eq!((&finding["offset"], &finding["opcode"]), (&0.into(), &"GLOBAL".into()));
}

/// The rules of SARIF 2.1.0 that concern this output, from its published schema and text.
#[test]
fn sarif_keeps_the_rules_of_its_standard() {
    let policy = "[[allow]]\nsymbol = 'sklearn.*'\nreason = 'ours'";
    let value: Value = serde_json::from_str(&to_sarif(&report(policy))).unwrap();
    assert_eq!(value["version"], "2.1.0");
    let run = &value["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let ids: HashSet<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), Rule::ALL.len());
    let mut fingerprints = HashSet::new();
    for result in run["results"].as_array().unwrap() {
        let place = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[place]["id"], result["ruleId"]);
        // A kind other than `fail` has the level `none`.
        assert_eq!(result["kind"] == "fail", result["level"] != "none");
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let location = &result["locations"][0]["physicalLocation"];
        let uri = location["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b)), "{uri}");
        assert!(location["region"].is_null() || location["region"]["byteOffset"].is_u64());
        assert!(
            fingerprints.insert(result["partialFingerprints"]["tensafe/v1"].as_str().unwrap().to_owned())
        );
    }
    let first = &run["results"][0];
    assert_eq!(first["suppressions"][0]["kind"], "external");
    assert_eq!(first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "models/a%20b.pkl");
    assert_eq!(run["results"][2]["kind"], "open");
}

#[test]
fn cyclonedx_names_every_file_and_refers_to_it() {
    let value: Value = serde_json::from_str(&to_cyclonedx(&report(""))).unwrap();
    assert_eq!((&value["bomFormat"], &value["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let components = value["components"].as_array().unwrap();
    let refs: HashSet<&str> = components.iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
    assert_eq!(refs.len(), 3);
    for found in value["vulnerabilities"].as_array().unwrap() {
        assert!(refs.contains(found["affects"][0]["ref"].as_str().unwrap()));
        let severity = found["ratings"][0]["severity"].as_str().unwrap();
        assert!(["critical", "medium", "info", "unknown"].contains(&severity));
    }
}

#[test]
fn equal_scans_give_equal_text() {
    for text in [to_json, to_sarif, to_cyclonedx] {
        assert_eq!(text(&report("")), text(&report("")));
    }
}

#[test]
fn the_table_of_rules_in_the_docs_is_that_of_the_code() {
    let docs = include_str!("../../../../docs/scan.md");
    let rows: Vec<String> = Rule::ALL
        .iter()
        .map(|rule| {
            format!("| {rule} | {} | {} | {} {} |", rule.name(), rule.level(), rule.what(), rule.advice())
        })
        .collect();
    let found: Vec<&str> = docs.lines().filter(|line| line.starts_with("| TS-")).collect();
    assert_eq!(found, rows, "the table should be:\n{}", rows.join("\n"));
}

use std::fs;

use insta::assert_snapshot;

use crate::{DAMAGED, Place, small};

/// `os.system("id")`, and a class that nobody knows.
const PAYLOAD: &[u8] = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";
const UNKNOWN: &[u8] = b"\x80\x02cmy.module\nNet\n)\x81.";
const PLAIN: &[u8] = b"\x80\x02}q\0.";

fn model() -> Place {
    let place = Place::new();
    place.write("model/good.safetensors", small(), &[("format", "pt")]);
    for (name, bytes) in [
        ("README.md", &b"# A model\n"[..]),
        ("config.json", b"{\"auto_map\": {\"AutoModel\": \"net.Net\"}}"),
        ("evil.bin", PAYLOAD),
        ("module.pt", UNKNOWN),
        ("packed.7z", b"7z\xbc\xaf\x27\x1c\0\x04"),
        ("plain.pkl", PLAIN),
    ] {
        fs::write(place.path("model").join(name), bytes).unwrap();
    }
    place
}

fn one(name: &str, bytes: &[u8]) -> Place {
    let place = Place::new();
    fs::write(place.path(name), bytes).unwrap();
    place
}

#[test]
fn a_directory_is_told_file_by_file_with_a_tally() {
    assert_snapshot!(model().run(&["scan", "model"]));
}

#[test]
fn a_clean_file_is_one_line() {
    assert_snapshot!(one("plain.pkl", PLAIN).run(&["scan", "plain.pkl"]));
}

#[test]
fn what_could_not_be_judged_has_its_exit_code() {
    assert_snapshot!(one("m.7z", b"7z\xbc\xaf\x27\x1c\0\x04").run(&["scan", "m.7z"]));
}

#[test]
fn the_level_decides_the_exit_code() {
    let code =
        |level: &str| one("m.pkl", UNKNOWN).output(&["scan", "m.pkl", "--fail-on", level]).status.code();
    assert_eq!((code("note"), code("warning"), code("error")), (Some(1), Some(1), Some(0)));
}

#[test]
fn a_missing_file_is_an_error_and_stops_nothing() {
    assert_snapshot!(one("m.pkl", PAYLOAD).run(&["scan", "gone.pkl", "m.pkl"]));
}

#[test]
fn a_policy_allows_with_a_reason() {
    let place = model();
    let policy =
        "[[allow]]\nsymbol = 'my.*'\nreason = 'ours'\n[[allow]]\npath = 'evil.bin'\nreason = 'a test'\n";
    fs::write(place.path("policy.toml"), policy).unwrap();
    assert_snapshot!(place.run(&["scan", "model", "--policy", "policy.toml", "--fail-on", "error"]));
}

#[test]
fn a_policy_that_cannot_be_read_is_an_error() {
    let place = one("policy.toml", b"[[allow]]\nrule = 'TS-105'\n");
    assert_snapshot!(place.run(&["scan", ".", "--policy", "policy.toml"]));
}

#[test]
fn quiet_prints_what_fails() {
    assert_snapshot!(model().run(&["scan", "model", "--format", "quiet"]));
}

#[test]
fn json_has_a_schema_and_every_finding() {
    assert_snapshot!(one("evil.bin", PAYLOAD).run(&["scan", "evil.bin", "--format", "json"]));
}

#[test]
fn sarif_and_cyclonedx_are_documents_and_can_go_to_a_file() {
    let place = one("evil.bin", PAYLOAD);
    assert_eq!(place.json(&["scan", "evil.bin", "--format", "sarif"])["version"], "2.1.0");
    assert_eq!(place.json(&["scan", "evil.bin", "--format", "cyclonedx"])["specVersion"], "1.6");
    let output = place.output(&["scan", "evil.bin", "--format", "sarif", "--output", "scan.sarif"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let text = fs::read_to_string(place.path("scan.sarif")).unwrap();
    assert!(text.contains("TS-101") && text.ends_with('\n'));
    let page = place.run(&["scan", "evil.bin", "--output", "no/such/place"]);
    assert!(page.starts_with("exit code: 2") && page.contains("error: No such file"), "{page}");
}

#[test]
fn formats_of_scan_alone_are_refused_elsewhere() {
    assert_snapshot!(Place::new().run(&["verify", "m.safetensors", "--format", "sarif"]));
}

#[test]
fn a_damaged_safetensors_file_is_told_with_its_rules() {
    let place = Place::new();
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    assert_snapshot!(place.run(&["scan", "damaged.safetensors"]));
}

//! What a diagnosis says of damaged files.

use tensafe_format::{Diagnosis, Header, ParseOptions};

use crate::file;

fn diagnose(header: &str, data_bytes: usize) -> Diagnosis {
    let file = file(header, data_bytes);
    Header::diagnose(&file, file.len() as u64, &ParseOptions::default())
}

fn texts(diagnosis: &Diagnosis) -> Vec<String> {
    diagnosis.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn lists_every_flaw_in_the_order_of_the_checks() {
    let header = r#"{"__metadata__":{"n":1},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":0},"b":{"dtype":"U8","shape":[3],"data_offsets":[6,10]}}"#;
    let diagnosis = diagnose(header, 12);
    assert_eq!(
        texts(&diagnosis),
        [
            "`__metadata__`: value of `n` at byte 29 is a number, needed a string (S-07)",
            "tensor `a`: unknown field `x` at byte 83, needed `dtype`, `shape` and `data_offsets` alone (S-08)",
            "tensor `b`: data_offsets 6..10 hold 4 bytes, U8 [3] needs 3 (S-14)",
            "tensor `b`: data_offsets 6..10 leave a gap of 2 bytes, needed to begin at 4 (S-15)",
            "incomplete metadata, file not fully covered: 2 bytes follow the last tensor, the header covers 10 of 12 bytes of data (S-16)",
        ]
    );
    let names: Vec<_> = diagnosis.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((diagnosis.header_bytes, diagnosis.data_bytes), (Some(header.len() as u64), 12));
}

/// The gap that an unreadable entry leaves in the table is not one in the file.
#[test]
fn knows_no_gaps_beside_entries_that_could_not_be_read() {
    for entry in [
        r#"{"dtype":"u8","shape":[4],"data_offsets":[0,4]}"#,
        r#"{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}"#,
        r#"{"dtype":"U8","shape":[4]}"#,
        r#"{"dtype":"U8","shape":[4],"data_offsets":[4,0]}"#,
        "null",
    ] {
        let header = format!(r#"{{"a":{entry},"b":{{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}}}"#);
        let diagnosis = diagnose(&header, 8);
        assert_eq!(diagnosis.errors.len(), 1, "{:?}", texts(&diagnosis));
        assert_eq!(diagnosis.tensors.last().unwrap().name, "b");
    }
}

#[test]
fn says_what_stands_before_json_that_breaks_off() {
    let header = r#"{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dty"#;
    let diagnosis = diagnose(header, 8);
    assert_eq!(
        texts(&diagnosis),
        [
            "invalid JSON in header: at byte 95 found the end of the header, needed a closed string without control characters (S-05)"
        ]
    );
    assert_eq!(diagnosis.tensors.len(), 1);
    assert_eq!(diagnosis.metadata.unwrap()["k"], "v");
}

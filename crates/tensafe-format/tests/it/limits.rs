//! Large headers are read, and each limit is met exactly.

use std::fmt::Write as _;

use tensafe_format::{Error, ErrorKind, Header, Limits, Mode, ParseOptions, Rule};
use tensafe_testkit::checks;

use crate::{file, parse};

fn within(file: &[u8], limits: Limits) -> Result<Header, Error> {
    Header::parse(file, file.len() as u64, &ParseOptions { limits, ..ParseOptions::default() })
}

fn over_limit(file: &[u8], limits: Limits) -> String {
    let error = within(file, limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    error.to_string()
}

fn two_tensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}"#;
    file(header, 5)
}

#[test]
fn reads_a_hundred_thousand_tensors() {
    let count = 100_000u64;
    let mut header = String::from("{");
    for i in 0..count {
        let comma = if i > 0 { "," } else { "" };
        let end = i + 1;
        write!(header, r#"{comma}"layer.{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{end}]}}"#)
            .unwrap();
    }
    header.push('}');
    let file = file(&header, 100_000);
    let parsed = parse(&file, Mode::Strict).unwrap();
    assert_eq!(parsed.len() as u64, count);
    assert_eq!(parsed.tensor("layer.99999").unwrap().data_offsets(), 99_999..100_000);
    assert_eq!(parsed.position("layer.100000"), None);
    assert_eq!(
        parsed.position("layer.7").and_then(|place| parsed.tensor_at(place)),
        parsed.tensor("layer.7").ok()
    );
    assert_eq!(parsed.tensor_at(100_000), None);
    // Per tensor a name, a dimension and an entry, and no more than as much again in reserve.
    let least = parsed.tensors().map(|t| t.name().len() + 8 + 40).sum::<usize>();
    assert!((least..4 * least).contains(&parsed.memory_bytes()), "{least} {}", parsed.memory_bytes());
    checks::agrees_with_reference(&file);
}

/// S-10: the number of dimensions is bounded by a limit alone.
#[test]
fn reads_ten_thousand_dimensions() {
    let shape = vec!["1"; 10_000].join(",");
    let file = file(&format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#), 1);
    assert_eq!(parse(&file, Mode::Strict).unwrap().tensor("a").unwrap().shape().len(), 10_000);
    checks::agrees_with_reference(&file);
    let text = over_limit(&file, Limits::default().with_dimensions(9_999));
    assert_eq!(text, "header: dimensions reach 10000, the limit is 9999; `Limits` can raise it");
}

/// S-02.
#[test]
fn the_header_is_as_long_as_the_limit_and_no_longer() {
    let file = two_tensors();
    let bytes = file.len() as u64 - 8 - 5;
    assert!(within(&file, Limits::default().with_header_bytes(bytes)).is_ok());
    let text = over_limit(&file, Limits::default().with_header_bytes(bytes - 1));
    let limit = bytes - 1;
    assert_eq!(text, format!("header too large: header of {bytes} bytes, the limit is {limit} (S-02)"));
}

/// S-02: the format's own bound, met and exceeded by a header that is mostly padding.
#[test]
fn the_header_is_a_hundred_million_bytes_at_most() {
    let text = |bytes: u64| {
        let mut file = file("{}", 0);
        file[..8].copy_from_slice(&bytes.to_le_bytes());
        file.resize(8 + usize::try_from(bytes).unwrap(), b' ');
        parse(&file, Mode::Strict).map(|header| header.data_start())
    };
    assert_eq!(text(Limits::HEADER_BYTES), Ok(Limits::HEADER_BYTES + 8));
    assert_eq!(text(Limits::HEADER_BYTES + 1).unwrap_err().rule(), Some(Rule::HEADER_LIMIT));
}

#[test]
fn the_tensors_are_as_many_as_the_limit_and_no_more() {
    let file = two_tensors();
    assert!(within(&file, Limits::default().with_tensors(2)).is_ok());
    let text = over_limit(&file, Limits::default().with_tensors(1));
    assert_eq!(text, "header: tensors reach 2, the limit is 1; `Limits` can raise it");
}

#[test]
fn the_dimensions_are_as_many_as_the_limit_and_no_more() {
    let file = two_tensors();
    assert!(within(&file, Limits::default().with_dimensions(2)).is_ok());
    let text = over_limit(&file, Limits::default().with_dimensions(1));
    assert_eq!(text, "header: dimensions reach 2, the limit is 1; `Limits` can raise it");
}

/// The limit is what the error says was reached, and one byte less is too little.
#[test]
fn the_tables_take_as_much_as_the_limit_and_no_more() {
    let metadata = r#"{"__metadata__":{"key":"value"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    for file in [two_tensors(), file(metadata, 1)] {
        let mut limit = 0;
        while let Err(error) = within(&file, Limits::default().with_table_bytes(limit)) {
            let text = error.to_string();
            let reached = text.strip_prefix("header: bytes of tables reach ").unwrap();
            let (reached, rest) = reached.split_once(',').unwrap();
            assert_eq!(rest, format!(" the limit is {limit}; `Limits` can raise it"));
            let reached: u64 = reached.parse().unwrap();
            assert!(reached > limit);
            assert!(within(&file, Limits::default().with_table_bytes(reached - 1)).is_err());
            limit = reached;
        }
        assert!(limit > 0);
    }
}

/// A file of flaws must not cost more memory than a limit says: each flaw repeats the name.
#[test]
fn a_diagnosis_keeps_within_the_limit_of_tables() {
    let name = "n".repeat(10_000);
    let shape = vec!["-1"; 10_000].join(",");
    let file = file(&format!(r#"{{"{name}":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#), 1);
    let limits = Limits::default().with_table_bytes(1_000_000);
    let options = ParseOptions { limits, ..ParseOptions::default() };
    let errors = Header::diagnose(&file, file.len() as u64, &options).errors;
    assert!((90..=100).contains(&errors.len()), "{}", errors.len());
    let last = errors.last().unwrap();
    assert_eq!(last.kind(), ErrorKind::Limit);
    assert!(last.to_string().starts_with("header: bytes of flaws reach 100"), "{last}");
}

//! `docs/spec.md` says what the code does, as far as that can be compared.

use std::{collections::BTreeSet, fs, path::Path};

use tensafe_format::{Dtype, Limits, Rule};

fn spec() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec.md")).unwrap()
}

/// S-09.
#[test]
fn the_table_of_dtypes_is_that_of_the_code() {
    let rows: Vec<String> = Dtype::ALL
        .iter()
        .map(|dtype| {
            let torch = dtype.torch_name().map_or_else(|| "—".to_owned(), |name| format!("`{name}`"));
            format!("| `{dtype}` | {} | `{}` | {torch} |", dtype.bits(), dtype.numpy_name())
        })
        .collect();
    let spec = spec();
    let (_, found) = spec.split_once("|---|---|---|---|\n").unwrap();
    assert_eq!(found.lines().collect::<Vec<_>>(), rows);
}

#[test]
fn every_rule_of_the_code_has_its_text() {
    let spec = spec();
    let described: BTreeSet<&str> =
        spec.lines().filter_map(|line| line.strip_prefix("### ")).map(|heading| &heading[..4]).collect();
    let rules = [
        Rule::LENGTH_FIELD,
        Rule::HEADER_LIMIT,
        Rule::HEADER_IN_FILE,
        Rule::UTF8,
        Rule::JSON,
        Rule::UNIQUE_NAMES,
        Rule::METADATA,
        Rule::ENTRY,
        Rule::DTYPE,
        Rule::SHAPE,
        Rule::OFFSETS,
        Rule::OVERFLOW,
        Rule::WHOLE_BYTES,
        Rule::SIZE,
        Rule::COVER,
        Rule::FILE_END,
        Rule::RESERVED_NAME,
        Rule::BYTE_BORDER,
        Rule::ALIGN,
        Rule::INDEX,
        Rule::SHARD_PATH,
        Rule::INDEX_MATCHES,
        Rule::INDEXING,
    ];
    for rule in rules {
        assert!(described.contains(rule.to_string().as_str()), "{rule} is not described");
    }
}

/// S-02.
#[test]
fn the_bound_on_the_header_is_that_of_the_code() {
    assert!(spec().contains("100,000,000 bytes"));
    assert_eq!(Limits::HEADER_BYTES, 100_000_000);
}

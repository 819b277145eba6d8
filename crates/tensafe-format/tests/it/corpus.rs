//! `tests/corpus`: each file has the verdict of its directory, and each error its exact text.

use std::{collections::BTreeMap, env, fs};

use tensafe_format::{ErrorKind, Mode, SafeTensors, ShardIndex};
use tensafe_testkit::{Verdict, checks, corpus, corpus_root, index_corpus};

use crate::parse;

#[test]
fn every_file_has_the_verdict_of_its_directory() {
    for case in corpus() {
        let strict = parse(&case.bytes, Mode::Strict);
        let lenient = parse(&case.bytes, Mode::Lenient);
        let found = match (&strict, &lenient) {
            (Ok(_), Ok(_)) => Verdict::Accept,
            (Err(_), Ok(_)) => Verdict::Lenient,
            (_, Err(_)) => Verdict::Reject,
        };
        assert_eq!(found, case.verdict, "{}: strict {strict:?}, lenient {lenient:?}", case.path);
        if let Err(error) = strict {
            assert!(error.rule().is_some(), "{}: {error} cites no rule", case.path);
            // A file of several flaws may be refused for a lenient one first.
            assert!(error.is_lenient() || found == Verdict::Reject, "{}: {error}", case.path);
        }
    }
}

/// S-30, S-31.
#[test]
fn every_index_has_the_verdict_of_its_directory() {
    for case in index_corpus() {
        match ShardIndex::parse(&case.bytes) {
            Ok(index) => {
                assert_eq!(case.verdict, Verdict::Accept, "{}", case.path);
                assert_eq!(ShardIndex::parse(index.to_json().as_bytes()).unwrap(), index, "{}", case.path);
                let naive: serde_json::Value = serde_json::from_slice(&case.bytes).unwrap();
                let map: BTreeMap<String, String> =
                    serde_json::from_value(naive["weight_map"].clone()).unwrap();
                assert_eq!(index.weight_map, map, "{}", case.path);
                assert_eq!(index.total_size, naive["metadata"]["total_size"].as_u64(), "{}", case.path);
            }
            Err(error) => {
                assert_eq!(case.verdict, Verdict::Reject, "{}: {error}", case.path);
                assert_eq!(error.kind(), ErrorKind::Format, "{}: {error}", case.path);
            }
        }
    }
}

#[test]
fn every_error_has_its_exact_text() {
    let files = corpus().into_iter().filter_map(|case| {
        let error = parse(&case.bytes, Mode::Strict).err()?;
        Some(format!("{}: {error}\n", case.path))
    });
    let indices = index_corpus().into_iter().filter_map(|case| {
        let error = ShardIndex::parse(&case.bytes).err()?;
        Some(format!("{}: {error}\n", case.path))
    });
    let found: String = files.chain(indices).collect();

    let path = corpus_root().join("errors.txt");
    if env::var_os("TENSAFE_UPDATE").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "TENSAFE_UPDATE=1 writes errors.txt anew");
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "TENSAFE_UPDATE=1 writes errors.txt anew");
}

#[test]
fn what_is_read_is_what_the_naive_reader_reads() {
    for case in corpus().into_iter().filter(|case| case.verdict != Verdict::Reject) {
        let header = parse(&case.bytes, Mode::Lenient).unwrap();
        checks::same_as_naive(&header, &case.bytes);
    }
}

#[test]
fn data_of_a_file_in_memory_is_what_the_header_says() {
    for case in corpus().into_iter().filter(|case| case.verdict == Verdict::Accept) {
        let tensors = SafeTensors::parse(&case.bytes).unwrap();
        let naive = tensafe_testkit::naive::read(&case.bytes).unwrap();
        for view in tensors.tensors() {
            assert_eq!(view.data(), naive.tensors[view.name()].data, "{} of {}", view.name(), case.path);
        }
    }
}

#[test]
fn every_file_satisfies_the_properties_of_any_bytes() {
    for case in corpus() {
        let at_path = |check: fn(&[u8])| {
            let outcome = std::panic::catch_unwind(|| check(&case.bytes));
            assert!(outcome.is_ok(), "see above: {}", case.path);
        };
        at_path(checks::agrees_with_reference);
        at_path(checks::diagnosis_agrees_with_parsing);
        at_path(checks::round_trips);
    }
}

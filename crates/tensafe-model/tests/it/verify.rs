use std::{fs, path::Path};

use tempfile::tempdir;
use tensafe_format::Rule;
use tensafe_model::{
    Checkpoint, FileReport, Level, OpenOptions, Report, SegmentKind, Verdict, VerifyOptions, verify,
};

use crate::{write, write_index, write_raw};

fn judge(path: impl AsRef<Path>) -> Report {
    verify(path, &VerifyOptions::default())
}

/// The report on a file of this header and so many bytes of data.
fn raw(header: &str, data_bytes: usize) -> FileReport {
    let dir = tempdir().unwrap();
    let path = dir.path().join("raw.safetensors");
    write_raw(&path, header, data_bytes);
    judge(&path).files.pop().unwrap()
}

fn entry(name: &str, dtype: &str, shape: u64, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
}

fn header(entries: &[String]) -> String {
    format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, entries.join(","))
}

fn rules(report: &FileReport) -> Vec<Rule> {
    report.findings.iter().filter_map(|finding| finding.rule).collect()
}

fn codes(report: &FileReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

/// Kinds and lengths of the segments after the header.
fn data_map(report: &FileReport) -> Vec<(SegmentKind, u64, Vec<&str>)> {
    let after = |kind| !matches!(kind, SegmentKind::Length | SegmentKind::Header);
    let segments = report.segments.iter().filter(|segment| after(segment.kind));
    segments
        .map(|s| (s.kind, s.range.end - s.range.start, s.tensors.iter().map(String::as_str).collect()))
        .collect()
}

#[test]
fn a_good_file_is_mapped_from_its_first_byte_to_its_last() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("good.safetensors");
    write(&path, &[("a", &[2, 2]), ("b", &[3]), ("none", &[0])]);
    let report = judge(&path);
    assert_eq!(report.verdict(), Verdict::Good);
    let file = &report.files[0];
    assert!(file.findings.is_empty() && file.complete, "{:?}", file.findings);
    let mut end = 0;
    for segment in &file.segments {
        assert_eq!(segment.range.start, end);
        end = segment.range.end;
    }
    assert_eq!(end, file.file_bytes);
    assert_eq!(data_map(file), [(SegmentKind::Tensor, 16, vec!["a"]), (SegmentKind::Tensor, 12, vec!["b"])]);
}

/// S-15, S-16: every finding, not the first alone, and where the bytes went.
#[test]
fn gaps_overlaps_and_what_is_missing_are_found_and_mapped() {
    let report = raw(
        &header(&[
            entry("a", "U8", 8, 0, 8),
            entry("b", "U8", 8, 16, 24),
            entry("c", "U8", 8, 20, 28),
            entry("d", "U8", 8, 28, 36),
        ]),
        32,
    );
    assert_eq!(rules(&report), [Rule::COVER, Rule::COVER, Rule::FILE_END]);
    assert_eq!(
        data_map(&report),
        [
            (SegmentKind::Tensor, 8, vec!["a"]),
            (SegmentKind::Gap, 8, vec![]),
            (SegmentKind::Tensor, 8, vec!["b"]),
            (SegmentKind::Tensor, 8, vec!["c"]),
            (SegmentKind::Overlap, 4, vec!["b", "c"]),
            (SegmentKind::Tensor, 4, vec!["d"]),
            (SegmentKind::Missing, 4, vec!["d"]),
        ]
    );
}

/// S-16.
#[test]
fn bytes_after_the_last_tensor_are_trailing() {
    let report = raw(&header(&[entry("a", "U8", 8, 0, 8)]), 11);
    assert_eq!(rules(&report), [Rule::FILE_END]);
    assert_eq!(data_map(&report)[1], (SegmentKind::Trailing, 3, vec![]));
}

#[test]
fn beside_an_entry_that_cannot_be_read_gaps_are_unknown_and_overlaps_are_told() {
    let report = raw(
        &header(&[
            entry("a", "U8", 8, 0, 8),
            entry("b", "X9", 8, 8, 16),
            entry("c", "U8", 8, 16, 24),
            entry("d", "U8", 16, 16, 32),
        ]),
        24,
    );
    assert_eq!(rules(&report), [Rule::DTYPE, Rule::COVER, Rule::FILE_END]);
    assert!(!report.complete);
    assert_eq!(
        data_map(&report),
        [
            (SegmentKind::Tensor, 8, vec!["a"]),
            (SegmentKind::Unknown, 8, vec![]),
            (SegmentKind::Tensor, 8, vec!["c"]),
            (SegmentKind::Tensor, 8, vec!["d"]),
            (SegmentKind::Overlap, 8, vec!["c", "d"]),
            (SegmentKind::Missing, 8, vec!["d"]),
        ]
    );
}

/// S-03.
#[test]
fn a_file_cut_off_in_its_header_is_described_as_far_as_it_goes() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("cut.safetensors");
    write_raw(&path, &header(&[entry("a", "U8", 8, 0, 8), entry("b", "U8", 8, 8, 16)]), 16);
    let bytes = fs::read(&path).unwrap();
    let cut = bytes.windows(3).position(|w| w == br#""b""#).unwrap() + 12;
    fs::write(&path, &bytes[..cut]).unwrap();
    let report = judge(&path);
    let file = &report.files[0];
    assert_eq!(rules(file), [Rule::HEADER_IN_FILE]);
    assert_eq!(file.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(file.segments.last().unwrap().kind, SegmentKind::Missing);
}

/// S-01, S-02.
#[test]
fn what_is_no_safetensors_file_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let report = judge(&path);
    assert_eq!(codes(&report.files[0]), ["limit", "other-format"]);
    fs::write(&path, [1, 2, 3]).unwrap();
    let report = judge(&path);
    assert_eq!(rules(&report.files[0]), [Rule::LENGTH_FIELD]);
    assert_eq!(report.files[0].segments[1].range, 3..8);
    fs::write(&path, []).unwrap();
    assert_eq!(judge(&path).verdict(), Verdict::Bad);
}

#[test]
fn a_file_that_cannot_be_opened_is_unreadable() {
    let dir = tempdir().unwrap();
    let report = judge(dir.path().join("nowhere.safetensors"));
    assert_eq!(report.verdict(), Verdict::Unreadable);
    assert_eq!(judge(dir.path()).verdict(), Verdict::Unreadable);
}

#[test]
fn what_keeps_the_rules_and_meets_trouble_is_a_warning() {
    let text = |header: String| {
        // One byte that is not padding moves the data section off its border.
        let dir = tempdir().unwrap();
        let path = dir.path().join("raw.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + 12, 0);
        fs::write(&path, bytes).unwrap();
        judge(&path).files.pop().unwrap()
    };
    let plain = header(&[entry("a", "U8", 4, 0, 4), entry("b", "F32", 2, 4, 12)]);
    let odd = if plain.len().is_multiple_of(8) { format!("{plain} ") } else { plain };
    let report = text(odd);
    assert_eq!((report.verdict(), codes(&report)), (Verdict::Good, vec!["data-alignment"]));

    let report = raw(&header(&[entry("a", "U8", 3, 0, 3), entry("b", "F32", 2, 3, 11)]), 11);
    assert_eq!((report.verdict(), codes(&report)), (Verdict::Good, vec!["tensor-alignment"]));

    let report = raw(&format!("{{{}}}", entry("a", "U8", 1, 0, 1)), 1);
    assert_eq!(codes(&report), ["format-key"]);
    assert_eq!(report.findings[0].level, Level::Note);

    let report = raw(&header(&[entry("a\\u202eb", "U8", 1, 0, 1)]), 1);
    assert_eq!(codes(&report), ["name-unseen"]);

    let big = header(&[entry("a", "U8", 1, 0, 1)]) + &" ".repeat(26_000_000);
    assert_eq!(codes(&raw(&big, 1)), ["hub-header"]);

    let wide =
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[0,5000000000],"data_offsets":[0,0]}}"#;
    assert_eq!(codes(&raw(wide, 0)), ["hub-dimension"]);
}

#[test]
fn names_that_differ_in_their_unicode_form_alone_are_told_where_a_form_is_given() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("twins.safetensors");
    write(&path, &[("caf\u{e9}", &[1]), ("cafe\u{301}", &[1])]);
    assert!(judge(&path).files[0].findings.is_empty());
    let options = VerifyOptions::default().with_normalize(|name| name.replace("e\u{301}", "\u{e9}"));
    let report = verify(&path, &options);
    assert_eq!(codes(&report.files[0]), ["name-twins"]);
}

/// S-21.
#[test]
fn bool_bytes_are_looked_at_only_when_asked_for() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("bool.safetensors");
    write_raw(&path, &header(&[entry("mask", "BOOL", 4, 0, 4)]), 4);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] = 7;
    fs::write(&path, bytes).unwrap();
    assert!(judge(&path).files[0].findings.is_empty());
    let report = verify(&path, &VerifyOptions::default().with_deep(true));
    assert_eq!((report.verdict(), codes(&report.files[0])), (Verdict::Good, vec!["bool-bytes"]));
    assert_eq!(report.files[0].findings[0].offset, Some(last as u64));
}

/// S-32, S-33: every disagreement of index and shards.
#[test]
fn an_index_and_its_shards_are_held_against_each_other() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("one.safetensors"), &[("a", &[1]), ("extra", &[1])]);
    write(&dir.path().join("stray.safetensors"), &[("a", &[1])]);
    let index = dir.path().join("model.safetensors.index.json");
    let map = [("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "gone.safetensors")];
    write_index(&index, Some(999), &map);
    let report = judge(dir.path());
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["shard-missing", "tensor-missing", "tensor-unnamed", "shard-name", "stray-file"]);
    assert_eq!(report.verdict(), Verdict::Bad);

    write_index(&index, Some(999), &[("a", "one.safetensors"), ("extra", "one.safetensors")]);
    let report = judge(&index);
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!((report.verdict(), codes), (Verdict::Good, vec!["total-size", "stray-file"]));
}

/// S-31.
#[test]
fn an_index_that_reaches_outside_is_bad_and_opens_nothing() {
    let dir = tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, None, &[("a", "../secret.safetensors")]);
    let report = judge(&index);
    assert_eq!(report.verdict(), Verdict::Bad);
    assert_eq!(report.findings[0].rule, Some(Rule::SHARD_PATH));
    assert!(report.files.is_empty());
}

/// S-32.
#[test]
fn a_name_in_two_files_of_a_directory_is_told() {
    let dir = tempdir().unwrap();
    for name in ["one.safetensors", "two.safetensors"] {
        write(&dir.path().join(name), &[("a", &[1])]);
    }
    let report = judge(dir.path());
    assert_eq!(report.findings[0].code, "name-in-two-files");
    assert_eq!(report.verdict(), Verdict::Bad);
}

/// The verdict is that of whoever opens the file: no finding is missing, and none is made up.
#[test]
fn agrees_with_opening_on_every_file_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    for directory in ["accept", "lenient", "reject"] {
        let Ok(files) = fs::read_dir(corpus.join(directory)) else { continue };
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|e| e != "safetensors") {
                continue;
            }
            let opened = Checkpoint::open(&path, &OpenOptions::default());
            let report = judge(&path);
            let verdict = if opened.is_ok() { Verdict::Good } else { Verdict::Bad };
            assert_eq!(report.verdict(), verdict, "{}: {opened:?}", path.display());
            if let Err(error) = opened {
                let first = report.files[0].findings.first().unwrap();
                assert!(error.chain().to_string().ends_with(&first.text), "{error}\n{}", first.text);
            }
            let mut covered = 0;
            for segment in &report.files[0].segments {
                assert!(segment.range.start <= covered, "{}: a hole in the map", path.display());
                covered = covered.max(segment.range.end);
            }
            assert!(covered >= report.files[0].file_bytes, "{}: the map ends early", path.display());
        }
    }
}

//! Whatever the bytes are: no panic, bounded work, and the same answer however they are read.

use std::{fs, path::Path, time::Instant};

use proptest::prelude::*;
use tensafe_trust::{Limits, Rule, ScanOptions, Verdict, scan, scan_bytes};

use crate::{archive::zip, found, shown};

const PAYLOAD: &[u8] = b"\x80\x02cos\nsystem\n(X\x02\0\0\0idtR.";

/// A few hundred files of the corpora, of every kind.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pickles/hostile");
    let mut files: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().step_by(5).map(|path| (name(path), fs::read(path).unwrap())).collect()
}

#[test]
fn damaged_files_are_scanned_without_a_panic() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below.max(1) as u64).unwrap()
    };
    for (name, bytes) in seeds() {
        for _ in 0..8 {
            let mut damaged = bytes.clone();
            for _ in 0..=next(4) {
                if let Some(byte) = damaged.get_mut(next(bytes.len())) {
                    *byte = u8::try_from(next(256)).unwrap();
                }
            }
            damaged.truncate(damaged.len() - next(3).min(damaged.len()) * next(8).min(damaged.len() / 3));
            let _ = scan_bytes(&name, &damaged, &ScanOptions::default().with_crc(true));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_scanned_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        name in prop::sample::select(vec!["m.pkl", "m.pt", "m.json", "m.safetensors", "m", "m.py", "m.npy"]),
    ) {
        let report = scan_bytes(name, &bytes, &ScanOptions::default());
        prop_assert_eq!(report.bytes, bytes.len() as u64);
    }

    #[test]
    fn any_instructions_are_scanned_without_a_panic(
        opcodes in prop::collection::vec(prop::sample::select(
            b"(.02NRabdltst)1Q]eoh\0q\0u}\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94K\x01cos\nsystem\nX\x01\0\0\0a".to_vec(),
        ), 0..200),
    ) {
        let _ = scan_bytes("m.pkl", &opcodes, &ScanOptions::default());
    }

    #[test]
    fn a_payload_is_found_behind_any_first_pickle_and_in_any_member(
        before in prop::collection::vec(any::<u8>(), 0..40), name in "[a-z]{1,8}",
    ) {
        let length = u8::try_from(before.len()).unwrap();
        let first = [b"\x80\x03C", &[length][..], &before, b"."].concat();
        let both = [&first[..], PAYLOAD].concat();
        let told = |lines: Vec<String>| lines.iter().any(|line| line.starts_with("error TS-101"));
        prop_assert!(told(found("m.pkl", &both)));
        prop_assert!(told(found("m.bin", &zip(&[(&name, &both)]))));
    }
}

/// Larger files are read in windows: the answer is that of memory.
#[test]
fn a_payload_behind_megabytes_is_found_without_reading_them() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.pkl");
    let filler = 64 << 20;
    let start = [b"\x80\x04\x8e", &u64::to_le_bytes(filler)[..]].concat();
    fs::write(&path, &start).unwrap();
    let end = start.len() as u64 + filler;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(end).unwrap();
    drop(file);
    let rest = [&b"0cos\nsystem\n(X\x02\0\0\0idtR."[..], PAYLOAD].concat();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &rest).unwrap();
    drop(file);
    let report = scan([&path], &ScanOptions::default());
    let lines = shown(&report.files[0].findings);
    assert!(lines.contains(&format!("error TS-101 @{} os.system", end + 1)), "{lines:?}");
}

#[test]
fn every_limit_is_met_with_a_finding() {
    let with = |change: fn(&mut Limits), bytes: &[u8]| {
        let mut limits = Limits::default();
        change(&mut limits);
        let report = scan_bytes("m.pkl", bytes, &ScanOptions::default().with_limits(limits));
        assert!(report.is_inconclusive());
        report.findings.iter().any(|finding| finding.rule == Rule::LimitMet)
    };
    let nested = [b"\x80\x03C", &[u8::try_from(PAYLOAD.len()).unwrap()][..], PAYLOAD, b"."].concat();
    let raw = [b"\x80\x03C\x20\xff\xff", &b"\x80\x02N.".repeat(6)[..], b"\xff\xff\xff\xff\xff\xff."].concat();
    assert!(with(|limits| limits.nested_bytes = 4, &nested));
    assert!(with(|limits| limits.depth = 0, &nested));
    assert!(with(|limits| limits.tries = 2, &raw));
    assert!(with(|limits| limits.pickle = limits.pickle.with_operations(2), PAYLOAD));
    assert!(with(|limits| limits.members = 1, &zip(&[("a", b"x"), ("b", b"x")])));
    assert!(with(|limits| limits.findings = 1, b"cm\nf\n0cm\ng\n0."));
}

/// What is made to take long takes no longer than other files.
#[test]
fn work_is_bounded() {
    let start = Instant::now();
    let many = [b"C\x40", &b"\x80\x02".repeat(32)[..], b"0"].concat();
    let mut bytes = [b"\x80\x03", &many.repeat(2000)[..]].concat();
    bytes.extend(b"N.");
    let report = scan_bytes("m.pkl", &bytes, &ScanOptions::default());
    assert_ne!(report.verdict(), Verdict::Unreadable);
    let member = vec![b'N'; 1 << 16];
    let _ = scan_bytes("m.zip", &zip(&vec![("a", &member[..]); 50]), &ScanOptions::default());
    let _ = scan_bytes("m.pkl", &b"N.".repeat(100_000), &ScanOptions::default());
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

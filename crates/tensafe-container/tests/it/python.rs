//! Against Python's standard library, both ways: what is accepted here `zipfile` and `tarfile` read
//! with the same names and bytes, and what they write is accepted here.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use tensafe_container::{CrcState, Kind, Limits, Tar, TarKind, Zip, decompress, detect};

use crate::{
    all, memory,
    zips::{End64, Part, archive, descriptor, extra},
};

/// Names and bytes; `None` where the checksum is wrong, or an entry is no file.
type Listing = Vec<(String, Option<Vec<u8>>)>;

/// Runs a script with the python3 that is there; there has to be one.
fn python(script: &str, directory: &Path) -> String {
    let output = Command::new("python3").args(["-c", script]).arg(directory).output();
    let output = output.expect("python3 is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).filter(|pair| pair.len() == 2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What Python reads of every archive in a directory; the reason where it reads nothing.
fn read_by_python(directory: &Path) -> BTreeMap<String, Result<Listing, String>> {
    let mut found = BTreeMap::new();
    let mut last = String::new();
    for line in python(include_str!("read_archives.py"), directory).lines() {
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["A", file] => {
                last = file.to_owned();
                found.insert(last.clone(), Ok(Vec::new()));
            }
            ["M", name, content] => {
                let content = (content != "!").then(|| unhex(content));
                let listing = found.get_mut(&last).unwrap().as_mut().unwrap();
                listing.push((String::from_utf8(unhex(name)).unwrap(), content));
            }
            ["X", file, why] => {
                found.insert(file.to_owned(), Err(why.to_owned()));
            }
            _ => panic!("{line}"),
        }
    }
    found
}

/// What is read here, as Python would say it; `None` where it is refused.
fn read_zip(bytes: &[u8]) -> Option<Listing> {
    let zip = Zip::open(memory(bytes), &Limits::default()).ok()?;
    let mut listing = Vec::new();
    for member in zip.members() {
        // Deflated bytes are not looked at before they are read, and what cannot be read has no
        // content to compare.
        let content = all(&zip.read(member).ok()?);
        // A checksum that was not written is a wrong one to Python.
        let fine = zip.check_crc(member).unwrap() == CrcState::Matches;
        listing.push((member.name().to_owned(), fine.then_some(content)));
    }
    Some(listing)
}

fn read_tar(bytes: &[u8]) -> Option<Listing> {
    let tar = Tar::open(memory(bytes), &Limits::default()).ok()?;
    let mut listing = Vec::new();
    for entry in tar.entries() {
        // Python leaves the slash of a directory out.
        let name = entry.name().trim_end_matches('/').to_owned();
        let is_file = entry.kind() == TarKind::File;
        listing.push((name, is_file.then(|| all(&tar.read(entry).unwrap()))));
    }
    Some(listing)
}

#[test]
fn what_python_writes_is_read_the_same() {
    let directory = tempfile::tempdir().unwrap();
    python(include_str!("write_archives.py"), directory.path());
    let mut count = 0;
    for (file, theirs) in read_by_python(directory.path()) {
        let bytes = fs::read(directory.path().join(&file)).unwrap();
        let ours = match Path::new(&file).extension().and_then(|e| e.to_str()) {
            Some("zip") => {
                let zip = Zip::open(memory(&bytes), &Limits::default());
                let zip = zip.unwrap_or_else(|e| panic!("{file}: {e}"));
                assert_eq!(zip.flaws(), [], "{file}");
                read_zip(&bytes)
            }
            Some("tar") => {
                let tar = Tar::open(memory(&bytes), &Limits::default()).unwrap();
                assert_eq!(tar.flaws(), [], "{file}");
                read_tar(&bytes)
            }
            _ => continue,
        };
        assert!(ours.as_ref() == theirs.as_ref().ok(), "{file}");
        count += 1;
    }
    assert_eq!(count, 17);
}

#[test]
fn what_python_compresses_is_undone() {
    let directory = tempfile::tempdir().unwrap();
    python(include_str!("write_archives.py"), directory.path());
    let data = fs::read(directory.path().join("data.bin")).unwrap();
    let mut count = 0;
    for file in fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "stream") {
            continue;
        }
        let source = memory(fs::read(&path).unwrap());
        let kind = detect(&source).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(kind.name()) && kind != Kind::Unknown, "{name} is taken for {kind}");
        let undone = decompress(source, kind, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(all(&undone) == data, "{name}");
        count += 1;
    }
    assert_eq!(count, 14);
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

fn tar_entry(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..name.len()].copy_from_slice(name.as_bytes());
    out[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    out[156] = b'0';
    out[257..265].copy_from_slice(b"ustar\x0000");
    out[148..156].fill(b' ');
    let sum: u32 = out.iter().map(|byte| u32::from(*byte)).sum();
    out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// Archives to change bytes of.
fn originals() -> Vec<(&'static str, Vec<u8>)> {
    let stored = || Part::stored("a/b", b"first");
    let utf8 = Part::stored("\u{e4}", b"").both(|fields| fields.flags = 0x0800);
    let padded = stored().with(|part| part.local.extra = extra(0x4246, b"ZZZ"));
    let sizes = extra(1, &[5_u64.to_le_bytes(), 5_u64.to_le_bytes()].concat());
    let long = stored().both(|fields| {
        (fields.bytes, fields.compressed, fields.extra) = (u32::MAX, u32::MAX, sizes.clone());
    });
    let path = [&[1][..], &crc32fast::hash(b"a/b").to_le_bytes(), b"a/b"].concat();
    let path = stored().with(|part| part.central.extra = extra(0x7075, &path));
    let streamed = stored().streamed(&descriptor(b"first"));
    let zips = [
        archive([stored(), Part::deflated("c", &[7; 90]), utf8]),
        archive([padded, Part::stored("b", b"second")]).with(|zip| zip.zip64 = Some(End64::default())),
        archive([long, path.both(|fields| fields.name = b"x/y".to_vec())]),
        archive([streamed, Part::stored("b", b"second")]),
        archive([stored(), Part::stored("d/", b"")]).with(|zip| zip.comment = b"comment".to_vec()),
    ];
    let tar = [tar_entry("a", b"first"), tar_entry("b/c", &[8; 600]), vec![0; 1024]].concat();
    zips.iter().map(|zip| ("zip", zip.bytes())).chain([("tar", tar)]).collect()
}

/// Changes a few bytes, preferring values that mean something in an archive.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    const VALUES: [u8; 12] = [0, 1, 2, 8, 9, 0x20, 0x2f, 0x50, 0x4b, 0x7f, 0x80, 0xff];
    for _ in 0..=numbers.below(2) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 => bytes.insert(at, VALUES[numbers.below(VALUES.len())]),
            1 => {
                bytes.remove(at);
            }
            2 => {
                let from = numbers.below(bytes.len());
                let piece = bytes[from..(from + 4).min(bytes.len())].to_vec();
                bytes.splice(at..(at + 4).min(bytes.len()), piece);
            }
            3 => bytes[at] ^= 1 << numbers.below(8),
            _ => bytes[at] = VALUES[numbers.below(VALUES.len())],
        }
    }
}

#[test]
fn what_is_accepted_python_reads_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(1);
    let mut ours = BTreeMap::new();
    let originals = originals();
    for round in 0..30_000 {
        let (kind, original) = &originals[numbers.below(originals.len())];
        let mut bytes = original.clone();
        if round > originals.len() * 4 {
            mutate(&mut bytes, &mut numbers);
        }
        let listing = if *kind == "zip" { read_zip(&bytes) } else { read_tar(&bytes) };
        if let Some(listing) = listing {
            let file = format!("{round:05}.{kind}");
            fs::write(directory.path().join(&file), &bytes).unwrap();
            ours.insert(file, listing);
        }
    }
    assert!(ours.len() > 1000, "only {} archives were accepted", ours.len());
    let theirs = read_by_python(directory.path());
    for (file, ours) in &ours {
        let theirs = &theirs[file];
        let bytes = || fs::read(directory.path().join(file)).unwrap().escape_ascii().to_string();
        assert!(theirs.as_ref() == Ok(ours), "{file}: here {ours:?}, Python {theirs:?}, of {}", bytes());
    }
}

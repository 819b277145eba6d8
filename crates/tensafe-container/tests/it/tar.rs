//! Tar archives.

use tensafe_container::{ErrorKind, Limits, Tar, TarFlaw, TarKind};

use crate::{all, memory};

/// A header and its data, padded.
fn entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..name.len()].copy_from_slice(name.as_bytes());
    out[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    out[156] = kind;
    out[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut out);
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let body = format!(" {key}={value}\n");
    let mut len = body.len();
    while len != body.len() + len.to_string().len() {
        len = body.len() + len.to_string().len();
    }
    format!("{len}{body}").into_bytes()
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

fn open(bytes: &[u8]) -> Result<Tar, (ErrorKind, String)> {
    Tar::open(memory(bytes), &Limits::default()).map_err(|e| (e.kind(), e.to_string()))
}

fn flaws(tar: &Tar) -> Vec<String> {
    tar.flaws().iter().map(TarFlaw::to_string).collect()
}

#[test]
fn reads_files_and_their_kinds() {
    let parts = [
        entry("pickle", b'0', b"\x80\x02N."),
        entry("old", 0, &[7; 513]),
        entry("dir/", b'5', b""),
        entry("link", b'2', b""),
    ];
    let tar = open(&ended(&parts)).unwrap();
    assert_eq!(flaws(&tar), [""; 0]);
    let kinds: Vec<_> = tar.entries().iter().map(|entry| (entry.name(), entry.kind())).collect();
    let needed = [
        ("pickle", TarKind::File),
        ("old", TarKind::File),
        ("dir/", TarKind::Directory),
        ("link", TarKind::Link),
    ];
    assert_eq!(kinds, needed);
    let old = tar.find("old").unwrap();
    assert_eq!((old.header_offset(), old.range()), (1024, 1536..2049));
    assert_eq!(all(&tar.read(old).unwrap()), [7; 513]);
    let error = tar.read(tar.find("link").unwrap()).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (
            ErrorKind::Unsupported,
            "tar entry `link` at byte 3072: found something other than a file, which is not read here".into()
        )
    );
}

#[test]
fn reads_long_names() {
    let long = "directory/".repeat(30) + "name";
    let gnu = [entry("././@LongLink", b'L', &[long.as_bytes(), b"\0"].concat()), entry("cut", b'0', b"a")];
    let pax = [entry("PaxHeaders/x", b'x', &record("path", &long)), entry("cut", b'0', b"a")];
    for parts in [gnu, pax] {
        let tar = open(&ended(&parts)).unwrap();
        assert_eq!((tar.entries().len(), flaws(&tar)), (1, vec![]));
        assert_eq!(tar.entries()[0].name(), long);
    }
    let mut split = entry("name", b'0', b"a");
    split[345..348].copy_from_slice(b"a/b");
    checksum(&mut split[..512]);
    assert_eq!(open(&ended(&[split])).unwrap().entries()[0].name(), "a/b/name");
}

#[test]
fn extended_headers_are_split_by_length() {
    // A value with an end of line, and the size that counts.
    let records =
        [record("comment", "a\n12 path=other\n"), record("path", "real"), record("size", "3")].concat();
    let mut file = entry("cut", b'0', b"abc");
    file[124..136].copy_from_slice(b"00000000000\0");
    checksum(&mut file[..512]);
    let tar = open(&ended(&[entry("x", b'x', &records), file, entry("next", b'0', b"d")])).unwrap();
    let names: Vec<_> = tar.entries().iter().map(|entry| entry.name()).collect();
    assert_eq!(names, ["real", "next"]);
    assert_eq!(all(&tar.read(&tar.entries()[0]).unwrap()), b"abc");
}

#[test]
fn reports_what_is_odd() {
    let odd = |bytes: &[u8]| flaws(&open(bytes).unwrap());
    let a = || entry("a", b'0', b"1");
    assert_eq!(odd(&ended(&[a(), a()])), ["tar entry `a` at byte 1024: the name stands twice"]);
    assert_eq!(
        odd(&ended(&[entry("../a", b'0', b"")])),
        ["tar entry `../a` at byte 0: the name is no safe relative path"]
    );
    assert_eq!(
        odd(&ended(&[entry("a", b'S', b"")])),
        ["tar entry `a` at byte 0: the entry is sparse or of an unknown kind"]
    );
    assert_eq!(
        odd(&ended(&[entry("x", b'x', &record("GNU.sparse.major", "1")), a()])),
        ["tar entry `a` at byte 1024: the entry is sparse or of an unknown kind"]
    );
    assert_eq!(
        odd(&ended(&[entry("x", b'x', &record("size", "2")), a()])),
        ["tar entry `a` at byte 1024: the extended headers tell another size than the header"]
    );
    let end = "found the end of the file, needed two blocks of zeros";
    assert_eq!(odd(&a()), [format!("tar archive at byte 1024: {end}")]);
    assert_eq!(odd(&[a(), vec![0; 512]].concat()), [format!("tar archive at byte 1536: {end}")]);
    assert_eq!(
        odd(&[ended(&[a()]), vec![0; 3], b"?".to_vec()].concat()),
        ["tar archive at byte 2051: found bytes behind the end, needed zeros"]
    );
    let mut latin = entry("a", b'0', b"");
    latin[0] = 0xff;
    checksum(&mut latin[..512]);
    assert_eq!(odd(&ended(&[latin])), ["tar entry `\u{fffd}` at byte 0: the name is not UTF-8"]);
}

#[test]
fn refuses_what_is_broken() {
    let text = |bytes: &[u8]| open(bytes).unwrap_err();
    let format = |text: &str| (ErrorKind::Format, text.to_owned());
    let a = entry("a", b'0', b"1");
    let mut flipped = a.clone();
    flipped[0] = b'b';
    assert_eq!(
        text(&flipped),
        format("tar header at byte 148: found a checksum that is not the header's, needed its sum in octal")
    );
    assert_eq!(text(&a[..99]), format("tar header at byte 0 ends early: found 99 bytes, needed 512"));
    assert_eq!(text(&a[..512]), format("tar entry `a` at byte 512 ends early: found 0 bytes, needed 1"));
    let mut size = a.clone();
    size[124..136].copy_from_slice(b"0000000000x\0");
    checksum(&mut size[..512]);
    assert_eq!(text(&size), format("tar header at byte 124: found no size, needed a number in octal"));
    for records in [&b"x path=a\n"[..], b"99 path=a\n", b"10 path=ab", b"7 path\n", b"3 \n"] {
        let bytes = ended(&[entry("x", b'x', records), a.clone()]);
        assert_eq!(
            text(&bytes),
            format("extended tar header at byte 512: found other bytes, needed `length key=value`"),
            "{records:?}"
        );
    }
    assert_eq!(
        text(&ended(&[entry("x", b'x', &record("size", "-1")), a.clone()])),
        format("extended tar header at byte 512: found size `-1`, needed a number")
    );
    let limited = |limits: Limits| {
        let bytes = ended(&[entry("x", b'x', &record("path", "abcdef")), a.clone(), a.clone()]);
        Tar::open(memory(bytes), &limits).unwrap_err().to_string()
    };
    assert_eq!(
        limited(Limits::default().with_members(1)),
        "entries of the tar archive at byte 2048: found 2, the limit is 1; `Limits::members` can raise it"
    );
    assert_eq!(
        limited(Limits::default().with_name_bytes(5)),
        "bytes of the name of the tar entry at byte 1024: found 6, the limit is 5; `Limits::name_bytes` can raise it"
    );
    assert_eq!(
        limited(Limits::default().with_header_bytes(5)),
        "bytes of the extended tar header at byte 512: found 15, the limit is 5; `Limits::header_bytes` can raise it"
    );
}

//! What is read of archives that are well formed.

use tensafe_container::{CrcState, ErrorKind, FlawKind, Limits, Zip};
use tensafe_io::Source as _;

use crate::{
    all, memory,
    zips::{Archive, End64, Part, archive, descriptor, extra, two},
};

fn open(archive: &Archive) -> Zip {
    let zip = Zip::open(memory(archive.bytes()), &Limits::default()).unwrap();
    assert_eq!(zip.flaws(), []);
    zip
}

fn bytes(zip: &Zip, name: &str) -> Vec<u8> {
    let member = zip.find(name).unwrap();
    assert_eq!(zip.check_crc(member).unwrap(), CrcState::Matches);
    all(&zip.read(member).unwrap())
}

#[test]
fn reads_stored_and_deflated_members() {
    let text = b"again and again and again".repeat(9);
    let zip = open(&archive([Part::stored("a/b", b"first"), Part::deflated("c", &text)]));
    assert_eq!(bytes(&zip, "a/b"), b"first");
    assert_eq!(bytes(&zip, "c"), text);
    assert!(zip.find("a").is_none() && zip.find("").is_none() && zip.find("d").is_none());
    let [stored, deflated] = zip.members() else { panic!() };
    assert_eq!((stored.name(), stored.range(), stored.is_stored()), ("a/b", 33..38, true));
    assert_eq!((deflated.method(), deflated.bytes(), deflated.header_offset()), (8, 225, 38));
    assert_eq!(deflated.compressed_bytes(), deflated.range().end - deflated.range().start);
    assert!(zip.unaccounted().is_empty() && zip.flaws_left_out() == 0);
}

#[test]
fn a_stored_member_is_a_window_of_the_archive() {
    let bytes = two().bytes();
    let zip = Zip::open(memory(&bytes), &Limits::default()).unwrap();
    let second = zip.read(zip.find("b").unwrap()).unwrap();
    assert_eq!((second.len(), all(&second)), (6, b"second".to_vec()));
    let mut out = [0; 3];
    second.read_at(3, &mut out).unwrap();
    assert_eq!(&out, b"ond");
    let error = second.read_at(4, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "the file ends early: at offset 4 found 2 bytes, needed 3");
}

#[test]
fn reads_empty_archives_and_directories() {
    assert_eq!(open(&archive([])).members().len(), 0);
    let zip = open(&archive([Part::stored("a/", b""), Part::stored("a/b", b"")]));
    assert!(zip.members()[0].is_directory() && !zip.members()[1].is_directory());
    assert_eq!(bytes(&zip, "a/b"), b"");
}

#[test]
fn reads_descriptors_of_every_form() {
    let signed = descriptor(b"first");
    let long = |descriptor: &[u8]| {
        let at = descriptor.len() - 8;
        let widen = |size: &[u8]| [size, &[0; 4]].concat();
        [&descriptor[..at], &widen(&descriptor[at..at + 4]), &widen(&descriptor[at + 4..])].concat()
    };
    for form in [signed[4..].to_vec(), signed.clone(), long(&signed[4..]), long(&signed)] {
        let streamed = Part::stored("a", b"first").streamed(&form);
        let zip = open(&archive([streamed.clone(), Part::stored("b", b"second")]));
        assert_eq!((bytes(&zip, "a"), bytes(&zip, "b")), (b"first".to_vec(), b"second".to_vec()));
        assert_eq!(bytes(&open(&archive([streamed])), "a"), b"first");
    }
    let empty = descriptor(b"");
    for form in [empty[4..].to_vec(), empty.clone(), long(&empty[4..]), long(&empty)] {
        open(&archive([Part::stored("a", b"").streamed(&form), Part::stored("b", b"second")]));
    }
}

#[test]
fn torch_writes_so() {
    // Flags 0x0808, padding in the local header alone, no sizes before the data, and zip64 records
    // always.
    let padded = Part::stored("archive/data.pkl", b"\x80\x02N.").streamed(&descriptor(b"\x80\x02N."));
    let padded = padded.both(|fields| fields.flags = 0x0808).with(|part| {
        part.local.extra = extra(u16::from_le_bytes(*b"FB"), &[b'Z'; 14]);
    });
    let unsummed = Part::stored("archive/data/0", &[1; 8]).both(|fields| fields.crc = 0);
    let torch = archive([padded, unsummed]).with(|torch| torch.zip64 = Some(End64::default()));
    let zip = open(&torch);
    assert_eq!(bytes(&zip, "archive/data.pkl"), b"\x80\x02N.");
    let unsummed = zip.find("archive/data/0").unwrap();
    assert_eq!(zip.check_crc(unsummed).unwrap(), CrcState::NotWritten);
    assert_eq!(all(&zip.read(unsummed).unwrap()), [1; 8]);
}

#[test]
fn zip64_fields_stand_in_for_saturated_ones() {
    let sizes = [5_u64.to_le_bytes(), 5_u64.to_le_bytes()].concat();
    let with_offset = [&*sizes, &0_u64.to_le_bytes()].concat();
    let part = Part::stored("a", b"first").both(|fields| {
        (fields.compressed, fields.bytes) = (u32::MAX, u32::MAX);
        fields.extra = extra(1, &sizes);
    });
    let part = part.with(|part| {
        part.central.extra = extra(1, &with_offset);
        part.offset = Some(u32::MAX);
    });
    let zip = open(&archive([part]).with(|archive| archive.zip64 = Some(End64::default())));
    assert_eq!(bytes(&zip, "a"), b"first");
}

#[test]
fn an_inner_archive_is_not_taken_for_the_end() {
    let inner = two().bytes();
    let zip = open(&archive([Part::stored("inner.zip", &inner)]));
    assert_eq!(bytes(&zip, "inner.zip"), inner);
}

#[test]
fn says_whether_the_checksum_is_right() {
    let wrong = Part::stored("a", b"first").both(|fields| fields.crc = 7);
    let zip = Zip::open(memory(archive([wrong]).bytes()), &Limits::default()).unwrap();
    let state = zip.check_crc(&zip.members()[0]).unwrap();
    assert_eq!(state, CrcState::Differs { found: 0x9271_ee57, needed: 7 });
}

#[test]
fn the_last_of_two_members_is_found() {
    let twice = archive([Part::stored("a", b"1"), Part::stored("a", b"2"), Part::stored("A", b"3")]);
    let zip = Zip::survey(memory(twice.bytes()), &Limits::default()).unwrap();
    assert_eq!(all(&zip.read(zip.find("a").unwrap()).unwrap()), b"2");
}

#[test]
fn bytes_of_nothing_can_be_looked_into() {
    let odd = two().with(|two| {
        two.parts[1].before = b"gap".to_vec();
        two.before_directory = b"last".to_vec();
        two.suffix = b"behind".to_vec();
        two.prefix = b"before".to_vec();
    });
    let zip = Zip::survey(memory(odd.bytes()), &Limits::default()).unwrap();
    let mut ranges = zip.unaccounted().to_vec();
    ranges.sort_by_key(|range| range.start);
    assert_eq!(ranges, [0..6, 42..45, 82..86, 202..208]);
}

#[test]
fn what_cannot_be_read_says_so() {
    let read = |part: Part| {
        let zip = Zip::survey(memory(archive([part]).bytes()), &Limits::default()).unwrap();
        let error = zip.read(&zip.members()[0]).unwrap_err();
        (error.kind(), crate::chain(&error))
    };
    let stored = || Part::stored("a", b"first");
    assert_eq!(
        read(stored().both(|fields| fields.flags = 1)),
        (
            ErrorKind::Unsupported,
            "zip member `a` at byte 0: found an encrypted member, which is not read here".into()
        )
    );
    assert_eq!(
        read(stored().both(|fields| fields.method = 14)),
        (
            ErrorKind::Unsupported,
            "zip member `a` at byte 0: found compression method 14, which is not read here".into()
        )
    );
    assert_eq!(
        read(stored().with(|part| part.offset = Some(3))),
        (
            ErrorKind::Format,
            "zip member `a` at byte 3: found no bytes within the archive, needed a local header and its data"
                .into()
        )
    );
    assert_eq!(
        read(stored().both(|fields| fields.method = 8)),
        (
            ErrorKind::Format,
            "zip member `a` is damaged at or before byte 31: deflate decompression error".into()
        )
    );
    let deflated = || Part::deflated("a", &[7; 100]);
    assert_eq!(
        read(deflated().both(|fields| fields.bytes = 99)),
        (ErrorKind::Format, "zip member `a` at byte 31: found 100 bytes decompressed, needed 99".into())
    );
    let longer = deflated().both(|fields| fields.compressed += 2).with(|part| part.data.extend(b"??"));
    assert_eq!(
        read(longer),
        (
            ErrorKind::Format,
            "zip member `a` at byte 47: found 2 bytes behind the compressed ones, needed none".into()
        )
    );
    let shorter =
        deflated().both(|fields| fields.compressed -= 1).with(|part| part.data.truncate(part.data.len() - 1));
    assert_eq!(
        read(shorter),
        (ErrorKind::Format, "zip member `a` at byte 46 ends early: found 0 bytes, needed 1".into())
    );
}

#[test]
fn what_is_no_archive_says_so() {
    let text = |bytes: &[u8]| {
        let error = Zip::survey(memory(bytes), &Limits::default()).unwrap_err();
        (error.kind(), error.to_string())
    };
    let needed = "needed `PK\\x05\\x06` and 18 bytes";
    assert_eq!(
        text(b""),
        (ErrorKind::Format, format!("zip archive at byte 0: found no end record in 0 bytes, {needed}"))
    );
    assert_eq!(
        text(b"PK\x05\x06"),
        (ErrorKind::Format, format!("zip archive at byte 0: found no end record in 4 bytes, {needed}"))
    );
    let bytes = two().with(|two| two.end.bytes = Some(500)).bytes();
    assert_eq!(
        text(&bytes),
        (
            ErrorKind::Format,
            "zip directory at byte 167: found 500 bytes before the end record, needed at most 167".into()
        )
    );
    let limits = Limits::default().with_header_bytes(9);
    let error = Zip::survey(memory(two().bytes()), &limits).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (
            ErrorKind::Limit,
            "bytes of the zip directory at byte 73: found 94, the limit is 9; `Limits::header_bytes` can raise it"
                .into()
        )
    );
}

#[test]
fn flaws_are_of_the_kind_that_is_to_blame() {
    let kind =
        |part: Part| Zip::open(memory(archive([part]).bytes()), &Limits::default()).unwrap_err().kind();
    let stored = || Part::stored("a", b"first");
    assert_eq!(kind(stored().both(|fields| fields.flags = 1)), ErrorKind::Unsupported);
    assert_eq!(kind(stored().both(|fields| fields.method = 1)), ErrorKind::Unsupported);
    assert_eq!(kind(stored().with(|part| part.local.crc = 1)), ErrorKind::Format);
    let many = Zip::open(memory(two().bytes()), &Limits::default().with_members(1)).unwrap_err();
    assert_eq!(many.kind(), ErrorKind::Limit);
}

#[test]
fn every_name_that_is_not_safe_is_grave() {
    let names: [&[u8]; 9] = [b"", b"/a", b"a\\b", b"a\0b", b"a\x1bb", b"a\x7f", b"C:a", b"a/../b", b".."];
    for name in names {
        let part = Part::stored("a", b"").both(|fields| fields.name = name.to_vec());
        let error = Zip::open(memory(archive([part]).bytes()), &Limits::default()).unwrap_err();
        assert_eq!(error.as_flaw().unwrap().kind(), FlawKind::UnsafeName, "{name:?}");
    }
    let safe = ["a..b", "...", "a/.b", "a b", "\u{e4}/\u{1f600}"];
    for name in safe {
        let part = Part::stored(name, b"").both(|fields| fields.flags = 0x0800);
        open(&archive([part]));
    }
}

//! One archive for each kind of flaw, with the whole text of what is said of it.

use std::collections::BTreeSet;

use tensafe_container::{Flaw, FlawKind, Limits, Zip};

use crate::{
    memory,
    zips::{Archive, End64, Part, archive, descriptor, extra, two},
};

/// An archive and the texts of its flaws.
struct Case {
    kind: FlawKind,
    bytes: Vec<u8>,
    limits: Limits,
    texts: &'static [&'static str],
}

fn case(kind: FlawKind, archive: &Archive, texts: &'static [&'static str]) -> Case {
    Case { kind, bytes: archive.bytes(), limits: Limits::default(), texts }
}

fn one(change: impl FnOnce(&mut Part)) -> Archive {
    archive([Part::stored("a", b"first").with(change)])
}

/// Local header and directory differ.
fn differences() -> Vec<Case> {
    vec![
        case(
            FlawKind::NameDiffers,
            &one(|a| a.local.name = b"\x1b".to_vec()),
            &[
                "zip member `a` at byte 0: local header and directory differ in the name: found `\\u{1b}`, needed `a`",
            ],
        ),
        case(
            FlawKind::MethodDiffers,
            &one(|a| a.local.method = 8),
            &["zip member `a` at byte 0: local header and directory differ in the method: found 8, needed 0"],
        ),
        case(
            FlawKind::FlagsDiffer,
            &one(|a| a.local.flags = 1),
            &[
                "zip member `a` at byte 0: local header and directory differ in the flags: found 0x0001, needed 0x0000",
            ],
        ),
        case(
            FlawKind::SizesDiffer,
            &one(|a| a.local.bytes = 0),
            &["zip member `a` at byte 0: local header and directory differ in the sizes: found 0 bytes, 5 \
             compressed, needed 5, 5 compressed"],
        ),
        case(
            FlawKind::CrcDiffers,
            &one(|a| a.local.crc = 0),
            &[
                "zip member `a` at byte 0: local header and directory differ in the checksum: found 0x00000000, \
             needed 0x9271ee57",
            ],
        ),
        case(
            FlawKind::LocalHeaderMissing,
            &one(|a| a.offset = Some(1)),
            &[
                "zip member `a` at byte 1: no local header: found other bytes, needed `PK\\x03\\x04` and 26 bytes",
                "zip archive at byte 0: bytes before the first member: found 36 bytes, needed none",
                "zip archive at byte 0: a local header that the directory does not name: found `PK\\x03\\x04`, \
             needed every member in the directory",
            ],
        ),
    ]
}

/// What an entry says by itself.
fn entries() -> Vec<Case> {
    let both = |change: fn(&mut crate::zips::Fields)| archive([Part::stored("a", b"first").both(change)]);
    vec![
        case(
            FlawKind::Encrypted,
            &both(|fields| fields.flags = 1),
            &["zip member `a` at byte 36: the member is encrypted: found flags 0x0001, needed bit 0 unset"],
        ),
        case(
            FlawKind::UnknownFlags,
            &both(|fields| fields.flags = 0x60),
            &["zip member `a` at byte 36: unknown flags: found flags 0x0060, needed 0x0060 unset"],
        ),
        case(
            FlawKind::UnknownMethod,
            &both(|fields| fields.method = 12),
            &[
                "zip member `a` at byte 36: unknown compression method: found method 12, needed 0, stored, or 8, \
             deflated",
            ],
        ),
        case(
            FlawKind::NewerVersion,
            &one(|a| a.central.version = 0x140),
            &["zip member `a` at byte 36: a newer version is needed: found 6.4, needed at most 6.3"],
        ),
        case(
            FlawKind::MultiDisk,
            &one(|a| a.disk = 2),
            &["zip member `a` at byte 36: the archive spans disks: found disk 2, needed disk 0"],
        ),
        case(
            FlawKind::StoredSizes,
            &both(|fields| fields.bytes = 6),
            &[
                "zip member `a` at byte 36: a stored member has two sizes: found 5 bytes stored of 6, needed the same",
            ],
        ),
        case(
            FlawKind::DirectoryWithBytes,
            &both(|fields| fields.name = b"a/".to_vec()),
            &["zip member `a/` at byte 37: a directory holds bytes: found 5 bytes, needed none"],
        ),
        case(
            FlawKind::SymbolicLink,
            &one(|a| (a.made_by, a.mode) = (0x314, 0o120_777)),
            &["zip member `a` at byte 36: a symbolic link: found mode 120777, needed a plain file"],
        ),
        case(
            FlawKind::MemberOutside,
            &both(|fields| (fields.compressed, fields.bytes) = (99, 99)),
            &[
                "zip member `a` at byte 0: the member reaches beyond the archive: found bytes 31..130, needed an end \
             up to byte 105",
                "zip archive at byte 0: bytes before the first member: found 36 bytes, needed none",
                "zip archive at byte 0: a local header that the directory does not name: found `PK\\x03\\x04`, \
             needed every member in the directory",
            ],
        ),
        case(
            FlawKind::ExtraField,
            &one(|a| a.central.extra = vec![9, 0, 5, 0, 1]),
            &[
                "zip member `a` at byte 36: the extra fields are not well formed: found field 0x0009 of 5 bytes \
             where 1 are left, needed whole fields",
            ],
        ),
        Case {
            kind: FlawKind::Ratio,
            bytes: archive([Part::deflated("a", &[0; 1000]).both(|fields| fields.bytes = 65 << 20)]).bytes(),
            limits: Limits::default(),
            texts: &[
                "zip member `a` at byte 48: the member grows beyond the limits: found 68157440 bytes of 17 \
                      compressed, needed at most 67108864; `Limits` can raise it",
            ],
        },
    ]
}

/// What members are called.
fn names() -> Vec<Case> {
    let path = [&[1][..], &crc32fast::hash(b"a").to_le_bytes(), b"b"].concat();
    vec![
        case(
            FlawKind::DuplicateName,
            &archive([Part::stored("a", b"1"), Part::stored("a", b"2")]),
            &["zip member `a` at byte 111: the name stands twice: found another at byte 64, needed one"],
        ),
        case(
            FlawKind::CaseTwin,
            &archive([Part::stored("a", b"1"), Part::stored("A", b"2")]),
            &[
                "zip member `A` at byte 111: the name differs from another only in case: found `a`, needed names that \
             differ otherwise",
            ],
        ),
        case(
            FlawKind::UnsafeName,
            &archive([Part::stored("../a", b"1")]),
            &[
                "zip member `../a` at byte 35: the name is not safe: found a `..` component, needed a relative path",
            ],
        ),
        case(
            FlawKind::NameNotUtf8,
            &archive([Part::stored("a", b"1").both(|fields| fields.name = b"a\xff".to_vec())]),
            &[
                "zip member `a\u{fffd}` at byte 33: the name is not UTF-8: found a name beyond ASCII, not marked as \
               UTF-8, needed flag 0x0800",
            ],
        ),
        case(
            FlawKind::UnicodePathDiffers,
            &one(|a| a.central.extra = extra(0x7075, &path)),
            &["zip member `a` at byte 36: the unicode path is another name: found `b`, needed the same name"],
        ),
        Case {
            kind: FlawKind::NameTooLong,
            bytes: archive([Part::stored("abc", b"")]).bytes(),
            limits: Limits::default().with_name_bytes(2),
            texts: &["zip member `abc` at byte 33: the name is too long: found 3 bytes, needed at most 2; \
                      `Limits::name_bytes` can raise it"],
        },
    ]
}

/// Which bytes belong to what.
fn layout() -> Vec<Case> {
    let inner = archive([Part::stored("b", b"hidden")]).bytes();
    let outer = Part::stored("a", &inner);
    let overlap = archive([outer, Part::stored("b", b"hidden").with(|b| b.offset = Some(31))]);
    // The second member's own header and data are not written: what it names is in the first.
    let overlap = overlap.bytes();
    let mut cut = overlap.clone();
    let (start, len) = (31 + inner.len(), 30 + 1 + 6);
    cut.drain(start..start + len);
    let end = cut.len() - 22 + 16;
    let offset = u32::from_le_bytes(cut[end..end + 4].try_into().unwrap()) - u32::try_from(len).unwrap();
    cut[end..end + 4].copy_from_slice(&offset.to_le_bytes());
    let streamed = |bytes: &[u8]| archive([Part::stored("a", b"first").streamed(bytes)]);
    vec![
        Case {
            kind: FlawKind::Overlap,
            bytes: cut,
            limits: Limits::default(),
            texts: &[
                "zip member `b` at byte 31: members overlap: found `a` up to byte 137, needed bytes 31..68 for \
                      it alone",
            ],
        },
        case(
            FlawKind::Gap,
            &two().with(|two| two.parts[1].before = b"???".to_vec()),
            &["zip archive at byte 36: bytes that belong to no member: found 3 bytes, needed none"],
        ),
        case(
            FlawKind::HiddenMember,
            &two().with(|two| two.parts[1].hidden = true),
            &[
                "zip archive at byte 36: a local header that the directory does not name: found `PK\\x03\\x04`, needed \
             every member in the directory",
            ],
        ),
        case(
            FlawKind::Prefix,
            &two().with(|two| two.prefix = b"#!".to_vec()),
            &["zip archive at byte 0: bytes before the first member: found 2 bytes, needed none"],
        ),
        case(
            FlawKind::DescriptorDiffers,
            &streamed(&descriptor(b"other")),
            &[
                "zip member `a` at byte 36: the data descriptor disagrees with the directory: found \
             504b0708203558d90500000005000000, \
             needed checksum 0x9271ee57, 5 bytes, 5 compressed",
                "zip archive at byte 36: bytes that belong to no member: found 16 bytes, needed none",
            ],
        ),
        case(
            FlawKind::DescriptorMissing,
            &streamed(b""),
            &["zip member `a` at byte 36: the data descriptor is missing: found no bytes, needed 12 to 24"],
        ),
    ]
}

/// The end of the archive, and the directory.
fn ends() -> Vec<Case> {
    let members = |members| two().with(|two| two.end.members = Some(members));
    let zip64 = |end64| two().with(|two| two.zip64 = Some(end64));
    vec![
        case(
            FlawKind::Suffix,
            &two().with(|two| two.suffix = b"?".to_vec()),
            &["zip archive at byte 189: bytes behind the end record: found 1 byte, needed none"],
        ),
        case(
            FlawKind::CommentEndsEarly,
            &two().with(|two| two.end.comment = Some(7)),
            &["zip archive at byte 167: the comment ends early: found 22 bytes, needed 29 bytes"],
        ),
        case(
            FlawKind::CommentEndRecord,
            &two().with(|two| two.comment = b"PK\x05\x06".to_vec()),
            &[
                "zip archive at byte 167: the comment holds an end record: found an end record at byte 189 too, needed \
               one",
            ],
        ),
        case(
            FlawKind::SeveralEndRecords,
            // An end record whose comment is all of the archive's own end record.
            &two().with(|two| two.before_directory = end_with_comment(94 + 22)),
            &[
                "zip archive at byte 189: several end records: found an end record at byte 73 too, needed one",
                "zip archive at byte 73: bytes that belong to no member: found 22 bytes, needed none",
            ],
        ),
        case(
            FlawKind::MultiDisk,
            &two().with(|two| two.end.disk = 1),
            &[
                "zip archive at byte 167: the archive spans disks: found disk 1, directory on disk 1, 2 of 2 members, \
             needed one disk",
            ],
        ),
        case(
            FlawKind::Zip64Differs,
            &zip64(End64 { members: Some(3), ..End64::default() }),
            &[
                "zip archive at byte 167: the zip64 records disagree: found disk 0, 3 members, 94 bytes of directory from \
             73 on, needed disk 0, 2 members, 94 bytes of directory from 73 on",
                "zip archive at byte 73: the number of members differs: found 2 in the directory, needed 3 by the end \
             record",
            ],
        ),
        case(
            FlawKind::DirectoryCount,
            &members(3),
            &[
                "zip archive at byte 73: the number of members differs: found 2 in the directory, needed 3 by the end \
             record",
            ],
        ),
        case(
            FlawKind::DirectoryEndsEarly,
            &two().with(|two| {
                two.behind_directory = b"PK\x01\x02".to_vec();
                two.end.bytes = Some(98);
            }),
            &[
                "zip archive at byte 167: the directory ends early: found 4 bytes after 2 members, needed an entry",
            ],
        ),
        case(
            FlawKind::DirectoryPlace,
            &two().with(|two| two.behind_directory = b"?".to_vec()),
            &[
                "zip archive at byte 168: the directory is not where the end record says: found byte 73, needed byte 74",
            ],
        ),
        Case {
            kind: FlawKind::TooManyMembers,
            bytes: two().bytes(),
            limits: Limits::default().with_members(1),
            texts: &[
                "zip archive at byte 120: too many members: found 2 announced, and more than 1, needed at most 1; \
                 `Limits::members` can raise it",
                "zip archive at byte 36: a local header that the directory does not name: found `PK\\x03\\x04`, \
                 needed every member in the directory",
            ],
        },
    ]
}

fn end_with_comment(len: u16) -> Vec<u8> {
    [b"PK\x05\x06".as_slice(), &[0; 16], &len.to_le_bytes()].concat()
}

fn cases() -> Vec<Case> {
    [differences(), entries(), names(), layout(), ends()].into_iter().flatten().collect()
}

#[test]
fn each_kind_has_its_text() {
    for Case { kind, bytes, limits, texts } in cases() {
        let zip = Zip::survey(memory(&bytes), &limits).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        let found: Vec<String> = zip.flaws().iter().map(Flaw::to_string).collect();
        assert_eq!(found, texts, "{kind:?}");
        assert!(zip.flaws().iter().any(|flaw| flaw.kind() == kind), "{kind:?}");
    }
}

#[test]
fn opening_refuses_what_is_grave_and_nothing_else() {
    for Case { kind, bytes, limits, .. } in cases() {
        let survey = Zip::survey(memory(&bytes), &limits).unwrap();
        match Zip::open(memory(&bytes), &limits) {
            Ok(zip) => {
                assert!(!kind.grave(), "{kind:?} is grave and was accepted");
                assert_eq!(zip.flaws(), survey.flaws());
            }
            Err(error) => {
                assert!(kind.grave(), "{kind:?}: {error}");
                let first = survey.flaws().iter().find(|flaw| flaw.grave()).unwrap();
                assert_eq!(error.as_flaw(), Some(first), "{kind:?}");
                assert_eq!(error.to_string(), first.to_string());
                assert_eq!(error.offset(), Some(first.offset()));
            }
        }
    }
}

#[test]
fn no_kind_is_without_a_case() {
    let tested: BTreeSet<FlawKind> = cases().into_iter().map(|case| case.kind).collect();
    let missing: Vec<_> = FlawKind::ALL.iter().filter(|kind| !tested.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn zip64_records_have_to_agree_in_every_way() {
    let text = |end64: End64| {
        let bytes = two().with(|two| two.zip64 = Some(end64)).bytes();
        Zip::open(memory(bytes), &Limits::default()).unwrap_err().to_string()
    };
    assert_eq!(
        text(End64 { place: Some(9), ..End64::default() }),
        "zip archive at byte 223: the zip64 records disagree: found a record at byte 9, needed at byte 167"
    );
    assert_eq!(
        text(End64 { size: Some(45), ..End64::default() }),
        "zip archive at byte 167: the zip64 records disagree: found a record of 45 bytes, needed 44"
    );
    assert_eq!(
        text(End64 { signature: Some(*b"PK\x06\x05"), ..End64::default() }),
        "zip archive at byte 167: the zip64 records disagree: found no record, needed `PK\\x06\\x06`"
    );
    assert_eq!(
        text(End64 { disks: Some(2), ..End64::default() }),
        "zip archive at byte 223: the archive spans disks: found disk 0 of 2, needed one disk"
    );
}

//! No bytes make a reader panic, and what it names is there.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::Index};
use tensafe_container::{Limits, Npy, Tar, Zip, detect};

use crate::{
    memory,
    zips::{End64, Part, archive, descriptor, extra},
};

fn limits() -> Limits {
    Limits::default().with_decompressed_bytes(1 << 20).with_header_bytes(1 << 20)
}

/// Everything that can be asked of some bytes.
fn ask(bytes: &[u8]) {
    let source = memory(bytes);
    let _ = detect(&source);
    let _ = Npy::read(&source, 0, &limits());
    let _ = Npy::read(&source, u64::MAX, &limits());
    if let Ok(tar) = Tar::open(Arc::clone(&source), &limits()) {
        for entry in tar.entries() {
            assert!(entry.range().end <= source.len());
            let _ = tar.read(entry);
        }
    }
    let opened = Zip::open(Arc::clone(&source), &limits());
    let Ok(zip) = Zip::survey(Arc::clone(&source), &limits()) else {
        assert!(opened.is_err(), "what cannot be surveyed cannot be opened");
        return;
    };
    assert_eq!(opened.is_ok(), !zip.flaws().iter().any(|flaw| flaw.grave()));
    for member in zip.members() {
        let range = member.range();
        assert!(range.start <= range.end && range.end <= source.len());
        let _ = (zip.read(member), zip.check_crc(member));
        assert_eq!(zip.find(member.name()).map(|found| found.name()), Some(member.name()));
    }
    for range in zip.unaccounted() {
        assert!(range.start < range.end && range.end <= source.len());
    }
}

fn rich_archive() -> Vec<u8> {
    let padded =
        Part::stored("archive/data.pkl", b"\x80\x02N.").with(|part| part.local.extra = extra(0x4246, b"ZZ"));
    let sizes = extra(1, &[[5, 0, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]].concat());
    let long = Part::stored("long", b"first").both(|fields| {
        (fields.bytes, fields.compressed, fields.extra) = (u32::MAX, u32::MAX, sizes.clone());
    });
    let streamed = Part::deflated("c", &[5; 300]).with(|part| part.before = Vec::new());
    let streamed_data = streamed.data.clone();
    let tail = [b"PK\x07\x08".as_slice(), &crc32fast::hash(&[5; 300]).to_le_bytes()].concat();
    let sizes = [u32::try_from(streamed_data.len()).unwrap().to_le_bytes(), 300_u32.to_le_bytes()].concat();
    let streamed = streamed.streamed(&[tail, sizes].concat());
    let plain = Part::stored("d/e", b"x").streamed(&descriptor(b"x"));
    archive([padded, long, streamed, plain]).with(|archive| archive.zip64 = Some(End64::default())).bytes()
}

#[test]
fn the_archive_that_is_mutated_is_fine() {
    let zip = Zip::open(memory(rich_archive()), &limits()).unwrap();
    assert_eq!((zip.members().len(), zip.flaws()), (4, &[][..]));
}

#[test]
fn every_prefix_of_an_archive_is_answered() {
    let bytes = rich_archive();
    (0..bytes.len()).for_each(|len| ask(&bytes[..len]));
    (0..bytes.len()).for_each(|start| ask(&bytes[start..]));
}

#[test]
fn every_flipped_byte_is_answered() {
    let bytes = rich_archive();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            ask(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..600)) {
        ask(&bytes);
    }

    #[test]
    fn no_heads_panic(head in 0..4_usize, bytes in vec(any::<u8>(), 0..600)) {
        let heads: [&[u8]; 4] = [b"PK\x03\x04", b"\x93NUMPY\x01\0\x20\0{'descr': ", b"\x80\x02", b"PK\x05\x06"];
        ask(&[heads[head], &bytes].concat());
        ask(&[&bytes, heads[head]].concat());
    }

    #[test]
    fn no_mutations_panic(changes in vec((any::<Index>(), any::<u8>()), 1..8), cut in any::<Option<Index>>()) {
        let mut bytes = rich_archive();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            let start = cut.index(bytes.len());
            bytes.drain(start..(start + 7).min(bytes.len()));
        }
        ask(&bytes);
    }
}

//! What bytes are taken for.

use tensafe_container::{Kind, detect};

use crate::{
    memory,
    zips::{archive, two},
};

fn kind(bytes: impl AsRef<[u8]>) -> Kind {
    detect(&memory(bytes)).unwrap()
}

#[test]
fn tells_by_magic() {
    let cases: [(&[u8], Kind); 13] = [
        (b"", Kind::Empty),
        (b"PK\x03\x04", Kind::Zip),
        (b"\x93NUMPY\x01\0", Kind::Npy),
        (b"\x1f\x8b\x08", Kind::Gzip),
        (b"\x78\x9c\x03", Kind::Zlib),
        (b"BZh9", Kind::Bzip2),
        (b"\xfd7zXZ\0", Kind::Xz),
        (b"\x04\x22\x4d\x18", Kind::Lz4),
        (b"\x28\xb5\x2f\xfd", Kind::Zstd),
        (b"ZF0x3b               ", Kind::JoblibZ),
        (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
        (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
        (b"GGUF\x03", Kind::Gguf),
    ];
    for (bytes, needed) in cases {
        assert_eq!(kind(bytes), needed, "{bytes:02x?}");
    }
}

#[test]
fn tells_what_has_no_magic() {
    let safetensors = [&[2, 0, 0, 0, 0, 0, 0, 0][..], b"{}"].concat();
    assert_eq!(kind(&safetensors), Kind::Safetensors);
    assert_eq!(kind(&safetensors[..9]), Kind::Unknown, "the header is not there");
    let lzma = b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0\x24\x19";
    assert_eq!(kind(lzma), Kind::Lzma);
    assert_eq!(kind(b"\x7fELF\x02\x01\x01"), Kind::Unknown);
    assert_eq!(kind(b"plain text, and more of it\n"), Kind::Unknown);
    assert_eq!(kind(b"import os\n"), Kind::Unknown);
    assert_eq!(kind(b"{\"a\": 1}"), Kind::Unknown);
    assert_eq!(kind(b"Vast plain text\nand more\n"), Kind::Pickle, "nothing tells it from protocol 0");
    assert_eq!(kind(b"Intro\n"), Kind::Unknown);
    assert_eq!(kind([0; 600]), Kind::Unknown);
}

#[test]
fn tells_pickles_of_every_protocol() {
    let long = [b"I".as_slice(), &[b'7'; 600], b"\n."].concat();
    let pickles: [&[u8]; 20] = [
        b"\x8c\x05posix\x8c\x06system\x93.",
        b"\x95\x03\0\0\0\0\0\0\0]\x94.",
        &long,
        b"U\x01ap0\n.",
        b"\x80\x02N.",
        b"\x80\x05\x95\0\0\0\0\0\0\0\0N.",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        b"cos\nsystem\n(S'id'\ntR.",
        b"(dp0\nS'a'\np1\nI1\ns.",
        b"(lp0\nI1\na.",
        b"(I1\nI2\nt.",
        b"I1\n.",
        b"L12L\n.",
        b"F1.5\n.",
        b"S'text'\np0\n.",
        b"Vtext\np0\n.",
        b"N.",
        b"}q\0.",
        b"K\x01.",
        b"X\x02\0\0\0abq\0.",
    ];
    for pickle in pickles {
        assert_eq!(kind(pickle), Kind::Pickle, "{pickle:02x?}");
    }
    assert_eq!(kind(b"\x80\x06N."), Kind::Unknown, "no such protocol");
}

#[test]
fn a_zip_is_found_from_its_end() {
    let zip = two().bytes();
    let before = |prefix: &[u8]| kind([prefix, &zip].concat());
    for prefix in [&b"\x80\x02N."[..], b"#!/bin/sh\n", b"\x93NUMPY", b"\x1f\x8b\x08", &[0; 600]] {
        assert_eq!(before(prefix), Kind::Zip, "{prefix:02x?}");
    }
    assert_eq!(kind(archive([]).bytes()), Kind::Zip);
    let inside = [b"\x80\x02", &*zip, b"N."].concat();
    assert_eq!(kind(inside), Kind::Pickle, "an archive within other bytes is not the file's end");
}

#[test]
fn kinds_have_names() {
    assert_eq!((Kind::JoblibZ.name(), Kind::Xz.to_string().as_str()), ("joblib zfile", "xz"));
    assert!(Kind::Lz4.is_compressed() && !Kind::Zip.is_compressed() && !Kind::SevenZip.is_compressed());
}

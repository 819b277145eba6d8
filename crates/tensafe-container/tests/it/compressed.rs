//! Compressed streams.

use std::{io::Write as _, sync::Arc};

use proptest::prelude::*;
use tensafe_container::{ErrorKind, Kind, Limits, decompress, detect};
use tensafe_io::Source;

use crate::{all, chain, memory};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new().content_checksum(true).block_checksums(true);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lzma(data: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(0);
    let mut encoder = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn joblib(data: &[u8]) -> Vec<u8> {
    [format!("ZF{:<19}", format!("0x{:x}", data.len())).into_bytes(), zlib(data)].concat()
}

type Encoder = fn(&[u8]) -> Vec<u8>;

const ALL: [(Kind, Encoder); 8] = [
    (Kind::Gzip, gzip),
    (Kind::Zlib, zlib),
    (Kind::Bzip2, bzip2),
    (Kind::Lz4, lz4),
    (Kind::Zstd, zstd),
    (Kind::Xz, xz),
    (Kind::Lzma, lzma),
    (Kind::JoblibZ, joblib),
];

fn undo(bytes: &[u8], kind: Kind) -> Result<Vec<u8>, (ErrorKind, String)> {
    undo_within(bytes, kind, &Limits::default())
}

fn undo_within(bytes: &[u8], kind: Kind, limits: &Limits) -> Result<Vec<u8>, (ErrorKind, String)> {
    let source: Result<Arc<dyn Source>, _> = decompress(memory(bytes), kind, limits);
    source.map(|source| all(&source)).map_err(|e| (e.kind(), chain(&e)))
}

/// Bytes that shrink, but not to nothing.
fn mixed(len: u32) -> Vec<u8> {
    let mut state = 1_u32;
    let step = |n: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if n.is_multiple_of(3) { state.to_be_bytes()[0] } else { 7 }
    };
    (0..len).map(step).collect()
}

#[test]
fn every_kind_is_undone() {
    for len in [0, 1, 1000, 700_000] {
        let data = mixed(len);
        for (kind, encode) in ALL {
            let bytes = encode(&data);
            assert_eq!(detect(&memory(&bytes)).unwrap(), kind, "{kind} of {len} bytes");
            assert!(undo(&bytes, kind).unwrap() == data, "{kind} of {len} bytes");
        }
    }
}

#[test]
fn what_is_large_goes_to_a_file() {
    let data = mixed(700_000);
    let limits = Limits::default().with_memory_bytes(1000);
    for (kind, encode) in ALL {
        let source = decompress(memory(encode(&data)), kind, &limits).unwrap();
        assert!(all(&source) == data, "{kind}");
        assert_eq!((source.path(), source.identity().unwrap()), (None, None));
        let mut out = [0; 9];
        source.read_at(699_991, &mut out).unwrap();
        assert_eq!(out, data[699_991..]);
        assert!(source.read_at(699_992, &mut out).is_err());
    }
}

#[test]
fn streams_of_one_kind_are_one() {
    for (kind, encode) in ALL {
        let twice = [encode(b"first"), encode(b"second")].concat();
        let one_only = matches!(kind, Kind::Zlib | Kind::Lzma | Kind::JoblibZ);
        match undo(&twice, kind) {
            Ok(data) => assert!(data == b"firstsecond" && !one_only, "{kind}"),
            Err((error, _)) => assert!(one_only && error == ErrorKind::Format, "{kind}"),
        }
    }
    let skippable = [b"\x5f\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &zstd(b"data")].concat();
    assert_eq!(undo(&skippable, Kind::Zstd).unwrap(), b"data");
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for (kind, encode) in ALL {
        let stream = encode(b"some data");
        let bytes = [&*stream, b"evil"].concat();
        let needed =
            format!("{kind} stream at byte {}: found 4 bytes behind its end, needed none", stream.len());
        assert_eq!(undo(&bytes, kind), Err((ErrorKind::Format, needed)));
    }
}

#[test]
fn streams_that_end_early_are_refused() {
    for (kind, encode) in ALL {
        let stream = encode(&mixed(300));
        for len in 0..stream.len() {
            let (error, text) = undo(&stream[..len], kind).unwrap_err();
            assert_eq!(error, ErrorKind::Format, "{kind} of {len} bytes: {text}");
        }
    }
}

#[test]
fn damage_is_found() {
    for (kind, encode) in ALL {
        // LZMA of the older format has no checksum, and the encoder of zstd writes none.
        if matches!(kind, Kind::Lzma | Kind::Zstd) {
            continue;
        }
        let data = mixed(300);
        let stream = encode(&data);
        for at in 0..stream.len() {
            let mut bytes = stream.clone();
            bytes[at] ^= 0x20;
            // What is no part of the content, such as gzip's time, may change.
            if let Ok(found) = undo(&bytes, kind) {
                assert!(found == data, "{kind} at byte {at}");
            }
        }
    }
}

#[test]
fn limits_hold() {
    let zeros = vec![0; 100_000];
    for (kind, encode) in ALL {
        let limits = Limits::default().with_decompressed_bytes(99_999);
        let (error, text) = undo_within(&encode(&zeros), kind, &limits).unwrap_err();
        assert_eq!(error, ErrorKind::Limit, "{kind}: {text}");
        assert!(text.starts_with(&format!("decompressed bytes of the {kind} stream at byte ")), "{text}");
        assert!(text.ends_with(", the limit is 99999; `Limits::decompressed_bytes` can raise it"), "{text}");
        assert_eq!(
            undo_within(&encode(&zeros), kind, &limits.with_decompressed_bytes(100_000)).unwrap(),
            zeros
        );
    }
    let streams = [gzip(b"1"), gzip(b"2")].concat();
    assert_eq!(
        undo_within(&streams, Kind::Gzip, &Limits::default().with_members(1)),
        Err((
            ErrorKind::Limit,
            "streams, one behind the other, of the gzip stream at byte 21: found 2, the limit is 1; \
             `Limits::members` can raise it"
                .into()
        ))
    );
    let bomb = xz(&vec![0; usize::try_from(Limits::RATIO_FREE_BYTES).unwrap() + 1]);
    let (error, text) = undo(&bomb, Kind::Xz).unwrap_err();
    assert!(
        error == ErrorKind::Limit && text.ends_with("the limit is 67108864; `Limits::ratio` can raise it"),
        "{text}"
    );
    undo_within(&bomb, Kind::Xz, &Limits::default().with_ratio(10_000)).unwrap();
}

#[test]
fn windows_are_limited() {
    let limits = Limits::default().with_window_bytes(64 << 10);
    let window = |bytes: &[u8], kind| undo_within(bytes, kind, &limits).unwrap_err();
    let mut large = lzma(b"data");
    large[1..5].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    assert_eq!(
        window(&large, Kind::Lzma),
        (
            ErrorKind::Limit,
            "bytes of window of the lzma stream at byte 0: found 1073780736, the limit is 65536; \
             `Limits::window_bytes` can raise it"
                .into()
        )
    );
    let (kind, text) = window(&xz(b"data"), Kind::Xz);
    assert!(
        kind == ErrorKind::Limit && text.starts_with("bytes of window of the xz stream at byte "),
        "{text}"
    );
    // A frame with a window of 1 MiB, and no blocks yet.
    let (kind, text) = window(b"\x28\xb5\x2f\xfd\0\x50\0\0\0", Kind::Zstd);
    assert_eq!(
        (kind, &*text),
        (
            ErrorKind::Limit,
            "bytes of window of the zstd stream at byte 0: found 1048576, the limit is 65536; \
             `Limits::window_bytes` can raise it"
        )
    );
}

#[test]
fn other_refusals_say_what_was_found() {
    assert_eq!(
        undo(b"PK", Kind::Zip),
        Err((
            ErrorKind::Unsupported,
            "compressed stream at byte 0: found a file of kind zip, which is not read here".into()
        ))
    );
    assert_eq!(
        undo(b"\x1f\x8b\x09\0\0\0\0\0\0\0", Kind::Gzip),
        Err((
            ErrorKind::Format,
            "gzip stream at byte 0: found no header of a gzip member, needed one that ends within 256 KiB"
                .into()
        ))
    );
    let mut stream = gzip(b"data");
    let end = stream.len() - 8;
    stream[end] ^= 1;
    assert_eq!(
        undo(&stream, Kind::Gzip),
        Err((
            ErrorKind::Format,
            format!("gzip stream at byte {end}: found checksum 0xadf3f363, needed 0xadf3f362")
        ))
    );
    stream[end] ^= 1;
    stream[end + 4] = 9;
    assert_eq!(
        undo(&stream, Kind::Gzip),
        Err((ErrorKind::Format, format!("gzip stream at byte {end}: found 4 bytes modulo 2^32, needed 9")))
    );
    let old = [b"ZF0x5                ".as_slice(), &zlib(b"data")].concat();
    assert_eq!(
        undo(&old, Kind::JoblibZ),
        Err((
            ErrorKind::Format,
            "joblib zfile stream at byte 0: found 4 bytes decompressed, needed 5".into()
        ))
    );
    assert_eq!(
        undo(b"ZFxyz", Kind::JoblibZ),
        Err((
            ErrorKind::Format,
            "joblib zfile stream at byte 0: found no length behind `ZF`, needed `0x`, digits, and spaces to 19 \
             characters"
                .into()
        ))
    );
    assert_eq!(
        undo(b"\x28\xb5\x2f\xfd\x21\x07\x04\0", Kind::Zstd),
        Err((
            ErrorKind::Unsupported,
            "zstd stream at byte 0: found a frame that needs dictionary 7, which is not read here".into()
        ))
    );
    assert_eq!(
        undo(b"\x04\x22\x4d\x18\x61\x40\0\0\0\0\0", Kind::Lz4),
        Err((
            ErrorKind::Unsupported,
            "lz4 stream at byte 0: found a frame that needs a dictionary, which is not read here".into()
        ))
    );
}

#[test]
fn joblib_of_32_bits_is_read() {
    let bytes = [b"ZF0x4        ".as_slice(), &zlib(b"data")].concat();
    assert_eq!(undo(&bytes, Kind::JoblibZ).unwrap(), b"data");
}

#[test]
fn gzip_headers_may_hold_everything() {
    let plain = gzip(b"data");
    let mut bytes = plain[..10].to_vec();
    bytes[3] = 0x1f;
    bytes.extend(b"\x02\0exname\0comment\0\0\0");
    bytes.extend(&plain[10..]);
    assert_eq!(undo(&bytes, Kind::Gzip).unwrap(), b"data");
}

proptest! {
    #[test]
    fn no_bytes_panic(which in 0..ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = undo(&bytes, ALL[which].0);
    }

    #[test]
    fn no_mutation_panics(
        which in 0..ALL.len(),
        len in 0..2000_u32,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (kind, encode) = ALL[which];
        let mut bytes = encode(&mixed(len));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = undo(&bytes, kind);
    }
}

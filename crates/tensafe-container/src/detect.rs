//! What bytes are, told by the bytes alone: a name or an extension is never looked at.
//!
//! Detection reads the head, and for zip archives also the tail, as an archive is found from its
//! end. It does not prove that the bytes are well formed: that is what opening them does.

use std::fmt;

use tensafe_io::Source;

use crate::{
    Error,
    bytes::{read_up_to, u64_at},
    tar, zip,
};

/// What bytes are, judged by content alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// There are no bytes.
    Empty,
    /// A zip archive, also one with bytes before it.
    Zip,
    /// A tar archive.
    Tar,
    /// One array of numpy.
    Npy,
    /// A gzip stream.
    Gzip,
    /// A zlib stream.
    Zlib,
    /// A bzip2 stream.
    Bzip2,
    /// An XZ stream.
    Xz,
    /// An LZMA stream of the older format, `.lzma`.
    Lzma,
    /// An LZ4 frame.
    Lz4,
    /// A Zstandard frame.
    Zstd,
    /// A `ZF` file of joblib before 0.10: a zlib stream behind its own header.
    JoblibZ,
    /// A 7-Zip archive.
    SevenZip,
    /// An HDF5 file.
    Hdf5,
    /// A GGUF file.
    Gguf,
    /// A safetensors file.
    Safetensors,
    /// A pickle: one that names its protocol, or what is plausible as the start of protocol 0 or 1.
    Pickle,
    /// None of the others.
    Unknown,
}

impl Kind {
    /// The word for it in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Zip => "zip",
            Self::Tar => "tar",
            Self::Npy => "npy",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::JoblibZ => "joblib zfile",
            Self::SevenZip => "7z",
            Self::Hdf5 => "hdf5",
            Self::Gguf => "gguf",
            Self::Safetensors => "safetensors",
            Self::Pickle => "pickle",
            Self::Unknown => "unknown",
        }
    }

    /// Whether [`decompress`](crate::decompress) undoes it.
    #[must_use]
    pub fn is_compressed(self) -> bool {
        matches!(
            self,
            Self::Gzip
                | Self::Zlib
                | Self::Bzip2
                | Self::Xz
                | Self::Lzma
                | Self::Lz4
                | Self::Zstd
                | Self::JoblibZ
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What begins with what; none of these can be the start of a pickle.
const MAGICS: [(&[u8], Kind); 10] = [
    (b"\x93NUMPY", Kind::Npy),
    (b"\x1f\x8b", Kind::Gzip),
    (b"BZh", Kind::Bzip2),
    (b"\xfd7zXZ\0", Kind::Xz),
    (b"\x04\x22\x4d\x18", Kind::Lz4),
    (b"\x28\xb5\x2f\xfd", Kind::Zstd),
    (b"ZF0x", Kind::JoblibZ),
    (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
    (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
    (b"GGUF", Kind::Gguf),
];

/// Says what the bytes are.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where they cannot be read.
///
/// # Cost
/// One read of 512 bytes, and one of up to 65,557 bytes at the end.
pub fn detect(source: &dyn Source) -> Result<Kind, Error> {
    if source.is_empty() {
        return Ok(Kind::Empty);
    }
    let head = read_up_to(source, 0, tar::BLOCK)?;
    // A zip with other bytes before it is read as zip by every reader of zips, whatever the bytes
    // before it pretend to be.
    if head.starts_with(b"PK\x03\x04") || zip::has_end_record(source)? {
        return Ok(Kind::Zip);
    }
    if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Ok(*kind);
    }
    if tar::is_header(&head) {
        return Ok(Kind::Tar);
    }
    let by_head = [
        (is_safetensors(&head, source.len()), Kind::Safetensors),
        (is_pickle(&head), Kind::Pickle),
        (is_zlib(&head), Kind::Zlib),
        (is_lzma(&head), Kind::Lzma),
    ];
    Ok(by_head.iter().find(|(is, _)| *is).map_or(Kind::Unknown, |(_, kind)| *kind))
}

/// A header length that fits the file, and a header that begins as JSON objects do.
fn is_safetensors(head: &[u8], bytes: u64) -> bool {
    let fits = |n: u64| n >= 2 && n.checked_add(8).is_some_and(|end| end <= bytes);
    u64_at(head, 0).is_some_and(fits) && head.get(8) == Some(&b'{')
}

/// Deflate with a window of at most 32 KiB, no dictionary, and the header's own check.
fn is_zlib(head: &[u8]) -> bool {
    let Some([method, flags]) = head.first_chunk::<2>() else { return false };
    let number = u16::from_be_bytes([*method, *flags]);
    method & 0x0f == 8 && method >> 4 <= 7 && flags & 0x20 == 0 && number.is_multiple_of(31)
}

/// The properties that writers use, a dictionary of a size that they choose, and a size that is
/// unknown or below 256 GiB, as `file` and xz judge it.
fn is_lzma(head: &[u8]) -> bool {
    let properties = head.first().is_some_and(|byte| *byte < 9 * 5 * 5);
    let dictionary = head.get(1..).and_then(|rest| rest.first_chunk().copied().map(u32::from_le_bytes));
    // A power of two, or one and a half of one.
    let likely = |d: u32| {
        let top = d.checked_next_power_of_two().map_or(0, |top| top >> 2);
        d >= 4096 && (d.is_power_of_two() || top.checked_mul(3) == Some(d) || d == u32::MAX)
    };
    let size = head.get(5..).and_then(|rest| rest.first_chunk().copied().map(u64::from_le_bytes));
    let first = head.get(13) == Some(&0);
    properties
        && first
        && dictionary.is_some_and(likely)
        && size.is_some_and(|s| s == u64::MAX || s < 1 << 38)
}

/// PROTO with a protocol that exists; else an opcode that a program can begin with, an argument that
/// suits it, and an opcode behind that. A head that breaks off within an argument decides nothing.
fn is_pickle(head: &[u8]) -> bool {
    let Some((first, rest)) = head.split_first() else { return false };
    match first {
        0x80 => rest.first().is_some_and(|protocol| *protocol <= 5) && rest.len() > 1,
        b'I' | b'L' | b'F' => {
            line(rest, |byte| byte.is_ascii_hexdigit() || b"+-._xXLinf".contains(&byte)).is_some()
        }
        b'S' => matches!(rest.first(), Some(b'\'' | b'"')) && line(rest, is_printable).is_some(),
        b'V' | b'P' => line(rest, is_printable).is_some_and(|rest| is_opcode(rest, 0)),
        // A module and a name.
        b'c' | b'i' => line(rest, is_printable).and_then(|rest| line(rest, is_printable)).is_some(),
        b'(' | b'}' | b']' | b')' | b'N' | 0x88 | 0x89 | 0x8f => is_opcode(rest, 0),
        b'K' => is_opcode(rest, 1),
        b'M' => is_opcode(rest, 2),
        b'J' => is_opcode(rest, 4),
        b'G' => is_opcode(rest, 8),
        b'U' | b'C' | 0x8a | 0x8c => counted(rest, 1),
        b'X' | b'T' | b'B' => counted(rest, 4),
        // A frame begins with an opcode.
        0x8d | 0x8e | 0x96 => counted(rest, 8),
        0x95 => u64_at(rest, 0).is_some_and(|len| len > 0) && is_opcode(rest, 8),
        _ => false,
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// What follows the first line, if that is not empty and of such bytes; nothing, where it is longer
/// than the head.
fn line(bytes: &[u8], fits: impl Fn(u8) -> bool) -> Option<&[u8]> {
    let len = bytes.iter().position(|byte| *byte == b'\n');
    let text = bytes.get(..len.unwrap_or(bytes.len()))?;
    let whole = len.is_some() || bytes.len() >= tar::BLOCK.saturating_sub(64);
    let plausible = whole && !text.is_empty() && text.iter().all(|byte| fits(*byte));
    plausible.then(|| len.and_then(|len| bytes.get(len.checked_add(1)?..)).unwrap_or_default())
}

/// Whether an opcode stands at `at`; where the head breaks off before, one may.
fn is_opcode(bytes: &[u8], at: usize) -> bool {
    const BEFORE_PROTOCOL_2: &[u8] = b"(.0123NIJKMLFGSTUVX}])lduatcqrpghjebRoisCB";
    match bytes.get(at) {
        Some(byte) => matches!(byte, 0x80..=0x98) || BEFORE_PROTOCOL_2.contains(byte),
        None => at >= tar::BLOCK.saturating_sub(64),
    }
}

/// A length of so many bytes, as many bytes, and an opcode.
fn counted(bytes: &[u8], width: usize) -> bool {
    let len = bytes.get(..width).unwrap_or_default().iter().rev();
    let len = len.fold(0_u64, |len, byte| len.saturating_mul(256).saturating_add((*byte).into()));
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(width));
    bytes.len() > width && end.is_some_and(|end| is_opcode(bytes, end))
}

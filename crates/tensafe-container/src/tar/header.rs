//! One header block of a tar archive, and the records of an extended header.

use super::{BLOCK, TarKind};
use crate::Error;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) kind: u8,
}

/// Whether a block is a header, by its checksum.
pub(crate) fn is_header(block: &[u8]) -> bool {
    block.len() >= BLOCK && block.iter().take(BLOCK).any(|byte| *byte != 0) && checksum(block).is_some()
}

/// The checksum, if it is right: the sum of the bytes, its own taken as spaces. Old writers summed
/// signed bytes.
fn checksum(block: &[u8]) -> Option<u64> {
    let written = number(block.get(148..156)?)?;
    let bytes = || block.iter().take(BLOCK).enumerate();
    let own = |at: usize| (148..156).contains(&at);
    let unsigned: u64 = bytes().map(|(at, byte)| if own(at) { 32 } else { u64::from(*byte) }).sum();
    let signed: i64 =
        bytes().map(|(at, byte)| if own(at) { 32 } else { i64::from(byte.cast_signed()) }).sum();
    (written == unsigned || i64::try_from(written).ok() == Some(signed)).then_some(written)
}

/// A number: octal digits with spaces and NULs around them, or binary behind a byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        return rest.iter().try_fold(0_u64, |n, byte| n.checked_mul(256)?.checked_add((*byte).into()));
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(field.get(..end)?).ok()?.trim_matches(' ');
    match text {
        "" => Some(0),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => u64::from_str_radix(text, 8).ok(),
        _ => None,
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The header of 512 bytes, which stands at byte `at`.
pub(super) fn parse(block: &[u8], at: u64) -> Result<Header, Error> {
    if checksum(block).is_none() {
        let place = at.saturating_add(148);
        return Err(Error::wrong(
            "tar header",
            place,
            "a checksum that is not the header's",
            "its sum in octal",
        ));
    }
    let field = |from: usize, to: usize| block.get(from..to).unwrap_or_default();
    let Some(size) = number(field(124, 136)) else {
        return Err(Error::wrong("tar header", at.saturating_add(124), "no size", "a number in octal"));
    };
    let kind = field(156, 157).first().copied().unwrap_or(0);
    let mut name = text(field(0, 100)).to_vec();
    // GNU's format uses the place of the prefix for times.
    let prefix = text(field(345, 500));
    let ustar = field(257, 263) == b"ustar\0";
    if ustar && !prefix.is_empty() && !matches!(kind, b'x' | b'g' | b'L' | b'K') {
        name = [prefix, b"/", &name].concat();
    }
    Ok(Header { name, size, kind })
}

impl Header {
    /// What the entry of this name is. Before POSIX a directory was a file whose name ends with a
    /// slash.
    pub(super) fn tar_kind(&self, name: &[u8]) -> TarKind {
        match self.kind {
            0 if name.ends_with(b"/") => TarKind::Directory,
            0 | b'0' | b'7' => TarKind::File,
            b'5' => TarKind::Directory,
            b'1' | b'2' => TarKind::Link,
            _ => TarKind::Other,
        }
    }

    /// Whether data follows the header.
    pub(super) fn has_data(&self) -> bool {
        !matches!(self.kind, b'1'..=b'6')
    }
}

/// Whether a name is not safe to be taken as a path.
pub(super) fn is_unsafe(name: &[u8]) -> bool {
    name.is_empty()
        || name.starts_with(b"/")
        || name.iter().any(|byte| *byte < 0x20 || *byte == 0x7f || *byte == b'\\')
        || name.split(|byte| *byte == b'/').any(|part| part == b"..")
}

/// One record of an extended header.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// Where in the file it begins.
    pub(super) offset: u64,
}

/// The records: each a length in decimal that counts all of the record, a space, `key=value`, and
/// the end of the line.
pub(super) fn records(bytes: &[u8], at: u64) -> Result<Vec<Record<'_>>, Error> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let offset = at.saturating_add(bytes.len().saturating_sub(rest.len()) as u64);
        let Some((record, behind)) = record(rest, offset) else {
            // Some writers fill the last block with zeros.
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
            return Err(Error::wrong("extended tar header", offset, "other bytes", "`length key=value`"));
        };
        records.push(record);
        rest = behind;
    }
    Ok(records)
}

fn record(bytes: &[u8], offset: u64) -> Option<(Record<'_>, &[u8])> {
    let digits = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(bytes.get(..digits)?).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (whole, rest) = bytes.split_at_checked(text.parse().ok()?)?;
    let body = whole.get(digits.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (body.get(..equals)?, body.get(equals.checked_add(1)?..)?);
    Some((Record { key, value, offset }, rest))
}

//! What gzip and old joblib wrap around deflate and zlib.

use tensafe_io::Source;

use super::{FIRST, codec::Deflate, pump, spill::Spill};
use crate::{
    Error,
    bytes::{read_up_to, u16_at, u32_at},
};

/// The header of a gzip member may hold names and comments of any length; this is far beyond all
/// that writers make.
const MOST_HEADER: usize = 256 << 10;

/// One member of a gzip stream: header, deflate, checksum and length.
pub(super) fn gzip(source: &dyn Source, at: u64, subject: &str, spill: &mut Spill) -> Result<u64, Error> {
    let short = read_up_to(source, at, FIRST)?;
    let header = match gzip_header(&short) {
        Some(len) => Some(len),
        None => gzip_header(&read_up_to(source, at, MOST_HEADER)?),
    };
    let Some(header) = header else {
        return Err(Error::wrong(subject, at, "no header of a gzip member", "one that ends within 256 KiB"));
    };
    spill.take_crc();
    let body = at.saturating_add(header as u64);
    let end = pump(source, body..source.len(), &mut Deflate::new(false), subject, spill)?;
    let trailer = read_up_to(source, end, 8)?;
    let Some((crc, len)) = u32_at(&trailer, 0).zip(u32_at(&trailer, 4)) else {
        return Err(Error::short(format_args!("end of the {subject}"), end, trailer.len() as u64, 8));
    };
    let (found, found_len) = spill.take_crc();
    if found != crc {
        let (found, needed) = (format!("checksum 0x{found:08x}"), format!("0x{crc:08x}"));
        return Err(Error::wrong(subject, end, found, needed));
    }
    if found_len & 0xffff_ffff != u64::from(len) {
        return Err(Error::wrong(subject, end, format_args!("{found_len} bytes modulo 2^32"), len));
    }
    Ok(end.saturating_add(8))
}

/// Bytes of the header of a gzip member.
fn gzip_header(head: &[u8]) -> Option<usize> {
    const HEADER_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    let flags = *head.get(3)?;
    if !head.starts_with(b"\x1f\x8b\x08") || flags & 0xe0 != 0 {
        return None;
    }
    let mut len = 10_usize;
    if flags & EXTRA != 0 {
        len = len.checked_add(2)?.checked_add(u16_at(head, len)?.into())?;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let text = head.get(len..)?.iter().position(|byte| *byte == 0)?;
            len = len.checked_add(text)?.checked_add(1)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        len = len.checked_add(2)?;
    }
    (len <= head.len()).then_some(len)
}

/// The `ZF` files of joblib before 0.10: the length of the content in hexadecimal, padded with
/// spaces, and a zlib stream.
pub(super) fn joblib(source: &dyn Source, at: u64, subject: &str, spill: &mut Spill) -> Result<u64, Error> {
    // 19 characters where integers had 64 bits, 11 where they had 32.
    const LENGTHS: [usize; 2] = [19, 11];
    let head = read_up_to(source, at, 64)?;
    let text = head.strip_prefix(b"ZF").unwrap_or_default();
    for width in LENGTHS {
        let Some(field) = text.get(..width).and_then(|field| std::str::from_utf8(field).ok()) else {
            continue;
        };
        let digits = field.trim_end_matches(' ').trim_end_matches('L');
        let Some(len) = digits.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
            continue;
        };
        let body = at.saturating_add(2).saturating_add(width as u64);
        let end = pump(source, body..source.len(), &mut Deflate::new(true), subject, spill)?;
        if spill.len() != len {
            return Err(Error::wrong(subject, at, format_args!("{} bytes decompressed", spill.len()), len));
        }
        return Ok(end);
    }
    Err(Error::wrong(subject, at, "no length behind `ZF`", "`0x`, digits, and spaces to 19 characters"))
}

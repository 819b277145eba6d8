//! Local headers, compared field by field with the directory.
//!
//! Of the extra fields only zip64's is compared: torch pads local headers with a field that the
//! directory does not have.

use tensafe_io::Source;

use super::{
    DESCRIPTOR, ENCRYPTED, METHOD_DEFLATED, METHOD_STORED, UTF8,
    entry::{Entry, fields},
    flaw::{Flaw, FlawKind, Flaws},
};
use crate::{
    Error, Limits,
    bytes::{read_up_to, split, u16_at, u32_at, u64_at},
};

const HEADER: usize = 30;
/// Read beyond the header and the name at once: torch's padding to 64 bytes, and zip64.
const EXTRA_GUESS: usize = 128;
/// The flags that mean the same to all readers: deflate's level, data descriptor, UTF-8.
const KNOWN_FLAGS: u16 = 0b110 | DESCRIPTOR | UTF8;
/// What `zipfile` reads up to: 6.3 of the specification.
const MOST_VERSION: u16 = 63;
const SATURATED: u64 = 0xffff_ffff;

/// Checks what an entry says by itself.
pub(super) fn check_entry(entry: &Entry<'_>, limits: &Limits, flaws: &mut Flaws) -> Result<(), Error> {
    let mut add = |kind, found: &dyn std::fmt::Display, needed: &dyn std::fmt::Display| {
        flaws.add(Flaw::new(kind, Some(&entry.name), entry.at, found, needed))
    };
    if entry.flags & ENCRYPTED != 0 {
        add(FlawKind::Encrypted, &format_args!("flags 0x{:04x}", entry.flags), &"bit 0 unset")?;
    }
    let unknown = entry.flags & !(KNOWN_FLAGS | ENCRYPTED);
    if unknown != 0 {
        let needed = format!("0x{unknown:04x} unset");
        add(FlawKind::UnknownFlags, &format_args!("flags 0x{:04x}", entry.flags), &needed)?;
    }
    if !matches!(entry.method, METHOD_STORED | METHOD_DEFLATED) {
        let found = format!("method {}", entry.method);
        add(FlawKind::UnknownMethod, &found, &"0, stored, or 8, deflated")?;
    }
    if entry.needed & 0xff > MOST_VERSION {
        let found = format!("{}.{}", (entry.needed & 0xff) / 10, (entry.needed & 0xff) % 10);
        add(FlawKind::NewerVersion, &found, &"at most 6.3")?;
    }
    if entry.disk != 0 {
        add(FlawKind::MultiDisk, &format_args!("disk {}", entry.disk), &"disk 0")?;
    }
    if entry.method == METHOD_STORED && entry.compressed != entry.bytes {
        let found = format!("{} bytes stored of {}", entry.compressed, entry.bytes);
        add(FlawKind::StoredSizes, &found, &"the same")?;
    }
    let most = limits.most(entry.compressed);
    if entry.method != METHOD_STORED && entry.bytes > most {
        let found = format!("{} bytes of {} compressed", entry.bytes, entry.compressed);
        let needed = format!("at most {most}; `Limits` can raise it");
        add(FlawKind::Ratio, &found, &needed)?;
    }
    // S_IFLNK of S_IFMT.
    if entry.mode & 0o170_000 == 0o120_000 {
        add(FlawKind::SymbolicLink, &format_args!("mode {:06o}", entry.mode), &"a plain file")?;
    }
    if entry.raw_name.ends_with(b"/") && entry.bytes != 0 {
        add(FlawKind::DirectoryWithBytes, &super::bytes(entry.bytes), &"none")?;
    }
    Ok(())
}

/// What the local header adds to the entry.
#[derive(Debug)]
pub(super) struct Local {
    /// The first byte of the local header.
    pub(super) start: u64,
    /// The first byte of the member's data.
    pub(super) data: u64,
    pub(super) crc: u32,
}

/// Reads the local header of an entry and compares the two; `None` where there is none.
pub(super) fn compare(
    source: &dyn Source,
    entry: &Entry<'_>,
    base: u64,
    flaws: &mut Flaws,
) -> Result<Option<Local>, Error> {
    let start = base.saturating_add(entry.offset);
    let guess = HEADER.saturating_add(entry.raw_name.len()).saturating_add(EXTRA_GUESS);
    let mut bytes = read_up_to(source, start.min(source.len()), guess)?;
    let lengths = u16_at(&bytes, 26).zip(u16_at(&bytes, 28)).filter(|_| bytes.starts_with(b"PK\x03\x04"));
    let Some((name_len, extra_len)) = lengths.filter(|_| bytes.len() >= HEADER) else {
        let missing = FlawKind::LocalHeaderMissing;
        flaws.add(Flaw::new(
            missing,
            Some(&entry.name),
            start,
            "other bytes",
            "`PK\\x03\\x04` and 26 bytes",
        ))?;
        return Ok(None);
    };
    let whole = HEADER.saturating_add(name_len.into()).saturating_add(extra_len.into());
    if bytes.len() < whole {
        bytes = read_up_to(source, start, whole)?;
    }
    let parts = split(&bytes, HEADER).and_then(|(head, rest)| {
        let (name, rest) = split(rest, name_len.into())?;
        let (extra, _) = split(rest, extra_len.into())?;
        Some((head, name, extra))
    });
    let Some((head, name, extra)) = parts else {
        let (found, needed) = (super::bytes(bytes.len() as u64), super::bytes(whole as u64));
        flaws.add(Flaw::new(FlawKind::LocalHeaderMissing, Some(&entry.name), start, found, needed))?;
        return Ok(None);
    };
    let crc = u32_at(head, 14).unwrap_or(0);
    compare_fields(entry, start, head, name, flaws)?;
    compare_sizes(entry, start, head, extra, flaws)?;
    Ok(Some(Local { start, data: start.saturating_add(whole as u64), crc }))
}

fn compare_fields(
    entry: &Entry<'_>,
    start: u64,
    head: &[u8],
    name: &[u8],
    flaws: &mut Flaws,
) -> Result<(), Error> {
    let mut add = |kind, found: &dyn std::fmt::Display, needed: &dyn std::fmt::Display| {
        flaws.add(Flaw::new(kind, Some(&entry.name), start, found, needed))
    };
    if name != entry.raw_name {
        let found = format!("`{}`", String::from_utf8_lossy(name).escape_debug());
        add(FlawKind::NameDiffers, &found, &format_args!("`{}`", entry.name.escape_debug()))?;
    }
    let (flags, method) = (u16_at(head, 6).unwrap_or(0), u16_at(head, 8).unwrap_or(0));
    if flags != entry.flags {
        add(FlawKind::FlagsDiffer, &format_args!("0x{flags:04x}"), &format_args!("0x{:04x}", entry.flags))?;
    }
    if method != entry.method {
        add(FlawKind::MethodDiffers, &method, &entry.method)?;
    }
    let version = u16_at(head, 4).unwrap_or(0) & 0xff;
    if version > MOST_VERSION {
        add(FlawKind::NewerVersion, &format_args!("{}.{}", version / 10, version % 10), &"at most 6.3")?;
    }
    let crc = u32_at(head, 14).unwrap_or(0);
    let unknown_yet = entry.flags & DESCRIPTOR != 0 && crc == 0;
    if crc != entry.crc && !unknown_yet {
        add(FlawKind::CrcDiffers, &format_args!("0x{crc:08x}"), &format_args!("0x{:08x}", entry.crc))?;
    }
    Ok(())
}

/// A size may be unknown, written as zero, where a descriptor follows the data.
fn compare_sizes(
    entry: &Entry<'_>,
    start: u64,
    head: &[u8],
    extra: &[u8],
    flaws: &mut Flaws,
) -> Result<(), Error> {
    let fields = match fields(extra) {
        Ok(fields) => fields,
        Err(found) => {
            let flaw = Flaw::new(FlawKind::ExtraField, Some(&entry.name), start, found, "whole fields");
            return flaws.add(flaw);
        }
    };
    let long = fields.iter().find(|(id, _)| *id == 1).map(|(_, data)| *data);
    let mut compressed = u32_at(head, 18).map_or(0, u64::from);
    let mut bytes = u32_at(head, 22).map_or(0, u64::from);
    // In a local header the field has both sizes, the one before compression first.
    if let Some(long) = long {
        let (first, second) = (u64_at(long, 0), u64_at(long, 8));
        if bytes == SATURATED {
            bytes = first.unwrap_or(bytes);
        }
        if compressed == SATURATED {
            compressed = second.unwrap_or(compressed);
        }
    }
    let unknown = entry.flags & DESCRIPTOR != 0;
    // Some writers leave the sizes saturated and write no zip64 field until they know them.
    let fits = |found: u64, needed: u64| {
        found == needed || unknown && (found == 0 || found == SATURATED && long.is_none())
    };
    if !fits(compressed, entry.compressed) || !fits(bytes, entry.bytes) {
        let found = format!("{bytes} bytes, {compressed} compressed");
        let needed = format!("{}, {} compressed", entry.bytes, entry.compressed);
        flaws.add(Flaw::new(FlawKind::SizesDiffer, Some(&entry.name), start, found, needed))?;
    }
    Ok(())
}

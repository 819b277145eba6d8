//! The entries of the directory, and the extra fields that extend them.

use super::flaw::{Flaw, FlawKind, Flaws};
use crate::{
    Error, Limits,
    bytes::{split, u16_at, u32_at, u64_at},
};

const ENTRY: usize = 46;

/// One entry of the directory, as it is written; sizes and offset with what zip64 adds.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Where in the file the entry stands.
    pub(super) at: u64,
    pub(super) name: String,
    pub(super) raw_name: &'a [u8],
    pub(super) needed: u16,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    pub(super) compressed: u64,
    pub(super) bytes: u64,
    pub(super) disk: u64,
    pub(super) offset: u64,
    /// The mode of a file of Unix, where the writer's host has that; else 0.
    pub(super) mode: u32,
    pub(super) extra: &'a [u8],
}

/// Parses the entries of a directory that begins at byte `start` of the file.
pub(super) fn parse_all<'a>(
    directory: &'a [u8],
    start: u64,
    announced: u64,
    limits: &Limits,
    flaws: &mut Flaws,
) -> Result<Vec<Entry<'a>>, Error> {
    let mut entries = Vec::new();
    let mut rest = directory;
    while !rest.is_empty() {
        let at = start.saturating_add(directory.len().saturating_sub(rest.len()) as u64);
        if entries.len() as u64 >= limits.members {
            let needed = format!("at most {}; `Limits::members` can raise it", limits.members);
            let found = format!("{announced} announced, and more than {}", limits.members);
            flaws.add(Flaw::new(FlawKind::TooManyMembers, None, at, found, needed))?;
            return Ok(entries);
        }
        let Some((mut entry, behind)) = parse(rest, at) else {
            let found = format!("{} bytes after {} members", rest.len(), entries.len());
            flaws.add(Flaw::new(FlawKind::DirectoryEndsEarly, None, at, found, "an entry"))?;
            break;
        };
        entry.apply_zip64(flaws)?;
        entries.push(entry);
        rest = behind;
    }
    if entries.len() as u64 != announced {
        let found = format!("{} in the directory", entries.len());
        flaws.add(Flaw::new(
            FlawKind::DirectoryCount,
            None,
            start,
            found,
            format_args!("{announced} by the end record"),
        ))?;
    }
    Ok(entries)
}

/// The entry at the start of `bytes`, and the rest.
fn parse(bytes: &[u8], at: u64) -> Option<(Entry<'_>, &[u8])> {
    let (head, rest) = split(bytes, ENTRY)?;
    if !head.starts_with(b"PK\x01\x02") {
        return None;
    }
    let (raw_name, rest) = split(rest, u16_at(head, 28)?.into())?;
    let (extra, rest) = split(rest, u16_at(head, 30)?.into())?;
    let (_comment, rest) = split(rest, u16_at(head, 32)?.into())?;
    let entry = Entry {
        at,
        name: String::from_utf8_lossy(raw_name).into_owned(),
        raw_name,
        needed: u16_at(head, 6)?,
        flags: u16_at(head, 8)?,
        method: u16_at(head, 10)?,
        crc: u32_at(head, 16)?,
        compressed: u32_at(head, 20)?.into(),
        bytes: u32_at(head, 24)?.into(),
        disk: u16_at(head, 34)?.into(),
        offset: u32_at(head, 42)?.into(),
        // The upper byte of the writer's version is its host: 3 is Unix, 19 is macOS.
        mode: if matches!(head.get(5), Some(3 | 19)) { u32_at(head, 38)? >> 16 } else { 0 },
        extra,
    };
    Some((entry, rest))
}

impl Entry<'_> {
    /// Replaces what does not fit in 32 bits by what the zip64 field says.
    fn apply_zip64(&mut self, flaws: &mut Flaws) -> Result<(), Error> {
        let fields = match fields(self.extra) {
            Ok(fields) => fields,
            Err(found) => {
                let flaw = Flaw::new(FlawKind::ExtraField, Some(&self.name), self.at, found, "whole fields");
                return flaws.add(flaw);
            }
        };
        let mut long = fields.iter().filter(|(id, _)| *id == 1).map(|(_, data)| *data);
        let field = long.next();
        if long.next().is_some() {
            let (found, needed) = ("two zip64 fields", "one");
            flaws.add(Flaw::new(FlawKind::Zip64Differs, Some(&self.name), self.at, found, needed))?;
        }
        let mut data = field.unwrap_or_default();
        let mut wanted = 0_usize;
        let mut missing = false;
        let slots =
            [(&mut self.bytes, 8), (&mut self.compressed, 8), (&mut self.offset, 8), (&mut self.disk, 4)];
        for (slot, width) in slots {
            if *slot != if width == 8 { 0xffff_ffff } else { 0xffff } {
                continue;
            }
            wanted = wanted.saturating_add(1);
            let value = if width == 8 { u64_at(data, 0) } else { u32_at(data, 0).map(u64::from) };
            match value {
                Some(value) => *slot = value,
                None => missing = true,
            }
            data = data.get(width..).unwrap_or_default();
        }
        // A size of exactly 4 GiB - 1 needs no field; one that is there has to hold what is asked.
        if missing && field.is_some() {
            let found = format!("a zip64 field of {} bytes", field.unwrap_or_default().len());
            let needed = format!("{wanted} numbers");
            flaws.add(Flaw::new(FlawKind::Zip64Differs, Some(&self.name), self.at, found, needed))?;
        }
        Ok(())
    }
}

/// The extra fields: a number and the data of each. Up to three bytes of padding may follow.
pub(super) fn fields(mut extra: &[u8]) -> Result<Vec<(u16, &[u8])>, String> {
    let mut fields = Vec::new();
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let rest = extra.get(4..).unwrap_or_default();
        let Some((data, behind)) = split(rest, len.into()) else {
            return Err(format!("field 0x{id:04x} of {len} bytes where {} are left", rest.len()));
        };
        fields.push((id, data));
        extra = behind;
    }
    if extra.iter().any(|byte| *byte != 0) {
        return Err(format!("{} bytes behind the last field", extra.len()));
    }
    Ok(fields)
}

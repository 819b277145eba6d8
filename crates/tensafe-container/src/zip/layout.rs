//! Which byte belongs to what: every byte before the directory is part of one member's header, data
//! or descriptor, or it is reported.

use std::ops::Range;

use tensafe_io::Source;

use super::{
    DESCRIPTOR, Member,
    flaw::{Flaw, FlawKind, Flaws},
};
use crate::{
    Error,
    bytes::{for_each_chunk, read_up_to, u32_at, u64_at},
};

const LOCAL_SIGNATURE: &[u8; 4] = b"PK\x03\x04";

/// Checks that the members stand one behind the other up to the directory.
pub(super) fn check(
    source: &dyn Source,
    members: &[Member],
    directory: &Range<u64>,
    flaws: &mut Flaws,
) -> Result<(), Error> {
    let mut order: Vec<&Member> = members.iter().filter(|member| member.readable).collect();
    order.sort_by_key(|member| (member.header_offset, member.range.end));
    let starts = order.iter().skip(1).map(|member| member.header_offset).chain([directory.start]);
    // What ends last so far, and where.
    let mut last: Option<(&Member, u64)> = None;
    for (member, next) in order.iter().zip(starts) {
        let start = member.header_offset;
        let end = last.map_or(0, |(_, end)| end);
        match last {
            Some((other, end)) if start < end => {
                let found = format!("`{}` up to byte {end}", other.name.escape_debug()).to_string();
                overlap(member, start, &found, flaws)?;
            }
            Some(_) => gap(source, end..start, flaws)?,
            None => prefix(source, start, flaws)?,
        }
        let end = member.range.end;
        let end = end.saturating_add(descriptor(source, member, next.saturating_sub(end), flaws)?);
        if end > directory.start {
            overlap(member, start, &format_args!("the directory from byte {} on", directory.start), flaws)?;
        }
        if last.is_none_or(|(_, before)| end > before) {
            last = Some((member, end));
        }
    }
    match last {
        Some((_, end)) if end < directory.start => gap(source, end..directory.start, flaws),
        None => prefix(source, directory.start, flaws),
        Some(_) => Ok(()),
    }
}

fn overlap(
    member: &Member,
    start: u64,
    found: &dyn std::fmt::Display,
    flaws: &mut Flaws,
) -> Result<(), Error> {
    let needed = format!("bytes {start}..{} for it alone", member.range.end);
    flaws.add(Flaw::new(FlawKind::Overlap, Some(&member.name), start, found, needed))
}

/// Reports bytes before the first member.
fn prefix(source: &dyn Source, bytes: u64, flaws: &mut Flaws) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    flaws.add(Flaw::new(FlawKind::Prefix, None, 0, super::bytes(bytes), "none"))?;
    flaws.unaccounted(0..bytes);
    match local_header(source, 0..bytes)? {
        Some(at) => flaws.add(hidden(at)),
        None => Ok(()),
    }
}

/// Reports bytes between members.
fn gap(source: &dyn Source, range: Range<u64>, flaws: &mut Flaws) -> Result<(), Error> {
    if range.is_empty() {
        return Ok(());
    }
    flaws.unaccounted(range.clone());
    let bytes = super::bytes(range.end.saturating_sub(range.start));
    flaws.add(match local_header(source, range.clone())? {
        Some(at) => hidden(at),
        None => Flaw::new(FlawKind::Gap, None, range.start, bytes, "none"),
    })
}

fn hidden(at: u64) -> Flaw {
    Flaw::new(FlawKind::HiddenMember, None, at, "`PK\\x03\\x04`", "every member in the directory")
}

/// The first place in a range where the signature of a local header stands.
fn local_header(source: &dyn Source, range: Range<u64>) -> Result<Option<u64>, Error> {
    let mut hidden = None;
    // A signature may stand across two chunks: their seam is kept.
    let mut seam: Vec<u8> = Vec::new();
    for_each_chunk(source, range, |at, chunk| {
        let carried = seam.len() as u64;
        seam.extend_from_slice(chunk);
        let found = seam.windows(LOCAL_SIGNATURE.len()).position(|window| window == LOCAL_SIGNATURE);
        hidden = found.map(|found| at.saturating_sub(carried).saturating_add(found as u64));
        seam.drain(..seam.len().saturating_sub(LOCAL_SIGNATURE.len().saturating_sub(1)));
        Ok(hidden.is_none())
    })?;
    Ok(hidden)
}

/// Bytes of the data descriptor behind a member's data, where `room` bytes are free.
fn descriptor(source: &dyn Source, member: &Member, room: u64, flaws: &mut Flaws) -> Result<u64, Error> {
    if member.flags & DESCRIPTOR == 0 {
        return Ok(0);
    }
    let at = member.range.end;
    if room == 0 {
        let flaw = Flaw::new(FlawKind::DescriptorMissing, Some(&member.name), at, "no bytes", "12 to 24");
        return flaws.add(flaw).map(|()| 0);
    }
    let bytes = read_up_to(source, at.min(source.len()), usize::try_from(room.min(24)).unwrap_or(24))?;
    // The signature is optional, and the sizes have 4 or 8 bytes: what fits is what it is. Of no more
    // bytes than there are, both widths fit sizes of zero alone: then the wider.
    let signed = bytes.strip_prefix(b"PK\x07\x08").map(|body| (body, 24, 16));
    for (body, long_bytes, short_bytes) in signed.into_iter().chain([(&*bytes, 20, 12)]) {
        if u32_at(body, 0) != Some(member.crc) {
            continue;
        }
        if u64_at(body, 4) == Some(member.compressed) && u64_at(body, 12) == Some(member.bytes) {
            return Ok(long_bytes);
        }
        let size = |at| u32_at(body, at).map(u64::from);
        if size(4) == Some(member.compressed) && size(8) == Some(member.bytes) {
            return Ok(short_bytes);
        }
    }
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let needed =
        format!("checksum 0x{:08x}, {} bytes, {} compressed", member.crc, member.bytes, member.compressed);
    flaws.add(Flaw::new(FlawKind::DescriptorDiffers, Some(&member.name), at, found, needed))?;
    Ok(0)
}

//! The end of an archive: its end record, the records of zip64, and so the place of the directory.
//!
//! Which end record counts is where readers differ. This one takes the last that has room, as
//! `zipfile` and miniz do, and reports every other that some reader could take.

use std::{fmt, ops::Range};

use tensafe_io::Source;

use super::flaw::{Flaw, FlawKind, Flaws};
use crate::{
    Error,
    bytes::{read_up_to, u16_at, u32_at, u64_at},
};

const SIGNATURE: &[u8; 4] = b"PK\x05\x06";
const RECORD: usize = 22;
const LOCATOR: usize = 20;
const RECORD64: usize = 56;
/// Bytes from the end that readers search: a record and a comment of 64 KiB.
const TAIL: usize = (1 << 16) + RECORD;

/// Where the directory is.
#[derive(Debug)]
pub(super) struct End {
    /// The directory, half-open.
    pub(super) directory: Range<u64>,
    /// The members that are announced.
    pub(super) members: u64,
    /// What has to be added to every offset in the archive, where bytes stand before it.
    pub(super) base: u64,
}

/// What the end record says, or the one of zip64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    disk: u64,
    directory_disk: u64,
    here: u64,
    members: u64,
    directory_bytes: u64,
    directory_offset: u64,
}

impl Numbers {
    fn parse(record: &[u8]) -> Option<Self> {
        Some(Self {
            disk: u16_at(record, 4)?.into(),
            directory_disk: u16_at(record, 6)?.into(),
            here: u16_at(record, 8)?.into(),
            members: u16_at(record, 10)?.into(),
            directory_bytes: u32_at(record, 12)?.into(),
            directory_offset: u32_at(record, 16)?.into(),
        })
    }

    fn parse64(record: &[u8]) -> Option<Self> {
        Some(Self {
            disk: u32_at(record, 16)?.into(),
            directory_disk: u32_at(record, 20)?.into(),
            here: u64_at(record, 24)?,
            members: u64_at(record, 32)?,
            directory_bytes: u64_at(record, 40)?,
            directory_offset: u64_at(record, 48)?,
        })
    }

    /// Whether each number that the short record has room for is the same in the long one.
    fn agrees(&self, long: &Self) -> bool {
        let fits = |short: u64, long: u64, most: u64| short == long || short == most;
        fits(self.disk, long.disk, 0xffff)
            && fits(self.directory_disk, long.directory_disk, 0xffff)
            && fits(self.here, long.here, 0xffff)
            && fits(self.members, long.members, 0xffff)
            && fits(self.directory_bytes, long.directory_bytes, 0xffff_ffff)
            && fits(self.directory_offset, long.directory_offset, 0xffff_ffff)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disk, members, directory_bytes, directory_offset, .. } = self;
        write!(
            f,
            "disk {disk}, {members} members, {directory_bytes} bytes of directory from {directory_offset} on"
        )
    }
}

/// Every place in `tail` where the signature of an end record stands, the last first.
fn signatures(tail: &[u8]) -> impl Iterator<Item = usize> {
    tail.windows(SIGNATURE.len()).enumerate().rev().filter(|(_, w)| *w == SIGNATURE).map(|(at, _)| at)
}

/// Where the record at `at` ends with its comment, and its comment's length; the whole file's
/// offsets are `start` more.
fn record_end(tail: &[u8], at: usize) -> Option<usize> {
    let comment = u16_at(tail, at.checked_add(20)?)?;
    at.checked_add(RECORD)?.checked_add(comment.into())
}

/// Whether the bytes end as a zip archive does, with a directory where the end record says.
pub(super) fn is_at_end(source: &dyn Source) -> Result<bool, Error> {
    let start = source.len().saturating_sub(TAIL as u64);
    let tail = read_up_to(source, start, TAIL)?;
    for at in signatures(&tail) {
        if record_end(&tail, at) != Some(tail.len()) {
            continue;
        }
        let Some(numbers) = tail.get(at..).and_then(Numbers::parse) else { continue };
        let at = start.saturating_add(at as u64);
        let zip64 = at.checked_sub(LOCATOR as u64).map(|at| read_up_to(source, at, 4)).transpose()?;
        if numbers.members == 0 || zip64.as_deref() == Some(b"PK\x06\x07") {
            return Ok(true);
        }
        if let Some(directory) = at.checked_sub(numbers.directory_bytes)
            && read_up_to(source, directory, 4)? == b"PK\x01\x02"
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds the directory.
pub(super) fn locate(source: &dyn Source, flaws: &mut Flaws) -> Result<End, Error> {
    let start = source.len().saturating_sub(TAIL as u64);
    let tail = read_up_to(source, start, TAIL)?;
    let place = |at: usize| start.saturating_add(at as u64);
    let chosen = signatures(&tail).find(|at| tail.len().saturating_sub(*at) >= RECORD);
    let Some(chosen) = chosen else {
        return Err(Error::wrong(
            "zip archive",
            start,
            format_args!("no end record in {} bytes", tail.len()),
            "`PK\\x05\\x06` and 18 bytes",
        ));
    };
    check_ends(&tail, start, chosen, flaws)?;
    let short = tail
        .get(chosen..)
        .and_then(Numbers::parse)
        .ok_or_else(|| Error::short("zip end record", place(chosen), tail.len() as u64, RECORD as u64))?;
    let (numbers, end) = match zip64(source, place(chosen), &short, flaws)? {
        Some((numbers, at)) => (numbers, at),
        None => (short, place(chosen)),
    };
    if (numbers.disk, numbers.directory_disk) != (0, 0) || numbers.here != numbers.members {
        let found = format!(
            "disk {}, directory on disk {}, {} of {} members",
            numbers.disk, numbers.directory_disk, numbers.here, numbers.members
        );
        flaws.add(Flaw::new(FlawKind::MultiDisk, None, place(chosen), found, "one disk"))?;
    }
    place_directory(source, &numbers, end, flaws)
}

/// Compares the chosen end record with the file's end and with the other candidates.
fn check_ends(tail: &[u8], start: u64, chosen: usize, flaws: &mut Flaws) -> Result<(), Error> {
    let place = |at: usize| start.saturating_add(at as u64);
    let end = record_end(tail, chosen).unwrap_or(tail.len());
    if end < tail.len() {
        let left = tail.len().saturating_sub(end);
        flaws.add(Flaw::new(FlawKind::Suffix, None, place(end), bytes(left), "none"))?;
        flaws.unaccounted(place(end)..place(tail.len()));
    }
    if end > tail.len() {
        let (needed, left) = (end.saturating_sub(chosen), tail.len().saturating_sub(chosen));
        let (found, needed) = (bytes(left), bytes(needed));
        flaws.add(Flaw::new(FlawKind::CommentEndsEarly, None, place(chosen), found, needed))?;
    }
    for at in signatures(tail).filter(|at| *at != chosen) {
        // Behind the chosen one there is no room for a record, but some readers stop there; before
        // it, readers differ on one whose comment is all the rest.
        let plausible = at > chosen || record_end(tail, at) == Some(tail.len());
        // A record with its directory right before it is the end of an archive that has a comment.
        let behind_directory = tail.get(at..).and_then(Numbers::parse).is_some_and(|numbers| {
            numbers.directory_offset.checked_add(numbers.directory_bytes) == Some(place(at))
        });
        let in_comment = at > chosen || behind_directory;
        if plausible {
            let kind = if in_comment { FlawKind::CommentEndRecord } else { FlawKind::SeveralEndRecords };
            let found = format!("an end record at byte {} too", place(at));
            flaws.add(Flaw::new(kind, None, place(chosen), found, "one"))?;
        }
    }
    Ok(())
}

/// The numbers of the zip64 record, and where it begins.
fn zip64(
    source: &dyn Source,
    end: u64,
    short: &Numbers,
    flaws: &mut Flaws,
) -> Result<Option<(Numbers, u64)>, Error> {
    let Some(at) = end.checked_sub(LOCATOR as u64) else { return Ok(None) };
    let locator = read_up_to(source, at, LOCATOR)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let (disk, said, disks) = (u32_at(&locator, 4), u64_at(&locator, 8), u32_at(&locator, 16));
    let (disk, said, disks) = (disk.unwrap_or(0), said.unwrap_or(0), disks.unwrap_or(0));
    // miniz writes one disk, `zipfile` reads none as one.
    if disk != 0 || disks > 1 {
        let found = format!("disk {disk} of {disks}");
        flaws.add(Flaw::new(FlawKind::MultiDisk, None, at, found, "one disk"))?;
    }
    // `zipfile` takes the record that stands right before the locator, miniz the one that the
    // locator names: they have to be one.
    let before = at.saturating_sub(RECORD64 as u64);
    if said != before {
        let found = format!("a record at byte {said}");
        flaws.add(Flaw::new(FlawKind::Zip64Differs, None, at, found, format_args!("at byte {before}")))?;
    }
    for place in [before, said] {
        let record = read_up_to(source, place.min(source.len()), RECORD64)?;
        let Some(long) = Numbers::parse64(&record).filter(|_| record.starts_with(b"PK\x06\x06")) else {
            continue;
        };
        let size = u64_at(&record, 4).unwrap_or(0);
        if size != 44 {
            let found = format!("a record of {size} bytes");
            flaws.add(Flaw::new(FlawKind::Zip64Differs, None, place, found, "44"))?;
        }
        if !short.agrees(&long) {
            flaws.add(Flaw::new(FlawKind::Zip64Differs, None, place, long, short))?;
        }
        return Ok(Some((long, place)));
    }
    flaws.add(Flaw::new(FlawKind::Zip64Differs, None, before, "no record", "`PK\\x06\\x06`"))?;
    Ok(None)
}

/// Where the directory is, seen from its end and from the offset that is told.
fn place_directory(
    source: &dyn Source,
    numbers: &Numbers,
    end: u64,
    flaws: &mut Flaws,
) -> Result<End, Error> {
    let (said, bytes) = (numbers.directory_offset, numbers.directory_bytes);
    let members = numbers.members;
    let Some(start) = end.checked_sub(bytes) else {
        return Err(Error::wrong(
            "zip directory",
            end,
            format_args!("{bytes} bytes before the end record"),
            format_args!("at most {end}"),
        ));
    };
    if start == said {
        return Ok(End { directory: start..end, members, base: 0 });
    }
    let is_directory =
        |at: u64| Ok::<_, Error>(read_up_to(source, at.min(source.len()), 4)? == b"PK\x01\x02");
    let said_end = said.checked_add(bytes).filter(|said_end| *said_end <= end);
    let (found, needed) = (format!("byte {said}").to_string(), format!("byte {start}").to_string());
    match (start.checked_sub(said), said_end) {
        (Some(base), _) if is_directory(start)? => Ok(End { directory: start..end, members, base }),
        (_, Some(said_end)) => {
            flaws.add(Flaw::new(FlawKind::DirectoryPlace, None, end, found, needed))?;
            Ok(End { directory: said..said_end, members, base: 0 })
        }
        _ => {
            flaws.add(Flaw::new(FlawKind::DirectoryPlace, None, end, found, needed))?;
            Ok(End { directory: start..end, members, base: 0 })
        }
    }
}

fn bytes(count: usize) -> String {
    super::bytes(count as u64)
}

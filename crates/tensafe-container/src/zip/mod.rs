//! Zip archives, read so that every reader of the same file sees the same.
//!
//! A zip says everything twice: in a directory at its end and in a header before each member.
//! Readers differ in which they believe, in how they find the directory, and in what they ignore;
//! scanners were passed by that. This reader compares the two, accounts for every byte between
//! them, and keeps each difference as a [`Flaw`]. An archive that [`Zip::open`] returns has one
//! meaning.
//!
//! It reads stored and deflated members, and no others; it decrypts nothing.

mod end;
mod entry;
mod flaw;
mod layout;
mod local;
mod names;

use std::{cmp::Ordering, ops::Range, sync::Arc};

use tensafe_io::Source;

use self::flaw::Flaws;
pub use self::flaw::{Flaw, FlawKind};
use crate::{
    Error, Limits, Window,
    bytes::{for_each_chunk, read_exact},
    inflate,
};

const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;
const ENCRYPTED: u16 = 1;
const DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// Whether bytes end as a zip archive does, whatever stands before it.
pub(crate) fn has_end_record(source: &dyn Source) -> Result<bool, Error> {
    end::is_at_end(source)
}

/// A zip archive.
#[derive(Clone, Debug)]
pub struct Zip {
    source: Arc<dyn Source>,
    limits: Limits,
    members: Vec<Member>,
    /// Places in `members`, by name.
    by_name: Vec<u32>,
    flaws: Vec<Flaw>,
    flaws_left_out: u64,
    unaccounted: Vec<Range<u64>>,
}

/// One member of a zip archive, as the directory describes it.
#[derive(Clone, Debug)]
pub struct Member {
    name: Box<str>,
    method: u16,
    flags: u16,
    crc: u32,
    local_crc: u32,
    compressed: u64,
    bytes: u64,
    entry_offset: u64,
    header_offset: u64,
    range: Range<u64>,
    readable: bool,
}

/// What a member's checksum says of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrcState {
    /// The bytes have the checksum that is written.
    Matches,
    /// The writer left the checksum out, as torch does when it is told to: zero stands for it.
    NotWritten,
    /// The bytes have another checksum.
    Differs {
        /// Of the bytes.
        found: u32,
        /// As it is written.
        needed: u32,
    },
}

impl Zip {
    /// Reads the directory and every local header. All flaws are kept; nothing is refused but what
    /// cannot be read at all.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the source cannot be read,
    /// [`Format`](crate::ErrorKind::Format) where there is no end record or no room for the
    /// directory, [`Limit`](crate::ErrorKind::Limit) where the directory is longer than
    /// [`Limits::header_bytes`].
    ///
    /// # Cost
    /// The tail of 64 KiB, the directory, one or two small reads for each member, and every byte
    /// that belongs to no member. The directory is in memory while it is read, then the members.
    pub fn survey(source: Arc<dyn Source>, limits: &Limits) -> Result<Self, Error> {
        Self::read_all(source, limits, false)
    }

    /// The same, and refuses the archive at the first grave flaw.
    ///
    /// # Errors
    /// Those of [`survey`](Self::survey), and every [grave](FlawKind::grave) flaw.
    pub fn open(source: Arc<dyn Source>, limits: &Limits) -> Result<Self, Error> {
        Self::read_all(source, limits, true)
    }

    fn read_all(source: Arc<dyn Source>, limits: &Limits, strict: bool) -> Result<Self, Error> {
        let mut flaws = Flaws::new(strict);
        let end = end::locate(&source, &mut flaws)?;
        let len = end.directory.end.saturating_sub(end.directory.start);
        if len > limits.header_bytes {
            let (at, limit) = (end.directory.start, limits.header_bytes);
            return Err(Error::limit("bytes of the zip directory", at, len, limit, "header_bytes"));
        }
        let directory = read_exact(&source, end.directory.start, len, "zip directory")?;
        let entries = entry::parse_all(&directory, end.directory.start, end.members, limits, &mut flaws)?;
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            names::check(&entry, limits, &mut flaws)?;
            local::check_entry(&entry, limits, &mut flaws)?;
            let local = local::compare(&source, &entry, end.base, &mut flaws)?;
            members.push(Member::new(entry, local, source.len(), &mut flaws)?);
        }
        let by_name = names::index(&members, &mut flaws)?;
        layout::check(&source, &members, &end.directory, &mut flaws)?;
        let (flaws, flaws_left_out, unaccounted) = flaws.into_parts();
        Ok(Self { source, limits: *limits, members, by_name, flaws, flaws_left_out, unaccounted })
    }

    /// The members, in the directory's order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of this name; the last, where a name stands twice, as Python's `zipfile` does.
    ///
    /// # Cost
    /// A binary search.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Member> {
        let member = |at: &u32| usize::try_from(*at).ok().and_then(|at| self.members.get(at));
        let not_after = |at: &u32| member(at).is_some_and(|m| m.name.as_ref().cmp(name) != Ordering::Greater);
        let behind = self.by_name.partition_point(not_after);
        let last = self.by_name.get(behind.checked_sub(1)?)?;
        member(last).filter(|member| &*member.name == name)
    }

    /// What is wrong with the archive; of one that [`open`](Self::open) returned, warnings alone.
    #[must_use]
    pub fn flaws(&self) -> &[Flaw] {
        &self.flaws
    }

    /// Flaws that were found but not kept, because there were too many of their weight.
    #[must_use]
    pub fn flaws_left_out(&self) -> u64 {
        self.flaws_left_out
    }

    /// Where bytes stand that belong to nothing: before the first member, between members, or behind
    /// the end; half-open. They are flaws as well; here they can be looked into.
    #[must_use]
    pub fn unaccounted(&self) -> &[Range<u64>] {
        &self.unaccounted
    }

    /// The bytes of a member of this archive. Its checksum is not looked at.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where it is encrypted or neither stored nor
    /// deflated, [`Format`](crate::ErrorKind::Format) where it has no bytes within the archive, or
    /// becomes more or fewer bytes than the directory says, [`Limit`](crate::ErrorKind::Limit).
    ///
    /// # Cost
    /// Nothing for a stored member: a [`Window`] of the archive. A deflated one is inflated, into
    /// memory up to [`Limits::memory_bytes`], then into an unnamed temporary file.
    pub fn read(&self, member: &Member) -> Result<Arc<dyn Source>, Error> {
        let subject = Subject(member);
        let at = member.header_offset;
        if !member.readable {
            return Err(Error::wrong(
                subject,
                at,
                "no bytes within the archive",
                "a local header and its data",
            ));
        }
        if member.flags & ENCRYPTED != 0 {
            return Err(Error::unsupported(subject, at, "an encrypted member"));
        }
        let window = Window::new(Arc::clone(&self.source), member.range.clone())?;
        match member.method {
            METHOD_STORED => Ok(Arc::new(window)),
            METHOD_DEFLATED => inflate::deflated(&window, member.bytes, subject, &self.limits),
            method => Err(Error::unsupported(subject, at, format_args!("compression method {method}"))),
        }
    }

    /// Compares a member's bytes with its checksum.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), and of reading.
    ///
    /// # Cost
    /// Reads all bytes of the member, unless no checksum is written.
    pub fn check_crc(&self, member: &Member) -> Result<CrcState, Error> {
        if member.crc == 0 && member.local_crc == 0 && member.bytes > 0 {
            return Ok(CrcState::NotWritten);
        }
        let source = self.read(member)?;
        let mut hasher = crc32fast::Hasher::new();
        for_each_chunk(&source, 0..source.len(), |_, chunk| {
            hasher.update(chunk);
            Ok(true)
        })?;
        let (found, needed) = (hasher.finalize(), member.crc);
        Ok(if found == needed { CrcState::Matches } else { CrcState::Differs { found, needed } })
    }
}

impl Member {
    fn new(
        entry: entry::Entry<'_>,
        local: Option<local::Local>,
        archive: u64,
        flaws: &mut Flaws,
    ) -> Result<Self, Error> {
        let header_offset = local.as_ref().map_or(entry.offset, |local| local.start);
        let local_crc = local.as_ref().map_or(0, |local| local.crc);
        let range = local.map(|local| local.data..local.data.saturating_add(entry.compressed));
        let inside = range.as_ref().is_some_and(|range| range.end <= archive);
        if let (Some(range), false) = (&range, inside) {
            let found = format!("bytes {}..{}", range.start, range.end);
            let needed = format!("an end up to byte {archive}");
            let kind = FlawKind::MemberOutside;
            flaws.add(Flaw::new(kind, Some(&entry.name), header_offset, found, needed))?;
        }
        Ok(Self {
            name: entry.name.into(),
            method: entry.method,
            flags: entry.flags,
            crc: entry.crc,
            local_crc,
            compressed: entry.compressed,
            bytes: entry.bytes,
            entry_offset: entry.at,
            header_offset,
            range: range.filter(|_| inside).unwrap_or(0..0),
            readable: inside,
        })
    }

    /// Its name; what is not UTF-8 is replaced, and a flaw.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its compression method: 0 is stored, 8 is deflated.
    #[must_use]
    pub fn method(&self) -> u16 {
        self.method
    }

    /// Whether its bytes stand in the archive as they are.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.method == METHOD_STORED
    }

    /// Its flags.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// The checksum, CRC-32, that is written for its bytes.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Bytes in the archive.
    #[must_use]
    pub fn compressed_bytes(&self) -> u64 {
        self.compressed
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first byte of its local header.
    #[must_use]
    pub fn header_offset(&self) -> u64 {
        self.header_offset
    }

    /// Where in the archive its data stands, half-open and as it is stored; empty at 0 where it
    /// has none within the archive.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Whether it is a directory: its name ends with a slash.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.name.ends_with('/')
    }
}

/// "zip member `name`".
struct Subject<'a>(&'a Member);

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "zip member `{}`", self.0.name.escape_debug())
    }
}

/// "1 byte", "2 bytes".
fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

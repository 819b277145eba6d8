//! Tar archives: the headers of ustar, the extended headers of pax, and GNU's long names.
//!
//! Only what the oldest torch and joblib archives need is read: plain files and their names. Links,
//! devices and sparse files are listed with their kind, never followed or expanded.

mod header;

use std::{collections::HashMap, ops::Range, sync::Arc};

use tensafe_io::Source;

use self::header::Header;
pub(crate) use self::header::is_header;
use crate::{
    Error, Limits, Window,
    bytes::{for_each_chunk, read_exact, read_up_to},
};

/// Bytes of a header, and what everything is padded to.
pub(crate) const BLOCK: usize = 512;
const BLOCK_BYTES: u64 = 512;

/// A tar archive.
#[derive(Clone, Debug)]
pub struct Tar {
    source: Arc<dyn Source>,
    entries: Vec<TarEntry>,
    flaws: Vec<TarFlaw>,
}

/// One entry of a tar archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    name: String,
    kind: TarKind,
    header_offset: u64,
    range: Range<u64>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TarKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A link, hard or symbolic.
    Link,
    /// Something else: a device, a sparse file, or what this crate does not know.
    Other,
}

/// What is wrong with a tar archive, or unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TarFlawKind {
    /// Two entries have one name; readers extract the last.
    DuplicateName,
    /// The name leads out of the directory that the entry would be extracted to, or holds control
    /// characters.
    UnsafeName,
    /// The name is not UTF-8.
    NameNotUtf8,
    /// The archive stops without the two blocks of zeros that end it.
    NoEnd,
    /// Bytes other than zeros behind the end.
    TrailingBytes,
    /// The entry is sparse, or of a kind that is not known.
    UnknownKind,
    /// The extended headers tell a size other than that of the header.
    SizeDiffers,
}

/// Something wrong with a tar archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarFlaw {
    kind: TarFlawKind,
    entry: Option<String>,
    offset: u64,
}

impl TarFlaw {
    /// What is wrong, as a kind.
    #[must_use]
    pub fn kind(&self) -> TarFlawKind {
        self.kind
    }

    /// The entry, unless the archive as a whole is meant.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// The first byte of what is wrong.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl std::fmt::Display for TarFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "tar entry `{}` at byte {}: ", entry.escape_debug(), self.offset)?,
            None => write!(f, "tar archive at byte {}: ", self.offset)?,
        }
        f.write_str(match self.kind {
            TarFlawKind::DuplicateName => "the name stands twice",
            TarFlawKind::UnsafeName => "the name is no safe relative path",
            TarFlawKind::NameNotUtf8 => "the name is not UTF-8",
            TarFlawKind::NoEnd => "found the end of the file, needed two blocks of zeros",
            TarFlawKind::TrailingBytes => "found bytes behind the end, needed zeros",
            TarFlawKind::UnknownKind => "the entry is sparse or of an unknown kind",
            TarFlawKind::SizeDiffers => "the extended headers tell another size than the header",
        })
    }
}

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Tar {
    /// Reads every header.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where a header's checksum or number is wrong, or an
    /// entry reaches beyond the archive; [`Limit`](crate::ErrorKind::Limit) for more entries, or
    /// longer extended headers, than [`Limits`] allow; [`Io`](crate::ErrorKind::Io).
    ///
    /// # Cost
    /// A read of 512 bytes for each header, the extended headers, and everything behind the end.
    pub fn open(source: Arc<dyn Source>, limits: &Limits) -> Result<Self, Error> {
        let mut tar = Self { source, entries: Vec::new(), flaws: Vec::new() };
        let mut at = 0;
        let mut extended = Extended::default();
        // What a global header says holds for every entry behind it.
        let mut global = Extended::default();
        while let Some(header) = tar.header(at)? {
            let data = at.saturating_add(BLOCK_BYTES);
            match header.kind {
                b'x' => tar.extended(&header, data, limits)?.apply(&mut extended),
                b'g' => tar.extended(&header, data, limits)?.apply(&mut global),
                b'L' => extended.name = Some(tar.long_name(&header, data, limits)?),
                // The target of a link, which is not followed.
                b'K' => {
                    tar.long_name(&header, data, limits)?;
                }
                _ => {
                    let mut known = std::mem::take(&mut extended);
                    known.size = known.size.or(global.size);
                    known.sparse |= global.sparse;
                    at = tar.entry(&header, known, at, limits)?;
                    continue;
                }
            }
            at = padded(data, header.size);
        }
        tar.duplicates();
        Ok(tar)
    }

    /// The entries, in the archive's order.
    #[must_use]
    pub fn entries(&self) -> &[TarEntry] {
        &self.entries
    }

    /// What is wrong with the archive, or unusual.
    #[must_use]
    pub fn flaws(&self) -> &[TarFlaw] {
        &self.flaws
    }

    /// The last file of this name, the one that extracting would leave.
    ///
    /// # Cost
    /// Looks at every entry.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&TarEntry> {
        self.entries.iter().rev().find(|entry| entry.name == name)
    }

    /// The bytes of an entry of this archive.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where it is not a plain file.
    pub fn read(&self, entry: &TarEntry) -> Result<Arc<dyn Source>, Error> {
        if entry.kind != TarKind::File {
            let subject = format!("tar entry `{}`", entry.name.escape_debug());
            return Err(Error::unsupported(subject, entry.header_offset, "something other than a file"));
        }
        Ok(Arc::new(Window::new(Arc::clone(&self.source), entry.range.clone())?))
    }

    fn flaw(&mut self, kind: TarFlawKind, entry: Option<&str>, offset: u64) {
        self.flaws.push(TarFlaw { kind, entry: entry.map(str::to_owned), offset });
    }

    /// The header at `at`; `None` at the end of the archive, which is checked.
    fn header(&mut self, at: u64) -> Result<Option<Header>, Error> {
        let block = read_up_to(&self.source, at.min(self.source.len()), BLOCK)?;
        if block.is_empty() {
            self.flaw(TarFlawKind::NoEnd, None, at);
            return Ok(None);
        }
        if block.len() < BLOCK {
            return Err(Error::short("tar header", at, block.len() as u64, BLOCK_BYTES));
        }
        if block.iter().any(|byte| *byte != 0) {
            return header::parse(&block, at).map(Some);
        }
        let second = at.saturating_add(BLOCK_BYTES);
        if read_up_to(&self.source, second.min(self.source.len()), BLOCK)?.len() < BLOCK {
            self.flaw(TarFlawKind::NoEnd, None, second);
        }
        let mut trailing = None;
        for_each_chunk(&self.source, second.min(self.source.len())..self.source.len(), |start, chunk| {
            let place = chunk.iter().position(|byte| *byte != 0);
            trailing = place.map(|place| start.saturating_add(place as u64));
            Ok(trailing.is_none())
        })?;
        if let Some(offset) = trailing {
            self.flaw(TarFlawKind::TrailingBytes, None, offset);
        }
        Ok(None)
    }

    /// The data of an extended header, which is not longer than the limits allow.
    fn long_name(&self, header: &Header, data: u64, limits: &Limits) -> Result<Vec<u8>, Error> {
        if header.size > limits.header_bytes {
            let what = "bytes of the extended tar header";
            return Err(Error::limit(what, data, header.size, limits.header_bytes, "header_bytes"));
        }
        let mut bytes = read_exact(&self.source, data, header.size, "extended tar header")?;
        if header.kind == b'L' {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
        }
        Ok(bytes)
    }

    fn extended(&self, header: &Header, data: u64, limits: &Limits) -> Result<Extended, Error> {
        let bytes = self.long_name(header, data, limits)?;
        let mut extended = Extended::default();
        for record in header::records(&bytes, data)? {
            match record.key {
                b"path" => extended.name = Some(record.value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(record.value).unwrap_or("");
                    let size = text.parse().map_err(|_| {
                        let found = format!("size `{}`", text.escape_debug());
                        Error::wrong("extended tar header", record.offset, found, "a number")
                    })?;
                    extended.size = Some(size);
                }
                key if key.starts_with(b"GNU.sparse") => extended.sparse = true,
                _ => {}
            }
        }
        Ok(extended)
    }

    /// Adds an entry, and says where the next header stands.
    fn entry(&mut self, header: &Header, known: Extended, at: u64, limits: &Limits) -> Result<u64, Error> {
        if self.entries.len() as u64 >= limits.members {
            let (found, limit) = ((self.entries.len() as u64).saturating_add(1), limits.members);
            return Err(Error::limit("entries of the tar archive", at, found, limit, "members"));
        }
        let raw = known.name.as_deref().unwrap_or(&header.name);
        if raw.len() as u64 > limits.name_bytes {
            let (found, limit) = (raw.len() as u64, limits.name_bytes);
            return Err(Error::limit("bytes of the name of the tar entry", at, found, limit, "name_bytes"));
        }
        let name = String::from_utf8_lossy(raw).into_owned();
        let mut kind = header.tar_kind(raw);
        if std::str::from_utf8(raw).is_err() {
            self.flaw(TarFlawKind::NameNotUtf8, Some(&name), at);
        }
        if header::is_unsafe(raw) {
            self.flaw(TarFlawKind::UnsafeName, Some(&name), at);
        }
        if known.sparse {
            kind = TarKind::Other;
        }
        if kind == TarKind::Other {
            self.flaw(TarFlawKind::UnknownKind, Some(&name), at);
        }
        let size = known.size.unwrap_or(header.size);
        if size != header.size && header.size != 0 {
            self.flaw(TarFlawKind::SizeDiffers, Some(&name), at);
        }
        let start = at.saturating_add(BLOCK_BYTES);
        // A link or a directory has no data, whatever its header says.
        let len = if header.has_data() { size } else { 0 };
        let end = start.saturating_add(len);
        if end > self.source.len() {
            let left = self.source.len().saturating_sub(start);
            let subject = format!("tar entry `{}`", name.escape_debug());
            return Err(Error::short(subject, start, left, len));
        }
        self.entries.push(TarEntry { name, kind, header_offset: at, range: start..end });
        Ok(padded(start, len))
    }

    fn duplicates(&mut self) {
        let mut seen = HashMap::with_capacity(self.entries.len());
        for entry in &self.entries {
            if seen.insert(entry.name.as_str(), ()).is_some() {
                let (kind, offset) = (TarFlawKind::DuplicateName, entry.header_offset);
                self.flaws.push(TarFlaw { kind, entry: Some(entry.name.clone()), offset });
            }
        }
    }
}

impl Extended {
    /// What this says replaces what was known.
    fn apply(self, known: &mut Self) {
        known.name = self.name.or_else(|| known.name.take());
        known.size = self.size.or(known.size);
        known.sparse |= self.sparse;
    }
}

impl TarEntry {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> TarKind {
        self.kind
    }

    /// The first byte of its header.
    #[must_use]
    pub fn header_offset(&self) -> u64 {
        self.header_offset
    }

    /// Where in the archive its bytes stand, half-open.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

/// The end of `size` bytes from `start` on, with what pads them to whole blocks.
fn padded(start: u64, size: u64) -> u64 {
    start.saturating_add(size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES))
}

//! Where the storages of a container are.

use std::{borrow::Cow, sync::Arc};

use tensafe_container::{CrcState, Zip};
use tensafe_io::Source;
use tensafe_pickle::{
    Bytes, Element, LegacyStream, NumberedStorage, NumberedTensor, Storage, StorageAt, StorageView,
};

use super::{
    Placed, Refusal,
    flatten::{Result, Walk},
    open,
    stream::SourceStream,
};
use crate::Error;

/// Where the storages of a pickle are.
#[derive(Clone, Copy)]
pub(super) enum Storages<'w> {
    /// Nowhere: the pickle stands alone.
    None,
    /// Members of a zip archive.
    Zip { zip: &'w Zip, folder: &'w str, big_endian: bool },
    /// Behind the pickles of the same file.
    Legacy(&'w LegacyStream<'static>),
    /// Numbered parts of a tar archive.
    Numbered { source: &'w Arc<dyn Source>, storages: &'w [NumberedStorage], tensors: &'w [NumberedTensor] },
}

/// A storage that was found: its place among those of the checkpoint, and its first byte there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) place: usize,
    /// What its elements are, where it says so.
    pub(super) element: Option<Element>,
    /// Elements before the first of a view.
    pub(super) start: u64,
    /// Elements, or bytes where it has no type.
    pub(super) count: u64,
}

impl Walk<'_, '_> {
    /// Finds a storage and checks its size.
    pub(super) fn find(&mut self, storage: &Storage<'_>, path: &[String]) -> Result<Found> {
        match &storage.at {
            StorageAt::Key { key, count, view, .. } => {
                let place = match self.known.get(*key) {
                    Some(place) => *place,
                    None => {
                        let placed = self.place(key, storage.element, *count, path)?;
                        let place = self.push(placed);
                        self.known.insert((*key).to_owned(), place);
                        place
                    }
                };
                // Another type may stand for the same bytes: as many they have to be.
                let there = self.bytes_of(place);
                let needed = count.checked_mul(storage.element.map_or(1, Element::bytes));
                if needed != Some(there) {
                    return self.size(key, path, there, needed.unwrap_or(u64::MAX));
                }
                let (start, count) = match view {
                    Some(view) => self.part(view, *count, path)?,
                    None => (0, *count),
                };
                Ok(Found { place, element: storage.element, start, count })
            }
            StorageAt::File(bytes) => self.file(bytes, path),
        }
    }

    fn part(&self, view: &StorageView<'_>, count: u64, path: &[String]) -> Result<(u64, u64)> {
        let end = view.offset.checked_add(view.count);
        if end.is_none_or(|end| end > count) {
            return self.refuse(Refusal::Beyond {
                path: path.join("."),
                first: view.offset,
                end: end.unwrap_or(u64::MAX),
                elements: count,
            });
        }
        Ok((view.offset, view.count))
    }

    pub(super) fn push(&mut self, placed: Placed) -> usize {
        self.into.storages.push(placed);
        self.into.storages.len().saturating_sub(1)
    }

    pub(super) fn bytes_of(&self, place: usize) -> u64 {
        self.into.storages.get(place).map_or(0, Placed::bytes)
    }

    fn size<T>(&self, key: &str, path: &[String], found: u64, needed: u64) -> Result<T> {
        self.refuse(Refusal::StorageSize { path: path.join("."), key: key.to_owned(), found, needed })
    }

    /// The bytes of the storage that has this key.
    fn place(&self, key: &str, element: Option<Element>, count: u64, path: &[String]) -> Result<Placed> {
        let missing = || Refusal::NoStorage { path: path.join("."), key: key.to_owned() };
        let bytes = count.checked_mul(element.map_or(1, Element::bytes));
        match self.storages {
            Storages::None => self.refuse(missing()),
            Storages::Zip { zip, folder, big_endian } => {
                let name = format!("{folder}{key}");
                let Some(member) = zip.find(&name) else { return self.refuse(missing()) };
                if member.bytes() != member.compressed_bytes() {
                    let path = path.join(".");
                    return self.refuse(Refusal::StorageCompressed { path, key: key.to_owned() });
                }
                if bytes != Some(member.bytes()) {
                    return self.size(key, path, member.bytes(), bytes.unwrap_or(u64::MAX));
                }
                if self.options.crc {
                    checked(zip, &name, self.stream.as_ref())?;
                }
                let source = zip.read(member).map_err(|e| Error::container(self.stream.path(), e))?;
                let range = 0..source.len();
                Ok(Placed { source, range, big_endian })
            }
            Storages::Legacy(legacy) => {
                let Some(found) = legacy.storage(key) else { return self.refuse(missing()) };
                let there = found.range.end.saturating_sub(found.range.start);
                if bytes != Some(there) {
                    return self.size(key, path, there, bytes.unwrap_or(u64::MAX));
                }
                Ok(Placed { source: Arc::clone(&self.stream), range: found.range.clone(), big_endian: false })
            }
            Storages::Numbered { source, storages, .. } => {
                let number: Option<i64> = key.parse().ok();
                let found = storages.iter().find(|storage| Some(storage.key) == number);
                let Some(found) = found else { return self.refuse(missing()) };
                Ok(Placed { source: Arc::clone(source), range: found.range.clone(), big_endian: false })
            }
        }
    }

    /// A torch file within the pickle, which holds one storage.
    fn file(&mut self, bytes: &Bytes<'_>, path: &[String]) -> Result<Found> {
        let source = open::bytes_source(&self.stream, bytes)?;
        let legacy = LegacyStream::read(SourceStream::new(Arc::clone(&source)), &self.options.limits);
        if let Some(error) = legacy.error() {
            return self.refuse(Refusal::Pickle(error.clone()));
        }
        if legacy.end() != source.len() {
            let bytes = source.len().saturating_sub(legacy.end());
            return self.refuse(Refusal::Trailing { offset: legacy.end(), bytes });
        }
        let [storage] = legacy.storages() else {
            return self.refuse(Refusal::NoStorage { path: path.join("."), key: "0".to_owned() });
        };
        for pickle in legacy.pickles() {
            open::refuse_symbols(source.path(), pickle, false)?;
        }
        let placed = Placed { source: Arc::clone(&source), range: storage.range.clone(), big_endian: false };
        let count = placed.bytes() / storage.element.bytes();
        let element = storage.element;
        // The same bytes object is the same storage: pickles refer to it by their memo. What was
        // decoded for this call alone has a place in memory that the next may have, too.
        let key = match bytes {
            Bytes::Far(range) => Some(format!("\0far {}", range.start)),
            Bytes::Near(Cow::Borrowed(bytes)) => Some(format!("\0near {:p}", bytes.as_ptr())),
            Bytes::Near(Cow::Owned(_)) => None,
        };
        let place = match key.as_ref().and_then(|key| self.known.get(key)) {
            Some(place) => *place,
            None => self.push(placed),
        };
        if let Some(key) = key {
            self.known.insert(key, place);
        }
        Ok(Found { place, element: Some(element), start: 0, count })
    }
}

/// Refuses a member whose bytes have another checksum than the archive says. Writers may leave it
/// out.
pub(super) fn checked(zip: &Zip, name: &str, whole: &dyn Source) -> Result<()> {
    let Some(member) = zip.find(name) else { return Ok(()) };
    match zip.check_crc(member).map_err(|e| Error::container(whole.path(), e))? {
        CrcState::Differs { found, needed } => {
            Err(Error::refused(whole.path(), Refusal::Crc { member: name.to_owned(), found, needed }))
        }
        _ => Ok(()),
    }
}

//! Headers of files that this process has parsed: a file that is opened again and has not changed
//! since is neither read nor parsed.
//!
//! A file is known by its [`Stamp`], not by its path. What a stamp cannot vouch for is not kept. The
//! cache is an optimisation: where it cannot be used, the header is parsed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tensafe_format::{Header, ParseOptions};

use crate::{Error, FileSource, Identity, Source as _, sync::lock_briefly};

/// Headers kept at most. The largest published models have fewer files.
const ENTRIES: usize = 256;

/// Bytes of memory that all kept headers may take. One of 50,000 tensors takes about 5 MiB.
const BYTES: usize = 64 << 20;

static CACHE: Mutex<Cache> = Mutex::new(Cache::new(ENTRIES, BYTES));

/// The header of `source`, from memory or by `parse`, and the identity that `source` had before. `now` is a time
/// before this call.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where the identity cannot be read, and those of `parse`.
///
/// # Cost
/// One look at the identity where the header is known, two and `parse` where it is not.
pub(crate) fn header(
    source: &FileSource,
    options: &ParseOptions,
    now: SystemTime,
    parse: impl FnOnce() -> Result<Header, Error>,
) -> Result<(Option<Identity>, Arc<Header>), Error> {
    let stamp = source.stamp()?;
    let identity = Some(stamp.identity);
    // The file grew or shrank since its length was read: what is read, or mapped, would end elsewhere.
    if stamp.identity.len != source.len() {
        return Err(Error::changed(source.path(), "length"));
    }
    let key = Key { stamp, options: *options };
    if let Some(header) = lock_briefly(&CACHE).and_then(|mut cache| cache.get(&key)) {
        return Ok((identity, header));
    }
    let header = Arc::new(parse()?);
    if stamp.vouches(now, source.file_system().is_local()) && source.stamp()? == stamp {
        let dropped = lock_briefly(&CACHE).map(|mut cache| cache.insert(key, Arc::clone(&header)));
        // Freed when the lock is given back.
        drop(dropped);
    }
    Ok((identity, header))
}

/// What tells the content of one open file from any other, as far as the file system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) identity: Identity,
    /// Time of the last change of anything about the file, in nanoseconds since 1970, where the
    /// platform has it. No program can set it back.
    pub(crate) changed_ns: Option<i128>,
}

impl Stamp {
    /// Whether any change after `now` gives the file another stamp.
    ///
    /// A clock of a file system moves in steps, of some milliseconds on Linux and of up to two seconds
    /// on FAT: a file that is changed twice within a step has the same time for both. So a file that
    /// was changed a moment before its header was read is parsed anew until it is older. The clock of
    /// a server may differ from ours: its files have to be older still.
    fn vouches(&self, now: SystemTime, local: bool) -> bool {
        let margin = Duration::from_secs(if local { 2 } else { 60 });
        let (Some(_), Some(modified)) = (self.identity.file, self.identity.modified_ns) else {
            return false;
        };
        // Who sets the time of the content back leaves the other one.
        let changed = self.changed_ns.unwrap_or(modified).max(modified);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok();
        let oldest = now.and_then(|now| now.checked_sub(margin));
        let oldest = oldest.and_then(|oldest| i128::try_from(oldest.as_nanos()).ok());
        oldest.is_some_and(|oldest| changed <= oldest)
    }
}

/// What the result of parsing depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    stamp: Stamp,
    options: ParseOptions,
}

/// Headers by key, the least recently used first, within bounds.
struct Cache {
    kept: Vec<Kept>,
    most_entries: usize,
    most_bytes: usize,
}

struct Kept {
    key: Key,
    header: Arc<Header>,
    bytes: usize,
}

impl Cache {
    const fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self { kept: Vec::new(), most_entries, most_bytes }
    }

    fn get(&mut self, key: &Key) -> Option<Arc<Header>> {
        let place = self.kept.iter().position(|kept| kept.key == *key)?;
        let used = self.kept.get_mut(place..)?;
        used.rotate_left(1);
        used.last().map(|kept| Arc::clone(&kept.header))
    }

    /// Keeps a header. Returns what had to go: another of the same file and options, which no look
    /// finds any more, and the least recently used beyond the bounds.
    fn insert(&mut self, key: Key, header: Arc<Header>) -> Vec<Kept> {
        let bytes = header.memory_bytes().saturating_add(size_of::<Kept>());
        let kept = Kept { key, header, bytes };
        if bytes > self.most_bytes || self.most_entries == 0 {
            return vec![kept];
        }
        let same = |other: &Kept| {
            (other.key.stamp.identity.file, other.key.options) == (key.stamp.identity.file, key.options)
        };
        let mut dropped: Vec<Kept> = self.kept.extract_if(.., |other| same(other)).collect();
        self.kept.push(kept);
        let mut total = self.kept.iter().fold(0usize, |sum, kept| sum.saturating_add(kept.bytes));
        let mut count = self.kept.len();
        let beyond = self.kept.iter().take_while(|oldest| {
            let go = count > self.most_entries || total > self.most_bytes;
            count = count.saturating_sub(1);
            total = total.saturating_sub(oldest.bytes);
            go
        });
        let beyond = beyond.count();
        dropped.extend(self.kept.drain(..beyond));
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use tensafe_format::{Layout, Mode, TensorSpec};

    /// A file of one tensor of this name, its content last changed so many seconds ago.
    fn write(path: &Path, name: &str, seconds: u64) {
        let spec = TensorSpec::new(name, tensafe_format::Dtype::U8, [0]);
        let layout = Layout::new([spec], None, &Default::default()).unwrap();
        std::fs::write(path, layout.header_bytes()).unwrap();
        age(path, seconds);
    }

    /// When the last change of every file of a test is long ago.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(3600)
    }

    fn age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    /// Headers of `path` through the cache of the process, long after its last change; counts how often it
    /// is read.
    fn open(path: &Path, mode: Mode, reads: &AtomicUsize) -> Arc<Header> {
        open_at(later(), path, mode, reads)
    }

    fn open_at(now: SystemTime, path: &Path, mode: Mode, reads: &AtomicUsize) -> Arc<Header> {
        let source = FileSource::open(path).unwrap();
        let options = ParseOptions::with_mode(mode);
        let parse = || {
            reads.fetch_add(1, Ordering::Relaxed);
            let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
            source.read_at(0, &mut bytes)?;
            Header::parse(&bytes, source.len(), &options).map_err(|e| Error::format(Some(path), e))
        };
        header(&source, &options, now, parse).unwrap().1
    }

    /// Platforms without numbers of files keep no headers.
    const KEEPS: bool = cfg!(unix);

    #[test]
    fn a_file_that_did_not_change_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, "a", 3600);
        let reads = AtomicUsize::new(0);
        let first = open(&path, Mode::Strict, &reads);
        let second = open(&path, Mode::Strict, &reads);
        assert_eq!(first, second);
        assert_eq!((Arc::ptr_eq(&first, &second), reads.into_inner()), (KEEPS, 2 - usize::from(KEEPS)));
    }

    #[test]
    fn another_mode_is_another_entry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, "a", 3600);
        let reads = AtomicUsize::new(0);
        let _both = [Mode::Strict, Mode::Lenient].map(|mode| open(&path, mode, &reads));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        let _again = [Mode::Strict, Mode::Lenient].map(|mode| open(&path, mode, &reads));
        assert_eq!(reads.into_inner(), if KEEPS { 2 } else { 4 });
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        // Whatever it says of the time of its content.
        for seconds in [1, 3600] {
            let now = SystemTime::now();
            write(&path, "a", seconds);
            let reads = AtomicUsize::new(0);
            open_at(now, &path, Mode::Strict, &reads);
            open_at(now, &path, Mode::Strict, &reads);
            assert_eq!(reads.into_inner(), 2);
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        write(&path, "a", 3600);
        let source = FileSource::open(&path).unwrap();
        let key = || Key { stamp: source.stamp().unwrap(), options: ParseOptions::default() };
        let kept = |key| lock_briefly(&CACHE).unwrap().get(&key).is_some();
        let parsed = (*some_header()).clone();
        let before = key();
        let changing = || {
            age(&path, 1800);
            Ok(parsed.clone())
        };
        header(&source, &before.options, later(), changing).unwrap();
        assert_eq!((kept(before), kept(key())), (false, false));
        header(&source, &before.options, later(), || Ok(parsed.clone())).unwrap();
        assert_eq!((kept(before), kept(key())), (false, KEEPS));
    }

    #[test]
    fn content_is_never_that_of_an_older_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let reads = AtomicUsize::new(0);
        let name = || open(&path, Mode::Strict, &reads).tensors().next().unwrap().name().to_owned();
        write(&path, "a", 3600);
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(name(), "a");

        // In place, at another time; and in place, the time of modification set back.
        write(&path, "b", 1800);
        assert_eq!(name(), "b");
        if KEEPS {
            // Longer than a step of the clock that the time of the last change is taken from.
            std::thread::sleep(Duration::from_millis(50));
            write(&path, "c", 1800);
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
            assert_eq!(name(), "c");
        }

        // By another file of the same name, size and time.
        write(&other, "d", 1800);
        File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(name(), "d");
    }

    #[test]
    fn a_stamp_vouches_for_what_is_old_and_has_a_number() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let stamp = |file, modified: Option<i128>| Stamp {
            identity: Identity { file, len: 9, modified_ns: modified.map(|s| s * 1_000_000_000) },
            changed_ns: None,
        };
        let vouches = |stamp: Stamp| [true, false].map(|local| stamp.vouches(now, local));
        assert_eq!(vouches(stamp(Some((1, 2)), Some(940))), [true, true]);
        assert_eq!(vouches(stamp(Some((1, 2)), Some(941))), [true, false]);
        assert_eq!(vouches(stamp(Some((1, 2)), Some(998))), [true, false]);
        assert_eq!(vouches(stamp(Some((1, 2)), Some(999))), [false, false]);
        // A clock that is ahead of ours.
        assert_eq!(vouches(stamp(Some((1, 2)), Some(2000))), [false, false]);
        assert_eq!(vouches(stamp(None, Some(0))), [false, false]);
        assert_eq!(vouches(stamp(Some((1, 2)), None)), [false, false]);
    }

    fn key(inode: u64) -> Key {
        let identity = Identity { file: Some((1, inode)), len: 9, modified_ns: Some(0) };
        Key { stamp: Stamp { identity, changed_ns: None }, options: ParseOptions::default() }
    }

    fn some_header() -> Arc<Header> {
        let layout = Layout::new([], None, &Default::default()).unwrap();
        let start = layout.header_bytes();
        Arc::new(Header::parse(start, start.len() as u64, &Default::default()).unwrap())
    }

    fn inodes(cache: &Cache) -> Vec<u64> {
        cache.kept.iter().filter_map(|kept| kept.key.stamp.identity.file).map(|file| file.1).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(3, BYTES);
        for inode in [1, 2, 3] {
            assert_eq!(cache.insert(key(inode), some_header()).len(), 0);
        }
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(7)).is_none());
        assert_eq!(cache.insert(key(4), some_header()).len(), 1);
        assert_eq!(inodes(&cache), [3, 1, 4]);
        // A later content of a file takes the place of an earlier one.
        let mut later = key(3);
        later.stamp.identity.modified_ns = Some(1);
        assert_eq!(cache.insert(later, some_header()).len(), 1);
        assert_eq!(inodes(&cache), [1, 4, 3]);
        assert!(cache.get(&key(3)).is_none() && cache.get(&later).is_some());
    }

    #[test]
    fn the_bytes_of_all_headers_are_bounded() {
        let bytes = some_header().memory_bytes() + size_of::<Kept>();
        let mut cache = Cache::new(ENTRIES, 2 * bytes);
        for inode in [1, 2, 3] {
            cache.insert(key(inode), some_header());
        }
        assert_eq!(inodes(&cache), [2, 3]);
        // What does not fit at all does not drive out the others.
        let mut small = Cache::new(ENTRIES, bytes - 1);
        assert_eq!(small.insert(key(1), some_header()).len(), 1);
        assert_eq!(inodes(&small), []);
    }
}

//! A file, read at offsets without a cursor.

#[cfg(target_os = "linux")]
use std::ops::Range;
use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    Error, FileSystem, Identity, Latency, Source, SourceInfo, direct::Direct, error::refusal,
    header_cache::Stamp,
};

/// An open file as a [`Source`]. A file that was replaced by another of the same name goes on
/// being read; one that is changed in place is noticed by its [`Identity`].
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    len: u64,
    file_system: FileSystem,
    /// The same file, opened for direct reads when the first is asked for.
    direct: Direct,
}

impl FileSource {
    /// Opens the file at `path` for reading.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Io`](crate::ErrorKind::Io) where the file cannot
    /// be opened or is a directory; [`Usage`](crate::ErrorKind::Usage), without waiting for it, where
    /// it is a device, a pipe or a socket, or where no path is such.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = open(path).map_err(|e| match fs::metadata(path) {
            // A socket, which cannot be opened at all.
            Ok(there) if !there.is_file() && !there.is_dir() => Error::not_regular(path),
            _ => Error::os("open", Some(path), e),
        })?;
        Self::from_file(file, path)
    }

    /// Takes an open file; `path` names it in errors.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where its length cannot be read or it is a directory,
    /// [`Usage`](crate::ErrorKind::Usage) where it is no regular file.
    pub fn from_file(file: File, path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let metadata = file.metadata().map_err(|e| Error::os("read the length", Some(&path), e))?;
        if metadata.is_dir() {
            return Err(Error::os("read", Some(&path), refusal::is_a_directory()));
        }
        if !metadata.is_file() {
            return Err(Error::not_regular(&path));
        }
        let file_system = FileSystem::of(&file);
        Ok(Self { len: metadata.len(), file, path, file_system, direct: Direct::default() })
    }

    /// The file system that the file is on.
    #[must_use]
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    #[cfg(target_os = "linux")]
    fn advise(&self, range: &Range<u64>, advice: rustix::fs::Advice) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        if len.is_some() {
            // Advice: a refusal changes nothing.
            let _ = rustix::fs::fadvise(&self.file, range.start, len, advice);
        }
    }

    /// What the file is by now.
    pub(crate) fn stamp(&self) -> Result<Stamp, Error> {
        let metadata = self.file.metadata().map_err(|e| Error::os("inspect", Some(&self.path), e))?;
        #[cfg(unix)]
        let changed_ns = {
            use std::os::unix::fs::MetadataExt as _;
            let seconds = i128::from(metadata.ctime()).saturating_mul(1_000_000_000);
            Some(seconds.saturating_add(i128::from(metadata.ctime_nsec())))
        };
        #[cfg(not(unix))]
        let changed_ns = None;
        Ok(Stamp { identity: identity(&metadata), changed_ns })
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match read_some_at(&self.file, at, rest) {
                Ok(0) => return Err(Error::short(Some(&self.path), at, 0, rest.len() as u64)),
                Ok(n) => done = done.saturating_add(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let range = offset..offset.saturating_add(out.len() as u64);
                    return Err(Error::os_range("read", Some(&self.path), range, e));
                }
            }
        }
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(Some(self.stamp()?.identity))
    }

    fn info(&self) -> SourceInfo {
        let local = self.file_system.is_local();
        let latency = if local { Latency::Local } else { Latency::Network };
        let direct = local && self.direct.may_work();
        SourceInfo { direct, ..SourceInfo::new(latency) }
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn as_file(&self) -> Option<(&File, u64)> {
        Some((&self.file, 0))
    }

    fn read_direct(&self, offset: u64, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let range = offset..offset.saturating_add(out.len() as u64);
        self.direct
            .read(&self.file, offset, out)
            .map_err(|e| Error::os_range("read", Some(&self.path), range, e))
    }

    #[cfg(target_os = "linux")]
    fn resident(&self, range: Range<u64>) -> Option<u64> {
        crate::residency::resident(&self.file, &range)
    }

    #[cfg(target_os = "linux")]
    fn will_need(&self, range: Range<u64>) {
        self.advise(&range, rustix::fs::Advice::WillNeed);
    }

    #[cfg(target_os = "linux")]
    fn forget(&self, range: Range<u64>) {
        self.advise(&range, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;
    // A pipe would wait for a writer, a terminal would become ours; files do not know these flags.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // A file after all, but another program has a lease on it and is asked to give it back.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock && fs::metadata(path)?.is_file() => File::open(path),
        opened => opened,
    }
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn identity(metadata: &Metadata) -> Identity {
    #[cfg(unix)]
    let file = {
        use std::os::unix::fs::MetadataExt as _;
        Some((metadata.dev(), metadata.ino()))
    };
    #[cfg(not(unix))]
    let file = None;
    let modified_ns = metadata.modified().ok().map(nanoseconds);
    Identity { file, len: metadata.len(), modified_ns }
}

fn nanoseconds(time: SystemTime) -> i128 {
    let count = |nanos: u128| i128::try_from(nanos).unwrap_or(i128::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => count(after.as_nanos()),
        Err(before) => count(before.duration().as_nanos()).saturating_neg(),
    }
}

#[cfg(unix)]
pub(crate) fn read_some_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(windows)]
pub(crate) fn read_some_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

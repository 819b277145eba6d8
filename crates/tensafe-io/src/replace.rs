//! The atomic, durable writer: a temporary file beside the target, renamed over it.
//!
//! - The target's directory holds the temporary file, so that the rename stays on one file system.
//! - Its name is one that nobody else chooses, or one that processes agreed on to write it together.
//! - A symbolic link is written through: the file that it points to is replaced, the link stays.
//! - A new file has the mode that the umask leaves; a file that is replaced keeps its mode.
//! - Durable means: the file is on the disk before it has its name, and the name is on the disk
//!   before the call returns.
//! - What is not a regular file, such as a pipe or `/dev/stdout`, cannot be replaced and is written
//!   to from its start to its end, when it is committed.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    DirectWrites, Error, Sink, WriteControl,
    error::refusal,
    filesystem::is_nfs,
    write::{DirectFile, MappedFile, start_writeback, write_pieces},
};

/// Choices of a [`FileSink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplaceOptions {
    /// Whether the file and its name are on the disk when the commit returns.
    pub durable: bool,
    /// Whether a file that is there already may be replaced.
    pub overwrite: bool,
    /// Whether the bytes pass by the page cache.
    pub direct: DirectWrites,
}

impl Default for ReplaceOptions {
    fn default() -> Self {
        Self { durable: true, overwrite: true, direct: DirectWrites::Auto }
    }
}

impl ReplaceOptions {
    /// The same options, durable or not.
    #[must_use]
    pub const fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// The same options, replacing or not.
    #[must_use]
    pub const fn with_overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// The same options with another choice of direct writes.
    #[must_use]
    pub const fn with_direct(mut self, direct: DirectWrites) -> Self {
        self.direct = direct;
        self
    }
}

/// A [`Sink`] that becomes a file, whole or not at all.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    bytes: u64,
    ending: Ending,
    options: ReplaceOptions,
    direct: Option<DirectFile>,
    mapped: Option<MappedFile>,
    /// The directory, where the name has to be on the disk at the end: what cannot be opened is met at
    /// the beginning.
    directory: Option<File>,
    /// Whether a flush failed. The system tells only once that it lost bytes: the next flush succeeds, without them.
    lossy: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Rename over the target.
    Rename,
    /// Copy into what cannot be replaced.
    Stream,
    /// The process that began the file ends it.
    Joined,
    Committed,
}

impl FileSink {
    /// Prepares a file of `bytes` bytes that will stand at `path`.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the directory cannot be written to, the disk has no room,
    /// or the path is taken and must not be replaced.
    ///
    /// # Cost
    /// Room for the whole file is reserved where it is durable and the file system can. A file that is
    /// replaced goes on taking its room until the commit.
    pub fn create(path: impl AsRef<Path>, bytes: u64, options: ReplaceOptions) -> Result<Self, Error> {
        Self::begin(path.as_ref(), bytes, options, None)
    }

    /// As [`create`](Self::create), under a temporary name that other processes know by `token`.
    pub(crate) fn share(
        path: &Path,
        bytes: u64,
        options: ReplaceOptions,
        token: &str,
    ) -> Result<Self, Error> {
        Self::begin(path, bytes, options, Some(token))
    }

    fn begin(path: &Path, bytes: u64, options: ReplaceOptions, token: Option<&str>) -> Result<Self, Error> {
        let there = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::os("inspect", Some(path), e)),
        };
        let streams = there.as_ref().is_some_and(|m| !m.is_file() && !m.is_dir());
        // The link of an open pipe leads to no path.
        let target = if streams { path.to_owned() } else { follow(path)? };
        if there.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Error::os("write", Some(&target), refusal::is_a_directory()));
        }
        if there.is_some() && !options.overwrite {
            return Err(Error::os("write", Some(&target), refusal::exists()));
        }
        let (directory, ending) = if streams {
            (std::env::temp_dir(), Ending::Stream)
        } else {
            (directory_of(&target), Ending::Rename)
        };
        // Nobody may open what others must not read, not even before it has its mode.
        let mode = if streams { 0o600 } else { there.as_ref().map_or(0o666, mode_of) };
        let (file, temporary) = match token {
            Some(token) => shared_in(&directory, &target, token, mode)?,
            None => temporary_in(&directory, &target, mode)?,
        };
        let mut sink = Self::new(file, temporary, target, bytes, ending, options);
        if options.durable && !streams {
            sink.directory = open_directory(&directory)
                .map_err(|e| Error::os("open the directory", Some(&directory), e))?;
        }
        if let Some(metadata) = there.filter(|_| !streams) {
            sink.keep_mode(&metadata)?;
        }
        sink.reserve()?;
        // What is streamed is read back, from the page cache at best.
        sink.open_direct(!streams);
        if !options.durable && sink.direct.is_none() && token.is_none() && !streams {
            sink.mapped = MappedFile::of(&sink.file, bytes);
        }
        Ok(sink)
    }

    /// Opens the file that another process [`share`](Self::share)s, if it has this length and header.
    pub(crate) fn join(
        path: &Path,
        bytes: u64,
        header: &[u8],
        options: ReplaceOptions,
        token: &str,
    ) -> Result<Self, Error> {
        let target = follow(path)?;
        let directory = directory_of(&target);
        let temporary = directory.join(shared_name(&target, token)?);
        let failed = |e| Error::os("join the file", Some(&temporary), e);
        let file = opened_by_several(&directory).open(&temporary).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found != bytes {
            return Err(Error::not_joined(&temporary, "length"));
        }
        #[cfg(target_os = "linux")]
        // Pages that were read ahead would be in the way of direct writes. Advice: it may be refused.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        let mut start = vec![0; header.len()];
        (&file).read_exact(&mut start).map_err(failed)?;
        if start != header {
            return Err(Error::not_joined(&temporary, "header"));
        }
        let mut sink = Self::new(file, temporary, target, bytes, Ending::Joined, options);
        sink.open_direct(true);
        Ok(sink)
    }

    fn new(
        file: File,
        temporary: PathBuf,
        target: PathBuf,
        bytes: u64,
        ending: Ending,
        options: ReplaceOptions,
    ) -> Self {
        let (direct, mapped, directory) = (None, None, None);
        let lossy = AtomicBool::new(false);
        Self { file, temporary, target, bytes, ending, options, direct, mapped, directory, lossy }
    }

    fn open_direct(&mut self, possible: bool) {
        if possible && self.options.direct.wanted(self.bytes, self.options.durable) {
            self.direct = DirectFile::open(&self.temporary);
        }
    }

    /// Writes pieces of memory to their offsets, past the page cache or by several threads where it
    /// pays. They may come in any order. What calls at the same time write to the same bytes is one's or
    /// the other's, or some of both.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Usage`](crate::ErrorKind::Usage) for pieces that overlap or go
    /// beyond the length, and [`Cancelled`](crate::ErrorKind::Cancelled) as `control` says. After the
    /// first that failed only blocks under way are still written, and none when this returns. Where a
    /// piece is mapped from a file that was cut short, or, on ext4 and XFS, the disk fails while a file
    /// that is not durable is written, the process may end by SIGBUS.
    ///
    /// # Cost
    /// Blocks. 4 MiB or more have up to four threads where they are written directly, or on ext4 and XFS
    /// to a file of 32 MiB or more that is not durable and not shared, for which room is reserved then.
    /// All direct writes of a file share at most 16 MiB of memory.
    pub fn write_pieces(&self, pieces: &[(u64, &[u8])], control: &WriteControl<'_>) -> Result<(), Error> {
        write_pieces(self, pieces, control)
    }

    pub(crate) fn direct(&self) -> Option<&DirectFile> {
        self.direct.as_ref()
    }

    pub(crate) fn mapped(&self) -> Option<&MappedFile> {
        self.mapped.as_ref()
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `reserve`, whose error is that of a full disk.
    pub(crate) fn with_room<T>(&self, reserve: impl FnOnce(&File) -> io::Result<T>) -> Result<T, Error> {
        reserve(&self.file).map_err(|e| self.no_room(e))
    }

    fn no_room(&self, error: io::Error) -> Error {
        Error::os("reserve room", Some(&self.target), error)
    }

    /// The file that this will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn is_joined(&self) -> bool {
        self.ending == Ending::Joined
    }

    pub(crate) fn check_range(&self, range: &Range<u64>) -> Result<(), Error> {
        if range.start > range.end || range.end > self.bytes {
            return Err(Error::out_of_bounds(range.clone(), self.bytes));
        }
        Ok(())
    }

    /// Writes within the length, which the caller checked.
    pub(crate) fn write_within(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        write_all_at(&self.file, offset, bytes)
            .map_err(|e| self.failed_to_write(offset..offset.saturating_add(bytes.len() as u64), e))
    }

    pub(crate) fn failed_to_write(&self, range: Range<u64>, error: io::Error) -> Error {
        Error::os_range("write", Some(&self.target), range, error)
    }

    /// Waits until what was written so far, by anyone on this host, is on the disk. After a failure it fails
    /// again, whatever the system says.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.flush_by(File::sync_all)
    }

    fn flush_by(&self, flush: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Error> {
        if let Err(e) = flush(&self.file) {
            self.lossy.store(true, Ordering::Relaxed);
            return Err(Error::os("flush", Some(&self.target), e));
        }
        self.check_flushed()
    }

    /// Whether no flush has failed.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub(crate) fn check_flushed(&self) -> Result<(), Error> {
        if self.lossy.load(Ordering::Relaxed) {
            return Err(Error::os("flush", Some(&self.target), refusal::flush_failed_before()));
        }
        Ok(())
    }

    #[cfg(unix)]
    fn keep_mode(&self, replaced: &fs::Metadata) -> Result<(), Error> {
        self.file
            .set_permissions(replaced.permissions())
            .map_err(|e| Error::os("set the mode", Some(&self.target), e))
    }

    #[cfg(not(unix))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "other platforms keep no mode")]
    fn keep_mode(&self, _: &fs::Metadata) -> Result<(), Error> {
        Ok(())
    }

    /// A full disk is met here, before the first byte, where the file is durable and the file system
    /// can reserve.
    fn reserve(&self) -> Result<(), Error> {
        // Of other files only what is written through a mapping has room reserved: files with holes
        // stay files with holes.
        let reserves = self.options.durable || self.options.direct == DirectWrites::Always;
        if reserves && reserve(&self.file, 0..self.bytes).map_err(|e| self.no_room(e))? {
            return Ok(());
        }
        self.file.set_len(self.bytes).map_err(|e| Error::os("set the length", Some(&self.target), e))
    }

    fn stream(&mut self) -> io::Result<()> {
        let mut out = OpenOptions::new().write(true).open(&self.target)?;
        self.file.rewind()?;
        let copied = io::copy(&mut (&self.file).take(self.bytes), &mut out)?;
        if copied != self.bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        out.flush()
    }
}

impl Sink for FileSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check_range(&(offset..offset.saturating_add(bytes.len() as u64)))?;
        self.write_within(offset, bytes)
    }

    fn commit(&mut self) -> Result<(), Error> {
        let failed = |doing, target: &Path, e| Error::os(doing, Some(target), e);
        match self.ending {
            Ending::Committed | Ending::Joined => return Ok(()),
            Ending::Stream => {
                let streamed = self.stream();
                streamed.map_err(|e| failed("write", &self.target, e))?;
                // The temporary copy has served; that it cannot be removed is nobody's loss.
                drop(fs::remove_file(&self.temporary));
            }
            Ending::Rename => {
                if self.options.durable {
                    self.flush()?;
                }
                self.check_flushed()?;
                if self.mapped.is_some() && fs::symlink_metadata(&self.target).is_ok() {
                    start_writeback(&self.file);
                }
                let named = if self.options.overwrite {
                    fs::rename(&self.temporary, &self.target)
                } else {
                    rename_to_free(&self.temporary, &self.target)
                };
                named.map_err(|e| failed("rename to", &self.target, e))?;
            }
        }
        self.ending = Ending::Committed;
        match self.directory.take() {
            Some(directory) => {
                flush_name(&directory).map_err(|e| failed("flush the name of", &self.target, e))
            }
            None => Ok(()),
        }
    }

    fn flush_early(&self) -> Result<(), Error> {
        if self.options.durable { self.flush_by(File::sync_data) } else { Ok(()) }
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if !matches!(self.ending, Ending::Committed | Ending::Joined) {
            // Nothing can be done about a failure here, and an error may be on its way already.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// Has the file system set room apart for the bytes `range` of a file, which is at least as long as its end then.
/// `false` where it cannot.
///
/// # Errors
/// There is no room.
#[cfg(target_os = "linux")]
pub(crate) fn reserve(file: &File, range: Range<u64>) -> io::Result<bool> {
    use rustix::{fs::FallocateFlags, io::Errno};
    if range.is_empty() {
        return Ok(false);
    }
    let bytes = range.end.saturating_sub(range.start);
    let reserved = || rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, bytes);
    match rustix::io::retry_on_intr(reserved) {
        Ok(()) => Ok(true),
        Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(e.into()),
        Err(_) => Ok(false),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reserve(_: &File, _: Range<u64>) -> io::Result<bool> {
    Ok(false)
}

/// The file that `path` leads to through symbolic links, whether it is there or not.
fn follow(path: &Path) -> Result<PathBuf, Error> {
    const MOST_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(next) => target = directory_of(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(Error::os("follow the links of", Some(path), refusal::too_many_links()))
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn temporary_in(directory: &Path, target: &Path, mode: u32) -> Result<(File, PathBuf), Error> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut last = refusal::exists();
    for _ in 0..64 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let mut name = OsString::from(".");
        // A long name of the target must not make the temporary name too long.
        let stem: String =
            target.file_name().unwrap_or_default().to_string_lossy().chars().take(32).collect();
        name.push(stem);
        name.push(format!(".{:x}-{nanos:x}-{count:x}.tmp", std::process::id()));
        let path = directory.join(name);
        // Readable too: what is streamed is read back.
        match with_mode(OpenOptions::new().read(true).write(true).create_new(true), mode).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
            Err(e) => return Err(Error::os("create a file in", Some(directory), e)),
        }
    }
    Err(Error::os("create a file in", Some(directory), last))
}

/// The temporary file that processes know by `token`; its name is taken while a save goes on.
fn shared_in(directory: &Path, target: &Path, token: &str, mode: u32) -> Result<(File, PathBuf), Error> {
    let path = directory.join(shared_name(target, token)?);
    let file = with_mode(opened_by_several(directory).create_new(true), mode).open(&path);
    file.map(|file| (file, path.clone())).map_err(|e| Error::os("create the file", Some(&path), e))
}

/// How to open a file in `directory` that several hosts write to side by side.
///
/// A client of NFS that has all of a page may write all of it back, and with it what another host has
/// overwritten since: of parts that meet in a page one would be lost. It sends no more than what was written
/// where each write is synchronous (`nfs_can_extend_write` of Linux).
fn opened_by_several(directory: &Path) -> OpenOptions {
    let mut open = OpenOptions::new();
    open.read(true).write(true);
    let on_nfs = is_nfs(directory);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let synchronous = if on_nfs { OFlags::DSYNC } else { OFlags::empty() };
        if let Ok(flags) = i32::try_from((OFlags::NOFOLLOW | synchronous).bits()) {
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut open, flags);
        }
    }
    #[cfg(not(unix))]
    let _ = on_nfs;
    open
}

#[cfg(unix)]
fn with_mode(open: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
    std::os::unix::fs::OpenOptionsExt::mode(open, mode)
}

#[cfg(not(unix))]
fn with_mode(open: &mut OpenOptions, _: u32) -> &mut OpenOptions {
    open
}

#[cfg(unix)]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

#[cfg(not(unix))]
fn mode_of(_: &fs::Metadata) -> u32 {
    0o666
}

/// Renames a file, unless the name has been taken.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The file system, or the kernel, does not know how.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    // A second name is never one that has been taken.
    match fs::hard_link(from, to) {
        Ok(()) => {
            // That the first stays is nobody's loss.
            drop(fs::remove_file(from));
            Ok(())
        }
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(refusal::exists()),
        // A file has one name there.
        Err(_) => fs::rename(from, to),
    }
}

fn shared_name(target: &Path, token: &str) -> Result<OsString, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if token.is_empty() || token.len() > 64 || !token.chars().all(plain) {
        return Err(Error::token(token));
    }
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{token}.part"));
    Ok(name)
}

#[cfg(unix)]
fn open_directory(directory: &Path) -> io::Result<Option<File>> {
    File::open(directory).map(Some)
}

#[cfg(not(unix))]
fn open_directory(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

/// Waits until the names in a directory are on the disk.
fn flush_name(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        // Some file systems have no such thing as a flush of a directory.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_some_at(file, offset, bytes) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(n) => {
                offset = offset.saturating_add(n as u64);
                bytes = bytes.get(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// One positioned write. Returns how many bytes it took.
pub(crate) fn write_some_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_at(file, bytes, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_write(file, bytes, offset);
}

//! Reads past the page cache: nothing is kept that is read once, and no page is reserved for it.
//!
//! The file is opened a second time for them, through the descriptor that is open already: a file that
//! was replaced meanwhile stays the same file. Where the file system refuses, for ever or for one read,
//! callers read through the cache.

use std::{
    fs::File,
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::file::read_some_at;

/// A file's second descriptor, for direct reads.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    file: OnceLock<Option<File>>,
    refused: AtomicBool,
}

impl Direct {
    /// Whether nothing has refused yet.
    pub(crate) fn may_work(&self) -> bool {
        cfg!(target_os = "linux")
            && !self.refused.load(Ordering::Relaxed)
            && self.file.get().is_none_or(Option::is_some)
    }

    /// Fills `out`, aligned like `offset`, as far as the file reaches; `None` where that is refused.
    pub(crate) fn read(&self, file: &File, offset: u64, out: &mut [u8]) -> io::Result<Option<usize>> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(direct) = self.file.get_or_init(|| open(file)) else { return Ok(None) };
        let mut done = 0usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match read_some_at(direct, offset.saturating_add(done as u64), rest) {
                Ok(0) => break,
                Ok(n) => {
                    done = done.saturating_add(n);
                    // A count that is no multiple of a block is the end of the file.
                    if !n.is_multiple_of(512) {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Whatever the reason: reading through the cache works, or tells it better.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Some(done))
    }
}

#[cfg(target_os = "linux")]
fn open(file: &File) -> Option<File> {
    use std::{
        fs::OpenOptions,
        os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    };

    use rustix::fs::OFlags;
    let flags = (OFlags::DIRECT | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open(_: &File) -> Option<File> {
    None
}

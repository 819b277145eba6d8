//! Mapping a file into memory: the promise that it takes, and the one call that needs it.

use std::fmt;

use memmap2::{MmapMut, MmapOptions};

use crate::{Buffer, Error, FileSource, Source as _};

/// A caller's promise that files may be mapped. Only the unsafe constructor says yes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MapPermit(());

impl MapPermit {
    /// Allows files to be mapped.
    ///
    /// The mapping is private: writes to it stay in this process. It is lazy: bytes are read when
    /// they are first touched. Size and identity of the file are checked when it is opened.
    ///
    /// # Safety
    /// For as long as a [`Buffer`] of a mapped file lives,
    /// - no process shortens the file. Touching bytes beyond its new end raises SIGBUS, which ends
    ///   the process: no library can turn it into an error;
    /// - no process changes the file in place. Bytes that were read once may read differently
    ///   later, which no Rust reference allows. Replacing the file by renaming is harmless;
    /// - the device under the file does not fail or, for network file systems, go away: SIGBUS too.
    ///
    /// Where this cannot be promised, read instead: [`Access::Read`](crate::Access::Read).
    #[must_use]
    #[allow(unsafe_code, reason = "the promise is the caller's: no check of ours could keep it")]
    pub unsafe fn promised() -> Self {
        Self(())
    }
}

impl fmt::Debug for MapPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapPermit")
    }
}

/// Maps the whole file, privately and writably, without reserving memory for the writes.
pub(crate) fn map(source: &FileSource, _: MapPermit) -> Result<Buffer, Error> {
    let bytes = source.len();
    let Ok(len) = usize::try_from(bytes) else {
        return Err(Error::too_large_for_host(bytes));
    };
    if len == 0 {
        return Buffer::zeroed(0);
    }
    map_private(source, len).map(Buffer::from_mapping).map_err(|e| Error::os("map", source.path(), e))
}

#[allow(unsafe_code, reason = "mapping a file is only as sound as the promise of the permit")]
fn map_private(source: &FileSource, len: usize) -> std::io::Result<MmapMut> {
    // SAFETY: a `MapPermit` exists only by `MapPermit::promised`, whose caller promised that no
    // mapped file is shortened or changed in place while its buffers live.
    unsafe { MmapOptions::new().len(len).no_reserve_swap().map_copy(source.file()) }
}

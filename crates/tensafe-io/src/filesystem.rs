//! Which file system a file is on: where mapping is a poor idea, and why.

use std::{fs::File, path::Path};

/// The kind of file system, as far as reading is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileSystem {
    /// A disk of this machine, or memory.
    Local,
    /// NFS, SMB, Lustre, Ceph, GPFS, AFS or 9P: each page fault of a mapping is a round trip, and
    /// a lost server is a signal instead of an error.
    Network,
    /// A program answers: FUSE, which virtiofs counts as too.
    UserSpace,
    /// The platform does not tell.
    Unknown,
}

impl FileSystem {
    /// Whether reads are answered by this machine, as far as is known.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Local | Self::Unknown)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn of(file: &File) -> Self {
        // The magic numbers of linux/magic.h and of the clients that live outside of the kernel.
        const NETWORK: [u64; 9] = [
            NFS,
            0x517b,      // SMB
            0xff53_4d42, // CIFS
            0xfe53_4d42, // SMB2
            0x0bd0_0bd0, // Lustre
            0x00c3_6400, // Ceph
            0x4750_4653, // GPFS
            0x5346_414f, // AFS
            0x0102_1997, // 9P
        ];
        const FUSE: u64 = 0x6573_5546;
        match magic(file) {
            None => Self::Unknown,
            Some(FUSE) => Self::UserSpace,
            Some(magic) if NETWORK.contains(&magic) => Self::Network,
            Some(_) => Self::Local,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &File) -> Self {
        Self::Unknown
    }
}

/// Whether several threads that fill pages of a mapping are quicker than one that writes, as measured.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn has_quick_pages(file: &File) -> bool {
    const XFS: u64 = 0x5846_5342;
    matches!(magic(file), Some(EXT | XFS))
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn has_quick_pages(_: &File) -> bool {
    false
}

/// Whether the file system starts writeback of a file that replaces another, where it has no room on
/// the disk yet: ext4, unless it is told not to.
#[cfg(target_os = "linux")]
pub(crate) fn flushes_what_replaces(file: &File) -> bool {
    magic(file) == Some(EXT)
}

/// Whether files in a directory are on NFS.
#[cfg(target_os = "linux")]
pub(crate) fn is_nfs(directory: &Path) -> bool {
    File::open(directory).is_ok_and(|directory| magic(&directory) == Some(NFS))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_nfs(_: &Path) -> bool {
    false
}

#[cfg(target_os = "linux")]
const NFS: u64 = 0x6969;

/// ext2 to ext4.
#[cfg(target_os = "linux")]
const EXT: u64 = 0xef53;

/// The number that names the kind of file system.
#[cfg(target_os = "linux")]
fn magic(file: &File) -> Option<u64> {
    let found = rustix::fs::fstatfs(file).ok()?;
    // The field is signed on some platforms; the magic is its low 32 bits everywhere.
    u64::try_from(i128::from(found.f_type) & 0xffff_ffff).ok()
}

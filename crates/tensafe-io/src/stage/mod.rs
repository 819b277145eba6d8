//! The seam to devices: slabs of host memory that a device copies from, and copies that go on while
//! the next bytes are read.
//!
//! Workers know nothing of devices. Each has two slabs, reads into one while the other is copied from,
//! and takes a slab up again when its copies are done: see [`ring`].
#![allow(unsafe_code, reason = "a copy to an address of a device is a promise of its caller")]

mod copy;
#[cfg(target_os = "linux")]
mod cuda;
pub(crate) mod ring;

use std::{fmt, ops::Range};

pub use copy::CopyStager;
#[cfg(target_os = "linux")]
pub use cuda::CudaStager;

use crate::Error;

/// Makes slabs whose bytes can be copied to the memory of one device.
pub trait Stager: Send + Sync + fmt::Debug {
    /// Reserves host memory of `len` bytes that the device copies from. It is used by the thread that asked.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where there is no memory, or the device refuses it.
    fn slab(&self, len: usize) -> Result<Box<dyn Slab>, Error>;
}

/// Host memory that a device copies from, with an event that tells when it has.
///
/// Dropping one does not give its memory back while copies of it are under way: it waits for them, and
/// where waiting fails the memory is never given back.
pub trait Slab: Send + fmt::Debug {
    /// The bytes: at least as many as were asked for. The first lies on a page's border, where direct
    /// reads are to be made.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Starts copying a range of the slab, in bytes, to memory of the device.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) beyond the slab, [`Io`](crate::ErrorKind::Io) as the device says.
    ///
    /// # Safety
    /// - `to` is good for writes of as many bytes by the device, until a later [`wait`](Self::wait) or
    ///   [`is_done`](Self::is_done) says that the copies are done; nobody else uses them until then.
    /// - Until then the bytes of the slab are not touched.
    unsafe fn copy(&mut self, range: Range<usize>, to: *mut u8) -> Result<(), Error>;

    /// Records an event after the copies that were started.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) as the device says.
    fn record(&mut self) -> Result<(), Error>;

    /// Whether the recorded event has come; does not wait. True where nothing was started.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where a copy failed.
    fn is_done(&mut self) -> Result<bool, Error>;

    /// Waits for all copies that were started, recorded or not.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where a copy failed: whether the device still reads the slab is not
    /// known then.
    fn wait(&mut self) -> Result<(), Error>;
}

//! Copies by the processor, to memory of the host.
#![allow(unsafe_code, reason = "the destination is a pointer and a promise")]

use std::{ops::Range, ptr};

use super::{Slab, Stager};
use crate::{Error, arena::Arena, source::checked_range};

/// The stager for memory of the host that is treated as a device's, such as memory that a device shares
/// with it: copies are made at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyStager;

#[derive(Debug)]
struct CopySlab(Arena);

impl Stager for CopyStager {
    fn slab(&self, len: usize) -> Result<Box<dyn Slab>, Error> {
        let memory = Arena::pages(len).map_err(|e| Error::memory(len as u64, e))?;
        Ok(Box::new(CopySlab(memory)))
    }
}

impl Slab for CopySlab {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    unsafe fn copy(&mut self, range: Range<usize>, to: *mut u8) -> Result<(), Error> {
        let bytes = self.0.bytes_mut();
        let range = checked_range(&(range.start as u64..range.end as u64), bytes.len() as u64)?;
        let from = bytes.get(range).unwrap_or_default();
        // SAFETY: `from` is a slice; the caller promises that `to` is good for writes of as many bytes,
        // which nobody else uses, so that the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    fn record(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_done(&mut self) -> Result<bool, Error> {
        Ok(true)
    }

    fn wait(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

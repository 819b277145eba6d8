//! Where the bytes of a pickle come from.

use std::{borrow::Cow, io};

/// Bytes that a pickle is read from, from its first to its last.
///
/// A slice is one: what is read borrows from it. A file can be another, so that a pickle that holds
/// gigabytes is read without holding them: runs of bytes beyond [`near_bytes`](Self::near_bytes) stay
/// where they are and become [`Value::Far`](crate::Value::Far).
pub trait Stream<'a> {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// Up to `most` bytes from `at` on; fewer only where the bytes end.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]>;

    /// The `length` bytes from `at` on, which are there.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'a, [u8]>>;

    /// The longest run of bytes that is taken into memory.
    fn near_bytes(&self) -> u64 {
        u64::MAX
    }

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Stream<'a> for &'a [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        Ok(rest.get(..most).unwrap_or(rest))
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'a, [u8]>> {
        let bytes: &'a [u8] = self;
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
        let taken = rest.and_then(|rest| rest.get(..length));
        taken.map(Cow::Borrowed).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

impl<'a, S: Stream<'a> + ?Sized> Stream<'a> for &mut S {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        (**self).peek(at, most)
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'a, [u8]>> {
        (**self).take(at, length)
    }

    fn near_bytes(&self) -> u64 {
        (**self).near_bytes()
    }
}

//! One request of a worker: bytes from the file to the memories that they are for.
//!
//! Memory that requests fill is written through pointers. What makes that sound is an invariant of a
//! [`Program`](crate::program::Program): no byte of a memory is written by two requests; a memory is handed out
//! when the last request that has bytes for it is done.
#![allow(unsafe_code, reason = "workers fill parts of one memory side by side")]

use std::{slice, sync::atomic::Ordering};

use crate::{
    Error, arena::Arena, content::Content, explain::Method, lower::PAGE, pool::claim, program::Read,
    source::checked_range, worker::Shared,
};

/// Bytes of a worker's memory while its requests are small.
const SMALL: usize = 256 << 10;

/// Where the bytes of a memory begin, and how many places before and after may be written too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
    pub(crate) before: usize,
    pub(crate) after: usize,
    /// Whether it may be the pool's, and is [`claim`]ed before the kernel copies into it.
    pub(crate) pooled: bool,
}

impl Shared {
    pub(crate) fn perform(&self, read: &Read, scratch: &mut Option<Arena>) -> Result<(), Error> {
        let file = self.files.get(read.file).ok_or_else(Error::cancelled)?;
        match (read.method, &file.memory) {
            (Method::Memory, Some(memory)) => {
                let range = checked_range(&read.range, memory.len() as u64)?;
                self.spread(read, memory.get(range).unwrap_or_default())?;
            }
            (Method::Direct, _) => {
                if !self.read_in_place(file, read)? && !self.read_apart(file, read, scratch, true)? {
                    file.forget(read.range.clone());
                }
            }
            _ => {
                if !self.read_straight(file, read)? {
                    self.read_apart(file, read, scratch, false)?;
                }
                file.forget(read.range.clone());
            }
        }
        self.count(file, read)
    }

    /// Counts a request as read, if its file is still the one that was opened.
    pub(crate) fn count(&self, file: &Content, read: &Read) -> Result<(), Error> {
        let bytes = read.range.end.saturating_sub(read.range.start);
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        file.check_unchanged()
    }

    /// Reads past the cache into the memory itself, where pages of the file are pages there: the rest
    /// of the first and of the last page goes beside the bytes. Whether it did.
    fn read_in_place(&self, file: &Content, read: &Read) -> Result<bool, Error> {
        let Some((memory, offset)) = read.straight else { return Ok(false) };
        let Some(room) = self.room(memory) else { return Ok(false) };
        let len = read.range.end.saturating_sub(read.range.start);
        let from = read.range.start / PAGE * PAGE;
        let (before, after) =
            (read.range.start - from, read.range.end.next_multiple_of(PAGE) - read.range.end);
        // Beside the bytes of a memory nobody writes; between two requests somebody might.
        let at_start = before == 0 || (offset == 0 && before <= room.before as u64);
        let at_end =
            after == 0 || (offset.saturating_add(len) == room.len as u64 && after <= room.after as u64);
        let (Ok(offset), Ok(whole)) = (isize::try_from(offset), usize::try_from(before + len + after)) else {
            return Ok(false);
        };
        let start = room.start.wrapping_offset(offset).wrapping_sub(usize::try_from(before).unwrap_or(0));
        let aligned = start.addr().is_multiple_of(usize::try_from(PAGE).unwrap_or(1));
        if !at_start || !at_end || !aligned || !room.holds(start, whole) {
            return Ok(false);
        }
        // SAFETY: `holds` checked that these bytes lie within the memory, which stays open until this
        // request is done. No other request writes them: they are this request's own bytes, or lie
        // before the first or after the last byte of the memory, where only the request that has that
        // byte writes.
        let out = unsafe { slice::from_raw_parts_mut(start, whole) };
        claim(out);
        let done = file.source.read_direct(from, out)?;
        Self::check_short(file, read, done.map(|done| (done as u64).saturating_sub(before)))?;
        Ok(done.is_some())
    }

    pub(crate) fn check_short(file: &Content, read: &Read, found: Option<u64>) -> Result<(), Error> {
        let needed = read.range.end.saturating_sub(read.range.start);
        match found {
            Some(found) if found < needed => Err(Error::short(
                file.source.path(),
                read.range.start.saturating_add(found),
                0,
                needed - found,
            )),
            _ => Ok(()),
        }
    }

    /// Reads through the cache into the memory itself, where it is one run there. Whether it did.
    fn read_straight(&self, file: &Content, read: &Read) -> Result<bool, Error> {
        let Some((memory, offset)) = read.straight else { return Ok(false) };
        let len = read.range.end.saturating_sub(read.range.start);
        let Some(room) = self.room(memory) else { return Ok(false) };
        let Some(out) = room.part(offset, len) else { return Ok(false) };
        // SAFETY: `part` checked the bounds; the memory stays open until this request is done, and no
        // other request has these bytes.
        let out = unsafe { slice::from_raw_parts_mut(out.0, out.1) };
        if room.pooled {
            claim(out);
        }
        file.source.read_at(read.range.start, out)?;
        Ok(true)
    }

    /// Reads into memory of the worker, and copies the runs from there. Whether past the cache, which
    /// `direct` asks for.
    fn read_apart(
        &self,
        file: &Content,
        read: &Read,
        scratch: &mut Option<Arena>,
        direct: bool,
    ) -> Result<bool, Error> {
        let from = read.range.start / PAGE * PAGE;
        let len = read.range.end.next_multiple_of(PAGE).saturating_sub(from);
        let len = usize::try_from(len).map_err(|_| Error::too_large_for_host(len))?;
        let before = usize::try_from(read.range.start - from).unwrap_or(0);
        let bytes = usize::try_from(read.range.end.saturating_sub(read.range.start)).unwrap_or(0);
        if scratch.as_ref().is_none_or(|arena| arena.len() < len) {
            *scratch = None;
            // Enough for the small requests to come, or for all of them.
            let most = usize::try_from(self.program.scratch_bytes).unwrap_or(len);
            let len = len.max(if len > SMALL { most } else { most.min(SMALL) });
            *scratch = Some(Arena::pages(len).map_err(|e| Error::memory(len as u64, e))?);
        }
        let memory = scratch.as_mut().and_then(|arena| arena.bytes_mut().get_mut(..len));
        let memory = memory.ok_or_else(|| Error::too_large_for_host(len as u64))?;
        let done = if direct { file.source.read_direct(from, memory)? } else { None };
        Self::check_short(file, read, done.map(|done| done.saturating_sub(before) as u64))?;
        let wanted = memory.get_mut(before..before.saturating_add(bytes)).unwrap_or_default();
        if done.is_none() {
            file.source.read_at(read.range.start, wanted)?;
        }
        self.spread(read, wanted)?;
        Ok(done.is_some())
    }

    /// Copies the runs of a request to their memories; `bytes` are those of its range.
    fn spread(&self, read: &Read, bytes: &[u8]) -> Result<(), Error> {
        let mut known: Option<(usize, Room)> = None;
        for (memory, run) in self.program.copies(&self.plan, read) {
            let room = match known {
                Some((number, room)) if number == memory => room,
                _ => {
                    let room = self.room(memory).ok_or_else(Error::cancelled)?;
                    known = Some((memory, room));
                    room
                }
            };
            let from = run.from.saturating_sub(read.range.start);
            let range = checked_range(&(from..from.saturating_add(run.len)), bytes.len() as u64)?;
            let out = room.part(run.to, run.len);
            let out = out.ok_or_else(|| {
                Error::out_of_bounds(run.to..run.to.saturating_add(run.len), room.len as u64)
            })?;
            // SAFETY: `part` checked the bounds; the memory stays open until this request is done, and no
            // other request has these bytes.
            let out = unsafe { slice::from_raw_parts_mut(out.0, out.1) };
            out.copy_from_slice(bytes.get(range).unwrap_or_default());
        }
        Ok(())
    }
}

impl Room {
    /// `len` bytes from an offset on, where they are the memory's.
    pub(crate) fn part(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
        let range = checked_range(&(offset..offset.checked_add(len)?), self.len as u64).ok()?;
        Some((self.start.wrapping_add(range.start), range.len()))
    }

    /// Whether `len` bytes from an address on are the memory's, or beside it.
    fn holds(&self, start: *mut u8, len: usize) -> bool {
        let first = self.start.addr().saturating_sub(self.before);
        let end = self.start.addr().saturating_add(self.len).saturating_add(self.after);
        start.addr() >= first && start.addr().checked_add(len).is_some_and(|stop| stop <= end)
    }
}

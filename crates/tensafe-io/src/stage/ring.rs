//! The two slabs of a worker: one is read into while the other is copied from.
//!
//! Invariants: a slab is read into again only after the copies of what it held are done; a request is
//! finished only then; nothing of a ring is given back while copies are under way.
#![allow(unsafe_code, reason = "copies to a device are started with its addresses")]

use std::ops::Range;

use super::{Slab, Stager};
use crate::{
    Error, content::Content, explain::Method, lower::PAGE, program::Read, scatter::Run,
    source::checked_range, worker::Shared,
};

/// The slabs, each with the request whose copies are under way.
#[derive(Debug, Default)]
pub(crate) struct Ring<'p> {
    sides: [Option<Side<'p>>; 2],
    next: usize,
}

#[derive(Debug)]
struct Side<'p> {
    slab: Box<dyn Slab>,
    pending: Option<&'p Read>,
}

/// Bytes of the slab that are one run in a memory of the device.
#[derive(Debug)]
struct Piece {
    memory: usize,
    to: u64,
    slab: Range<usize>,
}

impl<'p> Ring<'p> {
    /// Whether no copies are under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.sides.iter().flatten().all(|side| side.pending.is_none())
    }

    /// Waits for the copies that were started first. The request that they finish, `None` where there
    /// are none.
    pub(crate) fn settle(&mut self) -> Result<Option<&'p Read>, Error> {
        let first = self.next;
        for place in [first, 1 - first] {
            if let Some(side) = self.sides.get_mut(place).and_then(Option::as_mut)
                && side.pending.is_some()
            {
                side.slab.wait()?;
                return Ok(side.pending.take());
            }
        }
        Ok(None)
    }

    /// A request whose copies are done, without waiting.
    pub(crate) fn poll(&mut self) -> Result<Option<&'p Read>, Error> {
        for place in [self.next, 1 - self.next] {
            if let Some(side) = self.sides.get_mut(place).and_then(Option::as_mut)
                && side.pending.is_some()
                && side.slab.is_done()?
            {
                return Ok(side.pending.take());
            }
        }
        Ok(None)
    }

    /// The slab whose turn it is, and the request that had to be waited for.
    fn turn(&mut self, stager: &dyn Stager, len: usize) -> Result<(&mut Side<'p>, Option<&'p Read>), Error> {
        let place = self.next;
        self.next = 1 - place;
        let Some(side) = self.sides.get_mut(place) else { return Err(Error::cancelled()) };
        if side.is_none() {
            *side = Some(Side { slab: stager.slab(len)?, pending: None });
        }
        let Some(side) = side else { return Err(Error::cancelled()) };
        if side.pending.is_some() {
            side.slab.wait()?;
        }
        let finished = side.pending.take();
        Ok((side, finished))
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        for side in self.sides.iter_mut().flatten() {
            // After an error copies may be under way that no event was recorded for. Where waiting fails
            // too, the slab keeps its memory.
            drop(side.slab.wait());
        }
    }
}

impl Shared {
    /// Reads a request into a slab and starts its copies. Requests that are done by then are finished.
    pub(crate) fn stage<'p>(&'p self, read: &'p Read, ring: &mut Ring<'p>) -> Result<(), Error> {
        let (Some(file), Some(stager)) = (self.files.get(read.file), &self.stager) else { return Ok(()) };
        let len = usize::try_from(self.program.slab_bytes);
        let len = len.map_err(|_| Error::too_large_for_host(self.program.slab_bytes))?;
        let (side, finished) = ring.turn(&**stager, len)?;
        if let Some(finished) = finished {
            self.finish(finished);
        }
        let pieces = self.fill(file, read, side.slab.bytes_mut())?;
        self.count(file, read)?;
        for Piece { memory, to, slab } in pieces {
            let len = slab.len() as u64;
            let out = self.room(memory).and_then(|room| room.part(to, len));
            let (out, _) = out.ok_or_else(|| Error::out_of_bounds(to..to.saturating_add(len), 0))?;
            // SAFETY: `part` checked the bounds of the device's memory, which stays open until this
            // request is finished; no other request has these bytes. The slab is not touched until
            // `wait` or `is_done` says so: the request is pending.
            unsafe { side.slab.copy(slab, out) }?;
        }
        side.slab.record()?;
        side.pending = Some(read);
        while let Some(done) = ring.poll()? {
            self.finish(done);
        }
        Ok(())
    }

    /// Brings the bytes of a request into a slab, those of a run of the destination side by side.
    fn fill(&self, file: &Content, read: &Read, slab: &mut [u8]) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        if let (Method::Memory, Some(memory)) = (read.method, &file.memory) {
            let mut at = 0;
            for (target, run) in self.program.copies(&self.plan, read) {
                let from = checked_range(&(run.from..run.from.saturating_add(run.len)), memory.len() as u64)?;
                let to = checked_range(&(at..at.saturating_add(run.len)), slab.len() as u64)?;
                let out = slab.get_mut(to.clone()).unwrap_or_default();
                out.copy_from_slice(memory.get(from).unwrap_or_default());
                at = at.saturating_add(run.len);
                add(&mut pieces, target, &run, to);
            }
            return Ok(pieces);
        }
        let before = self.read_pages(file, read, slab)?;
        for (target, run) in self.program.copies(&self.plan, read) {
            let from = run.from.saturating_sub(read.range.start).saturating_add(before);
            let from = checked_range(&(from..from.saturating_add(run.len)), slab.len() as u64)?;
            // Runs ascend in the file, so that what is moved goes down, over bytes that are done with.
            let to = match pieces.last() {
                Some(last) if last.memory == target && last.follows(&run) && last.slab.end < from.start => {
                    let to = last.slab.end;
                    slab.copy_within(from.clone(), to);
                    to..to.saturating_add(from.len())
                }
                _ => from,
            };
            add(&mut pieces, target, &run, to);
        }
        Ok(pieces)
    }

    /// Reads the range of a request to its place within the pages of the slab. How many bytes lie
    /// before it there.
    fn read_pages(&self, file: &Content, read: &Read, slab: &mut [u8]) -> Result<u64, Error> {
        let from = read.range.start / PAGE * PAGE;
        let before = read.range.start.saturating_sub(from);
        let pages = read.range.end.next_multiple_of(PAGE).saturating_sub(from);
        let aligned = (slab.as_ptr().addr() as u64).is_multiple_of(PAGE);
        let slab_bytes = slab.len() as u64;
        let out = slab.get_mut(checked_range(&(0..pages), slab_bytes)?).unwrap_or_default();
        let direct = read.method == Method::Direct && aligned;
        let done = if direct { file.source.read_direct(from, out)? } else { None };
        Self::check_short(file, read, done.map(|done| (done as u64).saturating_sub(before)))?;
        if done.is_none() {
            let end = before.saturating_add(read.range.end.saturating_sub(read.range.start));
            let wanted = out.get_mut(checked_range(&(before..end), slab_bytes)?).unwrap_or_default();
            file.source.read_at(read.range.start, wanted)?;
            file.forget(read.range.clone());
        }
        Ok(before)
    }
}

impl Piece {
    /// Whether a run lies behind this piece in the destination.
    fn follows(&self, run: &Run) -> bool {
        self.to.saturating_add(self.slab.len() as u64) == run.to
    }
}

/// Adds a run that lies in the slab: to the last piece where it is behind that on both sides.
fn add(pieces: &mut Vec<Piece>, memory: usize, run: &Run, slab: Range<usize>) {
    match pieces.last_mut() {
        Some(last) if last.memory == memory && last.follows(run) && last.slab.end == slab.start => {
            last.slab.end = slab.end;
        }
        _ => pieces.push(Piece { memory, to: run.to, slab }),
    }
}

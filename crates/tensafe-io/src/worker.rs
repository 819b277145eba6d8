//! What the workers of an execution share, and what each of them does.
//!
//! A worker takes the next request under one lock, and waits there for the budget: memories are opened
//! in order, so that what the caller waits for is never behind what it has not taken.
//!
//! Memory that requests fill is written through pointers. What makes that sound is an invariant of
//! [`lower`](crate::lower): no byte of a memory is written by two requests; a memory is handed out
//! when the last request that has bytes for it is done.
#![allow(unsafe_code, reason = "workers fill parts of one memory side by side")]

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Buffer, Cache, Destination, Error, Plan,
    arena::Arena,
    content::Content,
    explain::Method,
    hand_off::HandOff,
    lower::{Memory, PAGE, Program, Read},
    pool::claim,
    source::checked_range,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) program: Program,
    pub(crate) files: Vec<Content>,
    hand_off: HandOff,
    /// What each memory of the program is, once it is opened.
    slots: Vec<Mutex<Option<Target>>>,
    error: Mutex<Option<Error>>,
    pub(crate) done_bytes: AtomicU64,
}

#[derive(Debug)]
enum Target {
    Own(Arena),
    Caller(Destination),
}

/// Where the bytes of a memory begin, and how many places before and after may be written too.
#[derive(Clone, Copy, Debug)]
struct Room {
    start: *mut u8,
    len: usize,
    before: usize,
    after: usize,
}

impl Shared {
    /// A lowered plan, of which nothing was read yet; `given` is memory of the caller for its entries.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where memory of the caller is missing or too short.
    pub(crate) fn new(
        plan: Arc<Plan>,
        program: Program,
        files: Vec<Content>,
        given: Vec<(usize, Destination)>,
    ) -> Result<Self, Error> {
        let slots = slots(&plan, &program, given)?;
        Ok(Self {
            hand_off: HandOff::new(program.budget, requests_of_memories(&program)),
            plan,
            program,
            files,
            slots,
            error: Mutex::new(None),
            done_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn stop(&self) {
        self.hand_off.stop();
    }

    /// Whether nobody has ended it: else the first error, or that it was cancelled.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.hand_off.is_over() {
            return Err(locked(&self.error).take().unwrap_or_else(Error::cancelled));
        }
        Ok(())
    }

    fn fail(&self, error: Error) {
        locked(&self.error).get_or_insert(error);
        self.stop();
    }

    /// Works; a panic, of a source that a caller brought, ends the execution instead of leaving it
    /// waiting.
    pub(crate) fn work_or_tell(&self) {
        if panic::catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.fail(Error::from_source("read", io::Error::other("a source panicked")));
        }
    }

    fn work(&self) {
        let mut scratch = None;
        while let Some(read) = self.take() {
            if let Err(error) = self.perform(read, &mut scratch) {
                return self.fail(error);
            }
            self.hand_off.finish(self.program.touched(read));
        }
    }

    /// The next request, its memories opened.
    fn take(&self) -> Option<&Read> {
        self.hand_off.take(|number| {
            let read = self.program.reads.get(number)?;
            for memory in read.opens.clone() {
                if let Err(error) = self.open(memory) {
                    if let Some(error) = error {
                        self.fail(error);
                    }
                    return None;
                }
            }
            Some(read)
        })
    }

    /// Takes the memory's bytes from the budget and reserves it; an error without text where the
    /// execution is over.
    fn open(&self, memory: usize) -> Result<(), Option<Error>> {
        let (Some(Memory::Own { bytes, lead }), Some(slot)) =
            (self.program.memories.get(memory), self.slots.get(memory))
        else {
            return Ok(());
        };
        if !self.hand_off.reserve(*bytes) {
            return Err(None);
        }
        let padding = if *lead > 0 || *bytes >= PAGE { PAGE } else { 0 };
        let len = bytes.checked_add(*lead).and_then(|n| n.checked_add(padding));
        let len =
            len.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| Error::too_large_for_host(*bytes))?;
        let arena = Arena::unclaimed(len).map_err(|e| Error::memory(*bytes, e))?;
        *locked(slot) = Some(Target::Own(arena));
        Ok(())
    }

    fn room(&self, memory: usize) -> Option<Room> {
        let target = locked(self.slots.get(memory)?);
        match (target.as_ref()?, self.program.memories.get(memory)?) {
            (Target::Own(arena), Memory::Own { bytes, lead }) => {
                let (before, len) = (usize::try_from(*lead).ok()?, usize::try_from(*bytes).ok()?);
                let after = arena.len().checked_sub(before)?.checked_sub(len)?;
                Some(Room { start: arena.start().wrapping_add(before), len, before, after })
            }
            (Target::Caller(memory), _) => {
                Some(Room { start: memory.start(), len: memory.len(), before: 0, after: 0 })
            }
            _ => None,
        }
    }

    fn perform(&self, read: &Read, scratch: &mut Option<Arena>) -> Result<(), Error> {
        let Some(file) = self.files.get(read.file) else { return Ok(()) };
        match (read.method, &file.memory) {
            (Method::Memory, Some(memory)) => {
                let range = checked_range(&read.range, memory.len() as u64)?;
                self.spread(read, memory.get(range).unwrap_or_default())?;
            }
            (Method::Direct, _) => {
                if !self.read_in_place(file, read)? {
                    self.read_apart(file, read, scratch, true)?;
                }
            }
            _ => {
                if !self.read_straight(file, read)? {
                    self.read_apart(file, read, scratch, false)?;
                }
                if file.cache == Cache::Drop {
                    file.source.forget(read.range.clone());
                }
            }
        }
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
        self.check_short(file, read, done.map(|done| (done as u64).saturating_sub(before)))?;
        Ok(done.is_some())
    }

    fn check_short(&self, file: &Content, read: &Read, found: Option<u64>) -> Result<(), Error> {
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
        let Some(out) = self.room(memory).and_then(|room| room.part(offset, len)) else { return Ok(false) };
        // SAFETY: `part` checked the bounds; the memory stays open until this request is done, and no
        // other request has these bytes.
        let out = unsafe { slice::from_raw_parts_mut(out.0, out.1) };
        claim(out);
        file.source.read_at(read.range.start, out)?;
        Ok(true)
    }

    /// Reads into memory of the worker, and copies the runs from there.
    fn read_apart(
        &self,
        file: &Content,
        read: &Read,
        scratch: &mut Option<Arena>,
        direct: bool,
    ) -> Result<(), Error> {
        let from = read.range.start / PAGE * PAGE;
        let len = read.range.end.next_multiple_of(PAGE).saturating_sub(from);
        let len = usize::try_from(len).map_err(|_| Error::too_large_for_host(len))?;
        let before = usize::try_from(read.range.start - from).unwrap_or(0);
        let bytes = usize::try_from(read.range.end.saturating_sub(read.range.start)).unwrap_or(0);
        if scratch.as_ref().is_none_or(|arena| arena.len() < len) {
            *scratch = None;
            // Enough for most requests to come.
            let most = usize::try_from(self.program.scratch_bytes).unwrap_or(len);
            let len = len.max(most.min(256 << 10));
            *scratch = Some(Arena::pages(len).map_err(|e| Error::memory(len as u64, e))?);
        }
        let Some(memory) = scratch.as_mut().and_then(|arena| arena.bytes_mut().get_mut(..len)) else {
            return Ok(());
        };
        let done = if direct { file.source.read_direct(from, memory)? } else { None };
        self.check_short(file, read, done.map(|done| done.saturating_sub(before) as u64))?;
        let wanted = memory.get_mut(before..before.saturating_add(bytes)).unwrap_or_default();
        if done.is_none() {
            file.source.read_at(read.range.start, wanted)?;
        }
        self.spread(read, wanted)
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

    /// Whether no request has bytes for a memory any more.
    pub(crate) fn is_complete(&self, memory: usize) -> bool {
        self.hand_off.is_complete(memory)
    }

    /// The bytes of a memory, once the last request for it is done. `alone` says that no worker is
    /// there to read: the caller does.
    pub(crate) fn wait_for(&self, memory: usize, alone: bool) -> Result<Buffer, Error> {
        if alone {
            self.work_or_tell();
        }
        let Some(slot) = self.slots.get(memory) else { return Err(Error::cancelled()) };
        if !self.hand_off.wait_for(memory) {
            self.go_on()?;
            return Err(Error::cancelled());
        }
        let target = locked(slot).take();
        match (target, self.program.memories.get(memory)) {
            (Some(Target::Own(arena)), Some(Memory::Own { bytes, lead })) => {
                self.hand_off.release(*bytes);
                let range = checked_range(&(*lead..lead.saturating_add(*bytes)), u64::MAX)?;
                Ok(Buffer::from_arena(arena).slice(range))
            }
            // The caller has the memory; or there was nothing to read into one.
            _ => Buffer::zeroed(0),
        }
    }
}

impl Room {
    /// `len` bytes from an offset on, where they are the memory's.
    fn part(&self, offset: u64, len: u64) -> Option<(*mut u8, usize)> {
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

/// How many requests have bytes for each memory.
fn requests_of_memories(program: &Program) -> Vec<u32> {
    let mut left = vec![0u32; program.memories.len()];
    for read in &program.reads {
        for memory in program.touched(read) {
            if let Some(count) = left.get_mut(memory) {
                *count = count.saturating_add(1);
            }
        }
    }
    left
}

fn slots(
    plan: &Plan,
    program: &Program,
    mut given: Vec<(usize, Destination)>,
) -> Result<Vec<Mutex<Option<Target>>>, Error> {
    let targets = program.memories.iter().map(|memory| match memory {
        Memory::Own { .. } => Ok(None),
        Memory::Caller { entry } => {
            let place = given.iter().position(|(place, _)| place == entry);
            let memory = place.map(|place| given.swap_remove(place).1);
            let entry = plan.entries().get(*entry);
            let needed = entry.map_or(0, |entry| entry.scatter.reach());
            let found = memory.as_ref().map_or(0, |memory| memory.len() as u64);
            match memory {
                Some(memory) if found >= needed => Ok(Some(Target::Caller(memory))),
                _ => Err(Error::destination(entry.map_or("", |entry| entry.name()), found, needed)),
            }
        }
    });
    targets.map(|target| target.map(Mutex::new)).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

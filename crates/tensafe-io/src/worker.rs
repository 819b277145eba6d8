//! What the workers of an execution share, and what each of them does.
//!
//! A worker takes the next request under one lock, and waits there for the budget: memories are opened
//! in order, so that what the caller waits for is never behind what it has not taken.
//!
//! What goes to a device is read into slabs: see [`ring`](crate::stage::ring). Who has copies under way never
//! waits for the budget, or for memory that comes later: it waits for its copies first, as the caller may
//! wait for what they bring.

use std::{
    collections::HashMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    Buffer, Destination, Error, Plan,
    arena::Arena,
    content::Content,
    hand_off::HandOff,
    lower::PAGE,
    perform::Room,
    pool::{Filled, trim_pool},
    program::{Memory, Program, Read},
    source::checked_range,
    stage::{Stager, ring::Ring},
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) program: Program,
    pub(crate) files: Vec<Content>,
    pub(crate) stager: Option<Arc<dyn Stager>>,
    hand_off: HandOff,
    /// Within a budget, memory of a tensor that was dropped is a later tensor's.
    filled: Filled,
    slots: Vec<Slot>,
    /// Where in the memories the last one was given.
    given: AtomicUsize,
    error: Mutex<Option<Error>>,
    pub(crate) done_bytes: AtomicU64,
}

/// A memory of the program.
#[derive(Debug)]
struct Slot {
    /// Requests that have bytes for it are begun when the memories before this one are open: a request may
    /// have bytes for several.
    until: usize,
    /// What it is, once it is opened.
    target: Mutex<Option<Target>>,
}

#[derive(Debug)]
enum Target {
    Own(Arena),
    Caller(Destination),
}

/// The next request, for a worker.
enum Next<'p> {
    Read(&'p Read),
    /// It has to be waited for.
    Later,
    Over,
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
        stager: Option<Arc<dyn Stager>>,
    ) -> Result<Self, Error> {
        let slots = slots(&plan, &program, given)?;
        let again = program.budget.is_some_and(|budget| budget < program.memory_bytes());
        let filled = if again { Filled::Again } else { Filled::Once };
        Ok(Self {
            hand_off: HandOff::new(program.budget, requests_of_memories(&program)),
            filled,
            plan,
            program,
            files,
            stager,
            slots,
            given: AtomicUsize::new(0),
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
        // Dropped last: copies that are under way end before anything is given back.
        let mut ring = Ring::default();
        if let Err(error) = self.work_with(&mut ring) {
            self.fail(error);
        }
    }

    fn work_with<'p>(&'p self, ring: &mut Ring<'p>) -> Result<(), Error> {
        let mut scratch = None;
        loop {
            match self.take(ring.is_idle()) {
                Next::Read(read) if read.staged => self.stage(read, ring)?,
                Next::Read(read) => {
                    self.perform(read, &mut scratch)?;
                    self.finish(read);
                }
                Next::Later => {
                    if let Some(read) = ring.settle()? {
                        self.finish(read);
                    }
                }
                Next::Over => break,
            }
        }
        while let Some(read) = ring.settle()? {
            self.finish(read);
        }
        Ok(())
    }

    /// The next request, its memories opened. Without `wait`, who would have to wait is told so.
    fn take(&self, wait: bool) -> Next<'_> {
        let mut later = false;
        let open = |number| {
            let read: &Read = self.program.reads.get(number)?;
            for memory in read.opens.clone() {
                match self.open(memory, wait) {
                    Ok(true) => {}
                    Ok(false) => {
                        later = true;
                        return None;
                    }
                    Err(error) => {
                        if let Some(error) = error {
                            self.fail(error);
                        }
                        return None;
                    }
                }
            }
            Some(read)
        };
        let taken = if wait { Some(self.hand_off.take(open)) } else { self.hand_off.try_take(open) };
        match taken {
            Some(Some(read)) => Next::Read(read),
            Some(None) if !later => Next::Over,
            _ => Next::Later,
        }
    }

    /// Takes the memory's bytes from the budget and reserves it, or waits for memory that comes later;
    /// `false` where it would have to wait, an error without text where the execution is over.
    fn open(&self, memory: usize, wait: bool) -> Result<bool, Option<Error>> {
        let (Some(kind), Some(slot)) = (self.program.memories.get(memory), self.slots.get(memory)) else {
            return Ok(true);
        };
        let (bytes, lead) = match kind {
            Memory::Own { bytes, lead } => (*bytes, *lead),
            Memory::Caller { .. } => return Ok(true),
            // Nothing is read into one without bytes, which the caller may have taken already.
            Memory::Device { .. } if self.is_complete(memory) => return Ok(true),
            Memory::Device { .. } => {
                let is_given = || locked(&slot.target).is_some();
                let over = wait && !self.hand_off.wait_until(is_given);
                return if over { Err(None) } else { Ok(wait || is_given()) };
            }
        };
        // An earlier try may have come as far as this memory.
        if locked(&slot.target).is_some() {
            return Ok(true);
        }
        let taken = if wait { Some(self.hand_off.reserve(bytes)) } else { self.hand_off.try_reserve(bytes) };
        match taken {
            Some(true) => {}
            Some(false) => return Err(None),
            None => return Ok(false),
        }
        let padding = if lead > 0 || bytes >= PAGE { PAGE } else { 0 };
        let len = bytes.checked_add(lead).and_then(|n| n.checked_add(padding));
        let len =
            len.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| Error::too_large_for_host(bytes))?;
        let arena = Arena::unclaimed(len, self.filled).map_err(|e| Error::memory(bytes, e))?;
        *locked(&slot.target) = Some(Target::Own(arena));
        self.keep_within_budget();
        Ok(true)
    }

    /// What the pool keeps counts too, where a budget was promised: no more of it than is left.
    fn keep_within_budget(&self) {
        if self.program.budget.is_some() {
            trim_pool(usize::try_from(self.hand_off.left()).unwrap_or(usize::MAX));
        }
    }

    /// Takes memory of a device for the entry at a place of the plan.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where the entry has memory already or goes elsewhere, and where
    /// the memory is too short or not a device's.
    pub(crate) fn give(&self, entry: usize, memory: Destination) -> Result<(), Error> {
        let is_it = |other: &Memory| matches!(other, Memory::Device { entry: place } if *place == entry);
        // Memories are in the order of reading, and are mostly given in it.
        let start = self.given.load(Ordering::Relaxed);
        let memories = &self.program.memories;
        let later = memories.get(start..).unwrap_or_default().iter().position(is_it);
        let place =
            later.map(|place| place.saturating_add(start)).or_else(|| memories.iter().position(is_it));
        let name = self.plan.entries().get(entry).map_or("", |entry| entry.name());
        let Some((place, slot)) = place.and_then(|place| Some((place, self.slots.get(place)?))) else {
            return Err(Error::no_stager(name));
        };
        check_given(&self.plan, entry, &memory, true)?;
        let mut target = locked(&slot.target);
        if target.is_some() {
            return Err(Error::destination(name, 0, memory.len() as u64));
        }
        // Memory is given back with the lock, after the end.
        if self.hand_off.is_over() {
            return Err(Error::cancelled());
        }
        *target = Some(Target::Caller(memory));
        drop(target);
        self.given.store(place, Ordering::Relaxed);
        self.hand_off.tell();
        Ok(())
    }

    /// Lets go of the memory that was not handed out, once nobody reads any more.
    pub(crate) fn give_back(&self) {
        for slot in &self.slots {
            let target = locked(&slot.target).take();
            // The owner of a caller's memory may take its time.
            drop(target);
        }
    }

    pub(crate) fn room(&self, memory: usize) -> Option<Room> {
        let target = locked(&self.slots.get(memory)?.target);
        match (target.as_ref()?, self.program.memories.get(memory)?) {
            (Target::Own(arena), Memory::Own { bytes, lead }) => {
                let (before, len) = (usize::try_from(*lead).ok()?, usize::try_from(*bytes).ok()?);
                let after = arena.len().checked_sub(before)?.checked_sub(len)?;
                Some(Room { start: arena.start().wrapping_add(before), len, before, after, pooled: true })
            }
            (Target::Caller(memory), _) => {
                Some(Room { start: memory.start(), len: memory.len(), before: 0, after: 0, pooled: false })
            }
            _ => None,
        }
    }

    /// Counts a request off its memories; who waits for one that is complete is told.
    pub(crate) fn finish(&self, read: &Read) {
        self.hand_off.finish(self.program.touched(read));
    }

    /// The entries whose memory is to be given before `memory` can be complete, in order.
    pub(crate) fn not_given(&self, memory: usize) -> impl Iterator<Item = usize> + '_ {
        let until = self.slots.get(memory).map_or(0, |slot| slot.until);
        // Those before were given, or were waited for already.
        (memory..until.max(memory)).filter_map(|place| {
            let (kind, slot) = (self.program.memories.get(place)?, self.slots.get(place)?);
            let Memory::Device { entry } = kind else { return None };
            let lacks = !self.is_complete(place) && locked(&slot.target).is_none();
            lacks.then_some(*entry)
        })
    }

    /// Whether no request has bytes for a memory any more.
    pub(crate) fn is_complete(&self, memory: usize) -> bool {
        self.hand_off.is_complete(memory)
    }

    /// The bytes of a memory, once the last request for it is done. `alone` says that no worker is
    /// there to read: the caller does.
    pub(crate) fn wait_for(&self, memory: usize, alone: bool) -> Result<Buffer, Error> {
        // The caller may have dropped tensors since.
        self.keep_within_budget();
        if alone {
            self.work_or_tell();
        }
        let Some(slot) = self.slots.get(memory) else { return Err(Error::cancelled()) };
        // Nobody but the caller, who would wait here, gives it.
        if let Some(entry) = self.not_given(memory).next() {
            self.go_on()?;
            check_needed(&self.plan, entry, None)?;
        }
        if !self.hand_off.wait_for(memory) {
            self.go_on()?;
            return Err(Error::cancelled());
        }
        let target = locked(&slot.target).take();
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

fn slots(plan: &Plan, program: &Program, given: Vec<(usize, Destination)>) -> Result<Vec<Slot>, Error> {
    let mut given: HashMap<usize, Destination> = given.into_iter().collect();
    let mut until = vec![0; program.memories.len()];
    for read in &program.reads {
        for memory in program.touched(read) {
            if let Some(until) = until.get_mut(memory) {
                *until = read.opens.end;
            }
        }
    }
    let targets = program.memories.iter().map(|memory| {
        let (entry, on_device) = match memory {
            Memory::Own { .. } => return Ok(None),
            Memory::Caller { entry } => (*entry, false),
            Memory::Device { entry } => (*entry, true),
        };
        match given.remove(&entry) {
            // It may come later.
            None if on_device => Ok(None),
            None => check_needed(plan, entry, None).map(|()| None),
            Some(memory) => {
                check_given(plan, entry, &memory, on_device)?;
                Ok(Some(Target::Caller(memory)))
            }
        }
    });
    let targets = targets.collect::<Result<Vec<_>, Error>>()?;
    let slots = until.into_iter().zip(targets);
    Ok(slots.map(|(until, target)| Slot { until, target: Mutex::new(target) }).collect())
}

/// Refuses memory of the caller that is too short for the entry, or of another kind.
fn check_given(plan: &Plan, entry: usize, memory: &Destination, on_device: bool) -> Result<(), Error> {
    if memory.is_on_device() != on_device {
        return Err(Error::no_stager(plan.entries().get(entry).map_or("", |entry| entry.name())));
    }
    check_needed(plan, entry, Some(memory))
}

fn check_needed(plan: &Plan, entry: usize, memory: Option<&Destination>) -> Result<(), Error> {
    let entry = plan.entries().get(entry);
    let needed = entry.map_or(0, |entry| entry.scatter.reach());
    let found = memory.map_or(0, |memory| memory.len() as u64);
    if memory.is_some() && found >= needed {
        return Ok(());
    }
    Err(Error::destination(entry.map_or("", |entry| entry.name()), found, needed))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

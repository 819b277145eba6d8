//! From a plan to requests: which bytes are read together, by what means, into which memory.
//!
//! Pure, given the facts about the files. Runs that lie close together are one request, with the gaps
//! between them read for nothing, where another request would cost more than the gap; large runs are
//! cut into requests that several workers share. What a request holds goes straight to its memory where
//! it is one run there too, else through memory of the worker.

use std::ops::Range;

use crate::{
    Error, Latency, Plan, SourceInfo,
    explain::{Explain, Method, Why},
    plan::Entry,
    pool::STEP_BYTES,
    program::{Copy, Memory, Place, Placed, Program, Read},
    scatter::Run,
};

/// Direct reads begin and end on multiples of this many bytes, in the file and in memory.
pub(crate) const PAGE: u64 = 4096;

/// Bytes that small tensors may share one memory up to; a larger tensor has its own, so that it is
/// given back with it.
const GROUP_BYTES: u64 = 64 << 10;

/// Cold bytes of a program below which reads go through the page cache: its pages cost less than the
/// set-up of direct reads.
pub(crate) const WORTH_DIRECT: u64 = 1 << 20;

/// Bytes of a run that are better read into their place than together with those of another memory and
/// copied from there: a disk takes requests of this size as fast as larger ones.
const WORTH_A_REQUEST: u64 = 1 << 20;

/// Threads of one execution, at most: with more, disks did not read small pieces faster.
const MOST_WORKERS: usize = 64;

/// Requests at once on a local disk. Four keep it busy; while they do, two more make the pages that they will
/// fill. Ranks of a host share them, and each has two at least: one to read and one to make pages.
const LOCAL_REQUESTS: usize = 6;
const LEAST_LOCAL_REQUESTS: usize = 2;

/// How a file may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// By what is resident.
    Auto,
    /// From memory alone: a mapping, or bytes.
    Memory,
    /// Through the page cache.
    Buffered,
    /// Past it, where the file can.
    Direct,
}

/// What lowering asks about a file.
pub(crate) struct Facts<'f> {
    pub(crate) info: SourceInfo,
    pub(crate) means: Means,
    /// Whether the whole file is in memory of this process: mapped, or bytes.
    pub(crate) in_memory: bool,
    /// How many bytes of a range are in the page cache, where that is known.
    pub(crate) resident: &'f dyn Fn(Range<u64>) -> Option<u64>,
}

impl Facts<'_> {
    /// Bytes of a gap that is read rather than skipped: about what a request costs, in bytes of the
    /// bandwidth that the workers share. Of what is resident a request is a system call.
    fn gap_bytes(&self, resident: bool) -> u64 {
        match self.info.latency {
            Latency::Memory => 0,
            Latency::Local if resident => PAGE,
            Latency::Local => 64 << 10,
            Latency::Network => 256 << 10,
        }
    }

    fn request_bytes(&self) -> u64 {
        self.info.request_bytes.max(1) as u64
    }

    /// How many requests are under way at once. Requests wait more than they work: the number is that
    /// of the device's queue, not of processors.
    pub(crate) fn workers(&self, local_ranks: usize) -> usize {
        match self.info.latency {
            Latency::Memory => 2,
            Latency::Local => LOCAL_REQUESTS.div_ceil(local_ranks.max(1)).max(LEAST_LOCAL_REQUESTS),
            Latency::Network => 16,
        }
    }
}

/// Lowers a plan over files of these facts; `staged` says of an entry's place whether it is read onto a
/// device.
///
/// # Errors
/// [`Limit`](crate::ErrorKind::Limit) where a tensor, or the slabs, need more than the budget.
pub(crate) fn lower(
    plan: &Plan,
    files: &[Facts<'_>],
    staged: &dyn Fn(usize) -> bool,
) -> Result<(Program, Explain), Error> {
    let mut lowering = Lowering::new(plan, files, staged)?;
    for place in plan.ordered() {
        let Some(entry) = plan.entries().get(place) else { continue };
        let Some(facts) = files.get(entry.file()) else {
            return Err(Error::out_of_bounds(
                entry.file() as u64..entry.file() as u64 + 1,
                files.len() as u64,
            ));
        };
        lowering.entry(place, entry, facts)?;
    }
    lowering.flush();
    lowering.fit_workers();
    lowering.explain.finish(&lowering.program);
    Ok((lowering.program, lowering.explain))
}

/// How a budget is shared out, in bytes.
struct Sizes {
    request: u64,
    workers: usize,
    tensors: Option<u64>,
}

impl Sizes {
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) where the slabs of one worker do not fit.
    fn new(
        preferred: u64,
        workers: usize,
        budget: Option<u64>,
        on_device: bool,
        on_host: bool,
    ) -> Result<Self, Error> {
        let Some(budget) = budget else { return Ok(Self { request: preferred, workers, tensors: None }) };
        let count = |workers: usize| (workers as u64).max(1);
        let mut sizes = Self { request: preferred, workers, tensors: Some(budget) };
        let mut slabs = 0;
        if on_device {
            // Where nothing else needs memory of the host, all of the budget is for slabs.
            let share = if on_host { budget / 4 } else { budget };
            let least = scratch_bytes(PAGE);
            let most = usize::try_from(share / (2 * least)).unwrap_or(usize::MAX);
            sizes.workers = workers.min(most);
            if sizes.workers == 0 {
                return Err(Error::slabs(2 * least, share));
            }
            let slab = share / (2 * count(sizes.workers)) / STEP_BYTES * STEP_BYTES;
            // The longest request is half as long again, and two pages.
            let request = slab.saturating_sub(2 * PAGE) / 3 * 2 / PAGE * PAGE;
            sizes.request = preferred.min(request.max(PAGE));
            slabs = scratch_bytes(sizes.request).saturating_mul(2 * count(sizes.workers));
        }
        if on_host {
            // Requests take a quarter of a small budget, in whole steps, and tensors the rest.
            let fitting = usize::try_from(budget / 4 / scratch_bytes(PAGE)).unwrap_or(usize::MAX);
            sizes.workers = sizes.workers.min(fitting.max(1));
            let most = budget / 4 / count(sizes.workers) / STEP_BYTES * STEP_BYTES;
            let request = sizes.request.min(most.saturating_sub(2 * PAGE) / 3 * 2);
            sizes.request = (request - request % PAGE).max(PAGE);
            let scratch = scratch_bytes(sizes.request).saturating_mul(count(sizes.workers));
            sizes.tensors = Some(budget.saturating_sub(scratch).saturating_sub(slabs));
        }
        Ok(sizes)
    }
}

struct Lowering<'p, 'f> {
    files: &'p [Facts<'f>],
    staged: &'p dyn Fn(usize) -> bool,
    program: Program,
    explain: Explain,
    /// The request in the making.
    open: Option<Open>,
    request_bytes: u64,
    worth_direct: bool,
    /// Memories that some request has bytes for already.
    opened: usize,
}

/// A request that more runs may join.
struct Open {
    read: Read,
    why: Why,
    needed: u64,
    /// Bytes that the memories which it touches have at most.
    held: u64,
    touched: Option<usize>,
}

impl<'p, 'f> Lowering<'p, 'f> {
    fn new(plan: &Plan, files: &'p [Facts<'f>], staged: &'p dyn Fn(usize) -> bool) -> Result<Self, Error> {
        let workers = files.iter().map(|facts| facts.workers(plan.local_ranks())).max().unwrap_or(1);
        let preferred = files.iter().map(Facts::request_bytes).max().unwrap_or(1);
        let on_device = (0..plan.entries().len()).filter(|place| staged(*place)).count();
        let on_host = on_device < plan.entries().len();
        let sizes = Sizes::new(preferred, workers, plan.budget(), on_device > 0, on_host)?;
        let request_bytes = sizes.request;
        let scratch_bytes = scratch_bytes(request_bytes);
        let (budget, workers) = (sizes.tensors, sizes.workers);
        let program = Program { budget, scratch_bytes, workers, ..Program::default() };
        let worth_direct = plan.bytes() >= WORTH_DIRECT;
        let explain = Explain::new(plan);
        Ok(Self { files, staged, program, explain, open: None, request_bytes, worth_direct, opened: 0 })
    }

    fn entry(&mut self, place: usize, entry: &Entry, facts: &Facts<'_>) -> Result<(), Error> {
        let Some(span) = entry.scatter.span() else {
            let (memory, offset) = self.memory(place, entry, None)?;
            self.program.placed.push(Placed { entry: place, place: Place::Memory { memory, offset } });
            return Ok(());
        };
        if let Some(view) = self.view(entry, facts, &span) {
            self.explain.view(entry, &view);
            self.program.placed.push(Placed { entry: place, place: Place::View(view) });
            return Ok(());
        }
        let (memory, offset) = self.memory(place, entry, Some((facts, &span)))?;
        self.program.placed.push(Placed { entry: place, place: Place::Memory { memory, offset } });
        let placed = self.program.placed.len() - 1;
        // A single small run is not worth the question.
        let asked = entry.scatter.single().is_none() || (facts.in_memory && !entry.is_whole());
        let resident = asked && is_resident(facts, &span);
        let from_memory = facts.means == Means::Memory || (facts.in_memory && resident);
        // Between runs in memory nothing is read.
        let gap = if from_memory { u64::MAX } else { facts.gap_bytes(resident) };
        let staged = matches!(self.program.memories.get(memory), Some(Memory::Device { .. }));
        for (number, run) in (0u64..).zip(entry.scatter.runs_from(0)) {
            let len = run.len;
            self.run(&Piece { placed, number, len, memory, offset, from_memory, gap, staged }, entry, run);
        }
        Ok(())
    }

    /// Where a tensor is its file's memory already: handed out as it is.
    fn view(&self, entry: &Entry, facts: &Facts<'_>, span: &Range<u64>) -> Option<Range<u64>> {
        let run = entry.scatter.single()?;
        if !facts.in_memory || entry.destination_strides().is_some() {
            return None;
        }
        // A part of a cold tensor is read: touching its first page would bring the kernel to read far
        // beyond it.
        let wanted = facts.means == Means::Memory || entry.is_whole() || is_resident(facts, span);
        wanted.then(|| run.from..run.from.saturating_add(run.len))
    }

    /// A memory for a tensor, and the offset in it: small neighbours share one.
    fn memory(
        &mut self,
        place: usize,
        entry: &Entry,
        read: Option<(&Facts<'_>, &Range<u64>)>,
    ) -> Result<(usize, u64), Error> {
        let next = self.program.memories.len();
        if entry.destination_strides().is_some() {
            let staged = (self.staged)(place);
            let memory =
                if staged { Memory::Device { entry: place } } else { Memory::Caller { entry: place } };
            self.program.memories.push(memory);
            return Ok((next, 0));
        }
        let bytes = entry.bytes();
        if let Some(budget) = self.program.budget.filter(|budget| bytes > *budget) {
            return Err(Error::budget(entry.name(), bytes, budget));
        }
        let group = self.group_bytes();
        if let Some(Memory::Own { bytes: taken, .. }) = self.program.memories.last_mut() {
            // As close as the elements allow: what lies together in the file is then one run in memory.
            let offset = taken.next_multiple_of(entry.dtype().alignment_bytes());
            let end = offset.saturating_add(bytes);
            if end <= group {
                *taken = end;
                return Ok((next - 1, offset));
            }
        }
        let lead = match read {
            Some((facts, span))
                if bytes >= GROUP_BYTES && self.may_be_direct(facts) && !is_resident(facts, span) =>
            {
                let lead = span.start % PAGE;
                if lead.is_multiple_of(entry.dtype().alignment_bytes()) { lead } else { 0 }
            }
            _ => 0,
        };
        self.program.memories.push(Memory::Own { bytes, lead });
        Ok((next, 0))
    }

    /// Bytes that tensors which share a memory may have together.
    fn group_bytes(&self) -> u64 {
        GROUP_BYTES.min(self.program.budget.unwrap_or(u64::MAX))
    }

    fn may_be_direct(&self, facts: &Facts<'_>) -> bool {
        facts.info.direct
            && (facts.means == Means::Direct || (facts.means == Means::Auto && self.worth_direct))
    }

    /// Adds one run, cut where it is longer than a request.
    fn run(&mut self, piece: &Piece, entry: &Entry, run: Run) {
        let mut skip = 0;
        while skip < run.len {
            let from = run.from.saturating_add(skip);
            let left = run.len - skip;
            // Cuts lie on borders of requests, which are borders of pages; a short rest joins.
            let border = (from / self.request_bytes).saturating_add(1).saturating_mul(self.request_bytes);
            let mut len = left.min(border.saturating_sub(from));
            if left - len <= self.request_bytes / 2 {
                len = left.min(self.request_bytes.saturating_add(self.request_bytes / 2));
            }
            self.part(piece, entry, Run { from, to: run.to.saturating_add(skip), len }, skip);
            skip = skip.saturating_add(len);
        }
    }

    fn part(&mut self, piece: &Piece, entry: &Entry, run: Run, skip: u64) {
        let end = run.from.saturating_add(run.len);
        let bytes = match self.program.memories.get(piece.memory) {
            // One that small tensors share may have as many bytes yet.
            Some(Memory::Own { bytes, .. }) => (*bytes).max(self.group_bytes()),
            _ => 0,
        };
        let large = |bytes: u64| bytes >= WORTH_A_REQUEST && !piece.staged && !piece.from_memory;
        let joins = self.open.as_ref().is_some_and(|open| {
            let whole = open.read.straight.is_some() && large(open.needed);
            let held =
                if open.touched == Some(piece.memory) { open.held } else { open.held.saturating_add(bytes) };
            open.read.file == entry.file()
                && (open.touched == Some(piece.memory) || !(large(run.len) || whole))
                && open.read.staged == piece.staged
                && (open.read.method == Method::Memory) == piece.from_memory
                && run.from.checked_sub(open.read.range.end).is_some_and(|between| between <= piece.gap)
                && end.saturating_sub(open.read.range.start) <= self.request_bytes
                && self.program.budget.is_none_or(|budget| held <= budget)
        });
        if !joins {
            self.flush();
            let copies = self.program.copies.len();
            let read = Read {
                file: entry.file(),
                range: run.from..run.from,
                method: if piece.from_memory { Method::Memory } else { Method::Buffered },
                opens: self.opened..self.opened,
                straight: Some((piece.memory, piece.offset.saturating_add(run.to))),
                staged: piece.staged,
                copies: copies..copies,
            };
            self.open = Some(Open { read, why: Why::Resident, needed: 0, held: 0, touched: None });
        }
        self.join(piece, run, skip, bytes);
    }

    fn join(&mut self, piece: &Piece, run: Run, skip: u64, memory_bytes: u64) {
        let Some(open) = &mut self.open else { return };
        if open.touched != Some(piece.memory) {
            open.touched = Some(piece.memory);
            open.held = open.held.saturating_add(memory_bytes);
        }
        if piece.memory >= self.opened {
            self.opened = piece.memory.saturating_add(1);
            open.read.opens.end = self.opened;
        }
        let done = open.read.range.end.saturating_sub(open.read.range.start);
        let here = (piece.memory, piece.offset.saturating_add(run.to));
        let follows =
            open.read.straight.is_some_and(|(memory, offset)| (memory, offset.saturating_add(done)) == here);
        if !follows || open.read.range.end != run.from {
            open.read.straight = None;
        }
        if done == 0 {
            open.read.straight = Some(here);
        }
        open.read.range.end = run.from.saturating_add(run.len);
        open.needed = open.needed.saturating_add(run.len);
        let last = self.program.copies.get_mut(open.read.copies.clone()).and_then(<[Copy]>::last_mut);
        match last {
            Some(copy)
                // Of several runs none is cut: what begins one may be followed by its rest alone.
                if copy.placed == piece.placed
                    && run.len == piece.len
                    && copy.skip == 0
                    && copy.first.saturating_add(copy.count) == piece.number =>
            {
                copy.count = copy.count.saturating_add(1);
            }
            _ => {
                let (placed, first) = (piece.placed, piece.number);
                self.program.copies.push(Copy { placed, first, count: 1, skip, len: run.len });
                open.read.copies.end = self.program.copies.len();
            }
        }
    }

    /// Ends the request in the making: its means are chosen by what of its range is resident.
    fn flush(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let Some(facts) = self.files.get(open.read.file) else { return };
        if open.read.method != Method::Memory {
            (open.read.method, open.why) = self.choose(facts, &open.read.range);
        }
        if open.read.staged {
            let pages = open.read.range.start / PAGE * PAGE..open.read.range.end.next_multiple_of(PAGE);
            let bytes = pages.end.saturating_sub(pages.start).next_multiple_of(STEP_BYTES);
            self.program.slab_bytes = self.program.slab_bytes.max(bytes);
        }
        self.explain.read(&open.read, open.needed, open.why);
        self.program.reads.push(open.read);
    }

    /// Workers and their memory follow from the requests that there are.
    fn fit_workers(&mut self) {
        let reads = &self.program.reads;
        let bytes = |read: &Read| read.range.end.saturating_sub(read.range.start);
        let apart = reads.iter().filter(|read| !read.staged && read.method != Method::Memory);
        if let Some(longest) = apart.map(bytes).max() {
            let needed = whole_steps(longest.saturating_add(2 * PAGE));
            self.program.scratch_bytes = self.program.scratch_bytes.min(needed);
        }
        self.share_small_requests();
    }

    /// Small requests do not fill a queue that is as long as that of large ones: as many more are under way
    /// at once as take the same memory. Of what is resident none waits, and within a budget memory is
    /// shared out already.
    fn share_small_requests(&mut self) {
        let reads = &self.program.reads;
        let waits = |read: &&Read| {
            let far = self.files.get(read.file).is_some_and(|facts| facts.info.latency >= Latency::Network);
            read.method == Method::Direct || (far && read.method == Method::Buffered)
        };
        let waiting = reads.iter().filter(waits).count();
        let bytes = |read: &Read| read.range.end.saturating_sub(read.range.start);
        let Some(longest) = reads.iter().map(bytes).max() else { return };
        if self.program.budget.is_some() || self.program.slab_bytes > 0 {
            return;
        }
        let as_many = (self.request_bytes / longest.max(PAGE)).saturating_mul(self.program.workers as u64);
        // A thread is worth a few requests.
        let most = (waiting / 8).min(MOST_WORKERS);
        let workers = usize::try_from(as_many).unwrap_or(most).min(most);
        if workers > self.program.workers {
            self.program.workers = workers;
        }
    }

    fn choose(&self, facts: &Facts<'_>, range: &Range<u64>) -> (Method, Why) {
        match facts.means {
            Means::Buffered => return (Method::Buffered, Why::Asked),
            Means::Direct if facts.info.direct => return (Method::Direct, Why::Asked),
            Means::Direct => return (Method::Buffered, Why::Refused),
            Means::Memory => return (Method::Memory, Why::Resident),
            Means::Auto => {}
        }
        if !facts.info.direct {
            let far = facts.info.latency >= Latency::Network;
            return (Method::Buffered, if far { Why::Network } else { Why::Refused });
        }
        let bytes = range.end.saturating_sub(range.start);
        match (facts.resident)(range.clone()) {
            None => (Method::Buffered, Why::Unknown),
            Some(resident) if resident >= bytes / 2 => (Method::Buffered, Why::Resident),
            Some(_) if !self.worth_direct => (Method::Buffered, Why::Small),
            Some(_) => (Method::Direct, Why::Cold),
        }
    }
}

/// Memory of a worker, or a slab, for one request: half a request may join it, and a page on both sides. It comes
/// in whole steps of the pool.
fn scratch_bytes(request_bytes: u64) -> u64 {
    whole_steps(request_bytes.saturating_add(request_bytes / 2).saturating_add(2 * PAGE))
}

fn whole_steps(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(STEP_BYTES).unwrap_or(bytes)
}

/// A run of an entry.
struct Piece {
    placed: usize,
    number: u64,
    /// Its bytes, of which a request may have a part.
    len: u64,
    memory: usize,
    offset: u64,
    from_memory: bool,
    gap: u64,
    staged: bool,
}

fn is_resident(facts: &Facts<'_>, span: &Range<u64>) -> bool {
    let pages = span.end.saturating_sub(span.start);
    facts.info.latency == Latency::Memory
        || (facts.resident)(span.clone()).is_some_and(|bytes| bytes >= pages)
}

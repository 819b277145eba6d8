//! A plan carried out: workers read, in order, within the budget; tensors are handed out in order.
//!
//! The first error ends everything; an execution that is dropped ends after the requests under way.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
};

use crate::{
    Buffer, Destination, Entry, Error, Explain, Plan, Stager, TensorFile,
    content::Content,
    lower::lower,
    program::{Place, Program},
    source::checked_range,
    worker::Shared,
};

/// Bytes below which the caller's thread reads for itself.
const WORTH_THREADS: u64 = 4 << 20;

/// Choices of an execution.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ExecuteOptions {
    /// Memory of the caller, with the places of the entries in the plan that are read into it.
    pub destinations: Vec<(usize, Destination)>,
    /// Who copies to the memory of a device.
    pub stager: Option<Arc<dyn Stager>>,
}

impl ExecuteOptions {
    /// The same options with memory of the caller for an entry that was planned so by
    /// [`Plan::read_into`].
    #[must_use]
    pub fn with_destination(mut self, entry: usize, memory: Destination) -> Self {
        self.destinations.push((entry, memory));
        self
    }

    /// The same options with a stager. Entries that were planned by [`Plan::read_into`] or
    /// [`Plan::read_into_dense`] are then read onto its device, but those that are given memory of the
    /// host. Memory that is not given here is given by [`Control::give`] when its turn comes.
    #[must_use]
    pub fn with_stager(mut self, stager: Arc<dyn Stager>) -> Self {
        self.stager = Some(stager);
        self
    }
}

/// A tensor of a plan, read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The place of the entry in the plan.
    pub entry: usize,
    /// Its bytes in row-major order; empty where they went to memory of the caller.
    pub bytes: Buffer,
}

/// A plan under way: an iterator over its tensors, in the order of reading.
///
/// After the first error there is nothing more. Dropping it cancels what was not begun.
#[derive(Debug)]
pub struct Execution {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    explain: Explain,
    next: usize,
    /// The memory that the last tensors are parts of.
    held: Option<(usize, Buffer)>,
    over: bool,
}

/// A handle that tells of an execution, and ends it, from another thread.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

/// Lowers a plan over open files: what it would cost now.
///
/// # Errors
/// As [`Execution::start`].
pub fn explain(plan: &Plan, files: &[&TensorFile]) -> Result<Explain, Error> {
    let contents: Vec<Content> = files.iter().map(|file| file.content().clone()).collect();
    lower_over(plan, &contents, &|_| false).map(|(_, explain)| explain)
}

/// As [`explain`], where the entries that are read into memory of the caller go to a device.
///
/// # Errors
/// As [`Execution::start`].
pub fn explain_staged(plan: &Plan, files: &[&TensorFile]) -> Result<Explain, Error> {
    let contents: Vec<Content> = files.iter().map(|file| file.content().clone()).collect();
    let staged =
        |place| plan.entries().get(place).is_some_and(|entry: &Entry| entry.destination_strides().is_some());
    lower_over(plan, &contents, &staged).map(|(_, explain)| explain)
}

fn lower_over(
    plan: &Plan,
    files: &[Content],
    staged: &dyn Fn(usize) -> bool,
) -> Result<(Program, Explain), Error> {
    let ask: Vec<_> = files.iter().map(|file| |range| file.source.resident(range)).collect();
    let facts: Vec<_> = files.iter().zip(&ask).map(|(file, ask)| file.facts(ask)).collect();
    lower(plan, &facts, staged)
}

impl Execution {
    /// Begins to read. The entries' files are those at their places in `files`.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) where a tensor needs more than the budget,
    /// [`Usage`](crate::ErrorKind::Usage) where memory of the caller is missing or too short. Nothing was
    /// read then.
    ///
    /// # Cost
    /// Threads of its own for more than 4 MiB. Memory as [`Explain::peak_memory`] says.
    pub fn start(plan: Arc<Plan>, files: &[&TensorFile], options: ExecuteOptions) -> Result<Self, Error> {
        let contents: Vec<Content> = files.iter().map(|file| file.content().clone()).collect();
        Self::over(plan, contents, options)
    }

    pub(crate) fn over(plan: Arc<Plan>, files: Vec<Content>, options: ExecuteOptions) -> Result<Self, Error> {
        let ExecuteOptions { destinations, stager } = options;
        let on_host: HashSet<usize> = destinations
            .iter()
            .filter(|(_, memory)| !memory.is_on_device())
            .map(|(place, _)| *place)
            .collect();
        let staged = |place| {
            let entry: Option<&Entry> = plan.entries().get(place);
            stager.is_some()
                && entry.is_some_and(|entry| entry.destination_strides().is_some())
                && !on_host.contains(&place)
        };
        let (program, explain) = lower_over(&plan, &files, &staged)?;
        // Who reads for itself takes nothing while it reads: all must fit at once.
        let fits = program.budget.is_none_or(|budget| program.memory_bytes() <= budget);
        // What goes to a device is for threads of our own: memory may come later, from the caller's, and the
        // device that is current for the caller's is none of our business.
        let alone = program.read_bytes() < WORTH_THREADS && fits && program.slab_bytes == 0;
        let workers = if alone { 0 } else { program.workers.min(program.reads.len()) };
        let shared = Arc::new(Shared::new(Arc::clone(&plan), program, files, destinations, stager)?);
        let mut execution = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            explain,
            next: 0,
            held: None,
            over: false,
        };
        for number in 0..workers {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name(format!("tensafe-read-{number}"));
            match builder.spawn(move || shared.work_or_tell()) {
                Ok(thread) => execution.threads.push(thread),
                // Fewer do as well; without any nobody would read.
                Err(e) if number == 0 => return Err(Error::from_source("start a thread", e)),
                Err(_) => break,
            }
        }
        Ok(execution)
    }

    /// What it costs, and why it is read so.
    #[must_use]
    pub fn explain(&self) -> &Explain {
        &self.explain
    }

    /// The places of the entries in the plan, in the order in which they are handed out.
    pub fn order(&self) -> impl Iterator<Item = usize> + '_ {
        self.shared.program.placed.iter().map(|placed| placed.entry)
    }

    /// The places of the entries in the plan that need memory of the device, by [`Control::give`], before the
    /// next tensor can be handed out: its own, and those that are read together with it.
    #[must_use]
    pub fn not_given(&self) -> Vec<usize> {
        match self.place_of(self.next) {
            Some(Place::Memory { memory, .. }) => self.shared.not_given(*memory).collect(),
            _ => Vec::new(),
        }
    }

    /// A handle for other threads.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Whether the next tensor is there: [`next`](Iterator::next) then does not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.place_of(self.next) {
            Some(Place::Memory { memory, .. }) => self.shared.is_complete(*memory),
            _ => true,
        }
    }

    /// Where the tensor that is handed out as the `number`-th is.
    pub(crate) fn place_of(&self, number: usize) -> Option<&Place> {
        self.shared.program.placed.get(number).map(|placed| &placed.place)
    }

    fn deliver(&mut self, number: usize) -> Result<Loaded, Error> {
        let shared = Arc::clone(&self.shared);
        let Some(placed) = shared.program.placed.get(number) else { return Err(Error::cancelled()) };
        let entry = shared.plan.entries().get(placed.entry);
        let (file, bytes) = entry.map_or((0, 0), |entry| (entry.file(), entry.bytes()));
        match &placed.place {
            Place::View(range) => {
                let memory = shared.files.get(file).and_then(|content| content.memory.as_ref());
                let memory = memory.ok_or_else(Error::cancelled)?;
                let range = checked_range(range, memory.len() as u64)?;
                Ok(Loaded { entry: placed.entry, bytes: memory.slice(range) })
            }
            Place::Memory { memory, offset } => {
                if self.held.as_ref().is_none_or(|(held, _)| held != memory) {
                    self.held = None;
                    self.held = Some((*memory, shared.wait_for(*memory, self.threads.is_empty())?));
                }
                let Some((_, whole)) = &self.held else { return Err(Error::cancelled()) };
                let (start, len) = if whole.is_empty() { (0, 0) } else { (*offset, bytes) };
                let range = checked_range(&(start..start.saturating_add(len)), whole.len() as u64)?;
                Ok(Loaded { entry: placed.entry, bytes: whole.slice(range) })
            }
        }
    }
}

impl Iterator for Execution {
    type Item = Result<Loaded, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over || self.next >= self.shared.program.placed.len() {
            self.held = None;
            return None;
        }
        let loaded = self.shared.go_on().and_then(|()| self.deliver(self.next));
        self.next += 1;
        if loaded.is_err() {
            self.over = true;
            self.shared.stop();
        }
        Some(loaded)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.shared.program.placed.len().saturating_sub(self.next);
        (0, Some(if self.over { 0 } else { left }))
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A worker that panicked has told so; its requests were not handed out.
            drop(thread.join());
        }
        // Handles of it may live on.
        self.shared.give_back();
    }
}

impl Control {
    /// Ends the execution: the next tensor is an error of the kind
    /// [`Cancelled`](crate::ErrorKind::Cancelled). Requests under way are finished first.
    pub fn cancel(&self) {
        self.0.stop();
    }

    /// Gives memory of a device for the entry at a place of the plan, of an execution with a stager:
    /// reading waits for it. What [`Execution::not_given`] names is given before the next tensor is asked
    /// for; more may be given ahead.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) where the entry has memory already or goes elsewhere, and where
    /// the memory is too short or not a device's.
    pub fn give(&self, entry: usize, memory: Destination) -> Result<(), Error> {
        self.0.give(entry, memory)
    }

    /// Bytes that were read, and bytes that will be.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.0.done_bytes.load(Ordering::Relaxed), self.0.program.read_bytes())
    }
}

//! A plan, lowered: requests in order, the memories that they fill, and what goes where.
//!
//! Invariants: memories are opened in ascending order, by the first request that has bytes for them; the
//! memories that one request touches fit the budget together; no byte of a memory is written by two
//! requests.

use std::ops::Range;

use crate::{Plan, explain::Method, scatter::Run};

/// A plan, lowered.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// In the order in which tensors are handed out.
    pub(crate) placed: Vec<Placed>,
    pub(crate) memories: Vec<Memory>,
    pub(crate) reads: Vec<Read>,
    pub(crate) copies: Vec<Copy>,
    /// Bytes that tensors in memory of ours may take at a time.
    pub(crate) budget: Option<u64>,
    /// Bytes of memory of its own that a worker may need for a request.
    pub(crate) scratch_bytes: u64,
    pub(crate) workers: usize,
    /// Bytes of each of the two slabs that a worker has, where something is read onto a device: enough
    /// for every request that is.
    pub(crate) slab_bytes: u64,
}

/// Where a tensor of the plan will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its place in the plan.
    pub(crate) entry: usize,
    pub(crate) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A range of its file's memory: nothing is read.
    View(Range<u64>),
    /// Bytes of a memory, from an offset on.
    Memory { memory: usize, offset: u64 },
}

/// A piece of memory that requests fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Ours. The first byte lies `lead` bytes after a page border, as it does in the file, so that
    /// pages can be read in place.
    Own { bytes: u64, lead: u64 },
    /// The caller's, for the entry at this place of the plan.
    Caller { entry: usize },
    /// The caller's, on a device, which may come later.
    Device { entry: usize },
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) file: usize,
    /// Bytes of the file, half-open.
    pub(crate) range: Range<u64>,
    pub(crate) method: Method,
    /// The memories that this request is the first to have bytes for.
    pub(crate) opens: Range<usize>,
    /// Memory and offset, where the range goes there as it is.
    pub(crate) straight: Option<(usize, u64)>,
    /// Whether its memories are on a device: all of them, or none.
    pub(crate) staged: bool,
    pub(crate) copies: Range<usize>,
}

/// Runs of an entry within a request: `count` whole ones from the `first` on, or `len` bytes of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) placed: usize,
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) skip: u64,
    pub(crate) len: u64,
}

impl Program {
    /// Bytes of all requests.
    pub(crate) fn read_bytes(&self) -> u64 {
        let bytes = self.reads.iter().map(|read| read.range.end.saturating_sub(read.range.start));
        bytes.fold(0, u64::saturating_add)
    }

    /// Bytes of all memories of ours.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let own = self.memories.iter().map(|memory| match memory {
            Memory::Own { bytes, .. } => *bytes,
            Memory::Caller { .. } | Memory::Device { .. } => 0,
        });
        own.fold(0, u64::saturating_add)
    }

    /// Where the bytes of a request go: the memory, and the run with its destination as an offset of
    /// that memory.
    pub(crate) fn copies<'p>(
        &'p self,
        plan: &'p Plan,
        read: &Read,
    ) -> impl Iterator<Item = (usize, Run)> + 'p {
        let copies = self.copies.get(read.copies.clone()).unwrap_or_default();
        copies
            .iter()
            .filter_map(|copy| {
                let placed = self.placed.get(copy.placed)?;
                let Place::Memory { memory, offset } = placed.place else { return None };
                let entry = plan.entries().get(placed.entry)?;
                let count = usize::try_from(copy.count).ok()?;
                Some(entry.scatter.runs_from(copy.first).take(count).map(move |run| {
                    let len = if copy.count == 1 { copy.len } else { run.len };
                    let to = offset.saturating_add(run.to).saturating_add(copy.skip);
                    (memory, Run { from: run.from.saturating_add(copy.skip), to, len })
                }))
            })
            .flatten()
    }

    /// The memories that a request has bytes for, each once.
    pub(crate) fn touched<'p>(&'p self, read: &Read) -> impl Iterator<Item = usize> + 'p {
        let copies = self.copies.get(read.copies.clone()).unwrap_or_default();
        let mut last = None;
        copies.iter().filter_map(move |copy| match self.placed.get(copy.placed)?.place {
            Place::Memory { memory, .. } if last != Some(memory) => {
                last = Some(memory);
                Some(memory)
            }
            _ => None,
        })
    }
}

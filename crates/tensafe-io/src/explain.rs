//! What a plan will cost, and why it is read the way it is.

use std::{fmt, ops::Range, sync::Arc};

use crate::{
    Plan,
    lower::PAGE,
    plan::Entry,
    program::{Program, Read},
};

/// By what means a range reaches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// It is in memory, by a mapping or as bytes: handed out as it is.
    View,
    /// Copied out of a mapping, or of bytes.
    Memory,
    /// Read through the page cache.
    Buffered,
    /// Read past the page cache.
    Direct,
}

impl Method {
    /// The name that explanations use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Memory => "copy",
            Self::Buffered => "buffered",
            Self::Direct => "direct",
        }
    }
}

/// Why a range is read by its means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The caller said so.
    Asked,
    /// It is in memory, or most of it in the page cache.
    Resident,
    /// A whole tensor of a mapped file: its pages are read as they are touched.
    Mapped,
    /// Most of it is not in the page cache.
    Cold,
    /// Not in the page cache, and too little for direct reads to be worth it.
    Small,
    /// The file is on a network file system or one of user space.
    Network,
    /// The file or the platform has no direct reads.
    Refused,
    /// The platform does not tell what is in the page cache.
    Unknown,
}

impl Why {
    /// The reason as a clause.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Asked => "as asked",
            Self::Resident => "in memory already",
            Self::Mapped => "mapped, read when touched",
            Self::Cold => "not in the page cache",
            Self::Small => "not in the page cache, but little",
            Self::Network => "on a network or user-space file system",
            Self::Refused => "no direct reads there",
            Self::Unknown => "page cache unknown",
        }
    }
}

/// What the execution of a plan will cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explain {
    /// Tensors and parts of tensors.
    pub tensors: u64,
    /// Bytes of these.
    pub bytes_needed: u64,
    /// Bytes that are read for them: gaps between runs, and the rest of pages, included.
    pub bytes_read: u64,
    /// Requests.
    pub requests: u64,
    /// Requests under way at once, at most.
    pub workers: u64,
    /// Bytes of memory of the host taken at a time, at most, beside what was handed out: tensors, requests,
    /// and the slabs that devices copy from.
    pub peak_memory: u64,
    /// The bound that was asked for.
    pub budget: Option<u64>,
    /// Ranges that are read by one means for one reason, in the order of reading.
    pub ranges: Vec<ExplainedRange>,
    scattered: bool,
}

/// A range of a file in an [`Explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExplainedRange {
    /// The place of the file among the plan's files.
    pub file: usize,
    /// Bytes of the file, half-open.
    pub range: Range<u64>,
    /// The means.
    pub method: Method,
    /// Why these.
    pub why: Why,
    /// Bytes of it that are asked for.
    pub needed: u64,
    /// Bytes of it that are read.
    pub read: u64,
    /// Requests.
    pub requests: u64,
}

impl Explain {
    pub(crate) fn new(plan: &Plan) -> Self {
        let tensors = plan.entries().len() as u64;
        let (bytes_needed, budget) = (plan.bytes(), plan.budget());
        Self { tensors, bytes_needed, budget, ..Self::default() }
    }

    /// Bytes read over bytes needed; 1 where nothing is needed.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn amplification(&self) -> f64 {
        if self.bytes_needed == 0 { 1.0 } else { self.bytes_read as f64 / self.bytes_needed as f64 }
    }

    pub(crate) fn view(&mut self, entry: &Entry, range: &Range<u64>) {
        let bytes = range.end.saturating_sub(range.start);
        let why = if entry.is_whole() { Why::Mapped } else { Why::Resident };
        self.bytes_read = self.bytes_read.saturating_add(bytes);
        self.range(ExplainedRange {
            file: entry.file(),
            range: range.clone(),
            method: Method::View,
            why,
            needed: bytes,
            read: bytes,
            requests: 0,
        });
    }

    pub(crate) fn read(&mut self, read: &Read, needed: u64, why: Why) {
        let range = match read.method {
            Method::Direct => read.range.start / PAGE * PAGE..read.range.end.next_multiple_of(PAGE),
            _ => read.range.clone(),
        };
        let whole = range.end.saturating_sub(range.start);
        let bytes = if read.method == Method::Memory { needed } else { whole };
        self.bytes_read = self.bytes_read.saturating_add(bytes);
        self.requests = self.requests.saturating_add(1);
        self.scattered |= !read.staged && (read.straight.is_none() || read.method == Method::Direct);
        let (file, method) = (read.file, read.method);
        self.range(ExplainedRange { file, range, method, why, needed, read: bytes, requests: 1 });
    }

    fn range(&mut self, next: ExplainedRange) {
        match self.ranges.last_mut() {
            Some(last)
                if (last.file, last.method, last.why) == (next.file, next.method, next.why)
                    && last.range.start <= next.range.start =>
            {
                last.range.end = last.range.end.max(next.range.end);
                last.needed = last.needed.saturating_add(next.needed);
                last.read = last.read.saturating_add(next.read);
                last.requests = last.requests.saturating_add(next.requests);
            }
            _ => self.ranges.push(next),
        }
    }

    pub(crate) fn finish(&mut self, program: &Program) {
        self.workers = (program.workers as u64).min(self.requests);
        let tensors = program.memory_bytes();
        let scratch = if self.scattered { self.workers.saturating_mul(program.scratch_bytes) } else { 0 };
        // Two for each worker.
        let slabs = program.slab_bytes.saturating_mul(2).saturating_mul(self.workers);
        let tensors = tensors.min(program.budget.unwrap_or(u64::MAX));
        self.peak_memory = tensors.saturating_add(scratch).saturating_add(slabs);
    }

    /// Shows it with the names of the files.
    #[must_use]
    pub fn display<'e>(&'e self, files: &'e [Arc<str>]) -> impl fmt::Display + 'e {
        Shown { explain: self, files }
    }
}

struct Shown<'e> {
    explain: &'e Explain,
    files: &'e [Arc<str>],
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.explain;
        writeln!(f, "tensors        {}", e.tensors)?;
        writeln!(f, "bytes needed   {}", e.bytes_needed)?;
        writeln!(f, "bytes read     {} ({:.3} times)", e.bytes_read, e.amplification())?;
        writeln!(f, "requests       {}, {} at once", e.requests, e.workers)?;
        write!(f, "peak memory    {}", e.peak_memory)?;
        if let Some(budget) = e.budget {
            write!(f, ", budget {budget}")?;
        }
        for range in &e.ranges {
            let name = self.files.get(range.file).map_or("", |name| name);
            write!(f, "\n{:<8} {}..{}", range.method.name(), range.range.start, range.range.end)?;
            write!(f, "  needs {}, reads {}", range.needed, range.read)?;
            if range.requests > 0 {
                write!(f, " in {} requests", range.requests)?;
            }
            write!(f, ": {}", range.why.text())?;
            if !name.is_empty() {
                write!(f, "  {name}")?;
            }
        }
        Ok(())
    }
}

//! Moving the bytes.

use std::{
    fs,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use tensafe_format::ShardIndex;
use tensafe_io::{Buffer, FileSink, ReplaceOptions, Sink, copy_range, read_parallel};

use super::{Conversion, PlannedTensor, options::Names};
use crate::{Error, ErrorKind, gather::Gather};

/// Bytes that one job copies: between two the progress is told.
const JOB_BYTES: u64 = 32 << 20;

/// Memory for a tensor that is rewritten, before a cast, on each thread.
const PIECE_BYTES: usize = 8 << 20;

/// Bytes after which a thread sees to it that the disk has begun, while the others copy on.
const FLUSH_BYTES: u64 = 192 << 20;

/// Bytes below which a second thread costs more than it brings.
const WORTH_A_THREAD: u64 = 4 << 20;

/// How far a conversion is, in bytes of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Written.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// Is told how far a conversion is, from the thread that called it; `Break` ends the conversion.
pub type OnProgress<'p> = &'p mut dyn FnMut(Progress) -> ControlFlow<()>;

/// A part of a tensor on its way to a file.
#[derive(Clone, Copy)]
struct Job {
    file: usize,
    tensor: usize,
    /// The first byte in the file.
    at: u64,
    /// The bytes of the tensor that are copied as they are; all are rewritten where there are none.
    run: Option<(u64, u64)>,
}

/// What the threads of a write share.
struct Shared<'c> {
    conversion: &'c Conversion,
    sinks: &'c [FileSink],
    jobs: Mutex<std::vec::IntoIter<Job>>,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Conversion {
    /// Writes the files: all of them, or none.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where no tensor is left,
    /// [`Io`](crate::ErrorKind::Io), and [`Cancelled`](crate::ErrorKind::Cancelled) where `progress`
    /// says so. What was there before is then still there.
    ///
    /// # Cost
    /// See [`convert`](crate::convert::convert).
    pub fn write(&self, progress: OnProgress<'_>) -> Result<(), Error> {
        self.has_tensors()?;
        let Some(directory) = self.output.parent().filter(|directory| !directory.as_os_str().is_empty())
        else {
            return self.write_files(progress);
        };
        let missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
        let failed = |e| Error::from(tensafe_io::Error::from_os("make the directory", directory, e));
        let made = fs::create_dir_all(directory).map_err(failed);
        let written = made.and_then(|()| self.write_files(progress));
        if written.is_err() {
            // Those that somebody uses by now are not empty, and stay.
            missing.iter().for_each(|made| drop(fs::remove_dir(made)));
        }
        written
    }

    fn write_files(&self, progress: OnProgress<'_>) -> Result<(), Error> {
        let replace = ReplaceOptions::default()
            .with_durable(self.options.durable)
            .with_overwrite(self.options.overwrite);
        let mut sinks = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let sink = FileSink::create(&file.path, file.layout.file_bytes(), replace)?;
            sink.write_at(0, file.layout.header_bytes())?;
            sinks.push(sink);
        }
        let index = self.index_sink(replace)?;
        self.move_bytes(&sinks, progress)?;
        self.pickled.check_unchanged()?;
        for mut sink in sinks.into_iter().chain(index) {
            sink.commit()?;
        }
        Ok(())
    }

    fn index_sink(&self, replace: ReplaceOptions) -> Result<Option<FileSink>, Error> {
        let Some(path) = &self.index else { return Ok(None) };
        let mut index = ShardIndex::default();
        let mut total = 0u64;
        for file in &self.files {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for tensor in file.tensors.iter().filter_map(|place| self.tensors.get(*place)) {
                index.weight_map.insert(tensor.name.clone(), name.clone());
                total = total.saturating_add(tensor.bytes);
            }
        }
        index.total_size = Some(total);
        index.metadata = self.metadata();
        index.metadata.extend(self.aliases.clone());
        let text = index.to_json();
        let sink = FileSink::create(path, text.len() as u64, replace)?;
        sink.write_at(0, text.as_bytes())?;
        Ok(Some(sink))
    }

    fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (file, planned) in self.files.iter().enumerate() {
            for (place, tensor) in planned.tensors.iter().enumerate() {
                let range = planned.layout.file_range(place).unwrap_or_default();
                let gather = self.tensors.get(*tensor).and_then(|tensor| self.gather(tensor));
                let Some(run) = gather.and_then(|gather| gather.run()) else {
                    jobs.push(Job { file, tensor: *tensor, at: range.start, run: None });
                    continue;
                };
                let (mut from, mut at) = (run.start, range.start);
                while from < run.end {
                    let bytes = run.end.saturating_sub(from).min(JOB_BYTES);
                    jobs.push(Job { file, tensor: *tensor, at, run: Some((from, bytes)) });
                    from = from.saturating_add(bytes);
                    at = at.saturating_add(bytes);
                }
            }
        }
        jobs
    }

    fn move_bytes(&self, sinks: &[FileSink], progress: OnProgress<'_>) -> Result<(), Error> {
        let total = self.tensors.iter().fold(0u64, |all, tensor| all.saturating_add(tensor.bytes));
        let jobs = self.jobs();
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = if total < WORTH_A_THREAD { 1 } else { processors.min(4).min(jobs.len().max(1)) };
        let shared = Shared {
            conversion: self,
            sinks,
            jobs: Mutex::new(jobs.into_iter()),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, || shared.drain(&mut || Ok(()))).ok();
            let others: Vec<_> = (1..threads).filter_map(spawn).collect();
            let mut tell = || {
                let done = shared.done.load(Ordering::Relaxed);
                match progress(Progress { done, total }) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::cancelled()),
                }
            };
            let mut result = shared.drain(&mut tell);
            for other in others {
                let joined = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = match (result, joined) {
                    // Whoever was stopped does not know why: the one that failed does.
                    (Err(stopped), Err(failed)) if stopped.kind() == ErrorKind::Cancelled => Err(failed),
                    (result, joined) => result.and(joined),
                };
            }
            result.and_then(|()| tell())
        })
    }

    /// Reads the tensors into memory.
    pub(super) fn read(self, progress: OnProgress<'_>) -> Result<Vec<(PlannedTensor, Buffer)>, Error> {
        let total = self.tensors.iter().fold(0u64, |all, tensor| all.saturating_add(tensor.bytes));
        let names = Names::new(&self.options)?;
        let mut done = 0u64;
        let mut read = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let bytes = usize::try_from(tensor.bytes).unwrap_or(usize::MAX);
            let Some(gather) = self.gather(tensor) else { continue };
            let placed = self.pickled.tensors.get(tensor.place).map(|found| found.storage);
            let source =
                placed.and_then(|place| self.pickled.storages.get(place)).map(|placed| &placed.source);
            let buffer = Buffer::filled(bytes, |out| match (gather.run(), source) {
                (Some(run), Some(source)) => read_parallel(source.as_ref(), run.start, out),
                _ => gather.pieces(PIECE_BYTES, |at, piece| {
                    let start = usize::try_from(at).unwrap_or(usize::MAX);
                    if let Some(out) = out.get_mut(start..start.saturating_add(piece.len())) {
                        out.copy_from_slice(piece);
                    }
                    Ok(())
                }),
            })?;
            done = done.saturating_add(tensor.bytes);
            if progress(Progress { done, total }).is_break() {
                return Err(Error::cancelled());
            }
            for name in &tensor.aliases {
                let alias =
                    PlannedTensor { name: names.renamed(name), found: name.clone(), ..tensor.clone() };
                read.push((alias, buffer.clone()));
            }
            read.push((tensor.clone(), buffer));
        }
        self.pickled.check_unchanged()?;
        // In the order of the checkpoint, aliases where they stood.
        let places: std::collections::HashMap<&str, usize> = self
            .pickled
            .tensors
            .iter()
            .enumerate()
            .map(|(place, found)| (found.name.as_str(), place))
            .collect();
        read.sort_by_key(|(tensor, _)| places.get(tensor.found.as_str()).copied());
        Ok(read)
    }
}

impl Shared<'_> {
    /// Works on jobs until there are none, or one failed.
    fn drain(&self, tell: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let next = || self.jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(job) = next() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = self.work(job, tell).and_then(|()| tell()) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(&self, job: Job, tell: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let (Some(tensor), Some(sink)) = (self.conversion.tensors.get(job.tensor), self.sinks.get(job.file))
        else {
            return Ok(());
        };
        let found = self.conversion.pickled.tensors.get(tensor.place);
        let placed = found.and_then(|found| self.conversion.pickled.storages.get(found.storage));
        let (Some(found), Some(placed)) = (found, placed) else { return Ok(()) };
        if let Some((from, bytes)) = job.run {
            copy_range(placed.source.as_ref(), from, sink, job.at, bytes)?;
            let before = self.done.fetch_add(bytes, Ordering::Relaxed);
            if before / FLUSH_BYTES != before.saturating_add(bytes) / FLUSH_BYTES {
                sink.flush_early()?;
            }
            return Ok(());
        }
        Gather::new(found, placed, tensor.cast).pieces(PIECE_BYTES, |at, piece| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            sink.write_at(job.at.saturating_add(at), piece)?;
            self.done.fetch_add(piece.len() as u64, Ordering::Relaxed);
            tell()
        })
    }
}

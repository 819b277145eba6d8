//! Many requests at once, on threads that end with the call.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{Error, Latency, Source};

/// Bytes below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 4 << 20;

/// Fills `out` with the bytes of `source` from `offset` on, in requests of the size that the
/// source prefers, several at a time.
///
/// # Errors
/// The first that a request met; the others are not begun then.
///
/// # Cost
/// Blocks. Threads of its own for more than 4 MiB; no memory.
pub fn read_parallel(source: &dyn Source, offset: u64, out: &mut [u8]) -> Result<(), Error> {
    let info = source.info();
    if out.len() < WORTH_A_THREAD || info.latency == Latency::Memory {
        return source.read_at(offset, out);
    }
    let mut at = offset;
    let mut requests = Vec::new();
    for piece in out.chunks_mut(info.request_bytes.max(1)) {
        let bytes = piece.len() as u64;
        requests.push((at, piece));
        at = at.saturating_add(bytes);
    }
    // A request to a server waits more than it works.
    let at_once = if info.latency >= Latency::Network { 16 } else { processors().min(8) };
    each(requests, at_once, |(at, piece)| source.read_at(at, piece))
}

pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

pub(crate) fn each<T: Send>(
    items: Vec<T>,
    at_once: usize,
    work: impl Fn(T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let workers = at_once.min(items.len());
    if workers <= 1 {
        return items.into_iter().try_for_each(work);
    }
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || {
        while let Some(item) = next() {
            if let Err(e) = work(item) {
                // Nobody begins another request after the first that failed.
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                return Err(e);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> =
            (1..workers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, drain).ok()).collect();
        let mut result = drain();
        for other in others {
            let joined = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(joined);
        }
        result
    })
}

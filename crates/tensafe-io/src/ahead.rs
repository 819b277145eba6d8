//! Reading a mapped file ahead of who touches it.
//!
//! A page fault makes the kernel read a little further: 128 KiB by default, which leaves a fast disk
//! idle most of the time. Two threads ask for the pages in windows, in order, until they are all there or
//! the mapping is gone.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{Buffer, Source, buffer::Watch};

/// Bytes that are asked for at a time.
const WINDOW: u64 = 4 << 20;

/// Bytes below which a file is there before a thread has begun.
const WORTH_IT: u64 = 8 << 20;

const THREADS: u64 = 2;

/// Parts of a range, and bytes of each, that are looked at to learn whether it is in the page cache: of 2 GB the kernel
/// takes milliseconds to count all pages, in which another loader has begun.
const PROBES: u64 = 64;
const PROBE_BYTES: u64 = 64 << 10;

/// Begins to bring a range of a mapped file into the page cache, where that helps.
pub(crate) fn start(source: &Arc<dyn Source>, memory: &Buffer, range: Range<u64>) {
    let bytes = range.end.saturating_sub(range.start);
    if !memory.is_mapped() || bytes < WORTH_IT {
        return;
    }
    if is_resident(&**source, &range).unwrap_or(true) {
        return;
    }
    // More than the memory that is free would push out what was not looked at yet.
    if available_bytes().is_some_and(|available| bytes > available / 2) {
        return;
    }
    let next = Arc::new(AtomicU64::new(range.start));
    for number in 0..THREADS {
        let (source, watch, next) = (Arc::clone(source), memory.watch(), Arc::clone(&next));
        let window = move || ask(&*source, &watch, &next, range.end);
        // Without a thread the kernel does what it does.
        drop(thread::Builder::new().name(format!("tensafe-ahead-{number}")).spawn(window));
    }
}

/// Whether nearly all of a range seems to be in the page cache; `None` where the platform does not tell.
fn is_resident(source: &dyn Source, range: &Range<u64>) -> Option<bool> {
    let step = (range.end.saturating_sub(range.start) / PROBES).max(PROBE_BYTES);
    let (mut resident, mut asked) = (0u64, 0u64);
    let mut start = range.start;
    while start < range.end {
        let probe = start..range.end.min(start.saturating_add(PROBE_BYTES));
        asked = asked.saturating_add(probe.end - probe.start);
        resident = resident.saturating_add(source.resident(probe)?);
        start = start.saturating_add(step);
    }
    Some(resident > asked - asked / 8)
}

/// Asks for one window after the other; ends with the mapping.
fn ask(source: &dyn Source, watch: &Watch, next: &AtomicU64, end: u64) {
    while watch.is_alive() {
        let start = next.fetch_add(WINDOW, Ordering::Relaxed);
        if start >= end {
            return;
        }
        source.will_need(start..end.min(start.saturating_add(WINDOW)));
    }
}

/// Bytes of memory that the system could give without writing something out; `None` where unknown.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::{
        ops::Range,
        path::Path,
        sync::{Arc, Mutex, atomic::AtomicU64},
    };

    use super::{PROBE_BYTES, PROBES, WINDOW, ask, is_resident};
    use crate::{Buffer, Error, Identity, Latency, Source, SourceInfo};

    /// A source that remembers what it was asked for; bytes up to a place are in the page cache.
    #[derive(Debug, Default)]
    struct Asked(Mutex<Vec<Range<u64>>>, u64);

    impl Source for Asked {
        fn len(&self) -> u64 {
            0
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), Error> {
            Ok(())
        }
        fn identity(&self) -> Result<Option<Identity>, Error> {
            Ok(None)
        }
        fn info(&self) -> SourceInfo {
            SourceInfo::new(Latency::Local)
        }
        fn path(&self) -> Option<&Path> {
            None
        }
        fn will_need(&self, range: Range<u64>) {
            self.0.lock().unwrap().push(range);
        }
        fn resident(&self, range: Range<u64>) -> Option<u64> {
            self.0.lock().unwrap().push(range.clone());
            Some(self.1.clamp(range.start, range.end) - range.start)
        }
    }

    #[test]
    fn windows_cover_the_range_once_in_order() {
        let source = Arc::new(Asked::default());
        let memory = Buffer::zeroed(1).unwrap();
        ask(&*source, &memory.watch(), &AtomicU64::new(100), 100 + 2 * WINDOW + 7);
        let asked = source.0.lock().unwrap().clone();
        assert_eq!(asked.len(), 3);
        assert_eq!((asked[0].start, asked[2].end), (100, 107 + 2 * WINDOW));
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn a_few_parts_say_whether_a_range_is_resident() {
        let len = 3 << 30;
        for (cached, resident) in [(len, true), (len / 16 * 15, true), (len / 2, false), (0, false)] {
            let source = Asked(Mutex::default(), 100 + cached);
            assert_eq!(is_resident(&source, &(100..100 + len)), Some(resident), "{cached}");
            let asked = source.0.lock().unwrap();
            assert!(asked.len() as u64 <= PROBES + 1, "{}", asked.len());
            assert!(asked.iter().all(|range| range.end - range.start <= PROBE_BYTES));
        }
    }

    #[test]
    fn nothing_is_asked_for_once_the_memory_is_gone() {
        let source = Arc::new(Asked::default());
        let memory = Buffer::zeroed(1).unwrap();
        let watch = memory.watch();
        drop(memory);
        ask(&*source, &watch, &AtomicU64::new(0), 10 * WINDOW);
        assert!(source.0.lock().unwrap().is_empty());
    }
}

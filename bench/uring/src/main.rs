//! Reads one file past the page cache by threads and by io_uring, into the same memory, in turns.
//!
//! ```text
//! tensafe-bench-uring FILE ROUNDS
//! ```
//!
//! Nothing is made of the bytes, and each slot is read into again at once: what one way is faster here is
//! the most that an engine could gain by it. Prints one line for each measurement: case, way, seconds of the
//! clock, seconds of the processors, bytes.

use std::{
    env,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use io_uring::{IoUring, opcode, types};
use memmap2::{Advice, MmapMut};

/// Which requests: so many bytes at every so many, and into which memory.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    bytes: usize,
    every: usize,
    pages: Advice,
}

const CASES: [Case; 4] = [
    Case { name: "whole, 8 MiB", bytes: 8 << 20, every: 8 << 20, pages: Advice::HugePage },
    Case { name: "whole, 8 MiB, on small pages", bytes: 8 << 20, every: 8 << 20, pages: Advice::NoHugePage },
    Case { name: "whole, 1 MiB", bytes: 1 << 20, every: 1 << 20, pages: Advice::HugePage },
    Case { name: "16 KiB of every 256 KiB", bytes: 16 << 10, every: 256 << 10, pages: Advice::HugePage },
];

/// Threads, or requests under way.
#[derive(Clone, Copy)]
enum Way {
    Threads(usize),
    Ring(usize),
}

const WAYS: [Way; 6] =
    [Way::Threads(4), Way::Threads(16), Way::Threads(64), Way::Ring(4), Way::Ring(16), Way::Ring(64)];
/// Slots of the greatest number of requests: the memory of all ways.
const SLOTS: usize = 64;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(path), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: tensafe-bench-uring FILE ROUNDS"));
    };
    let rounds: usize = rounds.parse().map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    for case in CASES {
        let mut memory = memory(case.bytes * SLOTS, case.pages)?;
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                let way = WAYS[(turn + round) % WAYS.len()];
                let (begun, used) = (Instant::now(), processor_seconds());
                let (name, bytes) = match way {
                    Way::Threads(count) => (format!("{count} threads"), threads(&file, len, case, count, &mut memory)?),
                    Way::Ring(depth) => (format!("io_uring, {depth}"), ring(&file, len, case, depth, &mut memory)?),
                };
                let wall = begun.elapsed().as_secs_f64();
                println!("{}\t{name}\t{wall:.4}\t{:.4}\t{bytes}", case.name, processor_seconds() - used);
            }
        }
    }
    Ok(())
}

/// Memory, every page of it there.
fn memory(len: usize, pages: Advice) -> io::Result<MmapMut> {
    let mut memory = MmapMut::map_anon(len)?;
    // Not every system has huge pages to give.
    let _ = memory.advise(pages);
    memory.fill(1);
    Ok(memory)
}

/// Where each request starts. The part of a last block that is no whole page is left out.
fn requests(len: usize, case: Case) -> Vec<usize> {
    (0..len).step_by(case.every).filter(|start| start + case.bytes <= len).collect()
}

fn threads(file: &File, len: usize, case: Case, count: usize, memory: &mut MmapMut) -> io::Result<usize> {
    let starts = requests(len, case);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for slot in memory.chunks_exact_mut(case.bytes).take(count) {
            scope.spawn(|| {
                while let Some(&start) = starts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = file.read_exact_at(slot, start as u64) {
                        *failed.lock().unwrap() = Some(error);
                        return;
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap() {
        Some(error) => Err(error),
        None => Ok(starts.len() * case.bytes),
    }
}

fn ring(file: &File, len: usize, case: Case, depth: usize, memory: &mut MmapMut) -> io::Result<usize> {
    let starts = requests(len, case);
    let mut ring = IoUring::new(u32::try_from(depth).map_err(io::Error::other)?)?;
    let slots: Vec<libc::iovec> = memory
        .chunks_exact_mut(case.bytes)
        .take(depth)
        .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
        .collect();
    // SAFETY: the memory outlives the ring, and nobody else touches it meanwhile.
    unsafe { ring.submitter().register_buffers(&slots)? };
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let mut free: Vec<usize> = (0..slots.len()).collect();
    let mut pending = starts.iter();
    let mut done = 0;
    while done < starts.len() {
        while let Some(&slot) = free.last() {
            let Some(&start) = pending.next() else { break };
            let request = opcode::ReadFixed::new(types::Fixed(0), slots[slot].iov_base.cast(), case.bytes as u32, slot as u16)
                .offset(start as u64)
                .build()
                .user_data(slot as u64);
            // SAFETY: the slot is free, and stays so until its completion is seen.
            unsafe { ring.submission().push(&request).map_err(io::Error::other)? };
            free.pop();
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            if completion.result() as usize != case.bytes {
                return Err(io::Error::other("a short read"));
            }
            free.push(completion.user_data() as usize);
            done += 1;
        }
    }
    Ok(starts.len() * case.bytes)
}

/// Seconds that the processors spent for this process, in it and in the kernel. What threads of the kernel do
/// for a ring is not in it.
fn processor_seconds() -> f64 {
    // SAFETY: the structure is plain numbers, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

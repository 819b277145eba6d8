//! Plans carried out: the same bytes by every means and budget, and nothing half done.

use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tensafe_format::{Bounds, Dtype, Index, Layout, LayoutOptions, TensorSpec};
use tensafe_io::{
    Access, Buffer, Destination, Error, ErrorKind, ExecuteOptions, Execution, Method, OpenOptions, Order,
    Plan, Selection, Source, TensorFile, Why, explain, limit_pool,
};

use crate::disk::{Disk, Fault};

/// A file of tensors whose bytes follow a pattern that no cut repeats.
fn bytes_of(tensors: &[(String, Dtype, Vec<u64>)]) -> Vec<u8> {
    let specs =
        tensors.iter().map(|(name, dtype, shape)| TensorSpec::new(name.clone(), *dtype, shape.clone()));
    let layout = Layout::new(specs, None, &LayoutOptions::default()).unwrap();
    let mut bytes = layout.header_bytes().to_vec();
    let mut state = 7u64;
    bytes.extend((layout.header_bytes().len() as u64..layout.file_bytes()).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    }));
    bytes
}

fn open(disk: Disk, access: Access) -> (Arc<Disk>, TensorFile) {
    let disk = Arc::new(disk);
    let source = Arc::clone(&disk) as Arc<dyn Source>;
    let options = OpenOptions::default().with_access(access);
    let file = TensorFile::from_source_with(source, &options).unwrap();
    disk.arm(None);
    (disk, file)
}

/// The bytes that a selection has, element by element.
fn naive(file: &[u8], tensor: &TensorFile, name: &str, selection: &Selection) -> Vec<u8> {
    let info = tensor.info(name).unwrap();
    let (shape, size) = (info.shape(), (info.dtype().bits() / 8) as usize);
    let start = tensor.header().file_range(&info).start as usize;
    let chosen = |dimension: usize, at: u64| match selection {
        Selection::Shard { dimension: cut, rank, world } if *cut == dimension => {
            let each = shape[dimension].div_ceil(*world);
            at / each.max(1) == *rank
        }
        Selection::Intervals { dimension: cut, ranges } if *cut == dimension => {
            ranges.iter().any(|range| range.contains(&at))
        }
        Selection::Index(index, _) => match index.get(dimension) {
            Some(Index::Range { start, stop, step }) => {
                let (start, stop) = (start.unwrap().unsigned_abs(), stop.unwrap().unsigned_abs());
                (start..stop).contains(&at) && (at - start).is_multiple_of(*step)
            }
            _ => true,
        },
        _ => true,
    };
    let count: u64 = shape.iter().product();
    let mut bytes = Vec::new();
    for element in 0..count {
        let mut left = element;
        let mut all = true;
        for dimension in (0..shape.len()).rev() {
            all &= chosen(dimension, left % shape[dimension]);
            left /= shape[dimension];
        }
        if all {
            let at = start + element as usize * size;
            bytes.extend(&file[at..at + size]);
        }
    }
    bytes
}

fn selection() -> impl Strategy<Value = (u8, u64, u64, u64)> {
    (0u8..5, 0u64..6, 1u64..5, 1u64..3)
}

/// A selection that fits the shape, from numbers that do not know it.
fn fitted(shape: &[u64], (kind, a, b, step): (u8, u64, u64, u64)) -> Selection {
    let Some(dimension) = shape.len().checked_sub(1).map(|last| (a as usize) % (last + 1)) else {
        return Selection::Whole;
    };
    let size = shape[dimension];
    match kind {
        0 => Selection::Shard { dimension, rank: a % b, world: b },
        1 => {
            let (first, second) = (size / 4, size / 2);
            Selection::Intervals { dimension, ranges: vec![0..first, second..size - size / 8] }
        }
        2 => {
            let start = a.min(size).cast_signed();
            let stop = (a + b).min(size).cast_signed();
            let mut index = vec![Index::Range { start: Some(0), stop: Some(i64::MAX), step: 1 }; dimension];
            index.push(Index::Range { start: Some(start), stop: Some(stop), step });
            Selection::Index(index, Bounds::Clamp)
        }
        _ => Selection::Whole,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_means_and_budget_gives_the_bytes_that_were_asked_for(
        shapes in prop::collection::vec((prop::collection::vec(0u64..40, 0..4), selection()), 1..8),
        direct in any::<bool>(),
        refuses in any::<bool>(),
        resident in prop::option::of(prop::sample::select(vec![0u64, 40, 60, 100])),
        request in prop::sample::select(vec![4096usize, 16 << 10, 8 << 20]),
        budget in prop::option::of(600_000u64..3_000_000),
        access in prop::sample::select(vec![Access::Read, Access::Direct, Access::Owned]),
        order in prop::sample::select(vec![Order::File, Order::Plan]),
    ) {
        let dtypes = [Dtype::F64, Dtype::F32, Dtype::BF16, Dtype::U8];
        let tensors: Vec<_> = shapes.iter().enumerate()
            .map(|(i, (shape, _))| (format!("t{i}"), dtypes[i % 4], shape.clone())).collect();
        let bytes = bytes_of(&tensors);
        let disk = Disk { direct, refuses_direct: refuses, resident, request_bytes: request, ..Disk::new(bytes.clone()) };
        let (_disk, file) = open(disk, access);
        let mut plan = Plan::new().with_order(order).with_budget(budget);
        // Back to front: the order of the plan is not that of the file.
        let mut expected = Vec::new();
        for (i, (shape, numbers)) in shapes.iter().enumerate().rev() {
            let name = format!("t{i}");
            let selection = fitted(shape, *numbers);
            plan.add(0, file.header(), &file.info(&name).unwrap(), &selection).unwrap();
            expected.push(naive(&bytes, &file, &name, &selection));
        }
        let plan = Arc::new(plan);
        let execution = match Execution::start(Arc::clone(&plan), &[&file], ExecuteOptions::default()) {
            Ok(execution) => execution,
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Limit);
                prop_assert!(plan.entries().iter().any(|entry| entry.bytes() > budget.unwrap() / 2));
                return Ok(());
            }
        };
        let explained = execution.explain().clone();
        prop_assert_eq!(explained.bytes_needed, expected.iter().map(|b| b.len() as u64).sum::<u64>());
        prop_assert!(budget.is_none_or(|budget| explained.peak_memory <= budget));
        let mut seen = vec![false; expected.len()];
        let mut order_seen = Vec::new();
        for loaded in execution {
            let loaded = loaded.unwrap();
            prop_assert_eq!(&*loaded.bytes, &expected[loaded.entry][..]);
            let alignment = plan.entries()[loaded.entry].dtype().alignment_bytes() as usize;
            prop_assert!(loaded.bytes.is_empty() || loaded.bytes.as_mut_ptr().addr().is_multiple_of(alignment));
            prop_assert!(!std::mem::replace(&mut seen[loaded.entry], true));
            order_seen.push(loaded.entry);
        }
        prop_assert!(seen.iter().all(|seen| *seen));
        if order == Order::Plan {
            prop_assert!(order_seen.is_sorted());
        }
    }
}

/// Six tensors of 4 MB.
fn large() -> Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let tensors = (0..6).map(|i| (format!("layers.{i}"), Dtype::F32, vec![1024, 1000 + i]));
    BYTES.get_or_init(|| bytes_of(&tensors.collect::<Vec<_>>())).clone()
}

fn whole(file: &TensorFile, budget: Option<u64>) -> Arc<Plan> {
    let mut plan = Plan::new().with_budget(budget);
    for info in file.header().tensors() {
        plan.add(0, file.header(), &info, &Selection::Whole).unwrap();
    }
    Arc::new(plan)
}

#[test]
fn direct_reads_of_whole_tensors_go_to_their_place_at_once() {
    let bytes = large();
    let (disk, file) = open(Disk { request_bytes: 1 << 20, ..Disk::new(bytes.clone()) }, Access::Owned);
    let plan = whole(&file, None);
    for loaded in Execution::start(Arc::clone(&plan), &[&file], ExecuteOptions::default()).unwrap() {
        let loaded = loaded.unwrap();
        let info = file.info(plan.entries()[loaded.entry].name()).unwrap();
        let range = file.header().file_range(&info);
        assert_eq!(*loaded.bytes, bytes[range.start as usize..range.end as usize]);
        // As far from a page's border as in the file: the pages were read in place.
        assert_eq!(loaded.bytes.as_mut_ptr().addr() % 4096, range.start as usize % 4096);
    }
    assert!(disk.log.lock().unwrap().iter().all(|(direct, _)| *direct));
}

#[test]
fn what_is_resident_is_read_through_the_cache_and_what_is_cold_past_it() {
    for (resident, direct, why) in
        [(Some(100), false, Why::Resident), (Some(0), true, Why::Cold), (None, false, Why::Unknown)]
    {
        let (disk, file) = open(Disk { resident, ..Disk::new(large()) }, Access::Owned);
        let explained = explain(&whole(&file, None), &[&file]).unwrap();
        let means = if direct { Method::Direct } else { Method::Buffered };
        assert!(
            explained.ranges.iter().all(|range| (range.method, range.why) == (means, why)),
            "{explained:?}"
        );
        file.groups().unwrap();
        assert!(disk.log.lock().unwrap().iter().all(|(was, _)| *was == direct));
    }
}

#[test]
fn a_refusal_of_direct_reads_is_no_error() {
    let bytes = large();
    let (disk, file) = open(Disk { refuses_direct: true, ..Disk::new(bytes) }, Access::Direct);
    file.groups().unwrap();
    assert!(disk.log.lock().unwrap().iter().all(|(direct, _)| !direct));
}

#[test]
fn rows_are_read_exactly_and_close_columns_in_one_span() {
    let tensors = [("w".to_owned(), Dtype::BF16, vec![4096, 4096])];
    let bytes = bytes_of(&tensors);
    let (disk, file) = open(Disk::new(bytes), Access::Owned);
    let info = file.info("w").unwrap();
    let read = |dimension, world| {
        let mut plan = Plan::new();
        plan.add(0, file.header(), &info, &Selection::Shard { dimension, rank: 1, world }).unwrap();
        let explained = explain(&plan, &[&file]).unwrap();
        disk.arm(None);
        Execution::start(Arc::new(plan), &[&file], ExecuteOptions::default())
            .unwrap()
            .for_each(|loaded| drop(loaded.unwrap()));
        let read: u64 = disk.log.lock().unwrap().iter().map(|(_, range)| range.end - range.start).sum();
        assert!(read <= explained.bytes_read, "{read} bytes, explained {}", explained.bytes_read);
        (read, explained.bytes_needed)
    };
    let (rows, needed) = read(0, 4);
    assert!(rows <= needed + 2 * 4096);
    // Runs of 2 KiB, 8 KiB apart: never more than the tensor.
    let (columns, _) = read(1, 4);
    assert!(columns <= info.bytes() + 2 * 4096);
    // Runs of 128 KiB with 128 KiB between: each by itself.
    let tensors = [("w".to_owned(), Dtype::U8, vec![64, 1 << 18])];
    let (disk, file) = open(Disk::new(bytes_of(&tensors)), Access::Owned);
    let mut plan = Plan::new();
    let half = Selection::Shard { dimension: 1, rank: 0, world: 2 };
    plan.add(0, file.header(), &file.info("w").unwrap(), &half).unwrap();
    disk.arm(None);
    Execution::start(Arc::new(plan), &[&file], ExecuteOptions::default())
        .unwrap()
        .for_each(|loaded| drop(loaded.unwrap()));
    assert_eq!(disk.requests(), 64);
}

#[test]
fn a_budget_that_no_tensor_fits_is_told_before_anything_is_read() {
    let (disk, file) = open(Disk::new(large()), Access::Owned);
    let error =
        Execution::start(whole(&file, Some(2 << 20)), &[&file], ExecuteOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(
        error.to_string().contains("tensor `layers.0` needs 4096000 bytes, the budget leaves"),
        "{error}"
    );
    assert_eq!(disk.requests(), 0);
}

#[test]
fn reading_waits_for_the_budget_until_tensors_are_taken() {
    let tensors: Vec<_> = (0..16).map(|i| (format!("t{i:02}"), Dtype::U8, vec![1 << 20])).collect();
    let (disk, file) = open(Disk { request_bytes: 64 << 10, ..Disk::new(bytes_of(&tensors)) }, Access::Owned);
    let mut execution =
        Execution::start(whole(&file, Some(4 << 20)), &[&file], ExecuteOptions::default()).unwrap();
    let settled = |at_most: usize| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            assert!(disk.requests() <= at_most, "{} requests", disk.requests());
            thread::yield_now();
        }
    };
    // Of 4 MiB, requests take a part: three tensors fit beside them.
    settled(3 * 16);
    drop(execution.next().unwrap().unwrap());
    settled(4 * 16);
    assert_eq!(execution.by_ref().map(|loaded| loaded.unwrap().bytes.len()).sum::<usize>(), 15 << 20);
    assert_eq!(execution.control().progress().0, 16 << 20);
}

#[test]
fn a_tensor_can_be_read_into_strided_memory_of_the_caller() {
    let tensors = [("w".to_owned(), Dtype::F32, vec![300, 500])];
    let bytes = bytes_of(&tensors);
    for access in [Access::Read, Access::Direct, Access::Owned] {
        let (_disk, file) = open(Disk::new(bytes.clone()), access);
        let mut plan = Plan::new();
        let shard = Selection::Shard { dimension: 1, rank: 1, world: 2 };
        let entry = plan.add(0, file.header(), &file.info("w").unwrap(), &shard).unwrap();
        // Columns first: 300 elements from one column to the next.
        plan.read_into(entry, &[4, 1200]).unwrap();
        let mut memory = vec![0u8; 300 * 250 * 4];
        // SAFETY: the memory outlives the execution, which ends in this scope, and nobody else uses it.
        let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len(), ()) };
        let options = ExecuteOptions::default().with_destination(entry, destination);
        let all: Vec<_> = Execution::start(Arc::new(plan), &[&file], options).unwrap().collect();
        assert!(all.into_iter().all(|loaded| loaded.unwrap().bytes.is_empty()));
        let rows = naive(&bytes, &file, "w", &shard);
        for row in 0..300 {
            for column in 0..250 {
                let (from, to) = ((row * 250 + column) * 4, (column * 300 + row) * 4);
                assert_eq!(memory[to..to + 4], rows[from..from + 4]);
            }
        }
    }
}

#[test]
fn memory_of_the_caller_that_is_too_short_is_refused() {
    let (disk, file) = open(Disk::new(large()), Access::Read);
    let mut plan = Plan::new();
    let entry = plan.add(0, file.header(), &file.info("layers.0").unwrap(), &Selection::Whole).unwrap();
    plan.read_into(entry, &[4000, 4]).unwrap();
    let mut memory = vec![0u8; 1000];
    // SAFETY: nothing is read into it.
    let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len(), ()) };
    let options = ExecuteOptions::default().with_destination(entry, destination);
    let error = Execution::start(Arc::new(plan), &[&file], options).unwrap_err();
    assert_eq!(error.to_string(), "tensor `layers.0`: memory of 1000 bytes to read into, needed 4096000");
    assert_eq!(disk.requests(), 0);
}

/// Loads with a fault at the request `at`; how many requests were made, and what came of it.
fn with_fault(at: usize, fault: Fault, budget: Option<u64>) -> (usize, Result<Vec<Buffer>, Error>) {
    let disk = Disk { request_bytes: 1 << 20, ..Disk::new(large()) };
    let (disk, file) = open(disk, Access::Owned);
    disk.arm(Some((at, fault)));
    let execution = Execution::start(whole(&file, budget), &[&file], ExecuteOptions::default()).unwrap();
    let all = execution.map(|loaded| loaded.map(|loaded| loaded.bytes)).collect();
    (disk.requests(), all)
}

#[test]
fn a_fault_at_any_request_is_an_error_and_ends_the_execution() {
    let (requests, all) = with_fault(usize::MAX, Fault::Io, None);
    assert_eq!(all.unwrap().len(), 6);
    assert!(requests > 20, "{requests}");
    for (fault, text) in [
        (Fault::Io, "cannot read: "),
        (Fault::Truncated, "the file ends early"),
        (Fault::Replaced, "the file changed while it was open: another time of modification"),
        (Fault::Panic, "cannot read: a source panicked"),
    ] {
        for at in [0, 1, requests / 2, requests - 1] {
            for budget in [None, Some(16 << 20)] {
                let (made, all) = with_fault(at, fault, budget);
                let error = all.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Io);
                assert!(error.chain().to_string().starts_with(text), "{}", error.chain());
                // How many others are under way by then is the scheduler's; the fault was met.
                assert!(made > at, "{made} requests, a fault at {at}");
            }
        }
    }
}

#[test]
fn nothing_comes_after_an_error() {
    let (disk, file) = open(Disk { request_bytes: 1 << 20, ..Disk::new(large()) }, Access::Owned);
    disk.arm(Some((0, Fault::Io)));
    let mut execution = Execution::start(whole(&file, None), &[&file], ExecuteOptions::default()).unwrap();
    assert!(execution.next().unwrap().is_err());
    assert!(execution.next().is_none());
    assert_eq!(execution.size_hint(), (0, Some(0)));
}

#[test]
fn cancelling_at_every_step_ends_without_waiting_for_the_rest() {
    for step in 0..6 {
        for from_elsewhere in [false, true] {
            let (disk, file) = open(Disk { request_bytes: 1 << 20, ..Disk::new(large()) }, Access::Owned);
            let plan = whole(&file, Some(12 << 20));
            let mut execution = Execution::start(plan, &[&file], ExecuteOptions::default()).unwrap();
            for _ in 0..step {
                execution.next().unwrap().unwrap();
            }
            if from_elsewhere {
                let control = execution.control();
                thread::spawn(move || control.cancel()).join().unwrap();
                let error = execution.next().unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Cancelled);
                assert!(execution.next().is_none());
            }
            drop(execution);
            let made = disk.requests();
            thread::sleep(Duration::from_millis(5));
            assert_eq!(disk.requests(), made, "workers have ended");
        }
    }
}

#[test]
fn what_is_over_lets_go_of_memory_while_a_handle_of_it_lives() {
    let (_disk, file) = open(Disk::new(large()), Access::Read);
    let mut plan = Plan::new();
    let entry = plan.add(0, file.header(), &file.info("layers.0").unwrap(), &Selection::Whole).unwrap();
    plan.read_into_dense(entry).unwrap();
    let mut memory = vec![0u8; 4_096_000];
    let owner = Arc::new(());
    // SAFETY: the memory outlives the execution, which ends in this scope, and nobody else uses it.
    let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len(), Arc::clone(&owner)) };
    let options = ExecuteOptions::default().with_destination(entry, destination);
    let execution = Execution::start(Arc::new(plan), &[&file], options).unwrap();
    let control = execution.control();
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(execution);
    assert_eq!(Arc::strong_count(&owner), 1);
    control.cancel();
}

/// Runs `work` in a thread of its own; fails where it is not over in time.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (told, over) = mpsc::channel();
    thread::spawn(move || told.send(work()));
    over.recv_timeout(Duration::from_secs(120)).expect("it goes on for ever, or panicked")
}

/// All bytes of an execution, and how many tensors.
fn sizes(file: &TensorFile, plan: Plan) -> (usize, usize) {
    let execution = Execution::start(Arc::new(plan), &[file], ExecuteOptions::default()).unwrap();
    execution.fold((0, 0), |(count, sum), loaded| (count + 1, sum + loaded.unwrap().bytes.len()))
}

#[test]
fn small_tensors_that_share_memory_with_little_budget_left_beside_a_large_one() {
    // The large one leaves less of the budget than the small ones together take; one request has the
    // last of these and its beginning.
    for budget in [4u64 << 20, 6 << 20, 9 << 20] {
        for spare in [1u64 << 10, 20 << 10, 50 << 10] {
            ends(move || {
                // Requests take a quarter of the budget at most.
                let large = budget / 4 * 3 - (33 << 10) - spare;
                let tensors = [
                    ("a".to_owned(), Dtype::U8, vec![10]),
                    ("b".to_owned(), Dtype::U8, vec![60 << 10]),
                    ("c".to_owned(), Dtype::U8, vec![large]),
                ];
                let (_disk, file) = open(Disk::new(bytes_of(&tensors)), Access::Read);
                let plan = Arc::unwrap_or_clone(whole(&file, Some(budget)));
                assert_eq!(sizes(&file, plan), (3, (large + 10 + (60 << 10)) as usize));
            });
        }
    }
}

#[test]
fn what_alignment_adds_to_memory_is_counted_where_one_thread_does_all() {
    ends(|| {
        // Each byte is followed by an element of eight: nine bytes are read, sixteen are taken.
        let count = 80_000;
        let tensors: Vec<_> = (0..count)
            .map(|i| (format!("b{i}"), Dtype::U8, vec![1]))
            .chain((0..count).map(|i| (format!("f{i}"), Dtype::F64, vec![1])))
            .collect();
        let (_disk, file) = open(Disk::new(bytes_of(&tensors)), Access::Read);
        let mut plan = Plan::new().with_order(Order::Plan).with_budget(Some(1_200_000));
        for i in 0..count {
            for name in [format!("b{i}"), format!("f{i}")] {
                plan.add(0, file.header(), &file.info(&name).unwrap(), &Selection::Whole).unwrap();
            }
        }
        assert_eq!(sizes(&file, plan), (2 * count, 9 * count));
    });
}

#[test]
fn a_source_that_panics_in_the_callers_thread_ends_the_execution_too() {
    ends(|| {
        let tensors =
            [("a".to_owned(), Dtype::U8, vec![70 << 10]), ("b".to_owned(), Dtype::U8, vec![70 << 10])];
        let (disk, file) = open(Disk { request_bytes: 4096, ..Disk::new(bytes_of(&tensors)) }, Access::Read);
        disk.arm(Some((3, Fault::Panic)));
        let mut execution =
            Execution::start(whole(&file, None), &[&file], ExecuteOptions::default()).unwrap();
        let error = execution.next().unwrap().unwrap_err();
        assert_eq!(error.chain().to_string(), "cannot read: a source panicked");
        assert!(execution.next().is_none());
    });
}

#[test]
fn all_of_a_dimension_whose_rows_share_bytes_is_all_of_the_tensor() {
    let tensors = [("w".to_owned(), Dtype::F4, vec![2, 5]), ("deep".to_owned(), Dtype::F4, vec![2, 3, 1])];
    let bytes = bytes_of(&tensors);
    let (_disk, file) = open(Disk::new(bytes.clone()), Access::Read);
    for (name, size) in [("w", 5u64), ("deep", 3)] {
        for ranges in [vec![0..size, size..size], vec![0..0, 0..size, size..size]] {
            let info = file.info(name).unwrap();
            let mut plan = Plan::new();
            plan.add(0, file.header(), &info, &Selection::Intervals { dimension: 1, ranges }).unwrap();
            let mut execution =
                Execution::start(Arc::new(plan), &[&file], ExecuteOptions::default()).unwrap();
            let range = file.header().file_range(&info);
            let expected = &bytes[range.start as usize..range.end as usize];
            assert_eq!(*execution.next().unwrap().unwrap().bytes, *expected, "{name}");
        }
    }
}

#[test]
fn the_memory_of_requests_is_within_the_budget() {
    // Rows into columns: every request goes through memory of its worker.
    let tensors = [("w".to_owned(), Dtype::U8, vec![700, 700])];
    for budget in [600_000u64, 1_000_000, 3_000_000] {
        let (_disk, file) = open(Disk::new(bytes_of(&tensors)), Access::Read);
        let mut plan = Plan::new().with_budget(Some(budget));
        let entry = plan.add(0, file.header(), &file.info("w").unwrap(), &Selection::Whole).unwrap();
        plan.read_into(entry, &[1, 700]).unwrap();
        let explained = explain(&plan, &[&file]).unwrap();
        assert!(explained.peak_memory <= budget / 4, "{explained:?}");
    }
}

#[test]
fn several_files_are_one_plan() {
    let (first, second) = (large(), bytes_of(&[("other".to_owned(), Dtype::U8, vec![5 << 20])]));
    let (_a, one) = open(Disk::new(first.clone()), Access::Owned);
    let (_b, two) = open(Disk::new(second.clone()), Access::Read);
    let mut plan = Plan::new();
    plan.add(1, two.header(), &two.info("other").unwrap(), &Selection::Whole).unwrap();
    plan.add(0, one.header(), &one.info("layers.3").unwrap(), &Selection::Whole).unwrap();
    let loaded = Execution::start(Arc::new(plan), &[&one, &two], ExecuteOptions::default()).unwrap();
    let loaded: Vec<_> = loaded.map(|loaded| loaded.unwrap()).collect();
    assert_eq!((loaded[0].entry, loaded[1].entry), (1, 0));
    assert_eq!(*loaded[1].bytes, second[second.len() - (5 << 20)..]);
    let range = one.header().file_range(&one.info("layers.3").unwrap());
    assert_eq!(*loaded[0].bytes, first[range.start as usize..range.end as usize]);
}

#[test]
fn many_threads_load_parts_of_one_file_at_once() {
    let bytes = large();
    let (_disk, file) = open(Disk { request_bytes: 256 << 10, ..Disk::new(bytes.clone()) }, Access::Owned);
    let wrong = Mutex::new(0);
    thread::scope(|scope| {
        for rank in 0..16 {
            let (file, bytes, wrong) = (&file, &bytes, &wrong);
            scope.spawn(move || {
                let name = format!("layers.{}", rank % 6);
                let shard = Selection::Shard { dimension: 0, rank, world: 16 };
                let mut plan = Plan::new();
                plan.add(0, file.header(), &file.info(&name).unwrap(), &shard).unwrap();
                let mut execution =
                    Execution::start(Arc::new(plan), &[file], ExecuteOptions::default()).unwrap();
                let loaded = execution.next().unwrap().unwrap();
                if *loaded.bytes != naive(bytes, file, &name, &shard)[..] {
                    *wrong.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(*wrong.lock().unwrap(), 0);
}

#[test]
fn tensors_without_elements_keep_their_places_in_a_file_that_is_loaded_whole() {
    let tensors: Vec<_> = (0..9u64).map(|i| (format!("t{i}"), Dtype::F32, vec![i % 3, 7])).collect();
    let bytes = bytes_of(&tensors);
    let (_disk, file) = open(Disk::new(bytes.clone()), Access::Read);
    let mut infos = file.header().tensors();
    for group in file.groups().unwrap() {
        for info in infos.by_ref().take(group.tensors.len()) {
            let range = file.header().file_range(&info);
            let part = (range.start - group.offset) as usize..(range.end - group.offset) as usize;
            assert_eq!(group.bytes[part], bytes[range.start as usize..range.end as usize], "{}", info.name());
        }
    }
    assert!(infos.next().is_none());
}

#[test]
fn many_threads_mix_regions_tensors_groups_and_plans_of_one_file() {
    let bytes = large();
    let disk = || Disk { request_bytes: 256 << 10, ..Disk::new(bytes.clone()) };
    for access in [Access::Read, Access::Direct, Access::Owned] {
        let (_disk, file) = open(disk(), access);
        let wrong = Mutex::new(Vec::new());
        let check = |what: &str, same: bool| {
            if !same {
                wrong.lock().unwrap().push(what.to_owned());
            }
        };
        thread::scope(|scope| {
            for number in 0..16u64 {
                let (file, bytes, check) = (&file, &bytes, &check);
                scope.spawn(move || {
                    let name = format!("layers.{}", number % 6);
                    let range = file.header().file_range(&file.info(&name).unwrap());
                    let expected = &bytes[range.start as usize..range.end as usize];
                    match number % 4 {
                        0 => check("tensor", *file.tensor(&name).unwrap() == *expected),
                        1 => {
                            let index = [Index::range(number * 10..number * 10 + 300)];
                            let (shape, part) = file.region(&name, &index, Bounds::Refuse).unwrap();
                            let row = shape[1] as usize * 4;
                            let start = number as usize * 10 * row;
                            check("region", *part == expected[start..start + 300 * row]);
                        }
                        2 => {
                            let groups = file.groups().unwrap();
                            let same =
                                |offset: u64, part: &[u8]| *part == bytes[offset as usize..][..part.len()];
                            check("groups", groups.iter().all(|group| same(group.offset, &group.bytes)));
                        }
                        _ => {
                            let plan = whole(file, Some(12 << 20));
                            let execution =
                                Execution::start(Arc::clone(&plan), &[file], ExecuteOptions::default())
                                    .unwrap();
                            let last = execution.last().unwrap().unwrap();
                            let info = file.info(plan.entries()[last.entry].name()).unwrap();
                            let range = file.header().file_range(&info);
                            check("plan", *last.bytes == bytes[range.start as usize..range.end as usize]);
                        }
                    }
                });
            }
        });
        assert_eq!(*wrong.lock().unwrap(), [""; 0]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "10 MB in a disk of memory")]
fn small_cold_pieces_are_asked_for_by_more_threads() {
    // Rows of 96 KiB, of which 12 KiB each are wanted: too far apart to be read as one.
    let bytes = bytes_of(&[("rows".to_owned(), Dtype::U8, vec![100, 96 << 10])]);
    let explained = |disk: Disk, budget: Option<u64>| {
        let (_disk, file) = open(disk, Access::Owned);
        let mut plan = Plan::new().with_budget(budget);
        let info = file.info("rows").unwrap();
        plan.add(0, file.header(), &info, &Selection::Shard { dimension: 1, rank: 1, world: 8 }).unwrap();
        let mut execution = Execution::start(Arc::new(plan), &[&file], ExecuteOptions::default()).unwrap();
        let explained = execution.explain().clone();
        let part = execution.next().unwrap().unwrap().bytes;
        let start = file.header().file_range(&info).start as usize;
        assert!((0..100).all(|row| {
            let from = start + row * (96 << 10) + (12 << 10);
            part[row * (12 << 10)..][..12 << 10] == bytes[from..from + (12 << 10)]
        }));
        explained
    };
    let cold = || Disk::new(bytes.clone());
    assert_eq!(explained(cold(), None).workers, 12);
    // Their memory is no more than that of few large requests.
    assert!(explained(cold(), None).peak_memory < 4 << 20);
    assert_eq!(explained(cold(), Some(64 << 20)).workers, 6);
    assert_eq!(explained(Disk { resident: Some(100), ..cold() }, None).workers, 6);
}

#[test]
fn ranks_of_one_host_share_the_requests_of_a_local_disk() {
    let tensors: Vec<_> = (0..8).map(|i| (format!("t{i}"), Dtype::U8, vec![16 << 10])).collect();
    let bytes = bytes_of(&tensors);
    let (_disk, file) = open(Disk { request_bytes: 4096, ..Disk::new(bytes.clone()) }, Access::Read);
    let plan = |ranks: usize| Arc::unwrap_or_clone(whole(&file, Some(2 << 20))).with_local_ranks(ranks);
    for (ranks, workers) in [(0, 6), (1, 6), (2, 3), (3, 2), (4, 2), (8, 2), (usize::MAX, 2)] {
        let execution = Execution::start(Arc::new(plan(ranks)), &[&file], ExecuteOptions::default()).unwrap();
        assert_eq!(execution.explain().workers, workers, "{ranks} ranks");
        for loaded in execution {
            let loaded = loaded.unwrap();
            let range = file.header().file_range(&file.info(&format!("t{}", loaded.entry)).unwrap());
            assert!(*loaded.bytes == bytes[range.start as usize..range.end as usize]);
        }
    }
    assert_eq!(plan(0), plan(1));
    assert_ne!(plan(1).fingerprint(), plan(4).fingerprint());
}

#[test]
fn workers_fill_parts_of_small_memories_side_by_side() {
    // Small enough for Miri, which has no advice on memory: requests of a page, and less budget than
    // memory, so that there are workers. One tensor is read into rows that are further apart.
    if cfg!(miri) {
        limit_pool(0);
    }
    let tensors: Vec<_> = (0..12).map(|i| (format!("t{i:02}"), Dtype::U16, vec![5 + i, 1000])).collect();
    let bytes = bytes_of(&tensors);
    let (_disk, file) = open(Disk { request_bytes: 4096, ..Disk::new(bytes.clone()) }, Access::Read);
    let mut plan = Arc::unwrap_or_clone(whole(&file, Some(440_000)));
    plan.read_into(3, &[3000, 2]).unwrap();
    let mut memory = vec![0u8; 8 * 3000];
    // SAFETY: the memory outlives the execution, which ends in this scope, and nobody else uses it.
    let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len(), ()) };
    let options = ExecuteOptions::default().with_destination(3, destination);
    for loaded in Execution::start(Arc::new(plan), &[&file], options).unwrap() {
        let loaded = loaded.unwrap();
        let range = file.header().file_range(&file.info(&format!("t{:02}", loaded.entry)).unwrap());
        assert!(loaded.entry == 3 || *loaded.bytes == bytes[range.start as usize..range.end as usize]);
    }
    let range = file.header().file_range(&file.info("t03").unwrap());
    for (row, expected) in bytes[range.start as usize..range.end as usize].chunks(2000).enumerate() {
        assert_eq!(memory[row * 3000..row * 3000 + 2000], *expected);
    }
}

#[test]
fn large_neighbours_are_read_into_their_places_and_small_ones_together() {
    let tensors = [
        ("a".to_owned(), Dtype::U8, vec![100]),
        ("b".to_owned(), Dtype::U8, vec![3 << 20]),
        ("c".to_owned(), Dtype::U8, vec![(1 << 20) + 1]),
        ("d".to_owned(), Dtype::U8, vec![900 << 10]),
        ("e".to_owned(), Dtype::U8, vec![900 << 10]),
    ];
    let bytes = bytes_of(&tensors);
    let (_disk, file) = open(Disk::new(bytes.clone()), Access::Owned);
    let plan = whole(&file, None);
    let mut execution = Execution::start(plan, &[&file], ExecuteOptions::default()).unwrap();
    // The first; the second; the third; the others.
    assert_eq!(execution.explain().requests, 4);
    for (name, _, _) in &tensors {
        let range = file.header().file_range(&file.info(name).unwrap());
        let found = execution.next().unwrap().unwrap().bytes;
        assert!(found[..] == bytes[range.start as usize..range.end as usize], "{name}");
    }
}

#[test]
fn a_run_that_is_cut_where_it_is_as_long_as_the_one_before_keeps_its_length() {
    const REQUEST: u64 = 64 << 10;
    let bytes = bytes_of(&[("w".to_owned(), Dtype::U8, vec![5 * REQUEST])]);
    let disk = Disk { request_bytes: REQUEST as usize, ..Disk::new(bytes.clone()) };
    let (_disk, file) = open(disk, Access::Read);
    let start = file.header().data_start();
    // The second run begins `len` bytes before a border of requests: so many are cut off it.
    let len = REQUEST / 8;
    let second = 2 * REQUEST - len - start..4 * REQUEST;
    let first = second.start - 100 - len..second.start - 100;
    let mut plan = Plan::new();
    let ranges = vec![first.clone(), second.clone()];
    let selection = Selection::Intervals { dimension: 0, ranges };
    plan.add(0, file.header(), &file.info("w").unwrap(), &selection).unwrap();
    let mut execution = Execution::start(Arc::new(plan), &[&file], ExecuteOptions::default()).unwrap();
    let found = execution.next().unwrap().unwrap().bytes;
    let data = &bytes[start as usize..];
    let of = |range: std::ops::Range<u64>| &data[range.start as usize..range.end as usize];
    assert!(found[..] == [of(first), of(second)].concat());
}

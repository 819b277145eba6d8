//! Reading onto a device, through a stager that records what is asked of it, delays copies, and fails on
//! command.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use proptest::prelude::*;
use tensafe_format::{Dtype, Layout, LayoutOptions, TensorSpec};
use tensafe_io::{
    Access, Buffer, CopyStager, Destination, Error, ErrorKind, ExecuteOptions, Execution, OpenOptions, Plan,
    Selection, Slab, Source, Stager, TensorFile, explain_staged,
};

use crate::{
    counting,
    disk::{Disk, Fault},
};

/// What is asked of a stager, in order. Slabs are known by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Slab(usize, usize),
    /// The bytes are asked for, to be read into.
    Fill(usize),
    Copy(usize, Range<usize>),
    Record(usize),
    Done(usize),
    Freed(usize),
}

/// The steps that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Slab,
    Copy,
    Record,
    Wait,
}

/// Copies are made when their event is waited for, or polled after `polls` polls: before, the destination
/// does not have the bytes.
#[derive(Debug, Default)]
struct Recorder {
    log: Mutex<Vec<Event>>,
    slabs: AtomicUsize,
    /// How often an event is polled in vain.
    polls: usize,
    fails: Mutex<Option<(Step, usize)>>,
    /// Copies that were started, and those that are done.
    started: AtomicUsize,
    done: AtomicUsize,
    /// Waiting does not return before this is set, where it is asked for.
    gate: Option<Arc<AtomicBool>>,
}

#[derive(Debug)]
struct Recorded {
    home: Arc<Recorder>,
    number: usize,
    bytes: Box<[u8]>,
    pending: Vec<(Range<usize>, usize)>,
    polls: usize,
}

#[derive(Clone, Debug)]
struct Recording(Arc<Recorder>);

impl Recorder {
    fn note(&self, event: Event) {
        self.log.lock().unwrap().push(event);
    }

    fn fails(&self, step: Step) -> Result<(), Error> {
        let mut fails = self.fails.lock().unwrap();
        match &mut *fails {
            Some((at, 0)) if *at == step => {
                // What failed once fails again: a device that is lost.
                Err(Error::device("deviceFunction", 700, "on command"))
            }
            Some((at, left)) if *at == step => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Stager for Recording {
    fn slab(&self, len: usize) -> Result<Box<dyn Slab>, Error> {
        self.0.fails(Step::Slab)?;
        let number = self.0.slabs.fetch_add(1, Ordering::SeqCst);
        self.0.note(Event::Slab(number, len));
        let bytes = vec![0xEE; len].into_boxed_slice();
        Ok(Box::new(Recorded { home: Arc::clone(&self.0), number, bytes, pending: Vec::new(), polls: 0 }))
    }
}

impl Recorded {
    fn arrive(&mut self) {
        for (range, to) in self.pending.drain(..) {
            let from = &self.bytes[range];
            // SAFETY: the tests give memory that outlives the execution; nobody reads it meanwhile.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    from.as_ptr(),
                    std::ptr::with_exposed_provenance_mut(to),
                    from.len(),
                );
            }
            self.home.done.fetch_add(1, Ordering::SeqCst);
        }
        self.home.note(Event::Done(self.number));
    }
}

impl Slab for Recorded {
    fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.pending.is_empty(), "a slab is read into while it is copied from");
        self.home.note(Event::Fill(self.number));
        &mut self.bytes
    }

    unsafe fn copy(&mut self, range: Range<usize>, to: *mut u8) -> Result<(), Error> {
        self.home.fails(Step::Copy)?;
        self.home.note(Event::Copy(self.number, range.clone()));
        self.home.started.fetch_add(1, Ordering::SeqCst);
        self.pending.push((range, to.expose_provenance()));
        self.polls = self.home.polls;
        Ok(())
    }

    fn record(&mut self) -> Result<(), Error> {
        self.home.fails(Step::Record)?;
        self.home.note(Event::Record(self.number));
        Ok(())
    }

    fn is_done(&mut self) -> Result<bool, Error> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        let waits = self.polls > 0;
        self.polls = self.polls.saturating_sub(1);
        if waits {
            return Ok(false);
        }
        self.arrive();
        Ok(true)
    }

    fn wait(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.home.fails(Step::Wait)?;
        while self.home.gate.as_ref().is_some_and(|gate| !gate.load(Ordering::SeqCst)) {
            thread::sleep(Duration::from_millis(1));
        }
        self.arrive();
        Ok(())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let lost = matches!(*self.home.fails.lock().unwrap(), Some((Step::Wait, 0)));
        if !thread::panicking() {
            assert!(self.pending.is_empty() || lost, "a slab is dropped while it is copied from");
        }
        self.home.note(Event::Freed(self.number));
    }
}

fn file_of(tensors: &[(&str, Dtype, &[u64])]) -> Vec<u8> {
    let specs = tensors.iter().map(|(name, dtype, shape)| TensorSpec::new(*name, *dtype, shape.to_vec()));
    let layout = Layout::new(specs, None, &LayoutOptions::default()).unwrap();
    let header = layout.header_bytes();
    let mut bytes = header.to_vec();
    bytes.extend(counting(usize::try_from(layout.file_bytes()).unwrap() - header.len()));
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

/// A plan of parts of tensors, all for a device, and the memory for each.
struct Device {
    plan: Plan,
    memory: Vec<Vec<u8>>,
}

impl Device {
    fn new(budget: Option<u64>) -> Self {
        Self { plan: Plan::new().with_budget(budget), memory: Vec::new() }
    }

    fn add(&mut self, place: usize, file: &TensorFile, name: &str, selection: &Selection) -> usize {
        let entry = self.plan.add(place, file.header(), &file.info(name).unwrap(), selection).unwrap();
        self.plan.read_into_dense(entry).unwrap();
        self.memory.push(vec![0xAA; usize::try_from(self.plan.entries()[entry].bytes()).unwrap()]);
        entry
    }

    fn all(file: &TensorFile, budget: Option<u64>) -> Self {
        let mut device = Self::new(budget);
        for info in file.header().tensors() {
            device.add(0, file, info.name(), &Selection::Whole);
        }
        device
    }

    fn destination(&mut self, entry: usize) -> Destination {
        let memory = &mut self.memory[entry];
        // SAFETY: the memory outlives the execution, which the test ends, and nobody else uses it.
        unsafe { Destination::on_device(memory.as_mut_ptr(), memory.len(), ()) }
    }

    fn start(&mut self, files: &[&TensorFile], stager: impl Stager + 'static) -> Result<Execution, Error> {
        let mut options = ExecuteOptions::default().with_stager(Arc::new(stager));
        for entry in 0..self.memory.len() {
            options = options.with_destination(entry, self.destination(entry));
        }
        Execution::start(Arc::new(self.plan.clone()), files, options)
    }
}

/// The bytes of a tensor by a plain load.
fn plain(file: &TensorFile, name: &str, selection: &Selection) -> Buffer {
    let mut plan = Plan::new();
    plan.add(0, file.header(), &file.info(name).unwrap(), selection).unwrap();
    let mut execution = Execution::start(Arc::new(plan), &[file], ExecuteOptions::default()).unwrap();
    execution.next().unwrap().unwrap().bytes
}

const LAYERS: [(&str, Dtype, &[u64]); 4] = [
    ("layers.0", Dtype::F32, &[512, 1000]),
    ("layers.1", Dtype::F32, &[512, 1001]),
    ("layers.2", Dtype::BF16, &[1024, 1003]),
    ("norm", Dtype::F32, &[10]),
];

fn layers(request_bytes: usize) -> Disk {
    Disk { request_bytes, ..Disk::new(file_of(&LAYERS)) }
}

fn holds(device: &Device, file: &TensorFile) {
    for (entry, memory) in device.plan.entries().iter().zip(&device.memory) {
        assert_eq!(**memory, *plain(file, entry.name(), &Selection::Whole), "{}", entry.name());
    }
}

#[test]
fn the_bytes_arrive_by_every_access_before_the_tensor_is_handed_out() {
    for access in [Access::Read, Access::Direct, Access::Owned] {
        for polls in [0, 3, usize::MAX] {
            let (_disk, file) = open(layers(256 << 10), access);
            let mut device = Device::all(&file, None);
            let recorder = Arc::new(Recorder { polls, ..Recorder::default() });
            let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
            let mut handed = 0;
            for loaded in execution {
                let loaded = loaded.unwrap();
                assert!(loaded.bytes.is_empty());
                // No later request writes it: what is there now is there to stay.
                let name = device.plan.entries()[loaded.entry].name();
                assert_eq!(*device.memory[loaded.entry], *plain(&file, name, &Selection::Whole));
                handed += 1;
            }
            assert_eq!(handed, 4);
            let counts = (recorder.started.load(Ordering::SeqCst), recorder.done.load(Ordering::SeqCst));
            assert_eq!(counts.0, counts.1);
        }
    }
}

#[test]
fn the_next_bytes_are_read_while_the_last_are_copied_and_slabs_wait_for_their_events() {
    let (_disk, file) = open(Disk { direct: false, ..layers(128 << 10) }, Access::Read);
    // Room for the slabs of one worker alone.
    let mut device = Device::all(&file, Some(2 * (256 << 10)));
    let recorder = Arc::new(Recorder { polls: usize::MAX, ..Recorder::default() });
    let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
    assert!(execution.explain().peak_memory <= 2 * (256 << 10), "{:?}", execution.explain());
    execution.for_each(|loaded| drop(loaded.unwrap()));
    holds(&device, &file);
    let log = recorder.log.lock().unwrap();
    let slabs = log.iter().filter(|event| matches!(event, Event::Slab(..))).count();
    assert!(slabs.is_multiple_of(2) && slabs >= 2, "{slabs}");
    // For each slab: filled, copied from, recorded, done, and only then filled again.
    for number in 0..slabs {
        let mut idle = true;
        for event in log.iter() {
            match event {
                Event::Fill(n) if *n == number => assert!(std::mem::replace(&mut idle, false)),
                Event::Done(n) if *n == number => assert!(!std::mem::replace(&mut idle, true)),
                Event::Freed(n) if *n == number => assert!(idle),
                _ => {}
            }
        }
    }
    // A fill of one slab between the event of its sibling and the end of that.
    let mut pending = vec![false; slabs];
    let mut overlaps = 0;
    for event in log.iter() {
        match event {
            Event::Record(n) => pending[*n] = true,
            Event::Done(n) => pending[*n] = false,
            Event::Fill(_) => overlaps += usize::from(pending.contains(&true)),
            _ => {}
        }
    }
    assert!(overlaps > 10, "{overlaps}: {log:?}");
}

#[test]
fn scattered_runs_are_one_copy_for_each_request() {
    let tensors: [(&str, Dtype, &[u64]); 1] = [("w", Dtype::BF16, &[1024, 1024])];
    let columns = Selection::Shard { dimension: 1, rank: 1, world: 4 };
    for (access, direct) in [(Access::Read, false), (Access::Direct, true)] {
        let (disk, file) =
            open(Disk { direct, request_bytes: 512 << 10, ..Disk::new(file_of(&tensors)) }, access);
        let mut device = Device::new(None);
        device.add(0, &file, "w", &columns);
        let recorder = Arc::new(Recorder::default());
        let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
        execution.for_each(|loaded| drop(loaded.unwrap()));
        let requests = disk.requests();
        assert_eq!(*device.memory[0], *plain(&file, "w", &columns));
        assert!(requests > 1);
        assert_eq!(recorder.started.load(Ordering::SeqCst), requests, "one copy for each request");
    }
}

#[test]
fn strided_memory_of_a_device_gets_a_copy_for_each_run() {
    let tensors: [(&str, Dtype, &[u64]); 1] = [("w", Dtype::U8, &[4, 100])];
    let (_disk, file) = open(Disk::new(file_of(&tensors)), Access::Read);
    let mut device = Device::new(None);
    let entry = device.plan.add(0, file.header(), &file.info("w").unwrap(), &Selection::Whole).unwrap();
    device.plan.read_into(entry, &[128, 1]).unwrap();
    device.memory.push(vec![0xAA; 4 * 128]);
    let recorder = Arc::new(Recorder::default());
    let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
    execution.for_each(|loaded| drop(loaded.unwrap()));
    let bytes = plain(&file, "w", &Selection::Whole);
    for (row, expected) in bytes.chunks(100).enumerate() {
        assert_eq!(device.memory[0][row * 128..row * 128 + 100], *expected);
        assert!(device.memory[0][row * 128 + 100..(row + 1) * 128].iter().all(|byte| *byte == 0xAA));
    }
    assert_eq!(recorder.started.load(Ordering::SeqCst), 4);
}

#[test]
fn files_in_memory_are_gathered_from_and_several_are_one_plan() {
    let mapped = TensorFile::from_memory(Buffer::from_owner(file_of(&LAYERS)), &Default::default()).unwrap();
    let tensors: [(&str, Dtype, &[u64]); 2] = [("packed", Dtype::F4, &[33, 6]), ("empty", Dtype::F32, &[0])];
    let (_disk, other) = open(Disk::new(file_of(&tensors)), Access::Owned);
    let columns = Selection::Shard { dimension: 1, rank: 0, world: 3 };
    let mut device = Device::new(None);
    device.add(1, &other, "packed", &Selection::Whole);
    device.add(0, &mapped, "layers.1", &columns);
    device.add(1, &other, "empty", &Selection::Whole);
    device.add(0, &mapped, "norm", &Selection::Whole);
    let execution = device.start(&[&mapped, &other], CopyStager).unwrap();
    assert_eq!(execution.filter(Result::is_ok).count(), 4);
    assert_eq!(*device.memory[0], *plain(&other, "packed", &Selection::Whole));
    assert_eq!(*device.memory[1], *plain(&mapped, "layers.1", &columns));
    assert_eq!(*device.memory[3], *plain(&mapped, "norm", &Selection::Whole));
}

#[test]
fn memory_of_host_and_device_in_one_plan() {
    for budget in [None, Some(16 << 20)] {
        let (_disk, file) = open(layers(256 << 10), Access::Owned);
        let mut device = Device::new(budget);
        device.add(0, &file, "layers.0", &Selection::Whole);
        let info = file.info("layers.1").unwrap();
        device.plan.add(0, file.header(), &info, &Selection::Whole).unwrap();
        let info = file.info("norm").unwrap();
        let norm = device.plan.add(0, file.header(), &info, &Selection::Whole).unwrap();
        device.plan.read_into_dense(norm).unwrap();
        let mut host = [0u8; 40];
        // SAFETY: the memory outlives the execution, and nobody else uses it.
        let destination = unsafe { Destination::new(host.as_mut_ptr(), 40, ()) };
        let recorder = Arc::new(Recorder { polls: 2, ..Recorder::default() });
        let options = ExecuteOptions::default().with_stager(Arc::new(Recording(Arc::clone(&recorder))));
        let options = options.with_destination(0, device.destination(0)).with_destination(norm, destination);
        let execution = Execution::start(Arc::new(device.plan.clone()), &[&file], options).unwrap();
        assert!(budget.is_none_or(|budget| execution.explain().peak_memory <= budget));
        for loaded in execution {
            let loaded = loaded.unwrap();
            if loaded.entry == 1 {
                assert_eq!(*loaded.bytes, *plain(&file, "layers.1", &Selection::Whole));
            }
        }
        assert_eq!(*device.memory[0], *plain(&file, "layers.0", &Selection::Whole));
        assert_eq!(host, *plain(&file, "norm", &Selection::Whole));
    }
}

#[test]
fn memory_can_be_given_when_its_turn_comes() {
    let (disk, file) = open(layers(64 << 10), Access::Owned);
    let mut device = Device::all(&file, None);
    let options = ExecuteOptions::default().with_stager(Arc::new(CopyStager));
    let mut execution = Execution::start(Arc::new(device.plan.clone()), &[&file], options).unwrap();
    let order: Vec<usize> = execution.order().collect();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(disk.requests(), 0, "nothing is read without memory for it");
    let control = execution.control();
    for (place, entry) in order.iter().enumerate() {
        // The end of a tensor, a small one, and the start of the next are one request.
        let needed = execution.not_given();
        assert!(needed.len() <= 3 && (place > 0 || needed[0] == *entry), "{needed:?}");
        for entry in needed {
            control.give(entry, device.destination(entry)).unwrap();
            let again = control.give(entry, device.destination(entry)).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Usage);
        }
        assert_eq!(execution.next().unwrap().unwrap().entry, *entry);
    }
    assert!(execution.next().is_none());
    drop(execution);
    holds(&device, &file);
}

#[test]
fn memory_that_nobody_gave_or_of_the_wrong_kind_is_an_error() {
    let (_disk, file) = open(layers(64 << 10), Access::Owned);
    let mut device = Device::all(&file, None);
    let plan = Arc::new(device.plan.clone());
    let options = ExecuteOptions::default().with_stager(Arc::new(CopyStager));
    let mut execution = Execution::start(Arc::clone(&plan), &[&file], options).unwrap();
    let mut host = vec![0u8; 512 * 1001 * 4];
    // SAFETY: nothing is read into it: it is refused.
    let memory = unsafe { Destination::new(host.as_mut_ptr(), host.len(), ()) };
    let error = execution.control().give(1, memory).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "tensor `{}`: memory of a device is read into through a stager, and memory of the host without",
            plan.entries()[1].name()
        )
    );
    let error = execution.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("memory of 0 bytes to read into, needed"), "{error}");
    drop(execution);
    let options = ExecuteOptions::default().with_destination(0, device.destination(0));
    assert_eq!(Execution::start(plan, &[&file], options).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn slabs_fit_the_budget_or_it_is_refused_before_anything_is_read() {
    let (disk, file) = open(layers(8 << 20), Access::Owned);
    for budget in [128 << 10, 300 << 10, 1 << 20, 5 << 20, 200 << 20] {
        let mut device = Device::all(&file, Some(budget));
        let explained = explain_staged(&device.plan, &[&file]).unwrap();
        assert!(explained.peak_memory <= budget && explained.workers > 0, "{explained:?}");
        let recorder = Arc::new(Recorder::default());
        let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
        execution.for_each(|loaded| drop(loaded.unwrap()));
        holds(&device, &file);
        let log = recorder.log.lock().unwrap();
        let slabs = log.iter().map(|event| if let Event::Slab(_, len) = event { *len as u64 } else { 0 });
        assert!(slabs.sum::<u64>() <= explained.peak_memory);
    }
    disk.arm(None);
    let mut device = Device::all(&file, Some(100_000));
    let error = device.start(&[&file], CopyStager).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(
        error.to_string(),
        "copies to a device need two slabs of 131072 bytes together, the budget is 100000; raise budget="
    );
    assert_eq!(disk.requests(), 0);
}

#[test]
fn a_fault_at_any_step_is_an_error_and_leaves_no_copy_under_way() {
    for step in [Step::Slab, Step::Copy, Step::Record, Step::Wait] {
        // One worker may be all that is under way: two slabs.
        for at in if step == Step::Slab { &[0, 1][..] } else { &[0, 1, 5] }.iter().copied() {
            let (_disk, file) = open(layers(64 << 10), Access::Owned);
            let mut device = Device::all(&file, None);
            let recorder = Arc::new(Recorder {
                polls: usize::MAX,
                fails: Mutex::new(Some((step, at))),
                ..Recorder::default()
            });
            let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
            let error = execution.map(|loaded| loaded.map(drop)).collect::<Result<Vec<_>, _>>().unwrap_err();
            assert_eq!(error.to_string(), "deviceFunction failed with code 700: on command");
            assert_eq!(error.kind(), ErrorKind::Io);
            // The recorder's slabs assert that no copy of theirs is under way when they are dropped.
            let log = recorder.log.lock().unwrap();
            let made = log.iter().filter(|event| matches!(event, Event::Slab(..))).count();
            assert_eq!(log.iter().filter(|event| matches!(event, Event::Freed(_))).count(), made);
            if step != Step::Wait {
                assert_eq!(recorder.started.load(Ordering::SeqCst), recorder.done.load(Ordering::SeqCst));
            }
        }
    }
}

#[test]
fn a_fault_of_the_source_waits_for_copies() {
    for fault in [Fault::Io, Fault::Truncated, Fault::Replaced, Fault::Panic] {
        let (disk, file) = open(layers(64 << 10), Access::Owned);
        let mut device = Device::all(&file, None);
        disk.arm(Some((9, fault)));
        let recorder = Arc::new(Recorder { polls: usize::MAX, ..Recorder::default() });
        let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
        let result = execution.map(|loaded| loaded.map(drop)).collect::<Result<Vec<_>, _>>();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(recorder.started.load(Ordering::SeqCst), recorder.done.load(Ordering::SeqCst));
    }
}

#[test]
fn an_execution_that_is_dropped_waits_for_copies_before_memory_is_given_back() {
    let (_disk, file) = open(layers(64 << 10), Access::Owned);
    let mut device = Device::all(&file, None);
    let gate = Arc::new(AtomicBool::new(false));
    let recorder =
        Arc::new(Recorder { polls: usize::MAX, gate: Some(Arc::clone(&gate)), ..Recorder::default() });
    let execution = device.start(&[&file], Recording(Arc::clone(&recorder))).unwrap();
    while recorder.started.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            execution.control().cancel();
            drop(execution);
            ended.send(()).unwrap();
        });
        assert!(end.recv_timeout(Duration::from_millis(30)).is_err(), "copies are under way");
        gate.store(true, Ordering::SeqCst);
        end.recv().unwrap();
    });
    assert_eq!(recorder.started.load(Ordering::SeqCst), recorder.done.load(Ordering::SeqCst));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_device_gets_what_the_host_gets(
        shapes in prop::collection::vec((1u64..60, 1u64..60, 0usize..2, 0u64..3), 1..6),
        request in prop::sample::select(vec![4096usize, 16 << 10, 8 << 20]),
        budget in prop::option::of(200_000u64..3_000_000),
        access in prop::sample::select(vec![Access::Read, Access::Direct, Access::Owned]),
        polls in 0usize..4,
    ) {
        let names: Vec<_> = (0..shapes.len()).map(|i| format!("t{i}")).collect();
        let dims: Vec<_> = shapes.iter().map(|(a, b, ..)| [*a, *b]).collect();
        let tensors: Vec<_> =
            names.iter().zip(&dims).map(|(name, shape)| (&**name, Dtype::BF16, &shape[..])).collect();
        let (_disk, file) = open(Disk { request_bytes: request, ..Disk::new(file_of(&tensors)) }, access);
        let mut device = Device::new(budget);
        let parts: Vec<_> = shapes.iter()
            .map(|(_, _, dimension, rank)| Selection::Shard { dimension: *dimension, rank: *rank, world: 3 })
            .collect();
        for (name, part) in names.iter().zip(&parts) {
            device.add(0, &file, name, part);
        }
        let recorder = Arc::new(Recorder { polls, ..Recorder::default() });
        let execution = device.start(&[&file], Recording(recorder)).unwrap();
        prop_assert!(budget.is_none_or(|budget| execution.explain().peak_memory <= budget));
        for loaded in execution {
            let entry = loaded.unwrap().entry;
            prop_assert_eq!(&*device.memory[entry], &*plain(&file, &names[entry], &parts[entry]));
        }
    }
}

/// A runtime whose copies are made when their event is waited for, or polled a second time. It counts
/// what was registered and is not yet given back, and fails where the test says.
#[cfg(target_os = "linux")]
const RUNTIME: &str = r#"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
struct copy { void *to; const void *from; size_t len; struct copy *next; };
struct stream { struct copy *first, *last; };
struct event { struct stream *stream; int polls; };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
int registered, copies, device = -1, fails;
int cudaSetDevice(int number) { device = number; return 0; }
int cudaHostRegister(void *p, size_t n, unsigned f) {
    (void)p; (void)n;
    if (f != 1) return 1;
    __atomic_add_fetch(&registered, 1, __ATOMIC_SEQ_CST);
    return 0;
}
int cudaHostUnregister(void *p) { (void)p; __atomic_sub_fetch(&registered, 1, __ATOMIC_SEQ_CST); return 0; }
int cudaStreamCreateWithFlags(void **s, unsigned f) { *s = calloc(1, sizeof(struct stream)); return f == 1 ? 0 : 1; }
int cudaStreamDestroy(void *s) { free(s); return 0; }
int cudaEventCreateWithFlags(void **e, unsigned f) { *e = calloc(1, sizeof(struct event)); return f == 2 ? 0 : 1; }
int cudaEventDestroy(void *e) { free(e); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t len, int kind, void *s) {
    if (fails) return 700;
    struct stream *stream = s;
    struct copy *c = malloc(sizeof *c);
    c->to = to; c->from = from; c->len = len; c->next = NULL;
    pthread_mutex_lock(&lock);
    if (stream->last) stream->last->next = c; else stream->first = c;
    stream->last = c;
    copies++;
    pthread_mutex_unlock(&lock);
    return kind == 1 ? 0 : 1;
}
int cudaEventRecord(void *e, void *s) { struct event *event = e; event->stream = s; event->polls = 1; return 0; }
int cudaEventSynchronize(void *e) {
    struct stream *stream = ((struct event *)e)->stream;
    while (stream->first) {
        struct copy *c = stream->first;
        memcpy(c->to, c->from, c->len);
        stream->first = c->next;
        free(c);
    }
    stream->last = NULL;
    return 0;
}
int cudaEventQuery(void *e) {
    if (((struct event *)e)->polls-- > 0) return 600;
    return cudaEventSynchronize(e);
}
const char *cudaGetErrorString(int code) { return code == 700 ? "an illegal memory access" : "unknown"; }
"#;

#[cfg(target_os = "linux")]
#[test]
fn bytes_move_through_a_runtime_that_is_found_by_name() {
    use std::process::Command;
    use tensafe_io::CudaStager;

    let directory = crate::directory();
    let (source, library) = (directory.path().join("runtime.c"), directory.path().join("libruntime.so"));
    std::fs::write(&source, RUNTIME).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source).output();
    match compiled {
        // No compiler: the runtime cannot be made.
        Err(_) => return,
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    // SAFETY: the library is the one above: loading it runs nothing.
    let counters = unsafe { libloading::os::unix::Library::new(&library) }.unwrap();
    let counter = |name: &str| {
        // SAFETY: an int of the library, which stays loaded to the end of the test.
        let found = unsafe { counters.get::<*mut i32>(name) }.unwrap();
        // SAFETY: as above; no thread of the library runs while it is read.
        unsafe { found.read() }
    };
    // SAFETY: the library above has the functions of this prefix.
    let stager = unsafe { CudaStager::of_library(&library, "cuda", 3) }.unwrap();
    for access in [Access::Read, Access::Direct] {
        let (_disk, file) = open(layers(64 << 10), access);
        let mut device = Device::all(&file, Some(2 << 20));
        let execution = device.start(&[&file], stager.clone()).unwrap();
        execution.for_each(|loaded| drop(loaded.unwrap()));
        holds(&device, &file);
    }
    assert_eq!(counter("device"), 3);
    assert!(counter("copies") > 100);
    let kept = counter("registered");
    assert!((2..=16).contains(&kept), "{kept}: slabs are used again");

    // SAFETY: an int of the library.
    let fails = unsafe { counters.get::<*mut i32>("fails") }.unwrap();
    // SAFETY: no thread of the library runs.
    unsafe { fails.write(1) };
    let (_disk, file) = open(layers(64 << 10), Access::Read);
    let mut device = Device::all(&file, None);
    let mut execution = device.start(&[&file], stager.clone()).unwrap();
    let error = execution.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cudaMemcpyAsync failed with code 700: an illegal memory access");
    drop(execution);
    drop(stager);
    assert_eq!(counter("registered"), 0, "with its last stager the slabs are given back");

    // SAFETY: the library is loaded already.
    let error = unsafe { CudaStager::of_library(&library, "hip", 0) }.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "the device runtime has no function `hipSetDevice`");
}

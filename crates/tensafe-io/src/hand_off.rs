//! What the workers of an execution and its caller tell each other: which request is next, which
//! memories are complete, and that it is over.
//!
//! It knows requests and memories by their numbers alone, so that loom can try every order of threads.

use crate::{
    budget::Budget,
    sync::{AtomicBool, AtomicU32, Condvar, Mutex, Ordering, PoisonError, TryLockError},
};

#[derive(Debug)]
pub(crate) struct HandOff {
    /// The next request that nobody has taken.
    queue: Mutex<usize>,
    budget: Budget,
    /// How many requests have bytes for each memory yet.
    left: Vec<AtomicU32>,
    news: Mutex<()>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl HandOff {
    /// Nothing was taken yet; `left` says of each memory how many requests have bytes for it, `budget`
    /// how many bytes of memories may be taken at a time.
    pub(crate) fn new(budget: Option<u64>, left: Vec<u32>) -> Self {
        Self {
            queue: Mutex::new(0),
            budget: Budget::new(budget),
            left: left.into_iter().map(AtomicU32::new).collect(),
            news: Mutex::new(()),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends it: no request is taken any more, and everybody who waits is told.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.budget.close();
        self.tell();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes the next request. `open` is called with its number while nobody else takes one, so that
    /// memories are opened in order; where it returns `None`, nothing is taken.
    pub(crate) fn take<T>(&self, open: impl FnOnce(usize) -> Option<T>) -> Option<T> {
        let mut next = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() {
            return None;
        }
        let taken = open(*next)?;
        *next = next.saturating_add(1);
        Some(taken)
    }

    /// As [`take`](Self::take), but does not wait for who takes one now: `None` then.
    pub(crate) fn try_take<T>(&self, open: impl FnOnce(usize) -> Option<T>) -> Option<Option<T>> {
        let mut next = match self.queue.try_lock() {
            Ok(next) => next,
            Err(TryLockError::Poisoned(next)) => next.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.is_over() {
            return Some(None);
        }
        let taken = open(*next);
        if taken.is_some() {
            *next = next.saturating_add(1);
        }
        Some(taken)
    }

    /// As [`reserve`](Self::reserve), but does not wait: `None` where it would.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<bool> {
        self.budget.try_take(bytes)
    }

    /// Waits until something is there that [`tell`](Self::tell) tells of; `false` where it is over before.
    pub(crate) fn wait_until(&self, is_there: impl Fn() -> bool) -> bool {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_there() {
            if self.is_over() {
                return false;
            }
            news = self.changed.wait(news).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Takes the bytes of a memory from the budget, after waiting until they are there; `false` where it
    /// is over.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        self.budget.take(bytes)
    }

    /// Bytes that the budget has left.
    pub(crate) fn left(&self) -> u64 {
        self.budget.left()
    }

    /// Gives the bytes of a memory, which was handed out, back to the budget.
    pub(crate) fn release(&self, bytes: u64) {
        self.budget.give(bytes);
    }

    /// Counts a request off its memories; who waits for one that is complete is told.
    pub(crate) fn finish(&self, memories: impl Iterator<Item = usize>) {
        let mut complete = false;
        for memory in memories {
            if let Some(left) = self.left.get(memory) {
                complete |= left.fetch_sub(1, Ordering::AcqRel) == 1;
            }
        }
        if complete {
            self.tell();
        }
    }

    /// Whether no request has bytes for a memory any more.
    pub(crate) fn is_complete(&self, memory: usize) -> bool {
        self.left.get(memory).is_none_or(|left| left.load(Ordering::Acquire) == 0)
    }

    /// Waits until a memory is complete; `false` where it is over before.
    pub(crate) fn wait_for(&self, memory: usize) -> bool {
        self.wait_until(|| self.is_complete(memory))
    }

    /// Who looks at what has changed holds the lock until it waits: it sees the change, or is woken.
    pub(crate) fn tell(&self) {
        drop(self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::HandOff;

    /// Three requests: two with bytes for the first of two memories of one byte, one for the second.
    struct Model {
        hand_off: HandOff,
        cells: [UnsafeCell<u8>; 3],
    }

    const MEMORY: [usize; 3] = [0, 0, 1];
    const OPENS: [Option<u64>; 3] = [Some(1), None, Some(1)];

    impl Model {
        fn new(budget: u64) -> Arc<Self> {
            let cells = [(); 3].map(|()| UnsafeCell::new(0));
            Arc::new(Self { hand_off: HandOff::new(Some(budget), vec![2, 1]), cells })
        }

        #[allow(unsafe_code, reason = "loom checks the access")]
        fn work(&self) {
            let open = |number: usize| {
                let opened = OPENS.get(number)?.is_none_or(|bytes| self.hand_off.reserve(bytes));
                opened.then_some(number)
            };
            while let Some(number) = self.hand_off.take(open) {
                // SAFETY: loom fails where somebody else has it.
                self.cells[number].with_mut(|cell| unsafe { *cell = 7 });
                self.hand_off.finish([MEMORY[number]].into_iter());
            }
        }

        #[allow(unsafe_code, reason = "loom checks the access")]
        fn read(&self, memory: usize) {
            for number in (0..3).filter(|number| MEMORY[*number] == memory) {
                // SAFETY: loom fails where somebody else writes it.
                assert_eq!(self.cells[number].with(|cell| unsafe { *cell }), 7);
            }
        }
    }

    fn model(of: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        // More switches than a fault of two steps needs; without a bound it takes hours.
        builder.preemption_bound = Some(3);
        builder.check(of);
    }

    fn workers(model: &Arc<Model>, count: usize) -> Vec<thread::JoinHandle<()>> {
        let spawn = |_| {
            let model = Arc::clone(model);
            thread::spawn(move || model.work())
        };
        (0..count).map(spawn).collect()
    }

    #[test]
    fn memories_are_complete_when_they_are_handed_out_and_nobody_waits_for_ever() {
        // Room for one memory at a time, and for both.
        for budget in [1, 2] {
            model(move || {
                let model = Model::new(budget);
                let threads = workers(&model, 2);
                for memory in 0..2 {
                    assert!(model.hand_off.wait_for(memory));
                    assert!(model.hand_off.is_complete(memory));
                    model.read(memory);
                    model.hand_off.release(1);
                }
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            });
        }
    }

    #[test]
    fn an_end_wakes_the_workers_that_wait_for_the_budget() {
        model(|| {
            let model = Model::new(1);
            let threads = workers(&model, 2);
            if model.hand_off.wait_for(0) {
                // The second memory waits for the first, which is never given back.
                model.read(0);
            }
            model.hand_off.stop();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(!model.hand_off.wait_for(1));
        });
    }

    #[test]
    fn an_end_from_elsewhere_wakes_who_waits_for_a_memory() {
        model(|| {
            let model = Model::new(1);
            let threads = workers(&model, 1);
            let other = Arc::clone(&model);
            let stops = thread::spawn(move || other.hand_off.stop());
            if model.hand_off.wait_for(0) {
                model.read(0);
            }
            stops.join().unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(model.hand_off.take(Some).is_none());
        });
    }
}

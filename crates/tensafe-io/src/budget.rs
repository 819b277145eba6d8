//! A number of bytes that may be taken at a time: taking more waits until some were given back.

use crate::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may be taken at a time.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    closed: bool,
}

impl Budget {
    /// A budget of `limit` bytes; none is no bound.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: limit.unwrap_or(u64::MAX),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }

    /// Takes bytes, after waiting until they are there; `false` where the budget was closed. More than
    /// the limit is given to who asks while nothing is taken: nobody waits for ever.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.closed {
                return false;
            }
            let after = state.taken.saturating_add(bytes);
            if after <= self.limit || state.taken == 0 {
                state.taken = after;
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes bytes as [`take`](Self::take) does where they are there, or the budget was closed; `None`
    /// where it would wait.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Some(false);
        }
        let after = state.taken.saturating_add(bytes);
        let fits = after <= self.limit || state.taken == 0;
        if fits {
            state.taken = after;
        }
        fits.then_some(true)
    }

    /// Bytes that could be taken now.
    pub(crate) fn left(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.limit.saturating_sub(state.taken)
    }

    /// Gives bytes back.
    pub(crate) fn give(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken = state.taken.saturating_sub(bytes);
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the waiting of everybody, now and later.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use std::sync::atomic::{AtomicU64, Ordering};

    use loom::{sync::Arc, thread};

    use super::Budget;

    /// Takes `bytes`, asserts that all who have some are within `most`, and gives them back.
    fn use_some(budget: &Budget, held: &AtomicU64, bytes: u64, most: u64) {
        assert!(budget.take(bytes));
        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
        assert!(now <= most, "{now} bytes are taken");
        thread::yield_now();
        held.fetch_sub(bytes, Ordering::SeqCst);
        budget.give(bytes);
    }

    #[test]
    fn no_more_than_the_limit_is_taken_and_everybody_gets_some() {
        loom::model(|| {
            let budget = Arc::new((Budget::new(Some(3)), AtomicU64::new(0)));
            let spawn = |bytes| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || use_some(&budget.0, &budget.1, bytes, 3))
            };
            let threads = [2, 1].map(spawn);
            use_some(&budget.0, &budget.1, 2, 3);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn more_than_the_limit_is_given_to_one_alone() {
        loom::model(|| {
            let budget = Arc::new((Budget::new(Some(3)), AtomicU64::new(0)));
            let other = Arc::clone(&budget);
            let thread = thread::spawn(move || use_some(&other.0, &other.1, 5, 5));
            use_some(&budget.0, &budget.1, 1, 5);
            thread.join().unwrap();
        });
    }

    #[test]
    fn closing_wakes_everybody() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(Some(1)));
            assert!(budget.take(1));
            let threads = [(); 2].map(|()| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.take(1))
            });
            budget.close();
            for thread in threads {
                assert!(!thread.join().unwrap());
            }
            assert!(!budget.take(0));
        });
    }
}

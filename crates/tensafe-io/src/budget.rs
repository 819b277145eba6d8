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

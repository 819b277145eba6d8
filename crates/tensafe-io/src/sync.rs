//! The locks and atomics of what loom tries: the standard library's, or loom's, which tries every order
//! of threads.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

pub(crate) use std::sync::{PoisonError, TryLockError};
// Of what loom does not try.
use std::sync::{Mutex as PlainMutex, MutexGuard as PlainGuard};

/// Tries at a lock before it is taken to be held for ever.
const ATTEMPTS: usize = 1000;

/// The lock of something that one can do without, unless another thread has it for long: a process that was
/// forked while another thread had it would wait for ever.
///
/// What it guards has to stay true at every step, for a thread that panics may let go of it at any.
pub(crate) fn lock_briefly<T>(mutex: &PlainMutex<T>) -> Option<PlainGuard<'_, T>> {
    for _ in 0..ATTEMPTS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Mutex, thread};

    use super::lock_briefly;

    #[test]
    fn a_lock_that_is_poisoned_or_held_does_not_stop_anyone() {
        let mutex = Mutex::new(());
        thread::scope(|scope| {
            let held = mutex.lock().unwrap();
            assert!(scope.spawn(|| lock_briefly(&mutex).is_none()).join().unwrap());
            drop(held);
            let poisons = scope.spawn(|| {
                let _held = mutex.lock().unwrap();
                panic!("while the lock is held");
            });
            assert!(poisons.join().is_err() && mutex.is_poisoned());
        });
        assert!(lock_briefly(&mutex).is_some());
    }
}

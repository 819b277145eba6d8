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

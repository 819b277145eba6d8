//! The locks of the crate: the standard library's, or loom's, which tries every order of threads.

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, PoisonError};

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex};
#[cfg(loom)]
pub(crate) use std::sync::PoisonError;

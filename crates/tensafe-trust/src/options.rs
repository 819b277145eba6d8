//! How far a scan goes.

use std::sync::Arc;

use crate::{Policy, policy};

/// Upper bounds on the work of a scan. What lies beyond one is reported as inconclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest pickle, in bytes, and longest text or configuration that is read whole.
    pub pickle_bytes: u64,
    /// Bounds of the pickle machine.
    pub pickle: tensafe_pickle::Limits,
    /// Most bytes of texts and bytes in pickles that are looked into for other pickles.
    pub nested_bytes: u64,
    /// Most places in bytes of no known form that are tried as the start of a pickle.
    pub tries: u32,
    /// Deepest nesting of archives, wrappers and pickles.
    pub depth: u32,
    /// Most members of one archive.
    pub members: u64,
    /// Most bytes that all compressed members and wrappers of a file may decompress to.
    pub unpacked_bytes: u64,
    /// Most findings of one file.
    pub findings: usize,
}

impl Limits {
    /// The defaults: room for the largest checkpoints that are published.
    pub const DEFAULT: Self = Self {
        pickle_bytes: 1 << 30,
        pickle: tensafe_pickle::Limits::DEFAULT,
        nested_bytes: 256 << 20,
        tries: 100_000,
        depth: 8,
        members: 1_000_000,
        unpacked_bytes: 4 << 30,
        findings: 1000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How to scan.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScanOptions {
    /// Whether checksums of archives are computed, which reads every byte.
    pub crc: bool,
    /// Threads over files; 0 for as many as the machine has.
    pub threads: usize,
    /// Bounds on the work.
    pub limits: Limits,
    pub(crate) policy: policy::Shared,
}

impl ScanOptions {
    /// The same options, with checksums computed or not.
    #[must_use]
    pub const fn with_crc(mut self, crc: bool) -> Self {
        self.crc = crc;
        self
    }

    /// The same options with so many threads; 0 for as many as the machine has.
    #[must_use]
    pub const fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The same options with other bounds.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same options with what a policy allows and denies.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }
}

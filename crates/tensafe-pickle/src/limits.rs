//! Upper bounds on what a pickle may make the machine do.

/// Each is checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most instructions.
    pub operations: u64,
    /// Most values on the stack, and most marks.
    pub stack: usize,
    /// Most entries of the memo.
    pub memo: usize,
    /// Most bytes of one integer.
    pub integer_bytes: usize,
    /// Most memory of the values, in bytes, what they borrow from the pickle not counted.
    pub value_bytes: u64,
}

impl Limits {
    /// The defaults: room for the checkpoints of the largest models, whose pickles hold a few
    /// million instructions.
    pub const DEFAULT: Self = Self {
        operations: 100_000_000,
        stack: 10_000_000,
        memo: 10_000_000,
        integer_bytes: 1024,
        value_bytes: 2 << 30,
    };

    /// The same limits with another bound on the instructions.
    #[must_use]
    pub const fn with_operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// The same limits with another bound on the stack.
    #[must_use]
    pub const fn with_stack(mut self, stack: usize) -> Self {
        self.stack = stack;
        self
    }

    /// The same limits with another bound on the memo.
    #[must_use]
    pub const fn with_memo(mut self, memo: usize) -> Self {
        self.memo = memo;
        self
    }

    /// The same limits with another bound on the memory of the values, in bytes.
    #[must_use]
    pub const fn with_value_bytes(mut self, value_bytes: u64) -> Self {
        self.value_bytes = value_bytes;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

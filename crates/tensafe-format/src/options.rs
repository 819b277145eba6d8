//! How strictly and within which bounds a header is read.

/// Which headers are accepted.
///
/// Spec: the rules marked *lenient* in `docs/spec.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// What the published text of the format allows, and nothing more.
    #[default]
    Strict,
    /// What the reference implementation's code accepts, which is more than its text allows.
    Lenient,
}

/// Upper bounds on what a file may make the reader do. Each is checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest header, in bytes, the 8 bytes of its length not counted.
    pub header_bytes: u64,
    /// Most tensors in one header.
    pub tensors: u64,
    /// Most dimensions of one tensor.
    pub dimensions: u64,
    /// Most memory, in bytes, that the tables built from one header may take.
    pub table_bytes: u64,
}

impl Limits {
    /// The format's own bound on the header: 100,000,000 bytes. Spec: S-02.
    pub const HEADER_BYTES: u64 = 100_000_000;

    /// The defaults: every header that the format allows is read, up to 1 GiB of tables.
    pub const DEFAULT: Self = Self {
        header_bytes: Self::HEADER_BYTES,
        tensors: u32::MAX as u64,
        dimensions: u32::MAX as u64,
        table_bytes: 1 << 30,
    };

    /// The same limits with another bound on the header, in bytes.
    #[must_use]
    pub const fn with_header_bytes(mut self, header_bytes: u64) -> Self {
        self.header_bytes = header_bytes;
        self
    }

    /// The same limits with another bound on the number of tensors. At most `u32::MAX` count.
    #[must_use]
    pub const fn with_tensors(mut self, tensors: u64) -> Self {
        self.tensors = if tensors > u32::MAX as u64 { u32::MAX as u64 } else { tensors };
        self
    }

    /// The same limits with another bound on the dimensions of a tensor.
    #[must_use]
    pub const fn with_dimensions(mut self, dimensions: u64) -> Self {
        self.dimensions = dimensions;
        self
    }

    /// The same limits with another bound on the memory of the tables, in bytes.
    #[must_use]
    pub const fn with_table_bytes(mut self, table_bytes: u64) -> Self {
        self.table_bytes = table_bytes;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How to read a header: the mode and the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Strict (the default) or lenient.
    pub mode: Mode,
    /// Bounds on memory.
    pub limits: Limits,
}

impl ParseOptions {
    /// The default limits with the given mode.
    #[must_use]
    pub const fn with_mode(mode: Mode) -> Self {
        Self { mode, limits: Limits::DEFAULT }
    }
}

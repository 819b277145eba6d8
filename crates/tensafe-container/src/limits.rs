//! Upper bounds on what a container may make its reader do.

/// Each is checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most members of an archive, and most compressed streams one behind the other.
    pub members: u64,
    /// Most bytes of one member's name.
    pub name_bytes: u64,
    /// Most bytes of headers that are read at once: a zip archive's directory, the extended headers
    /// of one tar entry, the header of an array.
    pub header_bytes: u64,
    /// Most bytes that one compressed stream or member may become.
    pub decompressed_bytes: u64,
    /// Most bytes that one compressed byte may become on average, once there are more than
    /// [`RATIO_FREE_BYTES`](Self::RATIO_FREE_BYTES).
    pub ratio: u64,
    /// Most memory of a decompressor's window, in bytes.
    pub window_bytes: u64,
    /// Most decompressed bytes that are held in memory; what is more goes to an unnamed temporary
    /// file.
    pub memory_bytes: u64,
}

impl Limits {
    /// Decompressed bytes that [`ratio`](Self::ratio) does not look at: small streams of one
    /// repeated byte shrink further than any bound that is of use for large ones.
    pub const RATIO_FREE_BYTES: u64 = 64 << 20;

    /// The defaults: room for the checkpoints of the largest models.
    pub const DEFAULT: Self = Self {
        members: 1_000_000,
        name_bytes: 4096,
        header_bytes: 256 << 20,
        decompressed_bytes: 1 << 40,
        ratio: 2000,
        window_bytes: 256 << 20,
        memory_bytes: 32 << 20,
    };

    /// The same limits with another bound on the members of an archive.
    #[must_use]
    pub const fn with_members(mut self, members: u64) -> Self {
        self.members = members;
        self
    }

    /// The same limits with another bound on a name, in bytes.
    #[must_use]
    pub const fn with_name_bytes(mut self, name_bytes: u64) -> Self {
        self.name_bytes = name_bytes;
        self
    }

    /// The same limits with another bound on headers, in bytes.
    #[must_use]
    pub const fn with_header_bytes(mut self, header_bytes: u64) -> Self {
        self.header_bytes = header_bytes;
        self
    }

    /// The same limits with another bound on what a stream may become, in bytes.
    #[must_use]
    pub const fn with_decompressed_bytes(mut self, decompressed_bytes: u64) -> Self {
        self.decompressed_bytes = decompressed_bytes;
        self
    }

    /// The same limits with another bound on how many bytes one compressed byte may become.
    #[must_use]
    pub const fn with_ratio(mut self, ratio: u64) -> Self {
        self.ratio = ratio;
        self
    }

    /// The same limits with another bound on a decompressor's window, in bytes.
    #[must_use]
    pub const fn with_window_bytes(mut self, window_bytes: u64) -> Self {
        self.window_bytes = window_bytes;
        self
    }

    /// The same limits with another bound on the decompressed bytes that are held in memory.
    #[must_use]
    pub const fn with_memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// What `compressed` bytes may become.
    pub(crate) fn most(&self, compressed: u64) -> u64 {
        let by_ratio = compressed.saturating_mul(self.ratio).max(Self::RATIO_FREE_BYTES);
        by_ratio.min(self.decompressed_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

//! The numbers of the rules of `docs/spec.md`, by which errors, tests and files of the corpus cite
//! them.

use core::fmt;

/// A rule of `docs/spec.md`. Displays as `S-07`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule(u8);

impl Rule {
    /// The rule's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The file holds the 8 bytes of the header's length.
    pub const LENGTH_FIELD: Self = Self(1);
    /// The header's length is within the limit.
    pub const HEADER_LIMIT: Self = Self(2);
    /// The header lies within the file.
    pub const HEADER_IN_FILE: Self = Self(3);
    /// The header is UTF-8.
    pub const UTF8: Self = Self(4);
    /// The header is one JSON object.
    pub const JSON: Self = Self(5);
    /// No name stands twice.
    pub const UNIQUE_NAMES: Self = Self(6);
    /// `__metadata__` maps strings to strings.
    pub const METADATA: Self = Self(7);
    /// An entry is an object of exactly three fields.
    pub const ENTRY: Self = Self(8);
    /// The dtype is one of the table.
    pub const DTYPE: Self = Self(9);
    /// The shape is a list of non-negative integers.
    pub const SHAPE: Self = Self(10);
    /// The offsets are two non-negative integers in order.
    pub const OFFSETS: Self = Self(11);
    /// The size of a tensor does not overflow.
    pub const OVERFLOW: Self = Self(12);
    /// A tensor fills whole bytes.
    pub const WHOLE_BYTES: Self = Self(13);
    /// The offsets span what dtype and shape need.
    pub const SIZE: Self = Self(14);
    /// The tensors cover the data section without gap or overlap.
    pub const COVER: Self = Self(15);
    /// The file ends where the last tensor ends.
    pub const FILE_END: Self = Self(16);
    /// No tensor is called `__metadata__`.
    pub const RESERVED_NAME: Self = Self(17);
    /// A region of sub-byte elements is cut on byte borders.
    pub const BYTE_BORDER: Self = Self(20);
    /// A writer's alignment is a power of two of at least 8.
    pub const ALIGN: Self = Self(24);
    /// The shape of an index of shards.
    pub const INDEX: Self = Self(30);
    /// A shard is named by a plain relative path.
    pub const SHARD_PATH: Self = Self(31);
    /// Index and shards name the same tensors.
    pub const INDEX_MATCHES: Self = Self(32);
    /// Indexing follows numpy's rules for integers and slices.
    pub const INDEXING: Self = Self(40);
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S-{:02}", self.0)
    }
}

//! What a pickle built, as far as it could be followed.

use std::ops::Range;

use crate::{Error, Id, Opcode, Symbol, Value};

/// Who reads the pickle in Python, where readers differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// `pickle.load`.
    #[default]
    Plain,
    /// `joblib.load`: the bytes of arrays stand between the instructions.
    Joblib,
}

/// What a pickle built, as far as it could be followed.
#[derive(Clone, Debug)]
pub struct Pickle<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) root: Option<Id>,
    pub(crate) symbols: Vec<SymbolUse>,
    pub(crate) error: Option<Error>,
    pub(crate) range: Range<u64>,
    pub(crate) leftover: usize,
    pub(crate) protocol: u8,
    pub(crate) spellings: Spellings,
}

/// How texts and bytes stood in a pickle, where their values do not tell: which kinds there are in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spellings {
    /// Bytes of Python 3.
    pub bytes: bool,
    /// `bytearray`s that were left where they are, as [`Value::Far`].
    pub bytearray: bool,
    /// Texts of Python 2, which are bytes where they are not ASCII.
    pub python2: bool,
    /// Halves of surrogate pairs, in whose place U+FFFD stands.
    pub surrogates: bool,
}

/// A place where a pickle names something to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolUse {
    /// The first byte of the instruction, counted from the start of the stream.
    pub offset: u64,
    /// The instruction: GLOBAL, STACK_GLOBAL or INST.
    pub opcode: Opcode,
    /// The symbol.
    pub value: Id,
}

impl<'a> Pickle<'a> {
    /// The value that STOP returned, if the pickle came so far.
    #[must_use]
    pub fn root(&self) -> Option<&Value<'a>> {
        self.root.and_then(|id| self.value(id))
    }

    /// The place of that value.
    #[must_use]
    pub fn root_id(&self) -> Option<Id> {
        self.root
    }

    /// The value at a place of this pickle.
    #[must_use]
    pub fn value(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id.0 as usize)
    }

    /// The symbol at a place of this pickle, if one is there.
    #[must_use]
    pub fn symbol(&self, id: Id) -> Option<&Symbol<'a>> {
        match self.value(id)? {
            Value::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    /// Every value that was built, also those that nothing refers to any more.
    #[must_use]
    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    /// Every value with its place, in the order in which they were made.
    pub fn entries(&self) -> impl Iterator<Item = (Id, &Value<'a>)> {
        self.values
            .iter()
            .enumerate()
            .filter_map(|(index, value)| Some((Id(u32::try_from(index).ok()?), value)))
    }

    /// Every place where the pickle names something to import, in the order of its bytes.
    #[must_use]
    pub fn symbols(&self) -> &[SymbolUse] {
        &self.symbols
    }

    /// Why the pickle could not be followed to its STOP.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Bytes up to and with STOP, or up to the instruction that failed.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// The bytes of the stream that it takes, up to and with STOP or up to the instruction that
    /// failed.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Values that STOP left on the stack. Python forgets them; no writer leaves any.
    #[must_use]
    pub fn leftover(&self) -> usize {
        self.leftover
    }

    /// The protocol that the pickle says it is of; 0 where it does not say.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// How texts and bytes stood in it.
    #[must_use]
    pub fn spellings(&self) -> Spellings {
        self.spellings
    }
}

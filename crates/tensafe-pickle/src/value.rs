//! What a pickle builds: values in an arena, which refer to each other by number.

use std::{borrow::Cow, fmt, ops::Range};

/// The place of a value in the arena of its [`Pickle`](crate::Pickle).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) u32);

impl Id {
    /// The place as an index into [`Pickle::values`](crate::Pickle::values).
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One value. Containers hold places, so that a value that is shared, or holds itself, costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// A larger integer: two's complement, little-endian.
    Long(Cow<'a, [u8]>),
    /// A float.
    Float(f64),
    /// Text. Halves of surrogate pairs, which Python's text may hold, are replaced.
    Str(Cow<'a, str>),
    /// Bytes, or the text of Python 2.
    Bytes(Cow<'a, [u8]>),
    /// A `bytearray`.
    ByteArray(Cow<'a, [u8]>),
    /// Bytes, a `bytearray` or text of Python 2 that were left where they are: a range of the
    /// [`Stream`](crate::Stream).
    Far(Range<u64>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dict: keys and values in the order they were set, a key that is set again stands again.
    Dict(Vec<(Id, Id)>),
    /// A set.
    Set(Vec<Id>),
    /// A frozen set.
    FrozenSet(Vec<Id>),
    /// The name of something that Python would import.
    Symbol(Symbol<'a>),
    /// What stands outside of the pickle under this name, such as a storage of torch.
    Persistent(Id),
    /// What Python would make by a call.
    Object(Object),
}

/// The name of something that Python would import. Inert: a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symbol<'a> {
    /// The module, as Python 3 calls it.
    pub module: Cow<'a, str>,
    /// The name in it. With dots, Python would walk attributes.
    pub name: Cow<'a, str>,
}

impl Symbol<'_> {
    /// Whether both names are such as Python code could spell: ASCII identifiers, the module's with
    /// dots between them. Anything else is there to deceive who compares names.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let identifier = |part: &str| {
            let mut bytes = part.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        self.module.split('.').all(identifier) && identifier(&self.name)
    }
}

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// A record of a call that was not made, and of what would have been done to its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// By which instruction.
    pub made: Made,
    /// What would be called, or whose instance it would be.
    pub callable: Id,
    /// The positional arguments: a tuple, or whatever stood in its place.
    pub arguments: Id,
    /// The keyword arguments of NEWOBJ_EX.
    pub keywords: Option<Id>,
    /// What BUILD would set, each time it was asked to.
    pub states: Vec<Id>,
    /// What would be appended or added.
    pub items: Vec<Id>,
    /// What would be set as items.
    pub entries: Vec<(Id, Id)>,
    /// What follows it in the stream instead of being part of the pickle.
    pub behind: Behind,
}

/// What follows an object in the stream: joblib writes arrays between the instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    #[default]
    Nothing,
    /// The bytes of an array: a range of the stream.
    Bytes(Range<u64>),
    /// A pickle of its own, which built this.
    Pickle(Id),
}

/// How an object would be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Made {
    /// By calling: REDUCE.
    Call,
    /// By `cls.__new__`: NEWOBJ, NEWOBJ_EX.
    New,
    /// By calling, as Python 2 did: INST, OBJ.
    Instance,
}

impl Value<'_> {
    /// What it is, in a word for an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Long(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "text",
            Self::Bytes(_) | Self::Far(_) => "bytes",
            Self::ByteArray(_) => "a bytearray",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Set(_) => "a set",
            Self::FrozenSet(_) => "a frozen set",
            Self::Symbol(_) => "a symbol",
            Self::Persistent(_) => "a persistent reference",
            Self::Object(_) => "an object",
        }
    }
}

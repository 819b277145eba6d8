//! What the records of a pickle mean: a closed table of names that torch, numpy, joblib and Python
//! write into checkpoints, each with a typed reader of its arguments.
//!
//! Nothing is called. A name that is not in the table is [`Meaning::Unknown`]; a name that is, with
//! arguments that its writer never writes, is a [`MeaningError`].

mod arena;
mod numpy;
mod python;
mod table;
mod torch;

use std::{borrow::Cow, fmt, ops::Range};

use crate::{Element, Id, Object, Pickle, Symbol, Value};

pub(crate) use arena::Arena;
pub(crate) use numpy::Announced;
pub use numpy::{Array, ArrayData, Number};
pub use table::known_symbol;
pub use torch::{Layout, Quantizer, Storage, StorageAt, StorageView, Tensor};

/// Bytes, where they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Bytes<'p> {
    /// In the pickle, or decoded from it.
    Near(Cow<'p, [u8]>),
    /// Left where they are: a range of the stream.
    Far(Range<u64>),
}

impl Bytes<'_> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Near(bytes) => bytes.len() as u64,
            Self::Far(range) => range.end.saturating_sub(range.start),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a value of a pickle means.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Meaning<'p> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A larger integer: two's complement, little-endian.
    Long(&'p [u8]),
    /// A float.
    Float(f64),
    /// Text.
    Str(&'p str),
    /// Bytes, or a `bytearray`.
    Bytes(Bytes<'p>),
    /// What has a spelling: a dtype, a device, a path, a date, a complex number.
    Named {
        /// What it is, such as `"dtype"`.
        kind: &'static str,
        /// How it is written.
        text: String,
    },
    /// The name of a class or function, as a value.
    Symbol(&'p Symbol<'p>),
    /// A list, a tuple, a shape, a deque: items in their order.
    Sequence(Vec<Id>),
    /// A set or a frozen set.
    Set(Vec<Id>),
    /// A dict of any kind, or the attributes of a plain record: entries in their order.
    Map(Vec<(Id, Id)>),
    /// A strided tensor.
    Tensor(Tensor<'p>),
    /// A sparse tensor: the parts that it is made of.
    Sparse {
        /// How it is laid out.
        layout: Layout,
        /// The places: `indices`, or compressed and plain ones.
        indices: Vec<Id>,
        /// The values.
        values: Id,
        /// Elements in each dimension.
        shape: Vec<u64>,
    },
    /// A quantized tensor: the integers and what they stand for.
    Quantized {
        /// The integers.
        tensor: Tensor<'p>,
        /// What turns them into numbers.
        quantizer: Quantizer<'p>,
    },
    /// A storage that no tensor stands around.
    Storage(Storage<'p>),
    /// An array of numpy.
    Array(Array<'p>),
    /// One number of numpy.
    Scalar(Array<'p>),
    /// A value with a class or attributes of its own, such as a parameter.
    With {
        /// The value itself.
        value: Box<Self>,
        /// Its class, where it is not what the value says.
        class: Option<&'p Symbol<'p>>,
        /// What else is attached to it.
        attributes: Vec<Id>,
    },
    /// A tensor without data: of the meta device, or one that a wrapper describes.
    Empty {
        /// What made it.
        symbol: &'p Symbol<'p>,
        /// The class that it would be of.
        class: Option<&'p Symbol<'p>>,
    },
    /// A reference out of the pickle that is no storage.
    Persistent(Id),
    /// What is not in the table.
    Unknown {
        /// What would be called, where it is a name.
        symbol: Option<&'p Symbol<'p>>,
        /// The record of the call.
        object: &'p Object,
    },
}

/// A known name with arguments that its writer never writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeaningError {
    name: String,
    what: &'static str,
    found: String,
    needed: &'static str,
}

impl MeaningError {
    #[cold]
    pub(crate) fn new(
        name: impl Into<String>,
        what: &'static str,
        found: impl Into<String>,
        needed: &'static str,
    ) -> Self {
        Self { name: name.into(), what, found: found.into(), needed }
    }
}

impl fmt::Display for MeaningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, found, needed } = self;
        write!(f, "`{name}`: {what}: found {found}, needed {needed}")
    }
}

impl std::error::Error for MeaningError {}

impl<'a> Pickle<'a> {
    /// What the value at a place means.
    ///
    /// # Errors
    /// Where a known name has arguments that it never has.
    ///
    /// # Cost
    /// Reads the arguments, which may hold tensors within tensors a few levels deep; contents of
    /// containers are not visited.
    pub fn meaning(&self, id: Id) -> Result<Meaning<'_>, MeaningError> {
        Arena(self.values()).meaning(id, 0)
    }

    /// The names that the table does not know, in the order of their bytes: those for which
    /// [`known_symbol`] says no.
    pub fn unknown_symbols(&self) -> impl Iterator<Item = &Symbol<'a>> {
        let used = self.symbols().iter().filter_map(|used| self.symbol(used.value));
        used.filter(|symbol| !known_symbol(&symbol.module, &symbol.name))
    }
}

/// Levels of records within records: a parameter around a subclass around a quantized tensor around
/// its scales.
const DEPTH: usize = 16;

impl<'p> Arena<'p> {
    pub(crate) fn meaning(self, id: Id, depth: usize) -> Result<Meaning<'p>, MeaningError> {
        if depth > DEPTH {
            return Err(MeaningError::new("a record", "depth", "more levels", "at most 16"));
        }
        Ok(match self.value(id) {
            None | Some(Value::None) => Meaning::None,
            Some(Value::Bool(value)) => Meaning::Bool(*value),
            Some(Value::Int(value)) => Meaning::Int(*value),
            Some(Value::Long(bytes)) => Meaning::Long(bytes),
            Some(Value::Float(value)) => Meaning::Float(*value),
            Some(Value::Str(text)) => Meaning::Str(text),
            Some(Value::Bytes(bytes) | Value::ByteArray(bytes)) => {
                Meaning::Bytes(Bytes::Near(Cow::Borrowed(bytes)))
            }
            Some(Value::Far(range)) => Meaning::Bytes(Bytes::Far(range.clone())),
            Some(Value::Tuple(items) | Value::List(items)) => Meaning::Sequence(items.clone()),
            Some(Value::Set(items) | Value::FrozenSet(items)) => Meaning::Set(items.clone()),
            Some(Value::Dict(entries)) => Meaning::Map(entries.clone()),
            Some(Value::Symbol(symbol)) => symbol_meaning(symbol),
            Some(Value::Persistent(name)) => match self.storage(id)? {
                Some(storage) => Meaning::Storage(storage),
                None => Meaning::Persistent(*name),
            },
            Some(Value::Object(object)) => self.object_meaning(object, depth)?,
        })
    }

    fn object_meaning(self, object: &'p Object, depth: usize) -> Result<Meaning<'p>, MeaningError> {
        let symbol = self.symbol(object.callable);
        let unknown = Meaning::Unknown { symbol, object };
        let Some(symbol) = symbol else { return Ok(unknown) };
        let Some(called) = table::Called::find(&symbol.module, &symbol.name) else { return Ok(unknown) };
        called.read(arena::Call::new(self, symbol, object, depth)?)
    }
}

fn symbol_meaning<'p>(symbol: &'p Symbol<'p>) -> Meaning<'p> {
    if symbol.module == "torch" && Element::from_dtype(&symbol.name).is_some() {
        return Meaning::Named { kind: "dtype", text: format!("torch.{}", symbol.name) };
    }
    Meaning::Symbol(symbol)
}

//! The members of the tar files that torch wrote before 0.1.10.
//!
//! `storages` is a pickle of a count, then for each a pickle of `(key, location, class)`, a count of
//! 8 bytes and as many elements. `tensors` is a pickle of a count, then for each a pickle of
//! `(key, storage key, class)`, the number of dimensions (4 bytes, and 4 of padding), sizes, strides,
//! and the offset, 8 bytes each. Keys are integers. Integers are little-endian.
//!
//! The rule is `torch.serialization._legacy_load.legacy_load`.

use std::ops::Range;

use crate::{
    Dialect, Element, Error, Id, Limits, Pickle, Stream, Symbol, Value, error::Detail, evaluate_stream,
    meaning::Arena,
};

/// The elements of one storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedStorage {
    /// The number that tensors use.
    pub key: i64,
    /// What its elements are.
    pub element: Element,
    /// Its bytes: a range of the stream.
    pub range: Range<u64>,
}

/// A tensor: a way to walk over a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedTensor {
    /// The number that the object's pickle uses.
    pub key: i64,
    /// The number of its storage.
    pub storage: i64,
    /// The first element, counted in elements.
    pub offset: u64,
    /// Elements in each dimension, row-major.
    pub shape: Vec<u64>,
    /// Elements from one to the next in each dimension.
    pub strides: Vec<i64>,
}

/// Reads the member `storages`, and returns the pickles in it, too.
///
/// # Errors
/// Where the bytes are not what the module's text says; the pickles up to there are lost.
pub fn numbered_storages<'a, S: Stream<'a>>(
    mut stream: S,
    limits: &Limits,
) -> Result<(Vec<NumberedStorage>, Vec<Pickle<'a>>), Error> {
    let mut reader = Reader { stream: &mut stream, at: 0, limits, pickles: Vec::new() };
    let mut storages = Vec::new();
    for _ in 0..reader.count()? {
        let (key, class) = reader.entry(0, 2)?;
        let element = class.ok_or_else(|| reader.error("a storage class of torch"))?;
        let count = reader.unsigned()?;
        let left = reader.stream.len().saturating_sub(reader.at);
        let bytes = count.checked_mul(element.bytes()).filter(|bytes| *bytes <= left);
        let bytes =
            bytes.ok_or_else(|| Error::new(reader.at, None, Detail::Bytes { length: count, left }))?;
        let start = reader.at;
        reader.at = start.saturating_add(bytes);
        storages.push(NumberedStorage { key, element, range: start..reader.at });
    }
    Ok((storages, reader.pickles))
}

/// Reads the member `tensors`, and returns the pickles in it, too.
///
/// # Errors
/// Where the bytes are not what the module's text says.
pub fn numbered_tensors<'a, S: Stream<'a>>(
    mut stream: S,
    limits: &Limits,
) -> Result<(Vec<NumberedTensor>, Vec<Pickle<'a>>), Error> {
    const MOST_DIMENSIONS: u64 = 1024;
    let mut reader = Reader { stream: &mut stream, at: 0, limits, pickles: Vec::new() };
    let mut tensors = Vec::new();
    for _ in 0..reader.count()? {
        let (key, _) = reader.entry(0, 2)?;
        let storage = reader.second()?;
        // Four bytes of the number, four of padding.
        let dimensions = reader.unsigned()? & u64::from(u32::MAX);
        if dimensions > MOST_DIMENSIONS {
            return Err(reader.error("at most 1024 dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(reader.unsigned()?);
        }
        let mut strides = Vec::new();
        for _ in 0..dimensions {
            strides.push(reader.unsigned()?.cast_signed());
        }
        let offset = reader.unsigned()?;
        tensors.push(NumberedTensor { key, storage, offset, shape, strides });
    }
    Ok((tensors, reader.pickles))
}

struct Reader<'s, 'a, S> {
    stream: &'s mut S,
    at: u64,
    limits: &'s Limits,
    pickles: Vec<Pickle<'a>>,
}

impl<'a, S: Stream<'a>> Reader<'_, 'a, S> {
    fn error(&self, needed: &'static str) -> Error {
        Error::new(self.at, None, Detail::Legacy { needed })
    }

    fn pickle(&mut self) -> Result<&Pickle<'a>, Error> {
        let pickle = evaluate_stream(&mut *self.stream, self.at, Dialect::Plain, self.limits);
        if let Some(error) = pickle.error() {
            return Err(error.clone());
        }
        self.at = pickle.range().end;
        self.pickles.push(pickle);
        self.pickles.last().ok_or_else(|| self.error("a pickle"))
    }

    /// How many entries follow. Each takes bytes: a count that lies ends with them.
    fn count(&mut self) -> Result<u64, Error> {
        match self.pickle()?.root() {
            Some(Value::Int(count)) => u64::try_from(*count).map_err(|_| self.error("a count from 0 on")),
            _ => Err(self.error("a count")),
        }
    }

    /// The number and the class of an entry.
    fn entry(&mut self, key: usize, class: usize) -> Result<(i64, Option<Element>), Error> {
        let pickle = self.pickle()?;
        let arena = Arena(pickle.values());
        let items = pickle.root_id().and_then(|root| arena.items(root)).unwrap_or_default();
        let number = items.get(key).and_then(|id| arena.int(*id));
        let element = items.get(class).and_then(|id: &Id| arena.symbol(*id)).and_then(element);
        Ok((number.ok_or_else(|| self.error("a number of three parts"))?, element))
    }

    /// The second part of the last entry.
    fn second(&self) -> Result<i64, Error> {
        let number = self.pickles.last().and_then(|pickle| {
            let arena = Arena(pickle.values());
            arena.int(*arena.items(pickle.root_id()?)?.get(1)?)
        });
        number.ok_or_else(|| self.error("the number of a storage"))
    }

    fn unsigned(&mut self) -> Result<u64, Error> {
        let failed = |detail| Error::new(self.at, None, detail);
        let bytes = self.stream.peek(self.at, 8).map_err(|e| failed(Detail::read(&e)))?;
        let bytes: [u8; 8] = bytes
            .first_chunk()
            .copied()
            .ok_or_else(|| failed(Detail::End { needed: "8 bytes of an integer" }))?;
        self.at = self.at.saturating_add(8);
        Ok(u64::from_le_bytes(bytes))
    }
}

fn element(symbol: &Symbol<'_>) -> Option<Element> {
    let known = matches!(&*symbol.module, "torch" | "torch.cuda");
    Some(&*symbol.name).filter(|_| known).and_then(Element::from_storage)
}

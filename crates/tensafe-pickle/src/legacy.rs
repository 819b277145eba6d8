//! The file that `torch.save` wrote from 0.1.10 to 1.5: five pickles, then the storages.
//!
//! 1. a magic number; 2. the version of the protocol; 3. the sizes of the writer's types; 4. the
//!    object; 5. the names of the storages. Then, for each name in that order, a count of 8 bytes
//!    and as many elements. Both are little-endian whatever the third pickle says: writers swap, and
//!    readers do not look.
//!
//! The rule is `torch.serialization._legacy_load`.

use std::{collections::HashMap, ops::Range};

use crate::{
    Dialect, Element, Error, Id, Limits, Pickle, StorageAt, Stream, Value, error::Detail, evaluate_stream,
    meaning::Arena,
};

/// What the first pickle holds.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// A file of five pickles, followed as far as it goes.
#[derive(Clone, Debug)]
pub struct LegacyStream<'a> {
    pickles: Vec<Pickle<'a>>,
    storages: Vec<LegacyStorage>,
    places: HashMap<String, usize>,
    end: u64,
    error: Option<Error>,
}

/// The elements of one storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyStorage {
    /// The name that references use.
    pub key: String,
    /// What its elements are.
    pub element: Element,
    /// Its bytes: a range of the stream.
    pub range: Range<u64>,
}

impl<'a> LegacyStream<'a> {
    /// Whether the stream begins with the magic number, as torch writes it.
    ///
    /// # Errors
    /// Where the bytes cannot be read.
    pub fn is_one(mut stream: impl Stream<'a>) -> std::io::Result<bool> {
        let head = stream.peek(0, 32)?;
        let magic = evaluate_stream(head, 0, Dialect::Plain, &Limits::DEFAULT);
        Ok(magic.root().is_some_and(is_magic))
    }

    /// Follows the five pickles and finds the storages behind them.
    ///
    /// Never fails: what could not be followed is [`error`](Self::error), beside what was read
    /// before it.
    ///
    /// # Cost
    /// That of five pickles, and one read for each storage.
    #[must_use]
    pub fn read<S: Stream<'a>>(stream: S, limits: &Limits) -> Self {
        Self::read_at(stream, 0, limits)
    }

    /// The same, from byte `at` of the stream on.
    #[must_use]
    pub fn read_at<S: Stream<'a>>(mut stream: S, at: u64, limits: &Limits) -> Self {
        let mut legacy = Self {
            pickles: Vec::with_capacity(5),
            storages: Vec::new(),
            places: HashMap::new(),
            end: at,
            error: None,
        };
        legacy.error = legacy.fill(&mut stream, limits).err();
        legacy
    }

    fn fill<S: Stream<'a>>(&mut self, stream: &mut S, limits: &Limits) -> Result<(), Error> {
        const WHAT: [&str; 5] = [
            "torch's magic number",
            "protocol 1001",
            "the sizes of the writer's types",
            "an object",
            "the names of the storages",
        ];
        for needed in WHAT {
            let start = self.end;
            let pickle = evaluate_stream(&mut *stream, start, Dialect::Plain, limits);
            self.end = pickle.range().end;
            let error = pickle.error().cloned();
            let fits = pickle.root().is_some_and(|root| match self.pickles.len() {
                0 => is_magic(root),
                1 => *root == Value::Int(PROTOCOL),
                2 => matches!(root, Value::Dict(_)),
                3 => true,
                _ => matches!(root, Value::List(_)),
            });
            self.pickles.push(pickle);
            if let Some(error) = error {
                return Err(error);
            }
            if !fits {
                return Err(Error::new(start, None, Detail::Legacy { needed }));
            }
        }
        let elements = self.elements();
        for key in self.keys()? {
            let Some(element) = elements.get(&key).copied() else {
                return Err(Error::new(
                    self.end,
                    None,
                    Detail::Legacy { needed: "a storage that the object names" },
                ));
            };
            let count = self.count(stream)?;
            let start = self.end.saturating_add(8);
            let left = stream.len().saturating_sub(start);
            let bytes = count.checked_mul(element.bytes()).filter(|bytes| *bytes <= left);
            let Some(bytes) = bytes else {
                return Err(Error::new(self.end, None, Detail::Bytes { length: count, left }));
            };
            self.end = start.saturating_add(bytes);
            self.places.insert(key.clone(), self.storages.len());
            self.storages.push(LegacyStorage { key, element, range: start..self.end });
        }
        Ok(())
    }

    fn count<S: Stream<'a>>(&self, stream: &mut S) -> Result<u64, Error> {
        let bytes = stream.peek(self.end, 8).map_err(|e| Error::new(self.end, None, Detail::read(&e)))?;
        let bytes: Option<[u8; 8]> = bytes.first_chunk().copied();
        let bytes = bytes.ok_or_else(|| Error::new(self.end, None, Detail::End { needed: "a storage" }))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn keys(&self) -> Result<Vec<String>, Error> {
        let failed = || Error::new(self.end, None, Detail::Legacy { needed: "the names of the storages" });
        let pickle = self.pickles.get(4).ok_or_else(failed)?;
        let Some(Value::List(items)) = pickle.root() else { return Err(failed()) };
        let arena = Arena(pickle.values());
        let mut keys: Vec<String> = Vec::with_capacity(items.len());
        for item in items {
            keys.push(arena.text(*item).ok_or_else(failed)?.to_owned());
        }
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(failed());
        }
        Ok(keys)
    }

    /// The element of each storage that the object names.
    fn elements(&self) -> HashMap<String, Element> {
        let mut elements = HashMap::new();
        let Some(object) = self.object() else { return elements };
        for (place, value) in object.values().iter().enumerate() {
            if !matches!(value, Value::Persistent(_)) {
                continue;
            }
            let id = u32::try_from(place).map(Id);
            let storage = id.ok().and_then(|id| Arena(object.values()).storage(id).ok().flatten());
            if let Some(storage) = storage
                && let StorageAt::Key { key, .. } = storage.at
            {
                // Bytes without a type count bytes.
                elements.insert(key.to_owned(), storage.element.unwrap_or(Element::U8));
            }
        }
        elements
    }

    /// The pickles that could be followed, in their order: up to five, the last one maybe in part.
    #[must_use]
    pub fn pickles(&self) -> &[Pickle<'a>] {
        &self.pickles
    }

    /// The pickle of the object that was saved.
    #[must_use]
    pub fn object(&self) -> Option<&Pickle<'a>> {
        self.pickles.get(3)
    }

    /// The storages, in the order of the file.
    #[must_use]
    pub fn storages(&self) -> &[LegacyStorage] {
        &self.storages
    }

    /// The storage of this name.
    #[must_use]
    pub fn storage(&self, key: &str) -> Option<&LegacyStorage> {
        self.places.get(key).and_then(|place| self.storages.get(*place))
    }

    /// The byte after the last storage that was found. What follows is no part of the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Why the file could not be followed to its end.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

fn is_magic(value: &Value<'_>) -> bool {
    matches!(value, Value::Long(bytes) if **bytes == MAGIC)
}

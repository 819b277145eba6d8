//! Typed access to the values of an arena, and to the arguments of one recorded call.

use std::borrow::Cow;

use super::{Bytes, Meaning, MeaningError};
use crate::{Id, Object, Symbol, Value};

/// The values of a pickle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena<'p>(pub(crate) &'p [Value<'p>]);

impl<'p> Arena<'p> {
    pub(crate) fn value(self, id: Id) -> Option<&'p Value<'p>> {
        self.0.get(id.0 as usize)
    }

    pub(crate) fn symbol(self, id: Id) -> Option<&'p Symbol<'p>> {
        match self.value(id)? {
            Value::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    pub(crate) fn text(self, id: Id) -> Option<&'p str> {
        match self.value(id)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(self, id: Id) -> Option<i64> {
        match self.value(id)? {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    pub(crate) fn unsigned(self, id: Id) -> Option<u64> {
        u64::try_from(self.int(id)?).ok()
    }

    pub(crate) fn float(self, id: Id) -> Option<f64> {
        match self.value(id)? {
            Value::Float(value) => Some(*value),
            #[allow(clippy::cast_precision_loss, reason = "a scale that was written as an integer")]
            Value::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(crate) fn is_none(self, id: Id) -> bool {
        matches!(self.value(id), Some(Value::None))
    }

    /// The items of a tuple or list, or of the shape that `torch.Size` makes of one.
    pub(crate) fn items(self, id: Id) -> Option<&'p [Id]> {
        match self.value(id)? {
            Value::Tuple(items) | Value::List(items) => Some(items),
            Value::Object(object) if is_bare(object) => {
                let symbol = self.symbol(object.callable)?;
                let (module, name) = (&*symbol.module, &*symbol.name);
                if !matches!((module, name), ("torch", "Size") | ("torch._C", "Size")) {
                    return None;
                }
                match self.value(object.arguments)? {
                    Value::Tuple(arguments) => match arguments[..] {
                        [] => Some(&[]),
                        [shape] => match self.value(shape)? {
                            Value::Tuple(items) | Value::List(items) => Some(items),
                            _ => None,
                        },
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Elements in each dimension. One number stands for one dimension.
    pub(crate) fn shape(self, id: Id) -> Option<Vec<u64>> {
        match self.items(id) {
            Some(items) => items.iter().map(|item| self.unsigned(*item)).collect(),
            None => self.unsigned(id).map(|length| vec![length]),
        }
    }

    /// Steps in each dimension, in elements.
    pub(crate) fn strides(self, id: Id) -> Option<Vec<i64>> {
        self.items(id)?.iter().map(|item| self.int(*item)).collect()
    }

    /// Bytes, also as the call of `_codecs.encode` that protocols before 3 write.
    pub(crate) fn bytes(self, id: Id) -> Option<Bytes<'p>> {
        match self.value(id)? {
            Value::Bytes(bytes) | Value::ByteArray(bytes) => Some(Bytes::Near(Cow::Borrowed(bytes))),
            Value::Far(range) => Some(Bytes::Far(range.clone())),
            // Python 2 wrote bytes that happen to be ASCII as it wrote text.
            Value::Str(text) if text.is_ascii() => Some(Bytes::Near(Cow::Borrowed(text.as_bytes()))),
            Value::Object(object) => self.encoded(object),
            _ => None,
        }
    }

    pub(crate) fn encoded(self, object: &'p Object) -> Option<Bytes<'p>> {
        let symbol = self.symbol(object.callable).filter(|_| is_bare(object))?;
        let Value::Tuple(arguments) = self.value(object.arguments)? else { return None };
        match ((&*symbol.module, &*symbol.name), &arguments[..]) {
            (("builtins", "bytes"), []) => Some(Bytes::Near(Cow::Borrowed(&[]))),
            (("_codecs", "encode"), [text, encoding]) => {
                if !matches!(self.text(*encoding)?, "latin1" | "latin-1") {
                    return None;
                }
                let text = self.text(*text)?;
                if text.is_ascii() {
                    return Some(Bytes::Near(Cow::Borrowed(text.as_bytes())));
                }
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                Some(Bytes::Near(Cow::Owned(bytes?)))
            }
            (("builtins", "bytearray"), []) => Some(Bytes::Near(Cow::Borrowed(&[]))),
            (("builtins", "bytearray"), [bytes]) => match self.value(*bytes)? {
                Value::Object(inner) if !std::ptr::eq(inner, object) => {
                    let symbol = self.symbol(inner.callable)?;
                    // One level: bytes that were encoded.
                    if symbol.name == "encode" { self.encoded(inner) } else { None }
                }
                Value::Object(_) => None,
                _ => self.bytes(*bytes),
            },
            (("builtins", "bytearray"), [text, encoding]) => {
                if !matches!(self.text(*encoding)?, "latin1" | "latin-1") {
                    return None;
                }
                let bytes: Option<Vec<u8>> =
                    self.text(*text)?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                Some(Bytes::Near(Cow::Owned(bytes?)))
            }
            _ => None,
        }
    }

    /// The value of a key of text in a dict; the last one where it stands twice, as in Python.
    pub(crate) fn entry(self, entries: &[(Id, Id)], key: &str) -> Option<Id> {
        entries.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// Whether a state is a dict of attributes, or such a dict and one of slots.
    pub(crate) fn is_attributes(self, state: Id) -> bool {
        let is_dict = |id: Id| matches!(self.value(id), Some(Value::Dict(_)));
        match self.value(state) {
            Some(Value::Tuple(both)) => {
                both.len() == 2 && both.iter().all(|part| is_dict(*part) || self.is_none(*part))
            }
            _ => is_dict(state),
        }
    }

    /// The name of a symbol or of the kind of a value, for an error.
    pub(crate) fn kind(self, id: Id) -> String {
        match self.value(id) {
            Some(Value::Symbol(symbol)) => format!("`{}.{}`", symbol.module, symbol.name),
            Some(value) => value.kind().to_owned(),
            None => "nothing".to_owned(),
        }
    }
}

/// Whether nothing was added to what a call made.
pub(crate) fn is_bare(object: &Object) -> bool {
    object.states.is_empty() && object.items.is_empty() && object.entries.is_empty()
}

/// A recorded call of a known name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'p> {
    pub(crate) arena: Arena<'p>,
    pub(crate) symbol: &'p Symbol<'p>,
    pub(crate) object: &'p Object,
    pub(crate) arguments: &'p [Id],
    pub(crate) depth: usize,
}

impl<'p> Call<'p> {
    pub(crate) fn new(
        arena: Arena<'p>,
        symbol: &'p Symbol<'p>,
        object: &'p Object,
        depth: usize,
    ) -> Result<Self, MeaningError> {
        let call = Self { arena, symbol, object, arguments: &[], depth };
        match arena.value(object.arguments) {
            Some(Value::Tuple(arguments)) => Ok(Self { arguments, ..call }),
            _ => Err(call.error("arguments", arena.kind(object.arguments), "a tuple")),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.symbol.module, self.symbol.name)
    }

    #[cold]
    pub(crate) fn error(
        &self,
        what: &'static str,
        found: impl Into<String>,
        needed: &'static str,
    ) -> MeaningError {
        MeaningError::new(self.name(), what, found, needed)
    }

    pub(crate) fn argument(&self, index: usize, what: &'static str) -> Result<Id, MeaningError> {
        let found = || format!("{} arguments", self.arguments.len());
        self.arguments.get(index).copied().ok_or_else(|| self.error(what, found(), "an argument more"))
    }

    /// An argument that a typed reader accepts.
    pub(crate) fn typed<T>(
        &self,
        index: usize,
        what: &'static str,
        needed: &'static str,
        read: impl FnOnce(Id) -> Option<T>,
    ) -> Result<T, MeaningError> {
        let id = self.argument(index, what)?;
        read(id).ok_or_else(|| self.error(what, self.arena.kind(id), needed))
    }

    /// What an argument means.
    pub(crate) fn inner(&self, index: usize, what: &'static str) -> Result<Meaning<'p>, MeaningError> {
        let id = self.argument(index, what)?;
        self.arena.meaning(id, self.depth.saturating_add(1))
    }

    /// The dicts of attributes that BUILD would set.
    pub(crate) fn state_entries(&self) -> Vec<(Id, Id)> {
        let mut entries = Vec::new();
        for state in &self.object.states {
            match self.arena.value(*state) {
                Some(Value::Dict(dict)) => entries.extend_from_slice(dict),
                // A dict, and a dict of slots.
                Some(Value::Tuple(both)) => {
                    for part in both {
                        if let Some(Value::Dict(dict)) = self.arena.value(*part) {
                            entries.extend_from_slice(dict);
                        }
                    }
                }
                _ => {}
            }
        }
        entries
    }
}

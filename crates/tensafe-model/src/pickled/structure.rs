//! What stands around the tensors of a file of torch: the containers and plain values that a pickle
//! makes, as it makes them.
//!
//! The other walk, of `flatten`, gives tensors their names and has JSON for the rest; here tuples stay
//! tuples, what is shared is shared, and what is neither a tensor nor a plain value is refused.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap};

use tensafe_pickle::{ArrayData, Bytes, Element, Id, Made, Meaning, Object, StorageAt, Symbol, Value};

use super::{
    Refusal,
    flatten::{MOST_LEVELS, Result, Walk},
    leaves::name_of,
    open,
};

use self::StructurePart as Part;

/// A value of a file of torch, with its tensors by name.
///
/// What a call is given is seen as it is at the end: a list that grew after a set was made of it would show in the
/// set. No writer makes such a pickle.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    parts: Vec<StructurePart>,
}

impl Structure {
    /// Its parts: each after those that it is made of, the whole last. One that stands at several
    /// places is one object there.
    #[must_use]
    pub fn parts(&self) -> &[StructurePart] {
        &self.parts
    }
}

/// A part of a [`Structure`]. Those that it is made of are places in [`Structure::parts`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StructurePart {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// A larger integer: two's complement, little-endian.
    Long(Vec<u8>),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A tuple.
    Tuple(Vec<usize>),
    /// A list.
    List(Vec<usize>),
    /// A set; what it holds can be a key.
    Set {
        /// The items.
        items: Vec<usize>,
        /// Whether it is a `frozenset`.
        frozen: bool,
    },
    /// A dict: keys and values in the order they were set. A key that stands twice was set again.
    Dict {
        /// The keys and the values.
        entries: Vec<(usize, usize)>,
        /// Whether it is an `OrderedDict`.
        ordered: bool,
        /// What a state dict has as `_metadata`.
        metadata: Option<usize>,
    },
    /// A dtype of torch by its name, such as `float32`.
    Dtype(String),
    /// A `torch.device`, by its arguments.
    Device(Vec<usize>),
    /// A `torch.Size`.
    Size(Vec<usize>),
    /// A tensor, under the name that it has in the checkpoint.
    Tensor(StructureTensor),
}

/// A tensor of a [`Structure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructureTensor {
    /// Its name in the checkpoint; that of the first place where it stands at several.
    pub name: String,
    /// What it becomes.
    pub kind: TensorKind,
    /// The device that it was saved on, such as `cuda:0`.
    pub location: String,
    /// Whether gradients are wanted.
    pub requires_grad: bool,
}

/// What a tensor of a [`Structure`] becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// A tensor.
    Tensor,
    /// A parameter of a module.
    Parameter,
    /// An array of numpy.
    Array,
}

impl TensorKind {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Parameter => "parameter",
            Self::Array => "array",
        }
    }
}

impl Walk<'_, '_> {
    /// The structure of the pickle's value. Each value is visited once.
    pub(super) fn structure(&self) -> Result<Option<Structure>> {
        let Some(root) = self.pickle.root_id() else { return Ok(None) };
        let mut making =
            Making { walk: self, parts: Vec::new(), places: HashMap::new(), apart: false, spent: 0 };
        making.visit(root, &mut Vec::new(), 0)?;
        Ok(Some(Structure { parts: making.parts }))
    }
}

struct Making<'m, 'w, 'p> {
    walk: &'m Walk<'w, 'p>,
    parts: Vec<Part>,
    /// The place of a part, or `None` while those that it is made of are made.
    places: HashMap<Id, Option<usize>>,
    /// Whether this is within the metadata of a state dict, where no tensor has a name.
    apart: bool,
    /// Memory that was copied out of values, which calls may share.
    spent: u64,
}

impl<'w> Making<'_, 'w, '_> {
    fn visit(&mut self, id: Id, path: &mut Vec<String>, level: usize) -> Result<usize> {
        match self.places.get(&id) {
            Some(Some(place)) => return Ok(*place),
            None if level <= MOST_LEVELS => {}
            _ => return self.walk.refuse(Refusal::Depth { path: path.join("."), limit: MOST_LEVELS }),
        }
        self.places.insert(id, None);
        let part = self.part(id, path, level.saturating_add(1))?;
        let place = self.parts.len();
        self.parts.push(part);
        self.places.insert(id, Some(place));
        Ok(place)
    }

    fn refuse<T>(&self, path: &[String], what: impl Into<String>, name: Option<Id>) -> Result<T> {
        let used = self.walk.pickle.symbols().iter().find(|used| Some(used.value) == name);
        self.walk.refuse(Refusal::Made {
            path: path.join("."),
            what: what.into(),
            offset: used.map(|used| used.offset),
        })
    }

    /// Counts memory before it is taken, by the limit of the values themselves.
    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.spent = self.spent.saturating_add(bytes as u64);
        let limit = self.walk.options.limits.value_bytes;
        if self.spent > limit {
            return self.walk.refuse(Refusal::Memory { limit });
        }
        Ok(())
    }

    fn part(&mut self, id: Id, path: &mut Vec<String>, level: usize) -> Result<Part> {
        let pickle = self.walk.pickle;
        let Some(value) = pickle.value(id) else { return Ok(Part::None) };
        Ok(match value {
            Value::None => Part::None,
            Value::Bool(value) => Part::Bool(*value),
            Value::Int(value) => Part::Int(*value),
            Value::Long(bytes) => Part::Long(bytes.to_vec()),
            Value::Float(value) => Part::Float(*value),
            Value::Str(text)
                if text.contains(char::REPLACEMENT_CHARACTER) && pickle.spellings().surrogates =>
            {
                return self.refuse(path, "text with half of a surrogate pair", None);
            }
            Value::Str(text) => {
                self.spend(text.len())?;
                Part::Text(text.clone().into_owned())
            }
            Value::Bytes(bytes) => {
                // ASCII of Python 2 is text already.
                if pickle.spellings().python2 && !bytes.is_ascii() {
                    return self.refuse(path, "text of Python 2 that is not ASCII", None);
                }
                Part::Bytes(self.bytes(&Bytes::Near(Cow::Borrowed(&bytes[..])))?)
            }
            Value::Far(range) => {
                let spellings = pickle.spellings();
                if spellings.python2 || spellings.bytearray {
                    return self.refuse(path, "a bytearray, or text of Python 2, of such a length", None);
                }
                Part::Bytes(self.bytes(&Bytes::Far(range.clone()))?)
            }
            Value::Tuple(items) => Part::Tuple(self.items(items, path, level)?),
            Value::List(items) => Part::List(self.items(items, path, level)?),
            Value::Set(items) => Part::Set { items: self.keys(items, path, level)?, frozen: false },
            Value::FrozenSet(items) => Part::Set { items: self.keys(items, path, level)?, frozen: true },
            Value::Dict(entries) => {
                Part::Dict { entries: self.entries(entries, path, level)?, ordered: false, metadata: None }
            }
            Value::Symbol(symbol)
                if symbol.module == "torch" && Element::from_dtype(&symbol.name).is_some() =>
            {
                Part::Dtype(symbol.name.clone().into_owned())
            }
            Value::Symbol(symbol) => return self.refuse(path, format!("`{symbol}`"), Some(id)),
            Value::Object(object) => return self.object(id, object, path, level),
            Value::ByteArray(_) | Value::Persistent(_) => return self.refuse(path, value.kind(), None),
        })
    }

    fn bytes(&mut self, bytes: &Bytes<'_>) -> Result<Vec<u8>> {
        let length = usize::try_from(bytes.len()).unwrap_or(usize::MAX);
        self.spend(length)?;
        let mut found = Vec::new();
        if found.try_reserve_exact(length).is_err() {
            let limit = self.walk.options.limits.value_bytes;
            return self.walk.refuse(Refusal::Memory { limit });
        }
        found.resize(length, 0);
        open::bytes_source(&self.walk.stream, bytes)?.read_at(0, &mut found)?;
        Ok(found)
    }

    fn items(&mut self, items: &[Id], path: &mut Vec<String>, level: usize) -> Result<Vec<usize>> {
        self.spend(items.len().saturating_mul(size_of::<usize>()))?;
        let mut places = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            path.push(place.to_string());
            places.push(self.visit(*item, path, level)?);
            path.pop();
        }
        Ok(places)
    }

    /// The items of a set, or the arguments of a device or a shape.
    fn keys(&mut self, items: &[Id], path: &mut Vec<String>, level: usize) -> Result<Vec<usize>> {
        self.spend(items.len().saturating_mul(size_of::<usize>()))?;
        items.iter().map(|item| self.key(*item, path, level)).collect()
    }

    /// A key of a dict: a plain value, or a tuple of them.
    fn key(&mut self, id: Id, path: &mut Vec<String>, level: usize) -> Result<usize> {
        let plain = |id: &Id| {
            use Value::{Bool, Bytes, Float, Int, Long, None, Str};
            let value = self.walk.pickle.value(*id);
            matches!(value, Some(None | Bool(_) | Int(_) | Long(_) | Float(_) | Str(_) | Bytes(_)))
        };
        let is_key = match self.walk.pickle.value(id) {
            Some(Value::Tuple(parts)) => parts.iter().all(plain),
            _ => plain(&id),
        };
        if !is_key {
            let kind = self.walk.pickle.value(id).map_or("nothing", Value::kind);
            return self.walk.refuse(Refusal::Key { path: path.join("."), kind });
        }
        self.visit(id, path, level)
    }

    fn entries(
        &mut self,
        entries: &[(Id, Id)],
        path: &mut Vec<String>,
        level: usize,
    ) -> Result<Vec<(usize, usize)>> {
        self.spend(entries.len().saturating_mul(size_of::<(usize, usize)>()))?;
        let mut places = Vec::with_capacity(entries.len());
        for (name, key, value) in self.walk.settled(entries, path)? {
            let key = self.key(key, path, level)?;
            path.push(name);
            places.push((key, self.visit(value, path, level)?));
            path.pop();
        }
        Ok(places)
    }

    fn object(&mut self, id: Id, object: &'w Object, path: &mut Vec<String>, level: usize) -> Result<Part> {
        let pickle = self.walk.pickle;
        let Some(symbol) = pickle.symbol(object.callable) else {
            return self.refuse(path, "what a value that is no name makes", None);
        };
        let other = |making: &Self| making.refuse(path, format!("`{symbol}`"), Some(object.callable));
        let Some(Value::Tuple(arguments)) = pickle.value(object.arguments) else { return other(self) };
        if object.made != Made::Call || object.keywords.is_some() || !object.items.is_empty() {
            return other(self);
        }
        match (&*symbol.module, &*symbol.name) {
            ("collections", "OrderedDict") => return self.ordered(object, arguments, path, level),
            _ if !object.entries.is_empty() => return other(self),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                // An array has its shape and its numbers as state.
                let class = arguments.first().and_then(|class| pickle.symbol(*class));
                return match class {
                    Some(class) if is(class, "numpy", "ndarray") => self.array(id, path),
                    _ => other(self),
                };
            }
            _ if !object.states.is_empty() => {
                return self.refuse(
                    path,
                    format!("an attribute of what `{symbol}` makes"),
                    Some(object.callable),
                );
            }
            _ => {}
        }
        Ok(match (&*symbol.module, &*symbol.name, &arguments[..]) {
            ("builtins", "set" | "frozenset", given) => {
                let items = match given {
                    [] => &[][..],
                    [given] => match pickle.value(*given) {
                        Some(Value::List(items) | Value::Tuple(items)) => items,
                        _ => return other(self),
                    },
                    _ => return other(self),
                };
                Part::Set { items: self.keys(items, path, level)?, frozen: symbol.name == "frozenset" }
            }
            ("torch", "Size", [shape]) => match pickle.value(*shape) {
                Some(Value::List(items) | Value::Tuple(items)) => Part::Size(self.keys(items, path, level)?),
                _ => return other(self),
            },
            ("torch", "device", arguments) => Part::Device(self.keys(arguments, path, level)?),
            ("_codecs", "encode", _) | ("builtins", "bytes", _) => match pickle.meaning(id) {
                Ok(Meaning::Bytes(bytes)) => Part::Bytes(self.bytes(&bytes)?),
                _ => return other(self),
            },
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer", _) => return self.array(id, path),
            ("torch._utils", "_rebuild_tensor", _) => self.tensor(id, None, path)?,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor_v3", arguments) => {
                if arguments.get(5).is_some_and(|hooks| !self.is_empty(*hooks)) {
                    return self.refuse(path, "a tensor with hooks", Some(object.callable));
                }
                self.tensor(id, arguments.get(4).copied(), path)?
            }
            ("torch._utils", "_rebuild_parameter", [data, requires_grad, hooks]) => {
                if !self.is_empty(*hooks) {
                    return self.refuse(path, "a parameter with hooks", Some(object.callable));
                }
                let rebuilt = |inner: &Object| {
                    let symbol = pickle.symbol(inner.callable);
                    symbol.is_some_and(|symbol| {
                        symbol.module == "torch._utils" && symbol.name.starts_with("_rebuild_tensor")
                    })
                };
                let inner = match pickle.value(*data) {
                    Some(Value::Object(inner)) if rebuilt(inner) => inner,
                    _ => return self.refuse(path, "a parameter of no tensor", Some(object.callable)),
                };
                match self.object(*data, inner, path, level)? {
                    Part::Tensor(tensor) => Part::Tensor(StructureTensor {
                        kind: TensorKind::Parameter,
                        requires_grad: self.is_true(*requires_grad),
                        ..tensor
                    }),
                    other => other,
                }
            }
            _ => return other(self),
        })
    }

    /// An `OrderedDict`: its pairs, what was set, and what `Module.state_dict()` says of the versions of
    /// modules.
    fn ordered(
        &mut self,
        object: &'w Object,
        arguments: &[Id],
        path: &mut Vec<String>,
        level: usize,
    ) -> Result<Part> {
        let pickle = self.walk.pickle;
        let mut entries = Vec::new();
        // Python 2 has the pairs among the arguments.
        for given in arguments {
            let pair = |id: &Id| match pickle.value(*id) {
                Some(Value::List(pair) | Value::Tuple(pair)) => <[Id; 2]>::try_from(&pair[..]).ok(),
                _ => None,
            };
            let pairs: Option<Vec<[Id; 2]>> = match pickle.value(*given) {
                Some(Value::List(pairs) | Value::Tuple(pairs)) => pairs.iter().map(pair).collect(),
                _ => None,
            };
            let Some(pairs) = pairs else {
                return self.refuse(path, "an OrderedDict of no pairs", Some(object.callable));
            };
            entries.extend(pairs.into_iter().map(|[key, value]| (key, value)));
        }
        entries.extend_from_slice(&object.entries);
        let entries = self.entries(&entries, path, level)?;
        let mut metadata = None;
        for state in &object.states {
            let Some(Value::Dict(attributes)) = pickle.value(*state) else {
                return self.refuse(path, "an attribute of OrderedDict", Some(object.callable));
            };
            for (name, value) in attributes {
                if !matches!(pickle.value(*name), Some(Value::Str(name)) if name == "_metadata") {
                    return self.refuse(path, "an attribute of OrderedDict", Some(object.callable));
                }
                path.push("_metadata".to_owned());
                let apart = std::mem::replace(&mut self.apart, true);
                metadata = Some(self.visit(*value, path, level)?);
                self.apart = apart;
                path.pop();
            }
        }
        Ok(Part::Dict { entries, ordered: true, metadata })
    }

    fn tensor(&self, id: Id, requires_grad: Option<Id>, path: &[String]) -> Result<Part> {
        if self.apart {
            return self.refuse(path, "a tensor in the metadata of a state dict", None);
        }
        let Ok(Meaning::Tensor(tensor)) = self.walk.pickle.meaning(id) else {
            return self.refuse(path, "a tensor without a storage", None);
        };
        let StorageAt::Key { location, .. } = tensor.storage.at else {
            return self.refuse(path, "a tensor whose storage is a file of its own", None);
        };
        Ok(Part::Tensor(StructureTensor {
            name: name_of(path),
            kind: TensorKind::Tensor,
            location: location.to_owned(),
            requires_grad: requires_grad.is_some_and(|id| self.is_true(id)),
        }))
    }

    fn array(&self, id: Id, path: &[String]) -> Result<Part> {
        if self.apart {
            return self.refuse(path, "an array in the metadata of a state dict", None);
        }
        match self.walk.pickle.meaning(id) {
            Ok(Meaning::Array(array)) if array.number.big_endian && array.number.bytes > 1 => {
                self.refuse(path, "an array of big-endian elements", None)
            }
            Ok(Meaning::Array(array)) if matches!(array.data, ArrayData::Bytes(_)) => {
                Ok(Part::Tensor(StructureTensor {
                    name: name_of(path),
                    kind: TensorKind::Array,
                    location: "cpu".to_owned(),
                    requires_grad: false,
                }))
            }
            _ => self.refuse(path, "an array of what are no numbers", None),
        }
    }

    fn is_true(&self, id: Id) -> bool {
        matches!(self.walk.pickle.value(id), Some(Value::Bool(true)))
    }

    /// Whether there are no hooks: `None`, or a dict of any kind without entries.
    fn is_empty(&self, id: Id) -> bool {
        let pickle = self.walk.pickle;
        let nothing = |id: &Id| match pickle.value(*id) {
            Some(Value::List(items) | Value::Tuple(items)) => items.is_empty(),
            _ => false,
        };
        match pickle.value(id) {
            None | Some(Value::None) => true,
            Some(Value::Dict(entries)) => entries.is_empty(),
            Some(Value::Object(object)) => {
                let symbol = pickle.symbol(object.callable);
                let ordered = symbol.is_some_and(|symbol| is(symbol, "collections", "OrderedDict"));
                let given = match pickle.value(object.arguments) {
                    Some(Value::Tuple(given)) => given.len() <= 1 && given.iter().all(nothing),
                    _ => false,
                };
                ordered && given && object.entries.is_empty()
            }
            Some(_) => false,
        }
    }
}

fn is(symbol: &Symbol<'_>, module: &str, name: &str) -> bool {
    symbol.module == module && symbol.name == name
}

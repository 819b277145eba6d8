//! From the value of a pickle to tensors with names: a walk over what the values mean.
//!
//! Keys are joined by dots. What is no tensor becomes JSON; a container without tensors becomes one
//! value.

use std::{collections::HashMap, path::Path, sync::Arc};

use serde_json::{Map, Value as Json};
use tensafe_io::Source;
use tensafe_pickle::{Id, Meaning, Pickle, Value};

use super::{FoundValue, Pickled, PickledOptions, Refusal, storages::Storages, values};
use crate::Error;

/// Containers within containers: more than any checkpoint has, and little enough for a recursion.
pub(super) const MOST_LEVELS: usize = 100;

/// Values that are visited, those that are visited twice counted twice: so many, and so many for
/// each value of the pickle. Values that are shared are small in a checkpoint; in a bomb of values
/// within values they are all there is.
const MOST_VALUES: (usize, usize) = (100_000, 32);

/// Parts of a key that is a tuple, those within parts counted too.
const MOST_KEY_PARTS: usize = 64;

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// A key of a dict: a part of a name, and what tells it from other keys, which may have the same
/// spelling.
struct Key {
    name: String,
    identity: String,
}

impl Key {
    fn new(kind: &str, name: String) -> Self {
        let identity = format!("{kind} {name}");
        Self { name, identity }
    }
}

/// One pickle of a checkpoint, on its way into a [`Pickled`].
pub(super) struct Walk<'w, 'p> {
    pub(super) pickle: &'w Pickle<'p>,
    /// What the pickle was read from, for bytes that stayed there.
    pub(super) stream: Arc<dyn Source>,
    pub(super) storages: Storages<'w>,
    /// Where files that the pickle names stand.
    pub(super) directory: Option<&'w Path>,
    pub(super) options: &'w PickledOptions,
    /// Whether it is a TorchScript archive, whose classes are records.
    pub(super) script: bool,
    pub(super) into: &'w mut Pickled,
    /// Storages that were resolved, by their keys.
    pub(super) known: HashMap<String, usize>,
    pub(super) visited: usize,
}

impl<'w> Walk<'w, '_> {
    /// Walks over the pickle's value; `path` leads to it.
    pub(super) fn root(&mut self, path: &[String]) -> Result<()> {
        let Some(root) = self.pickle.root_id() else { return Ok(()) };
        let mut path = path.to_vec();
        if let Some(value) = self.visit(root, &mut path, 0)? {
            self.keep(path, value);
        }
        Ok(())
    }

    fn keep(&mut self, path: Vec<String>, value: Json) {
        self.into.values.push(FoundValue { path, value });
    }

    pub(super) fn refuse<T>(&self, refusal: Refusal) -> Result<T> {
        Err(Error::refused(self.stream.path(), refusal))
    }

    /// The value as JSON, or `None` where there were tensors in it: then they and what stands beside
    /// them were kept.
    pub(super) fn visit(&mut self, id: Id, path: &mut Vec<String>, level: usize) -> Result<Option<Json>> {
        self.visited = self.visited.saturating_add(1);
        let (some, each) = MOST_VALUES;
        let limit = self.pickle.values().len().saturating_mul(each).saturating_add(some);
        if self.visited > limit {
            return self.refuse(Refusal::Values { limit });
        }
        if level > MOST_LEVELS {
            return self.refuse(Refusal::Depth { path: path.join("."), limit: MOST_LEVELS });
        }
        let pickle = self.pickle;
        match pickle.meaning(id) {
            Ok(meaning) => self.meant(meaning, path, level),
            Err(source) => self.refuse(Refusal::Meaning { path: path.join("."), source }),
        }
    }

    fn meant(&mut self, meaning: Meaning<'w>, path: &mut Vec<String>, level: usize) -> Result<Option<Json>> {
        if let Some(value) = values::plain(&meaning) {
            return Ok(Some(value));
        }
        match meaning {
            Meaning::Sequence(items) | Meaning::Set(items) => self.items(&items, path, level),
            Meaning::Map(entries) => self.entries(&entries, path, level),
            Meaning::Tensor(tensor) => self.tensor(&tensor, path),
            Meaning::Array(array) => self.array(&array, path),
            Meaning::Storage(storage) => self.storage_alone(&storage, path),
            Meaning::Quantized { tensor, quantizer } => self.quantized(&tensor, quantizer, path),
            Meaning::Sparse { layout, indices, values, shape } => {
                self.sparse(layout, &indices, values, &shape, path)
            }
            Meaning::With { value, attributes, class } => {
                let mut kept = self.meant(*value, path, level)?;
                if let Some(class) = class {
                    self.note(path, &format!("is of class `{class}`, written as the tensor that it wraps"));
                }
                for attribute in attributes {
                    self.attribute(attribute, &mut kept, path, level)?;
                }
                Ok(kept)
            }
            Meaning::Empty { symbol, class } => {
                if !self.options.salvage {
                    let symbol = class.unwrap_or(symbol).to_string();
                    return self.refuse(Refusal::Empty { path: path.join("."), symbol });
                }
                self.note(path, &format!("left out: `{symbol}` makes a tensor without data"));
                Ok(Some(Json::Null))
            }
            Meaning::Persistent(name) => self.persistent(name, path),
            Meaning::Unknown { symbol, object } => {
                let name = symbol.map_or_else(|| "a value that is no name".to_owned(), ToString::to_string);
                if !(self.script && name.starts_with("__torch__.")) {
                    // Without `salvage` unknown names were refused before the walk.
                    self.note(path, &format!("left out: an object of `{name}`"));
                }
                let object = object.clone();
                self.unknown(&object, path, level)
            }
            _ => Ok(Some(Json::Null)),
        }
    }

    pub(super) fn note(&mut self, path: &[String], what: &str) {
        let name = path.join(".");
        let at = if name.is_empty() { "the value".to_owned() } else { format!("`{name}`") };
        self.into.notes.push(format!("{at}: {what}"));
    }

    fn items(&mut self, items: &[Id], path: &mut Vec<String>, level: usize) -> Result<Option<Json>> {
        let mut found = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            path.push(place.to_string());
            found.push(self.visit(*item, path, level.saturating_add(1))?);
            path.pop();
        }
        if found.iter().all(Option::is_some) {
            return Ok(Some(Json::Array(found.into_iter().flatten().collect())));
        }
        for (place, value) in found.into_iter().enumerate() {
            if let Some(value) = value {
                path.push(place.to_string());
                self.keep(path.clone(), value);
                path.pop();
            }
        }
        Ok(None)
    }

    fn entries(
        &mut self,
        entries: &[(Id, Id)],
        path: &mut Vec<String>,
        level: usize,
    ) -> Result<Option<Json>> {
        let order = self.settled(entries, path)?;
        let mut found = Vec::with_capacity(order.len());
        for (name, _, value) in order {
            path.push(name);
            let value = self.visit(value, path, level.saturating_add(1))?;
            found.push((path.pop().unwrap_or_default(), value));
        }
        if found.iter().all(|(_, value)| value.is_some()) {
            let map: Map<String, Json> =
                found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            return Ok(Some(Json::Object(map)));
        }
        for (key, value) in found {
            if let Some(value) = value {
                path.push(key);
                self.keep(path.clone(), value);
                path.pop();
            }
        }
        Ok(None)
    }

    /// The entries of a dict with the names of their keys: a key that is set again replaces its value and
    /// keeps its place, as in Python.
    pub(super) fn settled(&self, entries: &[(Id, Id)], path: &[String]) -> Result<Vec<(String, Id, Id)>> {
        let mut order: Vec<(String, Id, Id)> = Vec::with_capacity(entries.len());
        let mut places: HashMap<String, usize> = HashMap::new();
        for (key, value) in entries {
            let Key { name, identity } = self.key(*key, path, &mut MOST_KEY_PARTS.clone())?;
            match places.get(&identity).and_then(|place| order.get_mut(*place)) {
                Some(entry) => entry.2 = *value,
                None => {
                    places.insert(identity, order.len());
                    order.push((name, *key, *value));
                }
            }
        }
        Ok(order)
    }

    fn key(&self, id: Id, path: &[String], parts: &mut usize) -> Result<Key> {
        let Some(left) = parts.checked_sub(1) else {
            return self.refuse(Refusal::Key { path: path.join("."), kind: "a tuple of more than 64 parts" });
        };
        *parts = left;
        let value = self.pickle.value(id);
        let meaning = self.pickle.meaning(id);
        Ok(match (value, meaning) {
            (Some(Value::Str(text)), _) => Key::new("text", text.clone().into_owned()),
            (Some(Value::Bytes(bytes)), _) if std::str::from_utf8(bytes).is_ok() => {
                Key::new("bytes", String::from_utf8_lossy(bytes).into_owned())
            }
            // Python takes 1, 1.0 and True for one key.
            (Some(Value::Int(value)), _) => Key::new("number", value.to_string()),
            (Some(Value::Bool(value)), _) => Key::new("number", i64::from(*value).to_string()),
            (Some(Value::None), _) => Key::new("none", "None".to_owned()),
            (Some(Value::Float(value)), _) => Key::new("number", format!("{value}")),
            (Some(Value::Tuple(items)), _) => {
                let (mut names, mut identities) = (Vec::new(), Vec::new());
                for item in items {
                    let Key { name, identity } = self.key(*item, path, parts)?;
                    names.push(name);
                    // With its length, so that no text can pass for two parts.
                    identities.push(format!("{}:{identity}", identity.len()));
                }
                let identity = format!("tuple {}", identities.concat());
                Key { name: format!("({})", names.join(", ")), identity }
            }
            (_, Ok(Meaning::Named { text, .. })) => Key::new("name", text),
            (Some(Value::Symbol(symbol)), _) => Key::new("name", symbol.to_string()),
            (_, Ok(Meaning::Scalar(array))) => {
                let text = values::plain(&Meaning::Scalar(array)).map(|value| value.to_string());
                Key::new("number", text.unwrap_or_default())
            }
            _ if self.options.salvage => Key::new("value", format!("#{id:?}")),
            (value, _) => {
                let kind = value.map_or("nothing", Value::kind);
                return self.refuse(Refusal::Key { path: path.join("."), kind });
            }
        })
    }

    /// What is attached to a value: tensors in it are taken, the rest is kept as `_attributes`.
    fn attribute(
        &mut self,
        id: Id,
        kept: &mut Option<Json>,
        path: &mut Vec<String>,
        level: usize,
    ) -> Result<()> {
        // The metadata of a state dict tells versions of modules: torch alone reads it.
        if let Some(Value::Dict(entries)) = self.pickle.value(id)
            && let [(key, _)] = &entries[..]
            && matches!(self.pickle.value(*key), Some(Value::Str(text)) if text == "_metadata")
        {
            return Ok(());
        }
        path.push("_attributes".to_owned());
        let value = self.visit(id, path, level.saturating_add(1))?;
        match (value, kept.as_mut()) {
            (Some(Json::Null), _) => {}
            (Some(value), Some(Json::Object(map))) => drop(map.insert("_attributes".to_owned(), value)),
            (Some(value), _) => self.keep(path.clone(), value),
            (None, _) => {
                // Tensors among the attributes: the value stands beside them.
                if let Some(value) = kept.take() {
                    self.keep(path[..path.len().saturating_sub(1)].to_vec(), value);
                }
            }
        }
        path.pop();
        Ok(())
    }

    /// The parameters, buffers and submodules of a module, without believing its code; of anything
    /// else the attributes.
    fn unknown(
        &mut self,
        object: &tensafe_pickle::Object,
        path: &mut Vec<String>,
        level: usize,
    ) -> Result<Option<Json>> {
        let mut entries = object.entries.clone();
        for state in &object.states {
            match self.pickle.value(*state) {
                Some(Value::Dict(state)) => entries.extend_from_slice(state),
                Some(Value::Tuple(parts)) => {
                    for part in parts {
                        if let Some(Value::Dict(part)) = self.pickle.value(*part) {
                            entries.extend_from_slice(part);
                        }
                    }
                }
                _ => {}
            }
        }
        let named = |walk: &Self, id| match walk.pickle.value(id) {
            Some(Value::Str(text)) => Some(text.clone().into_owned()),
            _ => None,
        };
        let mut flat = Vec::new();
        let mut is_module = false;
        for (key, value) in &entries {
            let parts = ["_parameters", "_buffers", "_modules"];
            if named(self, *key).is_some_and(|name| parts.contains(&name.as_str())) {
                is_module = true;
                match self.pickle.meaning(*value) {
                    Ok(Meaning::Map(inner)) => flat.extend(inner),
                    Ok(Meaning::With { value, .. }) => {
                        if let Meaning::Map(inner) = *value {
                            flat.extend(inner);
                        }
                    }
                    _ => {}
                }
            }
        }
        if is_module {
            entries = flat;
        } else if !self.script {
            // The arguments may hold tensors, too.
            let mut items = object.items.clone();
            if let Some(Value::Tuple(arguments)) = self.pickle.value(object.arguments) {
                items.extend_from_slice(arguments);
            }
            let found = self.items(&items, path, level)?;
            if entries.is_empty() {
                return Ok(found.map(|_| Json::Null));
            }
        }
        self.entries(&entries, path, level)
    }
}

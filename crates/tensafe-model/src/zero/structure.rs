//! What stands around the tensors of a state that tensafe's own engine for DeepSpeed saved: JSON in
//! the metadata of a safetensors file, with the kinds of `integrations/_structure.py`.

use serde_json::{Map, Value as Json};

/// The key of the metadata.
pub(super) const KEY: &str = "tensafe.structure";

/// A state as it would be of a pickle: values, and tensors by the keys that lead to them.
#[derive(Debug, Default)]
pub(super) struct Structure {
    pub(super) values: Map<String, Json>,
    /// Where each tensor stands, and its name in the file.
    pub(super) tensors: Vec<(String, String)>,
}

impl Structure {
    /// Reads the text; `None` where it is no state. The parser bounds how deep it is.
    pub(super) fn read(text: &str) -> Option<Self> {
        let state = serde_json::from_str(text).ok()?;
        let mut structure = Self::default();
        match structure.value(&state, &mut Vec::new())? {
            Some(Json::Object(values)) => Some(Self { values, ..structure }),
            _ => None,
        }
    }

    /// The value, or `Some(None)` for a tensor.
    fn value(&mut self, value: &Json, path: &mut Vec<String>) -> Option<Option<Json>> {
        let object = match value {
            Json::Array(items) => return Some(Some(self.items(items, path)?)),
            Json::Object(object) => object,
            other => return Some(Some(other.clone())),
        };
        let content = object.get("of")?;
        Some(match object.get("is")?.as_str()? {
            "tensor" => {
                self.tensors.push((path.join("."), content.as_str()?.to_owned()));
                None
            }
            "array" | "scalar" => None,
            "tuple" | "size" | "set" | "frozenset" => Some(self.items(content.as_array()?, path)?),
            "dict" | "ordered" | "record" => Some(self.entries(content.as_array()?, path)?),
            _ => Some(content.clone()),
        })
    }

    fn entries(&mut self, pairs: &[Json], path: &mut Vec<String>) -> Option<Json> {
        let mut map = Map::new();
        for pair in pairs {
            let [key, value] = pair.as_array()?.as_slice() else { return None };
            let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            path.push(key.clone());
            if let Some(value) = self.value(value, path)? {
                map.insert(key, value);
            }
            path.pop();
        }
        Some(Json::Object(map))
    }

    /// Items in their places: a tensor among them is null.
    fn items(&mut self, items: &[Json], path: &mut Vec<String>) -> Option<Json> {
        let mut found = Vec::with_capacity(items.len());
        for (place, item) in items.iter().enumerate() {
            path.push(place.to_string());
            found.push(self.value(item, path)?.unwrap_or_default());
            path.pop();
        }
        Some(Json::Array(found))
    }
}

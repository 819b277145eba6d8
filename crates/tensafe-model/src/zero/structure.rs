//! What stands around the tensors of a state that tensafe's own engine for DeepSpeed saved: JSON in
//! the metadata of a safetensors file, with the kinds of `integrations/_structure.py`.

use serde_json::{Map, Value as Json};

/// The key of the metadata.
pub(super) const KEY: &str = "tensafe.structure";

/// The values of a state as they would be of a pickle, tensors left out; `None` where the text is no
/// state. The parser bounds how deep it is.
pub(super) fn values(text: &str) -> Option<Map<String, Json>> {
    let state = serde_json::from_str(text).ok()?;
    match plain(&state)? {
        Some(Json::Object(values)) => Some(values),
        _ => None,
    }
}

/// The value, or `Some(None)` for a tensor.
fn plain(value: &Json) -> Option<Option<Json>> {
    let object = match value {
        Json::Array(items) => return Some(Some(Json::Array(each(items)?))),
        Json::Object(object) => object,
        other => return Some(Some(other.clone())),
    };
    let content = object.get("of")?;
    Some(match object.get("is")?.as_str()? {
        "tensor" | "array" | "scalar" => None,
        "tuple" | "size" | "set" | "frozenset" => Some(Json::Array(each(content.as_array()?)?)),
        "dict" | "ordered" | "record" => {
            let mut map = Map::new();
            for pair in content.as_array()? {
                let [key, value] = pair.as_array()?.as_slice() else { return None };
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                if let Some(value) = plain(value)? {
                    map.insert(key, value);
                }
            }
            Some(Json::Object(map))
        }
        _ => Some(content.clone()),
    })
}

/// Items in their places: a tensor among them is null.
fn each(items: &[Json]) -> Option<Vec<Json>> {
    items.iter().map(|item| plain(item).map(Option::unwrap_or_default)).collect()
}

//! Values that are no tensors, as JSON.

use serde_json::{Map, Number, Value as Json, json};
use tensafe_pickle::{ArrayData, Bytes, Meaning};

/// Bytes that are spelled out; longer ones are counted.
const SPELLED_BYTES: usize = 4096;

/// What a value without parts is as JSON; `None` for one that has parts or is a tensor.
pub(super) fn plain(meaning: &Meaning<'_>) -> Option<Json> {
    Some(match meaning {
        Meaning::None => Json::Null,
        Meaning::Bool(value) => Json::Bool(*value),
        Meaning::Int(value) => json!(value),
        Meaning::Long(bytes) => Json::String(long(bytes)),
        Meaning::Float(value) => float(*value),
        Meaning::Str(text) => Json::String((*text).to_owned()),
        Meaning::Bytes(Bytes::Near(bytes)) if bytes.len() <= SPELLED_BYTES => json!({ "hex": hex(bytes) }),
        Meaning::Bytes(bytes) => json!({ "bytes": bytes.len() }),
        Meaning::Named { text, .. } => Json::String(text.clone()),
        Meaning::Symbol(symbol) => Json::String(symbol.to_string()),
        Meaning::Scalar(array) => scalar(array)?,
        _ => return None,
    })
}

/// JSON has no word for what is not finite: Python's words stand as text.
pub(super) fn float(value: f64) -> Json {
    match Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None if value.is_nan() => Json::String("NaN".to_owned()),
        None => Json::String(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A large integer in decimal digits where 128 bits hold it, else in hexadecimal ones.
fn long(bytes: &[u8]) -> String {
    if bytes.len() <= 16 {
        let sign = bytes.last().map_or(0, |last| if *last >= 0x80 { 0xff } else { 0 });
        let mut full = [sign; 16];
        for (place, byte) in full.iter_mut().zip(bytes) {
            *place = *byte;
        }
        return i128::from_le_bytes(full).to_string();
    }
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    format!("0x{}", hex(&reversed))
}

fn scalar(array: &tensafe_pickle::Array<'_>) -> Option<Json> {
    let ArrayData::Bytes(Bytes::Near(bytes)) = &array.data else { return None };
    let mut digits = bytes.to_vec();
    if array.number.big_endian {
        digits.reverse();
    }
    let unsigned =
        |digits: &[u8]| digits.iter().rev().fold(0u64, |value, digit| (value << 8) | u64::from(*digit));
    Some(match (array.number.kind, digits.len()) {
        ('b', 1) => Json::Bool(digits != [0]),
        ('u', 1..=8) => json!(unsigned(&digits)),
        ('i', length @ 1..=8) => {
            let unused = 64usize.saturating_sub(length.saturating_mul(8));
            json!((unsigned(&digits) << unused).cast_signed() >> unused)
        }
        ('f', 2) => float(half::f16::from_le_bytes([digits[0], digits[1]]).to_f64()),
        ('f', 4) => float(f64::from(f32::from_le_bytes(digits[..].try_into().ok()?))),
        ('f', 8) => float(f64::from_le_bytes(digits[..].try_into().ok()?)),
        ('S', _) => Json::String(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()),
        _ => json!({ "dtype": array.number.to_string(), "hex": hex(bytes) }),
    })
}

/// The values as one document: objects within objects, by their paths.
pub(crate) fn nested(values: &[super::FoundValue]) -> Json {
    let mut root = Json::Object(Map::new());
    for found in values {
        if found.path.is_empty() {
            return found.value.clone();
        }
        let mut place = &mut root;
        for key in &found.path {
            if !place.is_object() {
                *place = Json::Object(Map::new());
            }
            let Json::Object(map) = place else { break };
            place = map.entry(key.clone()).or_insert(Json::Null);
        }
        *place = found.value.clone();
    }
    root
}

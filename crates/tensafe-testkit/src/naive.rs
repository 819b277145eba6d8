//! Readers that are slow and obvious: every step allocates, nothing is clever, and what they say
//! can be checked by reading them once.
//!
//! They expect a valid file or index: telling a valid one from a flawed one is not their business.

use std::collections::BTreeMap;

use serde_json::Value;
use tensafe_format::Index;

/// A whole file, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiveFile {
    /// The tensors by name. Of several entries of one name, the last.
    pub tensors: BTreeMap<String, NaiveTensor>,
    /// The metadata, if there is an object of that name.
    pub metadata: Option<BTreeMap<String, String>>,
}

/// One tensor, as the file spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiveTensor {
    /// The name of the dtype.
    pub dtype: String,
    /// The shape, row-major, in elements.
    pub shape: Vec<u64>,
    /// The tensor's bytes, counted from the start of the data section, half-open.
    pub data_offsets: (u64, u64),
    /// The bytes.
    pub data: Vec<u8>,
}

/// Takes a valid file apart; `None` where that can't be done.
#[must_use]
pub fn read(file: &[u8]) -> Option<NaiveFile> {
    let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    let (header, data) = file.get(8..)?.split_at_checked(length)?;
    let header: Value = serde_json::from_slice(header).ok()?;

    let mut metadata = None;
    let mut tensors = BTreeMap::new();
    for (name, value) in header.as_object()? {
        if name == "__metadata__" {
            let strings = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            metadata = match value {
                Value::Null => None,
                other => Some(other.as_object()?.iter().map(strings).collect::<Option<_>>()?),
            };
        } else {
            tensors.insert(name.clone(), tensor(value, data)?);
        }
    }
    Some(NaiveFile { tensors, metadata })
}

fn tensor(entry: &Value, data: &[u8]) -> Option<NaiveTensor> {
    // An entry is an object or, leniently, an array of its three values.
    let field = |name: &str, place: usize| entry.get(name).or_else(|| entry.get(place));
    let integers = |value: &Value| value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>();

    let dtype = match field("dtype", 0)? {
        Value::String(name) => name.clone(),
        Value::Object(leniently) => leniently.keys().next()?.clone(),
        _ => return None,
    };
    let shape = integers(field("shape", 1)?)?;
    let offsets = integers(field("data_offsets", 2)?)?;
    let [begin, end] = offsets[..] else { return None };
    let bytes = data.get(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)?;
    Some(NaiveTensor { dtype, shape, data_offsets: (begin, end), data: bytes.to_vec() })
}

/// A part of a tensor, element by element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiveRegion {
    /// The shape of the part.
    pub shape: Vec<u64>,
    /// The places of its elements in the tensor, row-major, counted in elements.
    pub elements: Vec<u64>,
}

/// The elements that `index` picks of a tensor of `shape`, by the rules of numpy (bounds beyond the
/// end mean the end); `None` where numpy refuses. The cost is that of the elements.
///
/// # Panics
/// Where a dimension is greater than `i64::MAX`.
#[must_use]
pub fn select(shape: &[u64], index: &[Index]) -> Option<NaiveRegion> {
    let ellipses = index.iter().filter(|item| **item == Index::Ellipsis).count();
    let named = index.len() - ellipses;
    if ellipses > 1 || named > shape.len() {
        return None;
    }
    let mut items = Vec::new();
    for item in index {
        match item {
            Index::Ellipsis => items.extend(vec![Index::FULL; shape.len() - named]),
            other => items.push(*other),
        }
    }
    items.resize(shape.len(), Index::FULL);

    let mut kept = Vec::new();
    let mut elements = vec![0u64];
    for (item, size) in items.iter().zip(shape) {
        let positions = match item {
            Index::At(at) => vec![position(*at, *size)?],
            Index::Range { start, stop, step } => {
                let picked = positions(*start, *stop, *step, *size)?;
                kept.push(picked.len() as u64);
                picked
            }
            Index::Ellipsis => unreachable!("expanded above"),
        };
        let step_into = |outer: &u64| positions.iter().map(move |p| outer * size + p).collect::<Vec<_>>();
        elements = elements.iter().flat_map(step_into).collect();
    }
    Some(NaiveRegion { shape: kept, elements })
}

fn position(at: i64, size: u64) -> Option<u64> {
    let from_start = if at < 0 { i128::from(at) + i128::from(size) } else { i128::from(at) };
    u64::try_from(from_start).ok().filter(|place| *place < size)
}

fn positions(start: Option<i64>, stop: Option<i64>, step: u64, size: u64) -> Option<Vec<u64>> {
    if step == 0 {
        return None;
    }
    let size = i64::try_from(size).expect("a dimension that fits");
    let bound = |b: i64| if b < 0 { b.saturating_add(size).max(0) } else { b.min(size) };
    let (start, stop) = (bound(start.unwrap_or(0)), bound(stop.unwrap_or(size)));
    Some(
        (start..stop)
            .map(i64::unsigned_abs)
            .filter(|p| (p - start.unsigned_abs()).is_multiple_of(step))
            .collect(),
    )
}

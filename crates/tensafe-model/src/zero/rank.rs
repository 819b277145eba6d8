//! One file of a checkpoint: its pickle, read as any other, and what of it is asked for.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value as Json;
use tensafe_io::{FileSource, Source};
use tensafe_pickle::Element;

use super::{
    Result, mismatch,
    parts::{Part, Reopened},
    structure::{self, Structure},
};
use crate::{
    Error, Pickled, PickledOptions,
    gather::{Gather, elements},
    pickled::{FoundTensor, FoundValue, Placed, SeenSymbol, nested},
};

/// A file of a rank, open.
pub(super) struct RankFile {
    pub(super) path: PathBuf,
    pub(super) pickled: Pickled,
    values: Json,
    places: HashMap<String, usize>,
    closed: Arc<Reopened>,
}

/// A flat tensor in a file of a rank.
pub(super) struct Flat {
    pub(super) part: Part,
    pub(super) element: Element,
    pub(super) count: u64,
}

impl Flat {
    /// The elements `start..end`, within it.
    pub(super) fn cut(&self, start: u64, end: u64) -> Part {
        let width = self.element.bytes();
        self.part.cut(start.saturating_mul(width)..end.saturating_mul(width))
    }
}

impl RankFile {
    pub(super) fn open(path: &Path, options: &PickledOptions) -> Result<Self> {
        let closed = Arc::new(Reopened::new(path)?);
        let mut pickled = Pickled::open(path, options)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        for SeenSymbol { member, .. } in &mut pickled.symbols {
            *member = if member.is_empty() { file.clone().into_owned() } else { format!("{file}!{member}") };
        }
        let mut places: HashMap<String, usize> =
            pickled.names().enumerate().map(|(place, name)| (name.to_owned(), place)).collect();
        if let Some(text) = pickled.metadata.get(structure::KEY) {
            let state = Structure::read(text);
            let state =
                state.ok_or_else(|| mismatch(path, structure::KEY, "no state", "one as it is saved"))?;
            let found = |(key, value)| FoundValue { path: vec![key], value };
            pickled.values = state.values.into_iter().map(found).collect();
            // A tensor that stands in two places has one name.
            let named = state.tensors.into_iter();
            let named: Vec<_> = named.filter_map(|(key, name)| Some((key, *places.get(&name)?))).collect();
            places.extend(named);
        }
        let values = nested(pickled.values());
        // From here on each read is compared with what was there before the first.
        pickled.check_unchanged()?;
        Ok(Self { path: path.to_owned(), pickled, values, places, closed })
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&FoundTensor> {
        self.places.get(name).and_then(|place| self.pickled.tensors.get(*place))
    }

    /// The value under these keys; `None` where it is `None`, too.
    pub(super) fn value(&self, keys: &[&str]) -> Option<&Json> {
        keys.iter().try_fold(&self.values, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    /// The same, refused where it is not there.
    pub(super) fn needed(&self, keys: &[&str], needed: &str) -> Result<&Json> {
        self.value(keys).ok_or_else(|| mismatch(&self.path, keys.join("."), "nothing", needed))
    }

    /// Where the storage of a tensor is, without keeping the file open for it.
    pub(super) fn placed(&self, tensor: &FoundTensor) -> Result<Placed> {
        let storages = &self.pickled.storages;
        let Some(placed) = storages.get(tensor.storage) else {
            return Err(mismatch(&self.path, &*tensor.name, "no storage", "one"));
        };
        // What was decompressed is in memory, or in a file that has no name.
        let Some((file, base)) = placed.source.as_file() else { return Ok(placed.clone()) };
        let copy = file.try_clone().map_err(|e| tensafe_io::Error::from_os("open", &self.path, e))?;
        let same = FileSource::from_file(copy, &self.path)?.identity()? == self.closed.identity()?;
        let start = base.checked_add(placed.range.start);
        let end = base.checked_add(placed.range.end);
        match (same, start, end) {
            (true, Some(start), Some(end)) => {
                let source: Arc<dyn Source> = Arc::<Reopened>::clone(&self.closed);
                Ok(Placed { source, range: start..end, ..placed.clone() })
            }
            _ => Ok(placed.clone()),
        }
    }

    /// The bytes of a tensor, one run, and its elements.
    pub(super) fn flat(&self, tensor: &FoundTensor) -> Result<Flat> {
        let placed = self.placed(tensor)?;
        let run = Gather::new(tensor, &placed, None).run();
        let (Some(range), Some(count)) = (run, elements(&tensor.shape)) else {
            let found = "elements that are strided or of another byte order";
            return Err(mismatch(&self.path, &*tensor.name, found, "one run"));
        };
        let float = matches!(tensor.element, Element::F64 | Element::F32 | Element::F16 | Element::BF16);
        if !float {
            let needed = "a float of 16, 32 or 64 bits";
            return Err(mismatch(&self.path, &*tensor.name, format!("torch.{}", tensor.element), needed));
        }
        Ok(Flat { part: Part { source: placed.source, range }, element: tensor.element, count })
    }

    /// A number that is there.
    pub(super) fn number(&self, what: &str, value: &Json) -> Result<u64> {
        value.as_u64().ok_or_else(|| mismatch(&self.path, what, value, "a number, not negative"))
    }

    /// The lengths of a shape whose elements can be counted.
    pub(super) fn shape(&self, what: &str, value: &Json) -> Result<Vec<u64>> {
        let wrong = || mismatch(&self.path, what, value, "a shape of less than 2^63 elements");
        let lengths = value.as_array().ok_or_else(wrong)?;
        let shape: Option<Vec<u64>> = lengths.iter().map(Json::as_u64).collect();
        let shape = shape.ok_or_else(wrong)?;
        let count = elements(&shape).filter(|count| *count <= i64::MAX.unsigned_abs());
        count.ok_or_else(wrong)?;
        Ok(shape)
    }
}

/// Elements of a shape that [`RankFile::shape`] has counted.
pub(super) fn numel(shape: &[u64]) -> u64 {
    elements(shape).unwrap_or(u64::MAX)
}

/// The same error of all parts of a tensor: floats that differ.
pub(super) fn same_element(path: &Path, what: &str, found: Element, needed: Element) -> Result<(), Error> {
    if found == needed {
        return Ok(());
    }
    Err(mismatch(path, what, format!("torch.{found}"), format!("torch.{needed}, as on rank 0")))
}

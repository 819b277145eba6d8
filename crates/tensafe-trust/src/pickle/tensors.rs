//! Tensors and the storages that they walk over: a loader that believes what the pickle says of them
//! reads or writes memory that is not theirs.

use std::collections::HashMap;

use tensafe_pickle::{Element, Meaning, Pickle, Quantizer, Storage, StorageAt, Tensor};

use crate::{
    Finding, Rule,
    preview::named,
    scan::{Place, Scan},
};

/// torch knows no tensor of more dimensions.
const MOST_DIMENSIONS: usize = 64;
/// A tensor may have so many times the elements of its storage.
const MOST_EXPANSION: u64 = 1 << 20;

/// The storages of one pickle, as its references describe them.
#[derive(Debug, Default)]
pub(super) struct Storages {
    seen: HashMap<String, (Option<Element>, u64)>,
}

impl Storages {
    /// Judges what a value means, where it is a tensor or a storage.
    pub(super) fn judge(
        &mut self,
        pickle: &Pickle<'_>,
        meaning: &Meaning<'_>,
        place: Place<'_>,
        scan: &mut Scan<'_>,
    ) {
        match meaning {
            Meaning::Tensor(found) => tensor(found, place, scan),
            Meaning::Quantized { tensor: found, quantizer } => {
                tensor(found, place, scan);
                if let Quantizer::Channel { axis, .. } | Quantizer::Channels { axis, .. } = quantizer
                    && usize::try_from(*axis).map_or(true, |axis| axis >= found.shape.len())
                {
                    let text = format!("a quantized tensor has no dimension {axis}");
                    scan.add(place, Finding::new(Rule::StorageMismatch, text));
                }
            }
            Meaning::Sparse { indices, .. } => {
                for id in indices {
                    let integers = |element| matches!(element, Some(Element::I64 | Element::I32));
                    if let Ok(Meaning::Tensor(found)) = pickle.meaning(*id)
                        && !integers(found.element)
                    {
                        let text = "the indices of a sparse tensor are no integers";
                        scan.add(place, Finding::new(Rule::StorageMismatch, text));
                    }
                }
            }
            Meaning::With { value, .. } => self.judge(pickle, value, place, scan),
            Meaning::Storage(found) => self.storage(found, place, scan),
            _ => {}
        }
    }

    fn storage(&mut self, storage: &Storage<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
        let StorageAt::Key { key, location, count, view } = &storage.at else { return };
        let mut add = |text: String| scan.add(place, Finding::new(Rule::StorageMismatch, text));
        let bytes = count.checked_mul(storage.element.map_or(1, Element::bytes));
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
            add(format!("the name of a storage is {}", named(key)));
        }
        if !is_device(location) {
            add(format!("a storage is on the device {}", named(location)));
        }
        if bytes.is_none() {
            add(format!("storage {} has {count} elements, more than any memory", named(key)));
        }
        if let Some(view) = view {
            let end = view.offset.checked_add(view.count).filter(|end| end <= count);
            if end.is_none() || view.key == *key {
                let (from, all) = (view.offset, view.count);
                add(format!("a view of {all} elements from {from} on does not fit storage {}", named(key)));
            }
        }
        let known = self.seen.entry((*key).to_owned()).or_insert((storage.element, *count));
        if *known != (storage.element, *count) {
            add(format!("storage {} is described in two ways", named(key)));
        }
        let there = scan.storages.as_ref().map(|storages| storages.get(*key).copied());
        match there {
            Some(None) => {
                let text = format!("storage {} is not in the file", named(key));
                scan.add(place, Finding::new(Rule::StorageMismatch, text));
            }
            Some(Some(there)) if bytes.is_some_and(|bytes| bytes != there) => {
                let bytes = bytes.unwrap_or_default();
                let text = format!("storage {} has {there} bytes, the pickle says {bytes}", named(key));
                scan.add(place, Finding::new(Rule::StorageMismatch, text));
            }
            _ => {}
        }
    }
}

/// `cpu`, `cuda:0`.
fn is_device(location: &str) -> bool {
    let (kind, number) = location.split_once(':').unwrap_or((location, "0"));
    kind != "meta"
        && !kind.is_empty()
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && number.bytes().all(|b| b.is_ascii_digit())
}

fn tensor(tensor: &Tensor<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut add = |rule, text: String| scan.add(place, Finding::new(rule, text));
    let shape = &tensor.shape;
    if shape.len() > MOST_DIMENSIONS {
        add(Rule::StorageMismatch, format!("a tensor has {} dimensions", shape.len()));
    }
    if shape.contains(&0) && shape.iter().any(|length| *length > 1 << 48) {
        add(Rule::Exhausts, format!("a tensor without elements has a shape of {shape:?}"));
    }
    if tensor.strides.iter().any(|stride| *stride < 0) {
        add(Rule::StorageMismatch, format!("a tensor has the strides {:?}", tensor.strides));
    }
    let StorageAt::Key { key, count, view, .. } = &tensor.storage.at else { return };
    let count = view.as_ref().map_or(*count, |view| view.count);
    let per_storage = tensor.storage.element.map_or(1, Element::bytes);
    let per_tensor = tensor.element.map_or(per_storage, Element::bytes);
    let there = count.checked_mul(per_storage);
    let needed = tensor.extent().and_then(|extent| extent.end.checked_mul(per_tensor));
    match (needed, there) {
        (Some(needed), Some(there)) if needed <= there => {}
        // What the storage says of itself is told there.
        (_, None) => {}
        (needed, Some(there)) => {
            let needed = needed.map_or_else(|| "more than can be counted".to_owned(), |n| n.to_string());
            let text = format!("a tensor needs {needed} bytes of storage {}, which has {there}", named(key));
            add(Rule::StorageMismatch, text);
        }
    }
    let elements = tensor.elements().unwrap_or(u64::MAX);
    if elements > count.max(1).saturating_mul(MOST_EXPANSION) {
        let text = format!("{elements} elements of a tensor lie on {count} of its storage");
        add(Rule::Exhausts, text);
    }
}

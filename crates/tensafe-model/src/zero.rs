//! Checkpoints of DeepSpeed's ZeRO: a model whose parameters lie in pieces in the files of many
//! ranks, seen as one [`Pickled`].
//!
//! The files are pickles, which are read as all others are. What they hold is what
//! `zero_to_fp32.py` looks for: the shapes of the parameters, and flat float32 tensors that hold
//! them one after the other. Nothing is copied here: a parameter is a list of byte ranges.
//!
//! Every piece that exists lies within the tensor of its rank's file, and the pieces of a parameter
//! are exactly its elements.

mod flat;
mod folder;
mod model;
mod parts;
mod rank;
mod structure;
mod universal;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, path::Path};

use tensafe_format::Dtype;
use tensafe_pickle::Element;

use self::{
    folder::{Folder, Layout},
    model::ModelStates,
    parts::Part,
};
use crate::{
    Error, Pickled, PickledOptions,
    pickled::{FoundTensor, Placed, Refusal},
};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Tensors that a note names; the others are counted.
const NAMED_TENSORS: usize = 4;

/// The checkpoint of DeepSpeed at `path`; `None` where there is none.
pub(crate) fn open(path: &Path, options: &PickledOptions) -> Result<Option<Pickled>> {
    let Some(folder) = Folder::find(path)? else { return Ok(None) };
    let mut whole = Whole::new(&folder);
    match folder.layout {
        Layout::Partitioned => flat::gather(&folder, options, &mut whole)?,
        Layout::Universal => universal::gather(&folder, options, &mut whole)?,
    }
    Ok(Some(whole.pickled))
}

/// What does not fit: the file or the folder, what in it, what was found, what was needed.
#[cold]
fn mismatch(path: &Path, what: impl Into<String>, found: impl ToString, needed: impl ToString) -> Error {
    let refusal =
        Refusal::Mismatch { what: what.into(), found: found.to_string(), needed: needed.to_string() };
    Error::refused(Some(path), refusal)
}

/// The checkpoint as it is put together.
struct Whole<'f> {
    folder: &'f Folder,
    pickled: Pickled,
    places: HashMap<String, usize>,
}

impl<'f> Whole<'f> {
    fn new(folder: &'f Folder) -> Self {
        let mut pickled = Pickled::default();
        pickled.torch = true;
        pickled.dtype = Some(Dtype::F32);
        Self { folder, pickled, places: HashMap::new() }
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn push(&mut self, tensor: FoundTensor) -> Result<()> {
        let name = tensor.name.clone();
        if self.places.insert(name.clone(), self.pickled.tensors.len()).is_some() {
            return Err(Error::refused(Some(&self.folder.path), Refusal::Collision { name }));
        }
        self.pickled.tensors.push(tensor);
        Ok(())
    }

    /// A tensor whose bytes are these parts, one after the other.
    fn add(&mut self, name: &str, element: Element, shape: &[u64], parts: Vec<Part>) -> Result<()> {
        let (source, range) = parts::join(parts);
        self.pickled.storages.push(Placed { source, range, big_endian: false });
        self.push(FoundTensor {
            name: name.to_owned(),
            element,
            shape: shape.to_vec(),
            strides: row_major(shape),
            offset: 0,
            storage: self.pickled.storages.len().saturating_sub(1),
            conjugate: false,
            negative: false,
        })
    }

    /// The buffers of the model, which every rank has whole.
    fn buffers(&mut self, model: &ModelStates) -> Result<()> {
        let mut storages = HashMap::new();
        for name in &model.buffers {
            let Some(found) = model.file.tensor(&format!("module.{name}")) else {
                self.pickled.notes.push(format!("buffer `{name}` is named and not there"));
                continue;
            };
            let storage = match storages.get(&found.storage) {
                Some(place) => *place,
                None => {
                    self.pickled.storages.push(model.file.placed(found)?);
                    let place = self.pickled.storages.len().saturating_sub(1);
                    storages.insert(found.storage, place);
                    place
                }
            };
            self.push(FoundTensor { name: name.clone(), storage, ..found.clone() })?;
        }
        Ok(())
    }

    /// Second names of parameters, once the parameters are there.
    fn shared(&mut self, model: &ModelStates) -> Result<()> {
        for (name, owner) in &model.shared {
            let found = self.places.get(owner).and_then(|place| self.pickled.tensors.get(*place));
            match found.cloned() {
                Some(found) => self.push(FoundTensor { name: name.clone(), ..found })?,
                None => self.pickled.notes.push(format!("`{name}` shares `{owner}`, which is not there")),
            }
        }
        Ok(())
    }

    /// Says what the model has and its optimizer does not.
    fn note_others(&mut self, model: &ModelStates) {
        let tensors = model.file.pickled.tensors.iter().filter(|tensor| !tensor.shape.contains(&0));
        let names = tensors.filter_map(|tensor| tensor.name.strip_prefix("module."));
        let others: Vec<&str> = names.filter(|name| !self.has(name)).collect();
        if others.is_empty() {
            return;
        }
        let named: Vec<String> = others.iter().take(NAMED_TENSORS).map(|name| format!("`{name}`")).collect();
        let named = named.join(", ");
        let more = match others.len().saturating_sub(NAMED_TENSORS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.pickled.notes.push(format!("left out, the optimizer has no part of them: {named}{more}"));
    }

    /// What the file of the model says beside its tensors, and what the pickles named.
    fn keep(&mut self, model: ModelStates) {
        let Pickled { values, mut symbols, mut notes, .. } = model.file.pickled;
        self.pickled.values = values;
        self.pickled.symbols.append(&mut symbols);
        self.pickled.notes.append(&mut notes);
    }
}

/// Elements from one to the next in each dimension, for a tensor without gaps.
fn row_major(shape: &[u64]) -> Vec<i64> {
    let mut step = 1i64;
    let mut strides: Vec<i64> = shape
        .iter()
        .rev()
        .map(|length| {
            let stride = step;
            step = step.saturating_mul(i64::try_from(*length).unwrap_or(i64::MAX).max(1));
            stride
        })
        .collect();
    strides.reverse();
    strides
}

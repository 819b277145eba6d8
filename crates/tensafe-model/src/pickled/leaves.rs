//! Tensors of all kinds, each with its storage found and its places checked.

use std::sync::Arc;

use serde_json::Value as Json;
use tensafe_container::{ByteOrder, Descr, Npy, decompress, detect};
use tensafe_io::{Buffer, MemorySource, Source};
use tensafe_pickle::{Array, ArrayData, Element, Id, Number, Quantizer, Storage, Tensor, Value};

use super::{
    FoundTensor, Placed, Refusal,
    flatten::{Result, Walk},
    open,
    storages::Storages,
};
use crate::{Error, gather::elements};

/// The name of a tensor that has none: the whole value of a file.
const NAMELESS: &str = "tensor";

pub(super) fn name_of(path: &[String]) -> String {
    if path.is_empty() { NAMELESS.to_owned() } else { path.join(".") }
}

impl<'w> Walk<'w, '_> {
    pub(super) fn tensor(&mut self, tensor: &Tensor<'_>, path: &[String]) -> Result<Option<Json>> {
        let found = self.strided(tensor, path)?;
        self.into.tensors.push(found);
        Ok(None)
    }

    /// A tensor whose every element lies within its storage.
    pub(super) fn strided(&mut self, tensor: &Tensor<'_>, path: &[String]) -> Result<FoundTensor> {
        let storage = self.find(&tensor.storage, path)?;
        let name = name_of(path);
        let Some(element) = tensor.element.or(storage.element) else {
            return self.refuse(Refusal::Typeless { path: name });
        };
        // A storage without a type counts bytes; a view of another type counts its own elements.
        let bytes = storage.count.saturating_mul(storage.element.map_or(1, Element::bytes));
        let elements = bytes / element.bytes();
        let Some(extent) = tensor.extent() else { return self.refuse(Refusal::Overflow { path: name }) };
        if extent.end > elements && extent.start != extent.end {
            let (first, end) = (extent.start, extent.end);
            return self.refuse(Refusal::Beyond { path: name, first, end, elements });
        }
        // The start of a view counts elements of the storage, the offset those of the tensor.
        if storage.start > 0 && storage.element.map_or(1, Element::bytes) != element.bytes() {
            return self.refuse(Refusal::View { path: name });
        }
        let Some(offset) = storage.start.checked_add(tensor.offset) else {
            return self.refuse(Refusal::Overflow { path: name });
        };
        Ok(FoundTensor {
            name,
            element,
            shape: tensor.shape.clone(),
            strides: tensor.strides.clone(),
            offset: if extent.is_empty() { 0 } else { offset },
            storage: storage.place,
            conjugate: tensor.conjugate,
            negative: tensor.negative,
        })
    }

    /// A storage that no tensor stands around is a tensor of one dimension.
    pub(super) fn storage_alone(&mut self, storage: &Storage<'_>, path: &[String]) -> Result<Option<Json>> {
        let found = self.find(storage, path)?;
        self.into.tensors.push(FoundTensor {
            name: name_of(path),
            element: found.element.unwrap_or(Element::U8),
            shape: vec![found.count],
            strides: vec![1],
            offset: found.start,
            storage: found.place,
            conjugate: false,
            negative: false,
        });
        Ok(None)
    }

    /// A reference out of the pickle: the oldest files number their tensors.
    pub(super) fn persistent(&mut self, id: Id, path: &[String]) -> Result<Option<Json>> {
        let missing = Refusal::Persistent { path: path.join(".") };
        let number = match self.pickle.value(id) {
            Some(Value::Int(number)) => Some(*number),
            Some(Value::Str(text)) => text.parse().ok(),
            _ => None,
        };
        let Storages::Numbered { source, storages, tensors } = self.storages else {
            return self.refuse(missing);
        };
        let tensor = tensors.iter().find(|tensor| Some(tensor.key) == number);
        let Some(tensor) = tensor else { return self.refuse(missing) };
        let storage = storages.iter().find(|storage| storage.key == tensor.storage);
        let Some(storage) = storage else { return self.refuse(missing) };
        let key = storage.key.to_string();
        let place = match self.known.get(&key) {
            Some(place) => *place,
            None => {
                let (source, range) = (Arc::clone(source), storage.range.clone());
                let place = self.push(Placed { source, range, big_endian: false });
                self.known.insert(key, place);
                place
            }
        };
        self.walked(place, storage.element, tensor.offset, &tensor.shape, &tensor.strides, path)
    }

    fn walked(
        &mut self,
        place: usize,
        element: Element,
        offset: u64,
        shape: &[u64],
        strides: &[i64],
        path: &[String],
    ) -> Result<Option<Json>> {
        let storage = Storage {
            at: tensafe_pickle::StorageAt::Key { key: "", location: "cpu", count: 0, view: None },
            element: Some(element),
        };
        let tensor = Tensor {
            storage,
            element: Some(element),
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            conjugate: false,
            negative: false,
        };
        let name = name_of(path);
        let elements = self.bytes_of(place) / element.bytes();
        let Some(extent) = tensor.extent() else { return self.refuse(Refusal::Overflow { path: name }) };
        if extent.end > elements && !extent.is_empty() {
            let (first, end) = (extent.start, extent.end);
            return self.refuse(Refusal::Beyond { path: name, first, end, elements });
        }
        self.into.tensors.push(FoundTensor {
            name,
            element,
            shape: tensor.shape,
            strides: tensor.strides,
            offset: if extent.is_empty() { 0 } else { offset },
            storage: place,
            conjugate: false,
            negative: false,
        });
        Ok(None)
    }

    /// The integers, and beside them what they stand for.
    pub(super) fn quantized(
        &mut self,
        tensor: &Tensor<'_>,
        quantizer: Quantizer<'_>,
        path: &mut Vec<String>,
    ) -> Result<Option<Json>> {
        self.tensor(tensor, path)?;
        let mut beside = |walk: &mut Self, part: &str, bytes: [u8; 8], element| {
            path.push(part.to_owned());
            let number = walk.number(bytes, element, name_of(path));
            walk.into.tensors.push(number);
            path.pop();
        };
        match quantizer {
            Quantizer::Tensor { scale, zero_point } => {
                beside(self, "scale", scale.to_le_bytes(), Element::F64);
                beside(self, "zero_point", zero_point.to_le_bytes(), Element::I64);
            }
            Quantizer::Channels { scales, zero_points, axis } => {
                beside(self, "axis", axis.to_le_bytes(), Element::I64);
                let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                let zero_points = zero_points.iter().flat_map(|zero| zero.to_le_bytes()).collect();
                for (part, bytes, element) in
                    [("scale", scales, Element::F64), ("zero_point", zero_points, Element::I64)]
                {
                    path.push(part.to_owned());
                    let numbers = self.numbers(bytes, element, name_of(path));
                    self.into.tensors.push(numbers);
                    path.pop();
                }
            }
            Quantizer::Channel { scales, zero_points, axis } => {
                beside(self, "axis", axis.to_le_bytes(), Element::I64);
                for (part, tensor) in [("scale", scales), ("zero_point", zero_points)] {
                    path.push(part.to_owned());
                    self.tensor(&tensor, path)?;
                    path.pop();
                }
            }
        }
        Ok(None)
    }

    /// One number as a tensor without dimensions.
    fn number(&mut self, bytes: [u8; 8], element: Element, name: String) -> FoundTensor {
        let numbers = self.numbers(bytes.to_vec(), element, name);
        FoundTensor { shape: Vec::new(), strides: Vec::new(), ..numbers }
    }

    /// Numbers of 8 bytes as a tensor of one dimension.
    fn numbers(&mut self, bytes: Vec<u8>, element: Element, name: String) -> FoundTensor {
        let count = bytes.len() as u64 / 8;
        let source: Arc<dyn Source> = Arc::new(MemorySource::new(Buffer::from_owner(bytes)));
        let storage = self.push(Placed { range: 0..source.len(), source, big_endian: false });
        FoundTensor {
            name,
            element,
            shape: vec![count],
            strides: vec![1],
            offset: 0,
            storage,
            conjugate: false,
            negative: false,
        }
    }

    pub(super) fn array(&mut self, array: &Array<'w>, path: &[String]) -> Result<Option<Json>> {
        match &array.data {
            ArrayData::File { name, bare } => {
                let shaped = bare.then_some(array);
                self.array_file(name, shaped, path)
            }
            // What an array of objects holds is walked over as a list.
            ArrayData::Objects(_) | ArrayData::Bytes(_) if array.number.has_objects => {
                let number = "Python's objects".into();
                self.take_array(Err(Refusal::Array { path: path.join("."), number }), path)
            }
            ArrayData::Objects(_) => {
                let number = "no numbers".into();
                self.take_array(Err(Refusal::Array { path: path.join("."), number }), path)
            }
            ArrayData::Bytes(bytes) => {
                let source = open::bytes_source(&self.stream, bytes)?;
                let found = numbers(source, array.number, &array.shape, array.fortran, name_of(path));
                self.take_array(found, path)
            }
        }
    }

    pub(super) fn take_array(
        &mut self,
        found: Result<(FoundTensor, Placed), Refusal>,
        path: &[String],
    ) -> Result<Option<Json>> {
        match found {
            Ok((mut tensor, placed)) => {
                tensor.storage = self.push(placed);
                self.into.tensors.push(tensor);
                Ok(None)
            }
            Err(Refusal::Array { number, .. }) if self.options.salvage => {
                self.note(path, &format!("left out: an array of {number}"));
                Ok(Some(Json::Null))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// joblib before 0.10 wrote each array as a file beside the pickle: a `.npy` file, or the numbers
    /// of `shaped`, compressed.
    fn array_file(
        &mut self,
        name: &str,
        shaped: Option<&Array<'_>>,
        path: &[String],
    ) -> Result<Option<Json>> {
        let Some(directory) = self.directory else {
            return self.refuse(Refusal::NoStorage { path: path.join("."), key: name.to_owned() });
        };
        let source = self.into.open_file(&directory.join(name))?;
        let limits = &self.options.container_limits;
        let failed = |e| Error::container(source.path(), e);
        let Some(array) = shaped else {
            let npy = Npy::read(source.as_ref(), 0, limits).map_err(failed)?;
            let found = npy_tensor(source, &npy, name_of(path));
            return self.take_array(found, path);
        };
        let kind = detect(source.as_ref()).map_err(failed)?;
        if !kind.is_compressed() {
            return self.refuse(Refusal::Kind { name: kind.name() });
        }
        let inner = decompress(Arc::clone(&source), kind, limits).map_err(failed)?;
        let needed = elements(&array.shape).and_then(|count| count.checked_mul(array.number.bytes));
        if needed != Some(inner.len()) {
            let (path, key) = (path.join("."), name.to_owned());
            let needed = needed.unwrap_or(u64::MAX);
            return self.refuse(Refusal::StorageSize { path, key, found: inner.len(), needed });
        }
        let found = numbers(inner, array.number, &array.shape, array.fortran, name_of(path));
        self.take_array(found, path)
    }
}

/// The array of a `.npy` file.
pub(super) fn npy_tensor(
    source: Arc<dyn Source>,
    npy: &Npy,
    name: String,
) -> Result<(FoundTensor, Placed), Refusal> {
    let number = match &npy.descr {
        Descr::Simple { order, kind, bytes, .. } => Number {
            kind: *kind,
            bytes: *bytes,
            big_endian: *order == ByteOrder::Big,
            structured: false,
            has_objects: false,
        },
        Descr::Object => return Err(Refusal::Array { path: name, number: "Python's objects".into() }),
        _ => return Err(Refusal::Array { path: name, number: "structures".into() }),
    };
    let range = npy.data.clone();
    let (tensor, mut placed) = numbers(source, number, &npy.shape, npy.fortran_order, name)?;
    placed.range = range;
    Ok((tensor, placed))
}

/// An array whose numbers are the bytes of `source`.
fn numbers(
    source: Arc<dyn Source>,
    number: Number,
    shape: &[u64],
    fortran: bool,
    name: String,
) -> Result<(FoundTensor, Placed), Refusal> {
    let Some(element) = number.element() else {
        return Err(Refusal::Array { path: name, number: format!("`{number}`") });
    };
    let mut strides = vec![0i64; shape.len()];
    let mut step = 1u64;
    let mut along = |stride: &mut i64, length: &u64| {
        *stride = i64::try_from(step).unwrap_or(i64::MAX);
        step = step.saturating_mul((*length).max(1));
    };
    if fortran {
        strides.iter_mut().zip(shape).for_each(|(stride, length)| along(stride, length));
    } else {
        strides.iter_mut().zip(shape).rev().for_each(|(stride, length)| along(stride, length));
    }
    let range = 0..source.len();
    let placed = Placed { source, range, big_endian: number.big_endian && element.bytes() > 1 };
    let tensor = FoundTensor {
        name,
        element,
        shape: shape.to_vec(),
        strides,
        offset: 0,
        storage: 0,
        conjugate: false,
        negative: false,
    };
    Ok((tensor, placed))
}

//! Sparse tensors as dense ones, on request and in memory.

use std::sync::Arc;

use serde_json::Value as Json;
use tensafe_io::{Buffer, MemorySource, Source};
use tensafe_pickle::{Element, Id, Layout, Meaning};

use super::{
    FoundTensor, Placed, Refusal,
    flatten::{Result, Walk},
    leaves::name_of,
};
use crate::{Error, gather::Gather};

/// A dense tensor is made in memory: its bytes at most.
const MOST_BYTES: u64 = 1 << 30;

/// Two values of one place.
const TWICE: &str = "one place twice: torch would add them, `coalesce` it first";

/// The values of a sparse tensor, and where each goes.
struct Parts {
    element: Element,
    /// Bytes of one value: of a block, where values are blocks.
    width: usize,
    /// The values, one after another.
    values: Vec<u8>,
    /// The place of each, in values.
    places: Vec<u64>,
}

impl Walk<'_, '_> {
    pub(super) fn sparse(
        &mut self,
        layout: Layout,
        indices: &[Id],
        values: Id,
        shape: &[u64],
        path: &[String],
    ) -> Result<Option<Json>> {
        if !self.options.dense {
            return self.refuse(Refusal::Sparse { path: path.join("."), layout: layout.name() });
        }
        let values = self.part_tensor(values, path)?;
        let width = values.element.bytes();
        let elements = crate::gather::elements(shape).and_then(|elements| elements.checked_mul(width));
        let Some(bytes) = elements.filter(|bytes| *bytes <= MOST_BYTES) else {
            return self.wrong(path, "more than 1 GiB when it is dense");
        };
        let parts: Result<Vec<_>> = indices.iter().map(|id| self.part_tensor(*id, path)).collect();
        let parts = parts?;
        let scattered = match (layout, &parts[..]) {
            (Layout::Coo, [indices]) => self.coo(indices, &values, shape, path)?,
            (Layout::Csr | Layout::Csc, [compressed, plain]) => {
                self.compressed(layout, compressed, plain, &values, shape, path)?
            }
            _ => return self.wrong(path, "its layout is of blocks, which is not made dense"),
        };
        let mut dense = vec![0u8; usize::try_from(bytes).unwrap_or_default()];
        let mut taken = vec![false; dense.len() / scattered.width.max(1)];
        for (value, place) in scattered.values.chunks_exact(scattered.width.max(1)).zip(&scattered.places) {
            let place = usize::try_from(*place).unwrap_or(usize::MAX);
            if taken.get(place).copied().unwrap_or(true) {
                return self.wrong(path, TWICE);
            }
            taken[place] = true;
            let start = place.saturating_mul(scattered.width);
            if let Some(out) = dense.get_mut(start..start.saturating_add(scattered.width)) {
                out.copy_from_slice(value);
            }
        }
        let source: Arc<dyn Source> = Arc::new(MemorySource::new(Buffer::from_owner(dense)));
        let storage = self.push(Placed { range: 0..source.len(), source, big_endian: false });
        let mut strides = vec![1i64; shape.len()];
        for dimension in (1..shape.len()).rev() {
            let step = i64::try_from(shape[dimension]).unwrap_or(i64::MAX);
            strides[dimension - 1] = strides[dimension].saturating_mul(step);
        }
        self.into.tensors.push(FoundTensor {
            name: name_of(path),
            element: scattered.element,
            shape: shape.to_vec(),
            strides,
            offset: 0,
            storage,
            conjugate: false,
            negative: false,
        });
        Ok(None)
    }

    fn wrong<T>(&self, path: &[String], why: &'static str) -> Result<T> {
        self.refuse(Refusal::SparseParts { path: path.join("."), why })
    }

    /// A part: a strided tensor.
    fn part_tensor(&mut self, id: Id, path: &[String]) -> Result<FoundTensor> {
        match self.pickle.meaning(id) {
            Ok(Meaning::Tensor(tensor)) => self.strided(&tensor, path),
            _ => self.wrong(path, "a part of it is no tensor"),
        }
    }

    /// A part's bytes, row-major and little-endian.
    fn read(&self, tensor: &FoundTensor, path: &[String]) -> Result<Vec<u8>> {
        let bytes =
            crate::gather::elements(&tensor.shape).and_then(|n| n.checked_mul(tensor.element.bytes()));
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            return self.wrong(path, "a part of more than 1 GiB");
        }
        let Some(placed) = self.into.storages.get(tensor.storage) else {
            return self.wrong(path, "a part without a storage");
        };
        let mut all = Vec::new();
        Gather::new(tensor, placed, None).pieces(1 << 24, |_, piece| {
            all.extend_from_slice(piece);
            Ok::<(), Error>(())
        })?;
        Ok(all)
    }

    fn indices(&self, tensor: &FoundTensor, path: &[String]) -> Result<Vec<u64>> {
        let bytes = self.read(tensor, path)?;
        let numbers: Option<Vec<u64>> = match tensor.element {
            Element::I64 => {
                bytes.as_chunks().0.iter().map(|b| u64::try_from(i64::from_le_bytes(*b)).ok()).collect()
            }
            Element::I32 => {
                bytes.as_chunks().0.iter().map(|b| u64::try_from(i32::from_le_bytes(*b)).ok()).collect()
            }
            _ => None,
        };
        match numbers {
            Some(numbers) => Ok(numbers),
            None => self.wrong(path, "its indices are no integers from 0 on"),
        }
    }

    /// Indices `[dimensions, values]`, values `[values, …]`.
    fn coo(
        &self,
        indices: &FoundTensor,
        values: &FoundTensor,
        shape: &[u64],
        path: &[String],
    ) -> Result<Parts> {
        let ([dimensions, count], [values_count, dense @ ..]) = (&indices.shape[..], &values.shape[..])
        else {
            return self.wrong(path, "its indices have not two dimensions");
        };
        let sparse = usize::try_from(*dimensions).ok().and_then(|n| shape.split_at_checked(n));
        let Some((sparse, rest)) = sparse.filter(|(_, rest)| *rest == dense && values_count == count) else {
            return self.wrong(path, "indices, values and size do not fit each other");
        };
        let numbers = self.indices(indices, path)?;
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        if sparse.is_empty() && count > 1 {
            return self.wrong(path, TWICE);
        }
        let mut places = vec![0u64; count.min(numbers.len().max(1))];
        for (row, length) in numbers.chunks_exact(count.max(1)).zip(sparse) {
            for (place, number) in places.iter_mut().zip(row) {
                if number >= length {
                    return self.wrong(path, "an index beyond its size");
                }
                *place = place.saturating_mul(*length).saturating_add(*number);
            }
        }
        if count == 0 {
            places.clear();
        }
        let block = crate::gather::elements(rest).unwrap_or(u64::MAX).saturating_mul(values.element.bytes());
        let width = usize::try_from(block).unwrap_or(usize::MAX);
        Ok(Parts { element: values.element, width, values: self.read(values, path)?, places })
    }

    /// Rows (or columns) that say where their values begin and end.
    fn compressed(
        &self,
        layout: Layout,
        compressed: &FoundTensor,
        plain: &FoundTensor,
        values: &FoundTensor,
        shape: &[u64],
        path: &[String],
    ) -> Result<Parts> {
        let ([rows, columns], [bounds], [count], [values_count]) =
            (shape, &compressed.shape[..], &plain.shape[..], &values.shape[..])
        else {
            return self.wrong(path, "its layout is of batches or blocks, which is not made dense");
        };
        let (outer, inner) = if layout == Layout::Csr { (*rows, *columns) } else { (*columns, *rows) };
        if Some(*bounds) != outer.checked_add(1) || count != values_count {
            return self.wrong(path, "indices, values and size do not fit each other");
        }
        let bounds = self.indices(compressed, path)?;
        let numbers = self.indices(plain, path)?;
        let mut places = Vec::with_capacity(numbers.len());
        if bounds.first() != Some(&0) || bounds.last() != Some(count) || !bounds.is_sorted() {
            return self.wrong(path, "its bounds do not ascend from 0 to the number of values");
        }
        for (row, pair) in bounds.windows(2).enumerate() {
            let range = usize::try_from(pair[0]).unwrap_or(usize::MAX)
                ..usize::try_from(pair[1]).unwrap_or(usize::MAX);
            for number in numbers.get(range).unwrap_or_default() {
                if *number >= inner {
                    return self.wrong(path, "an index beyond its size");
                }
                let row = row as u64;
                let (row, column) = if layout == Layout::Csr { (row, *number) } else { (*number, row) };
                places.push(row.saturating_mul(*columns).saturating_add(column));
            }
        }
        let width = usize::try_from(values.element.bytes()).unwrap_or(1);
        Ok(Parts { element: values.element, width, values: self.read(values, path)?, places })
    }
}

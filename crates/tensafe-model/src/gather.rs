//! The elements of a strided tensor, in row-major order, little-endian, in bounded pieces.
//!
//! A piece is as much of the leading dimensions as the budget holds. Within a piece the source is
//! walked in the order of its bytes, so that a transposed matrix is read along its own rows.

use std::ops::Range;

use tensafe_io::Error;
use tensafe_pickle::Element;

use crate::{
    cast::Cast,
    pickled::{FoundTensor, Placed, swapped_bytes},
};

/// Bytes between two runs that are read through rather than skipped.
const CLOSE_BYTES: u64 = 16 << 10;

/// Bytes that one read fetches where runs are close to each other.
const WINDOW_BYTES: usize = 1 << 20;

/// A tensor, and what becomes of its elements on the way.
#[derive(Debug)]
pub(crate) struct Gather<'t> {
    tensor: &'t FoundTensor,
    placed: &'t Placed,
    cast: Option<Cast>,
}

impl<'t> Gather<'t> {
    pub(crate) fn new(tensor: &'t FoundTensor, placed: &'t Placed, cast: Option<Cast>) -> Self {
        Self { tensor, placed, cast }
    }

    /// The bytes of the source that are the tensor as they are, where they are.
    pub(crate) fn run(&self) -> Option<Range<u64>> {
        let tensor = self.tensor;
        let as_it_is = self.cast.is_none()
            && !tensor.negative
            && !tensor.conjugate
            && (!self.placed.big_endian || swapped_bytes(tensor.element) == 1);
        if !as_it_is || !is_contiguous(&tensor.shape, &tensor.strides) {
            return None;
        }
        let width = tensor.element.bytes();
        let bytes = elements(&tensor.shape)?.checked_mul(width)?;
        let start = self.placed.range.start.checked_add(tensor.offset.checked_mul(width)?)?;
        Some(start..start.checked_add(bytes)?)
    }

    /// Hands over the tensor piece by piece: `out` gets the place of a piece in the tensor as it is
    /// written, in bytes, and the piece. A piece has at most `budget` bytes before a cast, at least
    /// an element.
    ///
    /// # Errors
    /// What the source or `out` says.
    pub(crate) fn pieces<E: From<Error>>(
        &self,
        budget: usize,
        mut out: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let shape = &self.tensor.shape;
        if shape.contains(&0) {
            return Ok(());
        }
        let width = self.tensor.element.bytes();
        // The dimension that is cut: what lies within one of its steps fits the budget.
        let mut inner = width;
        let mut cut = shape.len();
        while let Some(length) = cut.checked_sub(1).and_then(|dimension| shape.get(dimension)) {
            let next = inner.saturating_mul(*length);
            if next > budget as u64 {
                break;
            }
            inner = next;
            cut = cut.saturating_sub(1);
        }
        let mut window = Window::new(self.placed);
        let mut memory = Vec::new();
        let mut place = 0u64;
        // All that is left of it in one piece, or steps of the dimension that is cut.
        let (outer, steps) = match cut.checked_sub(1) {
            None => (&shape[..0], 1),
            Some(dimension) => (&shape[..dimension], shape.get(dimension).copied().unwrap_or(1)),
        };
        let at_once = (budget as u64 / inner.max(1)).clamp(1, steps);
        let mut index = vec![0u64; outer.len()];
        loop {
            let mut step = 0;
            while step < steps {
                let taken = at_once.min(steps.saturating_sub(step));
                let bytes = usize::try_from(inner.saturating_mul(taken)).unwrap_or(usize::MAX);
                memory.clear();
                memory.resize(bytes, 0);
                self.fill(&index, cut, step, taken, &mut window, &mut memory)?;
                self.finish(&mut memory);
                out(place, &memory)?;
                place = place.saturating_add(memory.len() as u64);
                step = step.saturating_add(taken);
            }
            if !advance(&mut index, outer) {
                return Ok(());
            }
        }
    }

    /// Copies the piece into `out`, walking over the source in the order of its bytes.
    fn fill(
        &self,
        index: &[u64],
        cut: usize,
        step: u64,
        taken: u64,
        window: &mut Window<'_>,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let tensor = self.tensor;
        let width = tensor.element.bytes();
        let stride = |dimension: usize| i128::from(tensor.strides.get(dimension).copied().unwrap_or(0));
        let mut base = i128::from(tensor.offset);
        for (dimension, place) in index.iter().enumerate() {
            base += stride(dimension) * i128::from(*place);
        }
        // The dimensions of the piece: length, step in the source, step in the piece (elements).
        let mut dimensions: Vec<(u64, i128, i128)> = Vec::new();
        let mut packed = 1i128;
        for dimension in (cut..tensor.shape.len()).rev() {
            let length = tensor.shape.get(dimension).copied().unwrap_or(1);
            dimensions.push((length, stride(dimension), packed));
            packed = packed.saturating_mul(i128::from(length));
        }
        if let Some(dimension) = cut.checked_sub(1) {
            base += stride(dimension) * i128::from(step);
            dimensions.push((taken, stride(dimension), packed));
        }
        dimensions.retain(|(length, ..)| *length != 1);
        // What goes backwards over the source is walked from its end, so that reading ahead helps.
        let mut first = 0i128;
        for (length, stride, packed) in &mut dimensions {
            if *stride < 0 {
                let last = i128::from(length.saturating_sub(1));
                base += *stride * last;
                first += *packed * last;
                (*stride, *packed) = (-*stride, -*packed);
            }
        }
        // The longest step of the source is walked last.
        dimensions.sort_by_key(|(_, stride, _)| std::cmp::Reverse(stride.unsigned_abs()));
        // Neighbours in the source that are neighbours in the piece, too, are one run.
        let mut run = 1u64;
        while let Some((length, stride, packed)) = dimensions.last().copied()
            && stride == i128::from(run)
            && packed == i128::from(run)
        {
            run = run.saturating_mul(length);
            dimensions.pop();
        }
        let run_bytes = usize::try_from(run.saturating_mul(width)).unwrap_or(usize::MAX);
        let reach = dimensions.last().map_or(0, |(_, stride, _)| {
            u64::try_from(stride.unsigned_abs()).unwrap_or(u64::MAX).saturating_mul(width)
        });
        window.near = reach <= CLOSE_BYTES.saturating_add(run_bytes as u64);
        let mut places = vec![0u64; dimensions.len()];
        let lengths: Vec<u64> = dimensions.iter().map(|(length, ..)| *length).collect();
        loop {
            let (mut from, mut to) = (base, first);
            for (place, (_, stride, packed)) in places.iter().zip(&dimensions) {
                from += stride * i128::from(*place);
                to += packed * i128::from(*place);
            }
            let from = u64::try_from(from).unwrap_or(u64::MAX).saturating_mul(width);
            let to = usize::try_from(to.saturating_mul(i128::from(width))).unwrap_or(usize::MAX);
            let end = to.saturating_add(run_bytes);
            window.read(from, out.get_mut(to..end).unwrap_or_default())?;
            if !advance(&mut places, &lengths) {
                return Ok(());
            }
        }
    }

    /// Byte order, signs and type, in this order.
    fn finish(&self, memory: &mut Vec<u8>) {
        let element = self.tensor.element;
        let swapped = swapped_bytes(element);
        if self.placed.big_endian && swapped > 1 {
            memory.chunks_exact_mut(swapped).for_each(<[u8]>::reverse);
        }
        if self.tensor.negative {
            negate(memory, element, false);
        }
        if self.tensor.conjugate {
            negate(memory, element, true);
        }
        if let Some(cast) = self.cast {
            cast.apply(memory);
        }
    }
}

/// The next index in row-major order, or no more.
fn advance(index: &mut [u64], lengths: &[u64]) -> bool {
    for (place, length) in index.iter_mut().zip(lengths).rev() {
        *place = place.saturating_add(1);
        if *place < *length {
            return true;
        }
        *place = 0;
    }
    false
}

/// Negates little-endian numbers: all, or the imaginary parts alone. Floats have a sign bit, integers
/// the complement of two.
fn negate(memory: &mut [u8], element: Element, imaginary: bool) {
    let width = swapped_bytes(element);
    if !imaginary && is_integer(element) {
        for number in memory.chunks_exact_mut(width) {
            let mut carry = true;
            for byte in number {
                (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
            }
        }
        return;
    }
    let complex = matches!(element, Element::C32 | Element::C64 | Element::C128);
    if imaginary && !complex {
        return;
    }
    for (place, number) in memory.chunks_exact_mut(width).enumerate() {
        if let Some(last) = number.last_mut().filter(|_| !imaginary || place % 2 == 1) {
            *last ^= 0x80;
        }
    }
}

fn is_integer(element: Element) -> bool {
    use Element::{I8, I16, I32, I64, QI8, QI32, QU8, U8, U16, U32, U64};
    matches!(element, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | QI8 | QU8 | QI32)
}

/// Reads of the source: one at a time, or ahead where the next will be close.
#[derive(Debug)]
struct Window<'s> {
    placed: &'s Placed,
    memory: Vec<u8>,
    start: u64,
    near: bool,
}

impl<'s> Window<'s> {
    fn new(placed: &'s Placed) -> Self {
        Self { placed, memory: Vec::new(), start: 0, near: true }
    }

    /// Fills `out` with the bytes of the storage from `from` on.
    fn read(&mut self, from: u64, out: &mut [u8]) -> Result<(), Error> {
        let bytes = self.placed.bytes();
        let base = self.placed.range.start;
        let within = |window: &Self| {
            let skipped = usize::try_from(from.checked_sub(window.start)?).ok()?;
            window.memory.get(skipped..skipped.checked_add(out.len())?).map(|_| skipped)
        };
        if !self.near || out.len() >= WINDOW_BYTES {
            self.placed.source.read_at(base.saturating_add(from), out)?;
            return Ok(());
        }
        let skipped = match within(self) {
            Some(skipped) => skipped,
            None => {
                let left = bytes.saturating_sub(from);
                let ahead = usize::try_from(left).unwrap_or(usize::MAX).min(WINDOW_BYTES);
                self.memory.resize(ahead.max(out.len()), 0);
                self.start = from;
                self.placed.source.read_at(base.saturating_add(from), &mut self.memory)?;
                0
            }
        };
        out.copy_from_slice(&self.memory[skipped..skipped.saturating_add(out.len())]);
        Ok(())
    }
}

/// Elements in all; `None` beyond 64 bits.
pub(crate) fn elements(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |all, length| all.checked_mul(*length))
}

fn is_contiguous(shape: &[u64], strides: &[i64]) -> bool {
    let mut step = 1u64;
    for (length, stride) in shape.iter().zip(strides).rev() {
        if *length == 0 {
            return true;
        }
        if *length != 1 && u64::try_from(*stride) != Ok(step) {
            return false;
        }
        step = step.saturating_mul(*length);
    }
    true
}

//! Which dtype of the format holds which element of torch.

use tensafe_format::Dtype;
use tensafe_pickle::Element;

/// The dtype that an element is written as, and how many values of it one element holds: two for
/// the float4 that torch packs into a byte. Quantized integers are written as integers.
/// `None` where the format has no such dtype.
#[must_use]
pub fn dtype_of(element: Element) -> Option<(Dtype, u64)> {
    match element {
        Element::F4x2 => Some((Dtype::F4, 2)),
        Element::QI8 => Some((Dtype::I8, 1)),
        Element::QU8 => Some((Dtype::U8, 1)),
        Element::QI32 => Some((Dtype::I32, 1)),
        _ => Dtype::ALL
            .iter()
            .find(|dtype| dtype.torch_name() == Some(element.name()))
            .map(|dtype| (*dtype, 1)),
    }
}

/// Bytes that are swapped as one where the byte order is another: the parts of a complex number each
/// on their own.
pub(crate) fn swapped_bytes(element: Element) -> usize {
    match element {
        Element::C32 => 2,
        Element::C64 => 4,
        Element::C128 => 8,
        _ => usize::try_from(element.bytes()).unwrap_or(1),
    }
}

/// The element of this dtype; `None` for those of less than a byte, and for those that torch lacks.
pub(crate) fn element_of(dtype: Dtype) -> Option<Element> {
    if dtype.bits() < 8 {
        return None;
    }
    dtype.torch_name().and_then(Element::from_dtype)
}

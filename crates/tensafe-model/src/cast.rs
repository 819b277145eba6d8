//! Casts between the floats F64, F32, F16 and BF16, to the nearest, ties to even.

use half::{bf16, f16};
use tensafe_format::Dtype;
use tensafe_pickle::Element;

/// From one float to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cast {
    from: Element,
    to: Element,
}

/// The dtypes that a cast can be to.
pub(crate) const CASTABLE: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];

impl Cast {
    /// The cast of an element to a dtype; `None` where there is nothing to do: integers, truth values,
    /// complex numbers and floats of 8 bits stay what they are.
    pub(crate) fn new(from: Element, to: Dtype) -> Option<Self> {
        let to = match to {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            _ => return None,
        };
        let is_float = matches!(from, Element::F64 | Element::F32 | Element::F16 | Element::BF16);
        (is_float && from != to).then_some(Self { from, to })
    }

    pub(crate) fn to(self) -> Element {
        self.to
    }

    /// Casts little-endian numbers in place.
    pub(crate) fn apply(self, memory: &mut Vec<u8>) {
        match self.from {
            Element::F64 => self.each(memory, |bytes: [u8; 8]| f64::from_le_bytes(bytes)),
            Element::F32 => self.each(memory, |bytes: [u8; 4]| f64::from(f32::from_le_bytes(bytes))),
            Element::F16 => self.each(memory, |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f64()),
            _ => self.each(memory, |bytes: [u8; 2]| bf16::from_le_bytes(bytes).to_f64()),
        }
    }

    fn each<const N: usize>(self, memory: &mut Vec<u8>, read: impl Fn([u8; N]) -> f64) {
        let numbers = memory.as_chunks::<N>().0.iter().map(|bytes| read(*bytes));
        let mut out = Vec::with_capacity(memory.len() / N * usize::try_from(self.to.bytes()).unwrap_or(8));
        match self.to {
            Element::F64 => numbers.for_each(|value| out.extend(value.to_le_bytes())),
            Element::F32 => numbers.for_each(|value| out.extend(nearest_f32(value).to_le_bytes())),
            Element::F16 => {
                numbers.for_each(|value| out.extend(f16::from_f32(odd_f32(value)).to_le_bytes()));
            }
            _ => numbers.for_each(|value| out.extend(bf16::from_f32(odd_f32(value)).to_le_bytes())),
        }
        *memory = out;
    }
}

fn nearest_f32(value: f64) -> f32 {
    #[allow(clippy::cast_possible_truncation, reason = "the cast is to the nearest, ties to even")]
    let nearest = value as f32;
    nearest
}

/// The value in 24 bits, rounded to odd: what was cut off stays visible in the last bit, so that
/// rounding again to fewer bits rounds as if it were once.
fn odd_f32(value: f64) -> f32 {
    let nearest = nearest_f32(value);
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() && !value.is_finite() {
        return nearest;
    }
    // Towards zero, then the last bit set.
    let bits = nearest.to_bits();
    let towards_zero = if back.abs() > value.abs() { bits.wrapping_sub(1) } else { bits };
    f32::from_bits(towards_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(value: f64, to: Dtype) -> Vec<u8> {
        let mut memory = value.to_le_bytes().to_vec();
        Cast::new(Element::F64, to).unwrap().apply(&mut memory);
        memory
    }

    #[test]
    fn rounds_once_to_the_nearest_with_ties_to_even() {
        // Just above the middle of two BF16: rounding to F32 first would make it a tie.
        let middle = 1.0 + 2f64.powi(-8);
        let above = middle + 2f64.powi(-40);
        assert_eq!(cast(middle, Dtype::BF16), bf16::from_f32(1.0).to_le_bytes());
        assert_eq!(cast(above, Dtype::BF16), bf16::from_f32(1.0 + 2f32.powi(-7)).to_le_bytes());
        let middle = 1.0 + 2f64.powi(-11);
        assert_eq!(cast(middle, Dtype::F16), f16::from_f32(1.0).to_le_bytes());
        assert_eq!(
            cast(middle + 2f64.powi(-50), Dtype::F16),
            f16::from_f32(1.0 + 2f32.powi(-10)).to_le_bytes()
        );
        assert_eq!(
            cast(-(middle + 2f64.powi(-50)), Dtype::F16),
            f16::from_f32(-1.0 - 2f32.powi(-10)).to_le_bytes()
        );
    }

    #[test]
    fn overflow_is_infinite_and_what_is_not_a_number_stays_none() {
        assert_eq!(cast(1e300, Dtype::F16), f16::INFINITY.to_le_bytes());
        assert_eq!(cast(-1e300, Dtype::BF16), bf16::NEG_INFINITY.to_le_bytes());
        assert_eq!(cast(f64::INFINITY, Dtype::F16), f16::INFINITY.to_le_bytes());
        assert!(f16::from_le_bytes(cast(f64::NAN, Dtype::F16).try_into().unwrap()).is_nan());
        // The largest F16 is 65504; from 65520 on it is infinite.
        assert_eq!(cast(65519.999, Dtype::F16), f16::MAX.to_le_bytes());
        assert_eq!(cast(65520.0, Dtype::F16), f16::INFINITY.to_le_bytes());
    }

    #[test]
    fn every_half_survives_the_way_to_another_float_and_back() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let mut memory = value.to_le_bytes().to_vec();
            Cast::new(Element::F16, Dtype::F32).unwrap().apply(&mut memory);
            Cast::new(Element::F32, Dtype::F16).unwrap().apply(&mut memory);
            let back = f16::from_le_bytes(memory.try_into().unwrap());
            assert!(back.to_bits() == bits || value.is_nan() && back.is_nan());
        }
    }

    #[test]
    fn only_floats_are_cast() {
        for element in [Element::I64, Element::Bool, Element::C64, Element::F8E4M3, Element::QI8] {
            assert_eq!(Cast::new(element, Dtype::F16), None);
        }
        assert_eq!(Cast::new(Element::F32, Dtype::F32), None);
        assert_eq!(Cast::new(Element::F32, Dtype::I8), None);
    }
}

//! Element types: the one table from which every name, size and code is derived.
//!
//! Implements rules S-09 (names), S-13 (whole bytes), S-19 (byte order) and S-20 (packing of
//! sub-byte elements) of `docs/spec.md`. Holds no conversion of values.

use core::fmt;

macro_rules! dtypes {
    ($( $variant:ident $name:literal $bits:literal
        numpy $numpy:literal torch $torch:tt dlpack ($code:literal $lanes_bits:literal) $doc:literal )*) => {
        /// The type of one element of a tensor.
        ///
        /// The order of the variants is the order of alignment that writers sort by: tensors are
        /// laid out from the greatest variant to the least (S-22).
        #[allow(non_camel_case_types, reason = "the variants are spelled as the format spells them")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Dtype {
            $(#[doc = $doc] $variant,)*
        }

        impl Dtype {
            /// Every dtype of the format, in ascending order of alignment.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the header, such as `"BF16"`.
            ///
            /// Spec: S-09.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bits of one element. Less than 8 for `F4` and the two `F6`.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Self::$variant => $bits,)* }
            }

            /// The dtype's name in numpy, with those that the package `ml_dtypes` adds to it.
            /// JAX uses the same names.
            #[must_use]
            pub const fn numpy_name(self) -> &'static str {
                match self { $(Self::$variant => $numpy,)* }
            }

            /// The attribute of the `torch` module that names this dtype, or `None` where torch
            /// has none.
            #[must_use]
            pub const fn torch_name(self) -> Option<&'static str> {
                match self { $(Self::$variant => dtypes!(@torch $torch),)* }
            }

            /// The DLPack type: `DLDataTypeCode` and bits of one lane.
            #[must_use]
            pub const fn dlpack(self) -> (u8, u8) {
                match self { $(Self::$variant => ($code, $lanes_bits),)* }
            }

            /// The dtype that the header calls `name`. Case matters.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
    (@torch none) => { None };
    (@torch $torch:literal) => { Some($torch) };
}

dtypes! {
    BOOL        "BOOL"         8 numpy "bool"            torch "bool"             dlpack (6 8)   "One byte, 0 or 1."
    F4          "F4"           4 numpy "float4_e2m1fn"   torch "float4_e2m1fn_x2" dlpack (17 4)  "MXFP4: E2M1, two to a byte, the first in the low nibble."
    F6_E2M3     "F6_E2M3"      6 numpy "float6_e2m3fn"   torch none               dlpack (15 6)  "MXFP6: E2M3, four to three bytes, least significant bits first."
    F6_E3M2     "F6_E3M2"      6 numpy "float6_e3m2fn"   torch none               dlpack (16 6)  "MXFP6: E3M2, four to three bytes, least significant bits first."
    U8          "U8"           8 numpy "uint8"           torch "uint8"            dlpack (1 8)   "Unsigned byte."
    I8          "I8"           8 numpy "int8"            torch "int8"             dlpack (0 8)   "Signed byte."
    F8_E5M2     "F8_E5M2"      8 numpy "float8_e5m2"     torch "float8_e5m2"      dlpack (12 8)  "FP8 with 5 exponent and 2 mantissa bits."
    F8_E4M3     "F8_E4M3"      8 numpy "float8_e4m3fn"   torch "float8_e4m3fn"    dlpack (10 8)  "FP8 with 4 exponent and 3 mantissa bits, finite."
    F8_E8M0     "F8_E8M0"      8 numpy "float8_e8m0fnu"  torch "float8_e8m0fnu"   dlpack (14 8)  "An exponent alone: the scale of a block."
    F8_E4M3FNUZ "F8_E4M3FNUZ"  8 numpy "float8_e4m3fnuz" torch "float8_e4m3fnuz"  dlpack (11 8)  "FP8 E4M3, finite, one zero."
    F8_E5M2FNUZ "F8_E5M2FNUZ"  8 numpy "float8_e5m2fnuz" torch "float8_e5m2fnuz"  dlpack (13 8)  "FP8 E5M2, finite, one zero."
    I16         "I16"         16 numpy "int16"           torch "int16"            dlpack (0 16)  "Signed, 2 bytes."
    U16         "U16"         16 numpy "uint16"          torch "uint16"           dlpack (1 16)  "Unsigned, 2 bytes."
    F16         "F16"         16 numpy "float16"         torch "float16"          dlpack (2 16)  "IEEE half precision."
    BF16        "BF16"        16 numpy "bfloat16"        torch "bfloat16"         dlpack (4 16)  "Brain floating point: the upper half of an F32."
    I32         "I32"         32 numpy "int32"           torch "int32"            dlpack (0 32)  "Signed, 4 bytes."
    U32         "U32"         32 numpy "uint32"          torch "uint32"           dlpack (1 32)  "Unsigned, 4 bytes."
    F32         "F32"         32 numpy "float32"         torch "float32"          dlpack (2 32)  "IEEE single precision."
    C64         "C64"         64 numpy "complex64"       torch "complex64"        dlpack (5 64)  "Two F32: real, imaginary."
    F64         "F64"         64 numpy "float64"         torch "float64"          dlpack (2 64)  "IEEE double precision."
    I64         "I64"         64 numpy "int64"           torch "int64"            dlpack (0 64)  "Signed, 8 bytes."
    U64         "U64"         64 numpy "uint64"          torch "uint64"           dlpack (1 64)  "Unsigned, 8 bytes."
}

impl Dtype {
    /// Bytes that a pointer to the first element should be a multiple of: the size of one
    /// component (4 for `C64`, which is two `F32`), 1 for elements of a byte or less.
    #[must_use]
    pub const fn alignment_bytes(self) -> u64 {
        match self {
            Self::C64 => 4,
            other if other.bits() < 8 => 1,
            other => other.bits() / 8,
        }
    }

    /// Whether several elements share a byte.
    #[must_use]
    pub const fn is_sub_byte(self) -> bool {
        self.bits() < 8
    }

    /// The dtype that numpy, `ml_dtypes` or torch call `name`, such as `"float32"` or
    /// `"float4_e2m1fn_x2"`.
    #[must_use]
    pub fn from_framework_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.numpy_name() == name || d.torch_name() == Some(name))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn names_round_trip_and_are_unique() {
        for (i, a) in Dtype::ALL.iter().enumerate() {
            assert_eq!(Dtype::from_name(a.name()), Some(*a));
            assert_eq!(Dtype::from_framework_name(a.numpy_name()), Some(*a));
            for b in &Dtype::ALL[..i] {
                assert_ne!(a.name(), b.name());
                assert!(b < a, "ALL is in ascending order");
            }
        }
        assert_eq!(Dtype::ALL.len(), 22);
    }

    #[test]
    fn order_and_bits_are_those_of_the_reference() {
        let theirs: alloc::vec::Vec<safetensors::Dtype> = Dtype::ALL
            .iter()
            .map(|d| {
                serde_json::from_value(serde_json::Value::String(d.name().into())).expect("a dtype they know")
            })
            .collect();
        for (ours, pair) in Dtype::ALL.windows(2).zip(theirs.windows(2)) {
            assert!(ours[0] < ours[1] && pair[0] < pair[1]);
        }
        for (ours, theirs) in Dtype::ALL.iter().zip(&theirs) {
            assert_eq!(ours.bits(), theirs.bitsize() as u64, "{ours}");
        }
    }
}

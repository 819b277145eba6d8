//! The elements that tensors in pickles are made of: one table of torch's names and sizes.

use std::fmt;

macro_rules! elements {
    ($($variant:ident $dtype:literal $aliases:tt $storage:tt $bytes:literal;)*) => {
        /// The kind of a tensor's elements, as torch names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the names are torch's")]
        pub enum Element { $($variant,)* }

        impl Element {
            /// Every element.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The attribute of the `torch` module that names it, such as `float32`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $dtype,)* }
            }

            /// Bytes of one element; of one pair where two share a byte.
            #[must_use]
            pub const fn bytes(self) -> u64 {
                match self { $(Self::$variant => $bytes,)* }
            }

            /// The element that torch's dtype of this name stands for.
            #[must_use]
            pub fn from_dtype(name: &str) -> Option<Self> {
                $(if name == $dtype || $aliases.contains(&name) { return Some(Self::$variant); })*
                None
            }

            /// The element of torch's storage class of this name, such as `FloatStorage`.
            #[must_use]
            pub fn from_storage(name: &str) -> Option<Self> {
                $(if elements!(@storage $storage) == Some(name) { return Some(Self::$variant); })*
                None
            }
        }
    };
    (@storage none) => { None::<&str> };
    (@storage $storage:literal) => { Some($storage) };
}

/// For the rows that have no other name.
const NO: [&str; 0] = [];

elements! {
    Bool        "bool"             NO          "BoolStorage"          1;
    U8          "uint8"            NO          "ByteStorage"          1;
    I8          "int8"             NO          "CharStorage"          1;
    I16         "int16"            ["short"]   "ShortStorage"         2;
    I32         "int32"            ["int"]     "IntStorage"           4;
    I64         "int64"            ["long"]    "LongStorage"          8;
    U16         "uint16"           NO          none                   2;
    U32         "uint32"           NO          none                   4;
    U64         "uint64"           NO          none                   8;
    F16         "float16"          ["half"]    "HalfStorage"          2;
    BF16        "bfloat16"         NO          "BFloat16Storage"      2;
    F32         "float32"          ["float"]   "FloatStorage"         4;
    F64         "float64"          ["double"]  "DoubleStorage"        8;
    C32         "complex32"        ["chalf"]   "ComplexHalfStorage"   4;
    C64         "complex64"        ["cfloat"]  "ComplexFloatStorage"  8;
    C128        "complex128"       ["cdouble"] "ComplexDoubleStorage" 16;
    F8E4M3      "float8_e4m3fn"    NO          "Float8_e4m3fnStorage" 1;
    F8E5M2      "float8_e5m2"      NO          "Float8_e5m2Storage"   1;
    F8E4M3Fnuz  "float8_e4m3fnuz"  NO          none                   1;
    F8E5M2Fnuz  "float8_e5m2fnuz"  NO          none                   1;
    F8E8M0      "float8_e8m0fnu"   NO          none                   1;
    F4x2        "float4_e2m1fn_x2" NO          none                   1;
    QI8         "qint8"            NO          "QInt8Storage"         1;
    QU8         "quint8"           NO          "QUInt8Storage"        1;
    QI32        "qint32"           NO          "QInt32Storage"        4;
    QU4x2       "quint4x2"         NO          "QUInt4x2Storage"      1;
    QU2x4       "quint2x4"         NO          "QUInt2x4Storage"      1;
    Bits8       "bits8"            NO          none                   1;
    Bits16      "bits16"           NO          none                   2;
    Bits1x8     "bits1x8"          NO          none                   1;
    Bits2x4     "bits2x4"          NO          none                   1;
    Bits4x2     "bits4x2"          NO          none                   1;
    U1          "uint1"            NO          none                   1;
    U2          "uint2"            NO          none                   1;
    U3          "uint3"            NO          none                   1;
    U4          "uint4"            NO          none                   1;
    U5          "uint5"            NO          none                   1;
    U6          "uint6"            NO          none                   1;
    U7          "uint7"            NO          none                   1;
    I1          "int1"             NO          none                   1;
    I2          "int2"             NO          none                   1;
    I3          "int3"             NO          none                   1;
    I4          "int4"             NO          none                   1;
    I5          "int5"             NO          none                   1;
    I6          "int6"             NO          none                   1;
    I7          "int7"             NO          none                   1;
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

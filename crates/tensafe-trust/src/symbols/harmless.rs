//! Names that make data and nothing else, whatever arguments they get.
//!
//! A name comes into the table when its code was read: no import, no call of an argument, no file, no
//! change of what is not its own. What the converter interprets, `tensafe-pickle` knows; the rest is
//! here.

/// Whether the symbol makes data and nothing else.
pub(super) fn is_harmless(module: &str, name: &str) -> bool {
    let place = NAMES.binary_search_by(|(known, _)| (*known).cmp(module));
    place.ok().and_then(|place| NAMES.get(place)).is_some_and(|(_, names)| names.contains(&name))
        || is_torch_type(module, name)
}

/// `torch.float32`, `torch.cuda.HalfStorage` and their kin: a closed form.
fn is_torch_type(module: &str, name: &str) -> bool {
    match module {
        "torch" => name.strip_suffix("Storage").is_some_and(is_word) || is_dtype(name),
        "torch.cuda" => {
            name.strip_suffix("Storage").or_else(|| name.strip_suffix("Tensor")).is_some_and(is_word)
        }
        "torch.storage" => {
            matches!(name, "TypedStorage" | "UntypedStorage" | "_TypedStorage" | "_UntypedStorage")
        }
        "numpy.dtypes" => name.strip_suffix("DType").is_some_and(is_word),
        _ => false,
    }
}

fn is_word(text: &str) -> bool {
    matches!(
        text,
        "" | "BFloat16"
            | "Bool"
            | "Byte"
            | "Bytes"
            | "Char"
            | "CLongDouble"
            | "Complex128"
            | "Complex64"
            | "ComplexDouble"
            | "ComplexFloat"
            | "DateTime64"
            | "Double"
            | "Float"
            | "Float16"
            | "Float32"
            | "Float64"
            | "Half"
            | "Int"
            | "Int16"
            | "Int32"
            | "Int64"
            | "Int8"
            | "Long"
            | "LongDouble"
            | "LongLong"
            | "Object"
            | "QInt32"
            | "QInt8"
            | "QUInt2x4"
            | "QUInt4x2"
            | "QUInt8"
            | "Short"
            | "Str"
            | "String"
            | "TimeDelta64"
            | "UByte"
            | "UInt"
            | "UInt16"
            | "UInt32"
            | "UInt64"
            | "UInt8"
            | "ULong"
            | "ULongLong"
            | "UShort"
            | "Void"
    )
}

fn is_dtype(name: &str) -> bool {
    let digits = |prefix| {
        name.strip_prefix(prefix).is_some_and(|rest: &str| {
            !rest.is_empty()
                && rest.bytes().next().is_some_and(|b| b.is_ascii_digit())
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    };
    matches!(
        name,
        "bool"
            | "cdouble"
            | "cfloat"
            | "chalf"
            | "double"
            | "float"
            | "half"
            | "int"
            | "long"
            | "short"
            | "bfloat16"
    ) || ["bits", "complex", "float", "int", "qint", "quint", "uint"].into_iter().any(digits)
}

#[rustfmt::skip]
const NAMES: &[(&str, &[&str])] = &[
    // A codec's name chooses a table of characters; the codecs that Python brings run nothing else.
    ("_codecs", &["encode"]),
    ("_collections", &["OrderedDict", "deque"]),
    ("_io", &["BytesIO", "StringIO"]),
    ("argparse", &["Namespace"]),
    ("array", &["_array_reconstructor", "array"]),
    ("builtins", &[
        "ArithmeticError", "AssertionError", "AttributeError", "BaseException", "Ellipsis", "Exception",
        "IndexError", "KeyError", "LookupError", "NotImplemented", "NotImplementedError", "OSError",
        "OverflowError", "RuntimeError", "StopIteration", "TypeError", "ValueError", "Warning",
        "UserWarning", "ZeroDivisionError",
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object",
        "range", "set", "slice", "str", "tuple",
    ]),
    ("collections", &["Counter", "OrderedDict", "UserDict", "UserList", "defaultdict", "deque"]),
    ("copyreg", &["_reconstructor"]),
    ("datetime", &["date", "datetime", "time", "timedelta", "timezone"]),
    ("decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    ("io", &["BytesIO", "StringIO"]),
    ("joblib.numpy_pickle", &["NumpyArrayWrapper"]),
    ("logging", &["Logger", "RootLogger", "getLogger"]),
    ("ml_dtypes", &[
        "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
        "float8_e5m2", "float8_e5m2fnuz", "int2", "int4", "uint2", "uint4",
    ]),
    ("numpy", &[
        "bool", "bool_", "bytes_", "complex128", "complex64", "datetime64", "dtype", "float16", "float32",
        "float64", "int16", "int32", "int64", "int8", "longdouble", "longlong", "matrix", "ndarray", "object_",
        "recarray", "record", "str_", "timedelta64", "uint16", "uint32", "uint64", "uint8", "ulonglong", "void",
    ]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy.core.records", &["recarray", "record"]),
    ("numpy.ma.core", &["MaskedArray", "_mareconstruct"]),
    ("numpy.matrixlib.defmatrix", &["matrix"]),
    ("numpy.random", &["RandomState"]),
    ("numpy.random._mt19937", &["MT19937", "__pyx_unpickle_MT19937"]),
    ("numpy.random._pcg64", &["PCG64", "PCG64DXSM"]),
    ("numpy.random._philox", &["Philox"]),
    ("numpy.random._pickle", &["__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"]),
    ("numpy.random._sfc64", &["SFC64"]),
    ("numpy.random.bit_generator", &["SeedSequence", "__pyx_unpickle_SeedSequence"]),
    ("pathlib", &[
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath",
    ]),
    ("pathlib._local", &[
        "Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath",
    ]),
    ("random", &["Random"]),
    ("re", &["_compile"]),
    ("torch", &[
        "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "Generator",
        "HalfTensor", "IntTensor", "LongTensor", "ShortTensor", "Size", "Tensor", "contiguous_format", "device",
        "jagged", "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric",
        "per_tensor_affine", "per_tensor_symmetric", "preserve_format", "channels_last", "channels_last_3d",
        "sparse_bsc", "sparse_bsr", "sparse_coo", "sparse_csc", "sparse_csr", "strided",
    ]),
    ("torch._tensor", &["Tensor", "_rebuild_from_type_v2"]),
    ("torch._utils", &[
        "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
        "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_csr_tensor",
        "_rebuild_sparse_tensor", "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3",
        "_rebuild_wrapper_subclass", "_rebuild_xla_tensor",
    ]),
    ("torch.jit._pickle", &[
        "build_boollist", "build_doublelist", "build_intlist", "build_tensor_from_id", "build_tensorlist",
        "restore_type_tag",
    ]),
    ("torch.nn.parameter", &["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter"]),
    ("torch.serialization", &["_get_layout"]),
    ("torch.sparse", &["BFloat16Tensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor", "LongTensor", "ShortTensor"]),
    ("torch.torch_version", &["TorchVersion"]),
    ("torch.utils.hooks", &["RemovableHandle"]),
    ("torch.version", &["__version__"]),
    ("types", &["SimpleNamespace"]),
    ("typing", &["Any", "Dict", "List", "Optional", "Tuple", "Union"]),
    ("uuid", &["SafeUUID", "UUID"]),
    ("zoneinfo", &["ZoneInfo._unpickle"]),
];

#[cfg(test)]
mod tests {
    use super::{NAMES, is_harmless};

    #[test]
    fn the_table_is_sorted_but_for_what_is_found_all_the_same() {
        for (module, names) in NAMES {
            for name in *names {
                assert!(is_harmless(module, name), "{module}.{name}");
            }
        }
    }

    #[test]
    fn types_of_torch_are_a_closed_form() {
        for name in ["float8_e4m3fn", "int64", "uint1", "quint4x2", "BFloat16Storage", "HalfStorage"] {
            assert!(is_harmless("torch", name), "{name}");
        }
        for name in ["int", "float", "uint", "complex64"] {
            assert_eq!(is_harmless("torch", name), name != "uint");
        }
        for name in ["floating_fn", "intx", "EvilStorage", "complex"] {
            assert!(!is_harmless("torch", name), "{name}");
        }
    }
}

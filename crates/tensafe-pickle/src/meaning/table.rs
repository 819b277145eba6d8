//! The closed table: which names are known, and who reads the arguments of their calls.
//!
//! Names are compared whole, module and name, after the mapping of Python 2's names. Nothing is
//! matched by prefix, and no dots are walked.

use super::{Meaning, MeaningError, arena::Call, numpy, python, torch};
use crate::Element;

/// Reads what a recorded call of a known name means.
pub(super) type Reader = for<'p> fn(Call<'p>) -> Result<Meaning<'p>, MeaningError>;

/// Functions and classes that are called.
#[rustfmt::skip]
const CALLED: &[(&str, &str, Reader)] = &[
    ("_codecs", "encode", python::bytes),
    ("argparse", "Namespace", python::record),
    ("builtins", "bytearray", python::bytes),
    ("builtins", "bytes", python::bytes),
    ("builtins", "complex", python::complex),
    ("builtins", "dict", python::map),
    ("builtins", "frozenset", python::set),
    ("builtins", "list", python::sequence),
    ("builtins", "object", python::nothing),
    ("builtins", "set", python::set),
    ("builtins", "tuple", python::sequence),
    ("collections", "Counter", python::map),
    ("collections", "OrderedDict", python::map),
    ("collections", "defaultdict", python::map),
    ("collections", "deque", python::sequence),
    ("copyreg", "_reconstructor", python::reconstructor),
    ("datetime", "date", python::moment),
    ("datetime", "datetime", python::moment),
    ("datetime", "time", python::moment),
    ("datetime", "timedelta", python::moment),
    ("decimal", "Decimal", python::spelled),
    ("deepspeed.checkpoint.universal_checkpoint", "SubparamShape", python::record),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler", python::record),
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler", python::record),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum", python::member),
    ("deepspeed.utils.tensor_fragment", "fragment_address", python::record),
    ("easydict", "EasyDict", python::record),
    ("fractions", "Fraction", python::spelled),
    ("joblib.numpy_pickle", "NDArrayWrapper", numpy::joblib_file),
    ("joblib.numpy_pickle", "NumpyArrayWrapper", numpy::joblib_array),
    ("joblib.numpy_pickle", "ZNDArrayWrapper", numpy::joblib_compressed),
    ("joblib.numpy_pickle_compat", "NDArrayWrapper", numpy::joblib_file),
    ("joblib.numpy_pickle_compat", "ZNDArrayWrapper", numpy::joblib_compressed),
    ("lightning.fabric.utilities.data", "AttributeDict", python::record),
    ("lightning.pytorch.utilities.parsing", "AttributeDict", python::record),
    ("lightning_fabric.utilities.data", "AttributeDict", python::record),
    ("numpy", "dtype", numpy::dtype),
    ("numpy._core.multiarray", "_reconstruct", numpy::reconstruct),
    ("numpy._core.multiarray", "scalar", numpy::scalar),
    ("numpy._core.numeric", "_frombuffer", numpy::from_buffer),
    ("numpy.core.multiarray", "_reconstruct", numpy::reconstruct),
    ("numpy.core.multiarray", "scalar", numpy::scalar),
    ("numpy.core.numeric", "_frombuffer", numpy::from_buffer),
    ("omegaconf.base", "ContainerMetadata", python::record),
    ("omegaconf.base", "Metadata", python::record),
    ("omegaconf.dictconfig", "DictConfig", python::record),
    ("omegaconf.listconfig", "ListConfig", python::record),
    ("omegaconf.nodes", "AnyNode", python::record),
    ("omegaconf.nodes", "BooleanNode", python::record),
    ("omegaconf.nodes", "FloatNode", python::record),
    ("omegaconf.nodes", "IntegerNode", python::record),
    ("omegaconf.nodes", "StringNode", python::record),
    ("pathlib", "Path", python::path),
    ("pathlib", "PosixPath", python::path),
    ("pathlib", "PurePath", python::path),
    ("pathlib", "PurePosixPath", python::path),
    ("pathlib", "PureWindowsPath", python::path),
    ("pathlib", "WindowsPath", python::path),
    ("pathlib._local", "PosixPath", python::path),
    ("pathlib._local", "WindowsPath", python::path),
    ("pytorch_lightning.utilities.parsing", "AttributeDict", python::record),
    ("torch", "Size", torch::size),
    ("torch", "device", torch::device),
    ("torch._tensor", "_rebuild_from_type", torch::from_type),
    ("torch._tensor", "_rebuild_from_type_v2", torch::from_type),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", torch::of_device),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", torch::of_device),
    ("torch._utils", "_rebuild_meta_tensor_no_storage", torch::empty),
    ("torch._utils", "_rebuild_mlc_tensor", torch::of_device),
    ("torch._utils", "_rebuild_parameter", torch::parameter),
    ("torch._utils", "_rebuild_parameter_with_state", torch::parameter),
    ("torch._utils", "_rebuild_qtensor", torch::quantized),
    ("torch._utils", "_rebuild_sparse_tensor", torch::sparse),
    ("torch._utils", "_rebuild_tensor", torch::tensor),
    ("torch._utils", "_rebuild_tensor_v2", torch::tensor),
    ("torch._utils", "_rebuild_tensor_v3", torch::tensor_v3),
    ("torch._utils", "_rebuild_wrapper_subclass", torch::wrapper),
    ("torch._utils", "_rebuild_xla_tensor", torch::of_device),
    ("torch.autograd.variable", "Variable", torch::wrapped),
    ("torch.jit._pickle", "build_boollist", python::sequence),
    ("torch.jit._pickle", "build_doublelist", python::sequence),
    ("torch.jit._pickle", "build_intlist", python::sequence),
    ("torch.jit._pickle", "build_tensorlist", python::sequence),
    ("torch.jit._pickle", "restore_type_tag", torch::wrapped),
    ("torch.nn.parameter", "Buffer", torch::wrapped),
    ("torch.nn.parameter", "Parameter", torch::wrapped),
    ("torch.serialization", "_get_layout", torch::get_layout),
    ("torch.storage", "_load_from_bytes", torch::load_from_bytes),
    ("types", "SimpleNamespace", python::record),
];

/// Classes and functions that are named and not called: types as values, keys, default factories.
#[rustfmt::skip]
const NAMED: &[(&str, &str)] = &[
    ("builtins", "bool"), ("builtins", "float"), ("builtins", "int"), ("builtins", "str"), ("builtins", "type"),
    ("numpy", "ndarray"), ("numpy", "matrix"), ("numpy", "memmap"), ("numpy", "recarray"),
    ("numpy.core.memmap", "memmap"), ("numpy._core.memmap", "memmap"), ("numpy.matrixlib.defmatrix", "matrix"),
    ("numpy", "bool_"), ("numpy", "bool"), ("numpy", "int8"), ("numpy", "int16"), ("numpy", "int32"),
    ("numpy", "int64"), ("numpy", "uint8"), ("numpy", "uint16"), ("numpy", "uint32"), ("numpy", "uint64"),
    ("numpy", "float16"), ("numpy", "float32"), ("numpy", "float64"), ("numpy", "complex64"),
    ("numpy", "complex128"), ("numpy", "str_"), ("numpy", "bytes_"), ("numpy", "void"), ("numpy", "object_"),
    ("numpy", "longlong"), ("numpy", "ulonglong"), ("numpy", "longdouble"), ("numpy", "clongdouble"),
    ("numpy", "datetime64"), ("numpy", "timedelta64"),
    ("torch", "Tensor"), ("torch._C", "Size"),
    ("torch", "per_tensor_affine"), ("torch", "per_channel_affine"), ("torch", "per_tensor_symmetric"),
    ("torch", "per_channel_symmetric"), ("torch", "per_channel_affine_float_qparams"),
    ("torch", "sparse_coo"), ("torch", "sparse_csr"), ("torch", "sparse_csc"), ("torch", "sparse_bsr"),
    ("torch", "sparse_bsc"), ("torch", "strided"), ("torch", "contiguous_format"), ("torch", "channels_last"),
    ("torch", "preserve_format"),
    ("torch", "UntypedStorage"), ("torch", "_UntypedStorage"),
    ("torch.storage", "UntypedStorage"), ("torch.storage", "_UntypedStorage"), ("torch.storage", "TypedStorage"),
    ("torch", "BFloat16Tensor"), ("torch", "BoolTensor"), ("torch", "ByteTensor"), ("torch", "CharTensor"),
    ("torch", "DoubleTensor"), ("torch", "FloatTensor"), ("torch", "HalfTensor"), ("torch", "IntTensor"),
    ("torch", "LongTensor"), ("torch", "ShortTensor"),
    ("torch.cuda", "BFloat16Tensor"), ("torch.cuda", "BoolTensor"), ("torch.cuda", "ByteTensor"),
    ("torch.cuda", "CharTensor"), ("torch.cuda", "DoubleTensor"), ("torch.cuda", "FloatTensor"),
    ("torch.cuda", "HalfTensor"), ("torch.cuda", "IntTensor"), ("torch.cuda", "LongTensor"),
    ("torch.cuda", "ShortTensor"),
    ("typing", "Any"),
];

/// Who reads the call of this name.
pub(super) fn reader(module: &str, name: &str) -> Option<Reader> {
    let place = CALLED.binary_search_by(|(m, n, _)| (*m, *n).cmp(&(module, name))).ok()?;
    CALLED.get(place).map(|(_, _, reader)| *reader)
}

/// Whether a name is one that checkpoints are made of and that imports and calls nothing of its
/// maker's choosing: what [`Pickle::meaning`](crate::Pickle::meaning) reads, and the types that it
/// meets as values.
///
/// Module and name are as Python 3 has them. Anything else is not known harmless.
#[must_use]
pub fn known_symbol(module: &str, name: &str) -> bool {
    reader(module, name).is_some()
        || NAMED.contains(&(module, name))
        || (module == "torch" && Element::from_dtype(name).is_some())
        || (matches!(module, "torch" | "torch.cuda") && Element::from_storage(name).is_some())
        || (module == "numpy.dtypes"
            && name.ends_with("DType")
            && name.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(CALLED.is_sorted_by(|(m, n, _), (o, p, _)| (m, n) < (o, p)));
    }

    #[test]
    fn names_that_run_code_are_not_known() {
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch", "load"),
            ("torch.os", "system"),
        ] {
            assert!(!known_symbol(module, name));
        }
    }
}

//! The closed table: which names are known, and who reads the arguments of their calls.
//!
//! Names are compared whole, module and name, after the mapping of Python 2's names. Nothing is
//! matched by prefix, and no dots are walked.

use Grows::{AsClass, Attributes, Entries, Flags, Items, Not, State};

use super::{Meaning, MeaningError, arena::Call, numpy, python, torch};
use crate::{Element, Value};

/// Reads what a recorded call of a known name means.
type Reader = for<'p> fn(Call<'p>) -> Result<Meaning<'p>, MeaningError>;

/// What later instructions may add to what a call made: what its reader reads, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grows {
    /// Nothing. BUILD would point a tensor to another storage, SETITEM would write into it.
    Not,
    /// Items of a list or a set.
    Items,
    /// Entries of a dict, and attributes.
    Entries,
    /// Attributes.
    Attributes,
    /// The flags of a gradient, `(requires_grad, volatile, hooks)`: BUILD takes a tuple of any other
    /// length for data.
    Flags,
    /// One state, which says what the call did not.
    State,
    /// What an instance of the class among its arguments may be given.
    AsClass,
}

/// Functions and classes that are called.
#[rustfmt::skip]
const CALLED: &[(&str, &str, Reader, Grows)] = &[
    ("_codecs", "encode", python::bytes, Not),
    ("argparse", "Namespace", python::record, Entries),
    ("builtins", "bytearray", python::bytes, Not),
    ("builtins", "bytes", python::bytes, Not),
    ("builtins", "complex", python::complex, Not),
    ("builtins", "dict", python::map, Entries),
    ("builtins", "frozenset", python::set, Not),
    ("builtins", "list", python::sequence, Items),
    ("builtins", "object", python::nothing, Attributes),
    ("builtins", "set", python::set, Items),
    ("builtins", "tuple", python::sequence, Not),
    ("collections", "Counter", python::map, Entries),
    ("collections", "OrderedDict", python::map, Entries),
    ("collections", "defaultdict", python::map, Entries),
    ("collections", "deque", python::deque, Items),
    ("copyreg", "_reconstructor", python::reconstructor, AsClass),
    ("datetime", "date", python::moment, Not),
    ("datetime", "datetime", python::moment, Not),
    ("datetime", "time", python::moment, Not),
    ("datetime", "timedelta", python::moment, Not),
    ("decimal", "Decimal", python::spelled, Not),
    ("deepspeed.checkpoint.universal_checkpoint", "SubparamShape", python::record, Entries),
    ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler", python::record, Entries),
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler", python::record, Entries),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum", python::member, Not),
    ("deepspeed.utils.tensor_fragment", "fragment_address", python::record, Entries),
    ("easydict", "EasyDict", python::record, Entries),
    ("fractions", "Fraction", python::spelled, Not),
    ("joblib.numpy_pickle", "NDArrayWrapper", numpy::joblib_file, State),
    ("joblib.numpy_pickle", "NumpyArrayWrapper", numpy::joblib_array, State),
    ("joblib.numpy_pickle", "ZNDArrayWrapper", numpy::joblib_compressed, State),
    ("joblib.numpy_pickle_compat", "NDArrayWrapper", numpy::joblib_file, State),
    ("joblib.numpy_pickle_compat", "ZNDArrayWrapper", numpy::joblib_compressed, State),
    ("lightning.fabric.utilities.data", "AttributeDict", python::record, Entries),
    ("lightning.pytorch.utilities.parsing", "AttributeDict", python::record, Entries),
    ("lightning_fabric.utilities.data", "AttributeDict", python::record, Entries),
    ("numpy", "dtype", numpy::dtype, State),
    ("numpy._core.multiarray", "_reconstruct", numpy::reconstruct, State),
    ("numpy._core.multiarray", "scalar", numpy::scalar, Not),
    ("numpy._core.numeric", "_frombuffer", numpy::from_buffer, Not),
    ("numpy.core.multiarray", "_reconstruct", numpy::reconstruct, State),
    ("numpy.core.multiarray", "scalar", numpy::scalar, Not),
    ("numpy.core.numeric", "_frombuffer", numpy::from_buffer, Not),
    ("omegaconf.base", "ContainerMetadata", python::record, Entries),
    ("omegaconf.base", "Metadata", python::record, Entries),
    ("omegaconf.dictconfig", "DictConfig", python::record, Entries),
    ("omegaconf.listconfig", "ListConfig", python::record, Entries),
    ("omegaconf.nodes", "AnyNode", python::record, Entries),
    ("omegaconf.nodes", "BooleanNode", python::record, Entries),
    ("omegaconf.nodes", "FloatNode", python::record, Entries),
    ("omegaconf.nodes", "IntegerNode", python::record, Entries),
    ("omegaconf.nodes", "StringNode", python::record, Entries),
    ("pathlib", "Path", python::path, Not),
    ("pathlib", "PosixPath", python::path, Not),
    ("pathlib", "PurePath", python::path, Not),
    ("pathlib", "PurePosixPath", python::path, Not),
    ("pathlib", "PureWindowsPath", python::path, Not),
    ("pathlib", "WindowsPath", python::path, Not),
    ("pathlib._local", "PosixPath", python::path, Not),
    ("pathlib._local", "WindowsPath", python::path, Not),
    ("pytorch_lightning.utilities.parsing", "AttributeDict", python::record, Entries),
    ("torch", "Size", torch::size, Not),
    ("torch", "device", torch::device, Not),
    ("torch._tensor", "_rebuild_from_type", torch::from_type, Not),
    ("torch._tensor", "_rebuild_from_type_v2", torch::from_type, Not),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", torch::of_device, Not),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", torch::of_device, Not),
    ("torch._utils", "_rebuild_meta_tensor_no_storage", torch::empty, Not),
    ("torch._utils", "_rebuild_mlc_tensor", torch::of_device, Not),
    ("torch._utils", "_rebuild_parameter", torch::parameter, Not),
    ("torch._utils", "_rebuild_parameter_with_state", torch::parameter, Not),
    ("torch._utils", "_rebuild_qtensor", torch::quantized, Not),
    ("torch._utils", "_rebuild_sparse_tensor", torch::sparse, Not),
    ("torch._utils", "_rebuild_tensor", torch::tensor, Not),
    ("torch._utils", "_rebuild_tensor_v2", torch::tensor, Not),
    ("torch._utils", "_rebuild_tensor_v3", torch::tensor_v3, Not),
    ("torch._utils", "_rebuild_wrapper_subclass", torch::wrapper, Not),
    ("torch._utils", "_rebuild_xla_tensor", torch::of_device, Not),
    ("torch.autograd.variable", "Variable", torch::wrapped, Flags),
    ("torch.jit._pickle", "build_boollist", python::sequence, Items),
    ("torch.jit._pickle", "build_doublelist", python::sequence, Items),
    ("torch.jit._pickle", "build_intlist", python::sequence, Items),
    ("torch.jit._pickle", "build_tensorlist", python::sequence, Items),
    ("torch.jit._pickle", "restore_type_tag", torch::wrapped, Not),
    ("torch.nn.parameter", "Buffer", torch::wrapped, Flags),
    ("torch.nn.parameter", "Parameter", torch::wrapped, Flags),
    ("torch.serialization", "_get_layout", torch::get_layout, Not),
    ("torch.storage", "_load_from_bytes", torch::load_from_bytes, Not),
    ("types", "SimpleNamespace", python::record, Entries),
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

/// A name of the table that is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    reader: Reader,
    grows: Grows,
}

impl Called {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        let place = CALLED.binary_search_by(|(m, n, ..)| (*m, *n).cmp(&(module, name))).ok()?;
        CALLED.get(place).map(|(_, _, reader, grows)| Self { reader: *reader, grows: *grows })
    }

    pub(super) fn read<'p>(self, call: Call<'p>) -> Result<Meaning<'p>, MeaningError> {
        grown(&call, self.grows)?;
        (self.reader)(call)
    }
}

/// Refuses what was added to the result of a call and its reader does not read.
pub(super) fn grown(call: &Call<'_>, grows: Grows) -> Result<(), MeaningError> {
    let (arena, object) = (call.arena, call.object);
    if grows == AsClass {
        return Ok(());
    }
    if !object.items.is_empty() && grows != Items {
        return Err(call.error("items", format!("{} more", object.items.len()), "none"));
    }
    if !object.entries.is_empty() && grows != Entries {
        return Err(call.error("entries", format!("{} more", object.entries.len()), "none"));
    }
    if let Some(keywords) = object.keywords
        && !matches!(arena.value(keywords), Some(Value::Dict(entries)) if entries.is_empty())
    {
        return Err(call.error("keywords", arena.kind(keywords), "none"));
    }
    for (place, state) in object.states.iter().enumerate() {
        let (read, needed) = match grows {
            Entries | Attributes => (arena.is_attributes(*state), "a dict of attributes"),
            Flags => {
                let flags = matches!(arena.value(*state), Some(Value::Tuple(flags)) if flags.len() == 3);
                (flags, "a tuple of 3 flags")
            }
            State => (place == 0, "one"),
            Not | Items | AsClass => (false, "none"),
        };
        if !read {
            return Err(call.error("state", arena.kind(*state), needed));
        }
    }
    Ok(())
}

/// Whether a name is one that checkpoints are made of and that imports and calls nothing of its
/// maker's choosing: what [`Pickle::meaning`](crate::Pickle::meaning) reads, and the types that it
/// meets as values.
///
/// Module and name are as Python 3 has them. Anything else is not known harmless.
#[must_use]
pub fn known_symbol(module: &str, name: &str) -> bool {
    Called::find(module, name).is_some()
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
        assert!(CALLED.is_sorted_by(|(m, n, ..), (o, p, ..)| (m, n) < (o, p)));
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

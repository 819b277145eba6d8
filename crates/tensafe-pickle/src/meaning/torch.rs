//! What torch writes: storages, tensors, parameters, sparse and quantized tensors.
//!
//! The arguments are those of `torch/_utils.py` and `torch/_tensor.py`, of all versions.

use std::ops::Range;

use super::{
    Bytes, Meaning, MeaningError,
    arena::{Arena, Call, is_bare},
    table::{Called, Grows, grown},
};
use crate::{Element, Id, Symbol, Value};

type Read<'p> = Result<Meaning<'p>, MeaningError>;

/// The bytes of tensors, stored once and referred to by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage<'p> {
    /// Where its bytes are.
    pub at: StorageAt<'p>,
    /// Its elements; `None` for bytes without a type.
    pub element: Option<Element>,
}

/// Where the bytes of a storage are.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageAt<'p> {
    /// Beside the pickle.
    Key {
        /// The name in the container.
        key: &'p str,
        /// The device that it was on.
        location: &'p str,
        /// Elements that the pickle says it has, or bytes where it has no type.
        count: u64,
        /// The part of another storage that it is.
        view: Option<StorageView<'p>>,
    },
    /// A torch file of its own, which holds this storage alone.
    File(Bytes<'p>),
}

/// A part of another storage, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageView<'p> {
    /// The name of the part.
    pub key: &'p str,
    /// Its first element.
    pub offset: u64,
    /// Elements.
    pub count: u64,
}

/// A strided tensor: a way to walk over a storage. Shapes are row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'p> {
    /// Where its elements are.
    pub storage: Storage<'p>,
    /// Its elements; `None` where only the storage's own file tells.
    pub element: Option<Element>,
    /// The first element, counted in elements from the storage's start.
    pub offset: u64,
    /// Elements in each dimension.
    pub shape: Vec<u64>,
    /// Elements from one to the next in each dimension.
    pub strides: Vec<i64>,
    /// Whether the imaginary parts are to be negated.
    pub conjugate: bool,
    /// Whether the elements are to be negated.
    pub negative: bool,
}

impl Tensor<'_> {
    /// Elements in all, or `None` beyond 64 bits.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1u64, |all, length| all.checked_mul(*length))
    }

    /// The elements of the storage that it touches, from the first to the last; empty where it has
    /// no elements. `None` where a place lies before the storage's start or beyond 64 bits.
    #[must_use]
    pub fn extent(&self) -> Option<Range<u64>> {
        if self.elements()? == 0 {
            return Some(self.offset..self.offset);
        }
        let (mut low, mut high) = (i128::from(self.offset), i128::from(self.offset));
        for (length, stride) in self.shape.iter().zip(&self.strides) {
            let reach = i128::from(*stride).checked_mul(i128::from(length.checked_sub(1)?))?;
            if reach < 0 {
                low = low.checked_add(reach)?;
            } else {
                high = high.checked_add(reach)?;
            }
        }
        Some(u64::try_from(low).ok()?..u64::try_from(high.checked_add(1)?).ok()?)
    }

    /// Whether the elements lie one after another in row-major order, without a gap.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1i128;
        for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *length == 0 {
                return true;
            }
            if *length != 1 && i128::from(*stride) != step {
                return false;
            }
            step = step.saturating_mul(i128::from(*length));
        }
        true
    }
}

/// How a sparse tensor is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are torch's")]
pub enum Layout {
    Coo,
    Csr,
    Csc,
    Bsr,
    Bsc,
}

impl Layout {
    /// The attribute of the `torch` module that names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coo => "sparse_coo",
            Self::Csr => "sparse_csr",
            Self::Csc => "sparse_csc",
            Self::Bsr => "sparse_bsr",
            Self::Bsc => "sparse_bsc",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Coo, Self::Csr, Self::Csc, Self::Bsr, Self::Bsc]
            .into_iter()
            .find(|layout| layout.name() == name.strip_prefix("torch.").unwrap_or(name))
    }
}

/// What turns the integers of a quantized tensor into numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantizer<'p> {
    /// One scale and one zero point.
    Tensor {
        /// The scale.
        scale: f64,
        /// The integer that stands for 0.
        zero_point: i64,
    },
    /// The same for each place of one dimension, as torch before 1.5 wrote it: numbers.
    Channels {
        /// The scales.
        scales: Vec<f64>,
        /// The integers that stand for 0.
        zero_points: Vec<i64>,
        /// The dimension.
        axis: i64,
    },
    /// A scale and a zero point for each place of one dimension.
    Channel {
        /// The scales.
        scales: Box<Tensor<'p>>,
        /// The integers that stand for 0.
        zero_points: Box<Tensor<'p>>,
        /// The dimension.
        axis: i64,
    },
}

impl<'p> Arena<'p> {
    /// The storage that a persistent reference names, or `None` where it names something else.
    pub(crate) fn storage(self, id: Id) -> Result<Option<Storage<'p>>, MeaningError> {
        let failed = |what, found, needed| MeaningError::new("storage", what, found, needed);
        let name = match self.value(id) {
            Some(Value::Persistent(name)) => *name,
            Some(Value::Object(object)) => return self.storage_file(object),
            _ => return Ok(None),
        };
        let Some(Value::Tuple(parts)) = self.value(name) else { return Ok(None) };
        let [tag, class, key, location, count, rest @ ..] = &parts[..] else { return Ok(None) };
        if self.text(*tag) != Some("storage") {
            return Ok(None);
        }
        let class = self
            .symbol(*class)
            .and_then(storage_element)
            .ok_or_else(|| failed("type", self.kind(*class), "a storage class of torch"))?;
        let key = self.text(*key).ok_or_else(|| failed("key", self.kind(*key), "text"))?;
        let location =
            self.text(*location).ok_or_else(|| failed("location", self.kind(*location), "text"))?;
        let count = self
            .unsigned(*count)
            .ok_or_else(|| failed("length", self.kind(*count), "a count of elements"))?;
        let view = match rest {
            [] => None,
            [view] if self.is_none(*view) => None,
            [view] => Some(
                self.storage_view(*view)
                    .ok_or_else(|| failed("view", self.kind(*view), "a key, an offset and a length"))?,
            ),
            _ => return Err(failed("parts", format!("{}", parts.len()), "5 or 6")),
        };
        Ok(Some(Storage { at: StorageAt::Key { key, location, count, view }, element: class }))
    }

    fn storage_view(self, id: Id) -> Option<StorageView<'p>> {
        let [key, offset, count] = self.items(id)? else { return None };
        Some(StorageView {
            key: self.text(*key)?,
            offset: self.unsigned(*offset)?,
            count: self.unsigned(*count)?,
        })
    }

    /// A storage that Python's own pickle wrote: a torch file within the pickle.
    fn storage_file(self, object: &'p crate::Object) -> Result<Option<Storage<'p>>, MeaningError> {
        let named = self
            .symbol(object.callable)
            .filter(|symbol| (&*symbol.module, &*symbol.name) == ("torch.storage", "_load_from_bytes"));
        let Some(symbol) = named else { return Ok(None) };
        let call = Call::new(self, symbol, object, 0)?;
        grown(&call, Grows::Not)?;
        let bytes = call.typed(0, "the file", "bytes", |id| self.bytes(id))?;
        Ok(Some(Storage { at: StorageAt::File(bytes), element: None }))
    }
}

/// The elements of a storage class: `Some(None)` for bytes without a type.
fn storage_element(symbol: &Symbol<'_>) -> Option<Option<Element>> {
    match (&*symbol.module, &*symbol.name) {
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => Some(None),
        ("torch" | "torch.cuda", name) => Element::from_storage(name).map(Some),
        _ => None,
    }
}

/// `_rebuild_tensor(storage, offset, size, stride, …)`, and the same of version 2, whose last
/// argument may say that the tensor is conjugated or negated.
pub(super) fn tensor(call: Call<'_>) -> Read<'_> {
    strided(&call, 6, None).map(Meaning::Tensor)
}

/// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata)`.
pub(super) fn tensor_v3(call: Call<'_>) -> Read<'_> {
    let element = dtype_argument(&call, 6)?;
    strided(&call, 7, Some(element)).map(Meaning::Tensor)
}

fn strided<'p>(call: &Call<'p>, flags: usize, element: Option<Element>) -> Result<Tensor<'p>, MeaningError> {
    let arena = call.arena;
    let place = call.argument(0, "storage")?;
    let storage = arena.storage(place)?;
    let storage = storage.ok_or_else(|| call.error("storage", arena.kind(place), "a storage"))?;
    let offset = call.typed(1, "storage offset", "an integer from 0 on", |id| arena.unsigned(id))?;
    let shape = call.typed(2, "size", "a tuple of integers from 0 on", |id| arena.shape(id))?;
    let strides = call.typed(3, "stride", "a tuple of integers", |id| arena.strides(id))?;
    if shape.len() != strides.len() {
        let found = format!("{} strides", strides.len());
        return Err(call.error("stride", found, "one for each dimension"));
    }
    let flag = |name| {
        let entries = call.arguments.get(flags).and_then(|id| arena.value(*id));
        let Some(Value::Dict(entries)) = entries else { return false };
        arena.entry(entries, name).is_some_and(|id| matches!(arena.value(id), Some(Value::Bool(true))))
    };
    let element = element.or(storage.element);
    let (conjugate, negative) = (flag("conj"), flag("neg"));
    Ok(Tensor { storage, element, offset, shape, strides, conjugate, negative })
}

/// The element that a `torch.float32` among the arguments names.
fn dtype_argument(call: &Call<'_>, index: usize) -> Result<Element, MeaningError> {
    call.typed(index, "dtype", "a dtype of torch", |id| dtype(call.arena, id))
}

fn dtype(arena: Arena<'_>, id: Id) -> Option<Element> {
    let symbol = arena.symbol(id).filter(|symbol| symbol.module == "torch")?;
    Element::from_dtype(&symbol.name)
}

/// `_rebuild_parameter(data, requires_grad, hooks)`, and with a dict of attributes behind them.
pub(super) fn parameter(call: Call<'_>) -> Read<'_> {
    let value = call.inner(0, "data")?;
    match call.arguments.get(3) {
        Some(state) if !call.arena.is_none(*state) => {
            Ok(Meaning::With { value: Box::new(value), class: None, attributes: vec![*state] })
        }
        _ => Ok(value),
    }
}

/// `Parameter(data)` and `Variable(data)`, as torch before 0.4 wrote them, with the gradient's flags
/// as state.
pub(super) fn wrapped(call: Call<'_>) -> Read<'_> {
    call.inner(0, "data")
}

/// `_rebuild_from_type_v2(function, type, arguments, state)`.
pub(super) fn from_type(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let function = call.typed(0, "function", "a name", |id| arena.symbol(id))?;
    let class = call.typed(1, "type", "a name", |id| arena.symbol(id))?;
    let arguments = call.argument(2, "arguments")?;
    let Some(called) = Called::find(&function.module, &function.name) else {
        return Ok(Meaning::Unknown { symbol: Some(function), object: call.object });
    };
    let Some(Value::Tuple(arguments)) = arena.value(arguments) else {
        return Err(call.error("arguments", arena.kind(arguments), "a tuple"));
    };
    let depth = call.depth.saturating_add(1);
    if depth > super::DEPTH {
        return Err(call.error("depth", "more levels", "at most 16"));
    }
    let value = called.read(Call { symbol: function, arguments, depth, ..call })?;
    let plain = class.module == "torch" || class.module.starts_with("torch.nn.parameter");
    let class = Some(class).filter(|_| !plain);
    let attributes: Vec<Id> = call.arguments.get(3).copied().into_iter().collect();
    let bare = attributes.iter().all(|id| {
        arena.is_none(*id) || matches!(arena.value(*id), Some(Value::Dict(entries)) if entries.is_empty())
    });
    if class.is_none() && bare {
        return Ok(value);
    }
    Ok(Meaning::With {
        value: Box::new(value),
        class,
        attributes: if bare { Vec::new() } else { attributes },
    })
}

/// `_rebuild_sparse_tensor(layout, data)`.
pub(super) fn sparse(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let layout = call.typed(0, "layout", "a sparse layout of torch", |id| layout(arena, id))?;
    let data = call.typed(1, "data", "a tuple", |id| arena.items(id))?;
    let (indices, values, shape) = match (layout, data) {
        (Layout::Coo, [indices, values, shape] | [indices, values, shape, _]) => {
            (vec![*indices], *values, *shape)
        }
        (Layout::Coo, _) => {
            return Err(call.error("data", format!("{} parts", data.len()), "indices, values and size"));
        }
        (_, [compressed, plain, values, shape]) => (vec![*compressed, *plain], *values, *shape),
        _ => return Err(call.error("data", format!("{} parts", data.len()), "4 parts")),
    };
    let shape =
        arena.shape(shape).ok_or_else(|| call.error("size", arena.kind(shape), "integers from 0 on"))?;
    Ok(Meaning::Sparse { layout, indices, values, shape })
}

fn layout(arena: Arena<'_>, id: Id) -> Option<Layout> {
    if let Some(symbol) = arena.symbol(id) {
        return Some(&*symbol.name).filter(|_| symbol.module == "torch").and_then(Layout::from_name);
    }
    let Some(Value::Object(object)) = arena.value(id) else { return None };
    let symbol = arena.symbol(object.callable).filter(|_| is_bare(object))?;
    let [name] = arena.items(object.arguments)? else { return None };
    if symbol.name != "_get_layout" {
        return None;
    }
    Layout::from_name(arena.text(*name)?)
}

/// `_rebuild_qtensor(storage, offset, size, stride, quantizer, requires_grad, hooks)`.
pub(super) fn quantized(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let tensor = strided(&call, usize::MAX, None)?;
    let parts = call.typed(4, "quantizer", "a tuple", |id| arena.items(id))?;
    let scheme = parts.first().and_then(|id| arena.symbol(*id)).map(|symbol| &*symbol.name);
    let quantizer = match (scheme, parts) {
        (Some("per_tensor_affine"), [_, scale, zero_point]) => {
            match (arena.float(*scale), arena.int(*zero_point)) {
                (Some(scale), Some(zero_point)) => Quantizer::Tensor { scale, zero_point },
                _ => return Err(call.error("quantizer", arena.kind(*scale), "a scale and a zero point")),
            }
        }
        (Some("per_channel_affine" | "per_channel_affine_float_qparams"), [_, scales, zero_points, axis]) => {
            let part = |id| match arena.meaning(id, call.depth.saturating_add(1))? {
                Meaning::Tensor(tensor) => Ok(Box::new(tensor)),
                _ => Err(call.error("quantizer", arena.kind(id), "a tensor of scales or zero points")),
            };
            let axis = arena.int(*axis).ok_or_else(|| call.error("axis", arena.kind(*axis), "an integer"))?;
            if let Some(quantizer) = channels(arena, *scales, *zero_points, axis) {
                return Ok(Meaning::Quantized { tensor, quantizer });
            }
            Quantizer::Channel { scales: part(*scales)?, zero_points: part(*zero_points)?, axis }
        }
        _ => return Err(call.error("quantizer", scheme.unwrap_or("no name"), "a scheme of torch")),
    };
    Ok(Meaning::Quantized { tensor, quantizer })
}

/// Scales and zero points that are lists of numbers, as many of the one as of the other.
fn channels<'p>(arena: Arena<'p>, scales: Id, zero_points: Id, axis: i64) -> Option<Quantizer<'p>> {
    let scales: Vec<f64> = arena.items(scales)?.iter().map(|id| arena.float(*id)).collect::<Option<_>>()?;
    let zero_points: Vec<i64> =
        arena.items(zero_points)?.iter().map(|id| arena.int(*id)).collect::<Option<_>>()?;
    (scales.len() == zero_points.len()).then_some(Quantizer::Channels { scales, zero_points, axis })
}

/// Tensors that are described and have no data: `_rebuild_meta_tensor_no_storage(dtype, …)`.
pub(super) fn empty(call: Call<'_>) -> Read<'_> {
    Ok(Meaning::Empty { symbol: call.symbol, class: None })
}

/// `_rebuild_wrapper_subclass(class, …)`.
pub(super) fn wrapper(call: Call<'_>) -> Read<'_> {
    let class = call.arguments.first().and_then(|id| call.arena.symbol(*id));
    Ok(Meaning::Empty { symbol: call.symbol, class })
}

/// `_rebuild_device_tensor_from_numpy(array, dtype, device, requires_grad)`, and from a tensor of
/// the CPU.
pub(super) fn of_device(call: Call<'_>) -> Read<'_> {
    let value = call.inner(0, "data")?;
    let (Meaning::Array(_) | Meaning::Tensor(_)) = value else {
        return Err(call.error("data", call.arena.kind(call.arguments[0]), "an array or a tensor"));
    };
    // The array may be of another type where numpy lacks the tensor's.
    let wanted = dtype_argument(&call, 1)?;
    match value {
        Meaning::Tensor(tensor) if tensor.element.is_none_or(|found| found == wanted) => {
            Ok(Meaning::Tensor(tensor))
        }
        Meaning::Array(array) if array.number.element() == Some(wanted) => Ok(Meaning::Array(array)),
        _ => Err(call.error("dtype", wanted.name(), "the type that the data has")),
    }
}

/// `_load_from_bytes(bytes)`: a torch file within a pickle.
pub(super) fn load_from_bytes(call: Call<'_>) -> Read<'_> {
    let bytes = call.typed(0, "the file", "bytes", |id| call.arena.bytes(id))?;
    Ok(Meaning::Storage(Storage { at: StorageAt::File(bytes), element: None }))
}

/// `torch.Size(tuple)`.
pub(super) fn size(call: Call<'_>) -> Read<'_> {
    match call.arguments {
        [] => Ok(Meaning::Sequence(Vec::new())),
        _ => Ok(Meaning::Sequence(call.typed(0, "size", "a tuple", |id| call.arena.items(id))?.to_vec())),
    }
}

/// `torch.device(type, index)`.
pub(super) fn device(call: Call<'_>) -> Read<'_> {
    let kind = call.typed(0, "type", "text", |id| call.arena.text(id))?;
    let index = call.arguments.get(1).and_then(|id| call.arena.int(*id));
    let text = index.map_or_else(|| kind.to_owned(), |index| format!("{kind}:{index}"));
    Ok(Meaning::Named { kind: "device", text })
}

/// `torch.serialization._get_layout(name)`.
pub(super) fn get_layout(call: Call<'_>) -> Read<'_> {
    let text = call.typed(0, "layout", "text", |id| call.arena.text(id))?;
    Ok(Meaning::Named { kind: "layout", text: text.to_owned() })
}

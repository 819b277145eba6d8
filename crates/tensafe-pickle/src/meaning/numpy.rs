//! What numpy and joblib write: arrays, scalars, and dtypes.

use std::ops::Range;

use super::{
    Bytes, Meaning, MeaningError,
    arena::{Arena, Call},
};
use crate::{Behind, Element, Id, Value};

type Read<'p> = Result<Meaning<'p>, MeaningError>;

/// Dtypes within one: the fields of a structure, and theirs. They are looked through for each array.
const DTYPES: usize = 512;

/// The numbers of an array, as numpy writes them: kind, bytes, order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    /// numpy's letter: `b i u f c` for numbers, `O` for objects, `V S U M m` for what else there is.
    pub kind: char,
    /// Bytes of one.
    pub bytes: u64,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// Whether it has fields, or is made of parts.
    pub structured: bool,
    /// Whether it refers to Python's objects.
    pub has_objects: bool,
}

impl Number {
    /// The number that a text such as `f8`, `<i4` or `>c16` stands for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (big_endian, rest) = match text.as_bytes().first()? {
            b'>' => (true, text.get(1..)?),
            b'<' | b'=' | b'|' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let mut letters = rest.chars();
        let kind = letters.next()?;
        let digits = letters.as_str();
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            // Units of dates stand in brackets: datetime64[ns].
            let (digits, unit) = digits.split_once('[')?;
            let bytes = digits.parse().ok()?;
            let number = Self { kind, bytes, big_endian, structured: false, has_objects: false };
            return Some(number).filter(|_| matches!(kind, 'M' | 'm') && unit.ends_with(']'));
        }
        let bytes: u64 = match (kind, digits) {
            ('O', "") => 8,
            ('?', "") => 1,
            (_, digits) => digits.parse().ok()?,
        };
        let kind = if kind == '?' { 'b' } else { kind };
        if !matches!(kind, 'b' | 'i' | 'u' | 'f' | 'c' | 'O' | 'V' | 'S' | 'a' | 'U' | 'M' | 'm') {
            return None;
        }
        let bytes = if kind == 'U' { bytes.checked_mul(4)? } else { bytes };
        Some(Self { kind, bytes, big_endian, structured: false, has_objects: kind == 'O' })
    }

    /// The element of torch with the same bits, where there is one.
    #[must_use]
    pub fn element(self) -> Option<Element> {
        if self.structured {
            return None;
        }
        Some(match (self.kind, self.bytes) {
            ('b', 1) => Element::Bool,
            ('u', 1) => Element::U8,
            ('i', 1) => Element::I8,
            ('u', 2) => Element::U16,
            ('i', 2) => Element::I16,
            ('u', 4) => Element::U32,
            ('i', 4) => Element::I32,
            ('u', 8) => Element::U64,
            ('i', 8) => Element::I64,
            ('f', 2) => Element::F16,
            ('f', 4) => Element::F32,
            ('f', 8) => Element::F64,
            ('c', 8) => Element::C64,
            ('c', 16) => Element::C128,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.structured {
            return write!(f, "a structure of {} bytes", self.bytes);
        }
        let order = if self.bytes < 2 {
            '|'
        } else if self.big_endian {
            '>'
        } else {
            '<'
        };
        let length = if self.kind == 'U' { self.bytes / 4 } else { self.bytes };
        write!(f, "{order}{}{length}", self.kind)
    }
}

/// An array: numbers, their shape (row-major), and where they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<'p> {
    /// What its numbers are.
    pub number: Number,
    /// Numbers in each dimension.
    pub shape: Vec<u64>,
    /// Whether the first dimension varies fastest.
    pub fortran: bool,
    /// Where they are.
    pub data: ArrayData<'p>,
}

/// Where the numbers of an array are.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayData<'p> {
    /// Bytes, one number after another.
    Bytes(Bytes<'p>),
    /// Python's objects: they are no numbers.
    Objects(Vec<Id>),
    /// A file of its own beside this one, as joblib before 0.10 wrote.
    File {
        /// Its name, without a directory.
        name: &'p str,
        /// Whether it holds the numbers alone, compressed, and no `.npy` file.
        bare: bool,
    },
}

/// What a record of joblib announces behind itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The bytes of an array, after padding or not.
    Bytes { bytes: u64, padded: bool },
    /// A pickle of its objects.
    Pickle,
}

impl<'p> Arena<'p> {
    /// The array that joblib writes behind this record, if it is such a record. The error says what
    /// the record lacks.
    pub(crate) fn announced_array(self, id: Id) -> Option<Result<Announced, &'static str>> {
        let Some(Value::Object(object)) = self.value(id) else { return None };
        let mut symbol = self.symbol(object.callable)?;
        if (&*symbol.module, &*symbol.name) == ("copyreg", "_reconstructor") {
            // How protocols before 2 make an instance: of the class that is the first argument.
            symbol = self.symbol(*self.items(object.arguments)?.first()?)?;
        }
        if (&*symbol.module, &*symbol.name) != ("joblib.numpy_pickle", "NumpyArrayWrapper") {
            return None;
        }
        // Behind the first BUILD joblib has the array on its stack, and would build that.
        if object.states.len() != 1 || object.behind != Behind::Nothing {
            return Some(Err("single state"));
        }
        let call = Call { arena: self, symbol, object, arguments: &[], depth: 0 };
        Some(self.announced(&call.state_entries()))
    }

    fn announced(self, state: &[(Id, Id)]) -> Result<Announced, &'static str> {
        let number = self.entry(state, "dtype").and_then(|id| self.number(id)).ok_or("dtype")?;
        if number.has_objects {
            return Ok(Announced::Pickle);
        }
        let shape = self.entry(state, "shape").and_then(|id| self.shape(id)).ok_or("shape")?;
        let count = shape.iter().try_fold(1u64, |all, length| all.checked_mul(*length));
        let bytes = count.and_then(|count| count.checked_mul(number.bytes)).ok_or("shape within 64 bits")?;
        let aligned = self.entry(state, "numpy_array_alignment_bytes");
        Ok(Announced::Bytes { bytes, padded: aligned.is_some_and(|id| !self.is_none(id)) })
    }

    /// `numpy.dtype("f8", False, True)`, with its state `(3, "<", None, None, None, -1, -1, 0)`.
    pub(crate) fn number(self, id: Id) -> Option<Number> {
        self.number_within(id, 0, &mut DTYPES.clone())
    }

    /// The same of a dtype within others, of which so many may still be met.
    fn number_within(self, id: Id, depth: usize, left: &mut usize) -> Option<Number> {
        *left = left.checked_sub(1).filter(|_| depth <= super::DEPTH)?;
        let Some(Value::Object(object)) = self.value(id) else { return None };
        let symbol = self.symbol(object.callable)?;
        if (&*symbol.module, &*symbol.name) != ("numpy", "dtype") {
            return None;
        }
        let arguments = self.items(object.arguments)?;
        let mut number = Number::parse(self.text(*arguments.first()?)?)?;
        match object.states[..] {
            _ if !object.items.is_empty() || !object.entries.is_empty() => None,
            [] => Some(number),
            // numpy sets the state of a copy. Of its own dtypes it sets none.
            [state] if self.int(*arguments.get(2)?) == Some(1) => {
                self.set_dtype(&mut number, self.items(state)?, depth, left)?;
                Some(number)
            }
            _ => None,
        }
    }

    /// `(3, order, subarray, names, fields, bytes, alignment, flags)`, in version 4 with metadata behind.
    /// No other version is read: in those before 3, numpy looks for objects and does not trust the flags.
    fn set_dtype(self, number: &mut Number, state: &[Id], depth: usize, left: &mut usize) -> Option<()> {
        let [version, order, subarray, names, fields, bytes, _, flags, metadata @ ..] = state else {
            return None;
        };
        match (self.int(*version)?, metadata) {
            (3, []) | (4, [_]) => {}
            _ => return None,
        }
        number.big_endian = self.text(*order)? == ">";
        number.structured = [subarray, names, fields].iter().any(|part| !self.is_none(**part));
        // Of text and structures the state tells the size, of numbers the name.
        if matches!(number.kind, 'V' | 'S' | 'a' | 'U') {
            match self.int(*bytes)? {
                -1 if !number.structured => {}
                bytes => number.bytes = u64::try_from(bytes).ok()?,
            }
        }
        let base = Some(*subarray).filter(|subarray| !self.is_none(*subarray));
        let fields = match self.value(*fields) {
            Some(Value::Dict(fields)) => &fields[..],
            Some(Value::None) => &[],
            _ => return None,
        };
        // `(dtype, shape)`, and `(dtype, offset)` of each field.
        for part in base.into_iter().chain(fields.iter().map(|(_, field)| *field)) {
            let part = *self.items(part)?.first()?;
            number.has_objects |= self.number_within(part, depth.saturating_add(1), left)?.has_objects;
        }
        // joblib believes the flags: they may tell of objects that nothing else tells of, and hide none.
        const HAS_OBJECTS: i64 = 1;
        let flagged = self.int(*flags)? & HAS_OBJECTS != 0;
        if number.has_objects && !flagged {
            return None;
        }
        number.has_objects = flagged;
        Some(())
    }
}

/// `numpy.core.multiarray._reconstruct(class, (0,), b"b")` with its state
/// `(version, shape, dtype, fortran, data)`.
pub(super) fn reconstruct(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let class = call.typed(0, "class", "a name", |id| arena.symbol(id))?;
    if !is_array_class(&class.module, &class.name) {
        return Ok(Meaning::Unknown { symbol: Some(class), object: call.object });
    }
    let state = call.object.states.last();
    let state = state.and_then(|state| arena.items(*state));
    let parts = match state {
        Some([_, shape, dtype, fortran, data]) | Some([shape, dtype, fortran, data]) => {
            [*shape, *dtype, *fortran, *data]
        }
        _ => return Err(call.error("state", "another", "version, shape, dtype, order and data")),
    };
    let [shape, dtype, fortran, data] = parts;
    let shape =
        arena.shape(shape).ok_or_else(|| call.error("shape", arena.kind(shape), "integers from 0 on"))?;
    let number =
        arena.number(dtype).ok_or_else(|| call.error("dtype", arena.kind(dtype), "a dtype of numpy"))?;
    let fortran = matches!(arena.value(fortran), Some(Value::Bool(true) | Value::Int(1)));
    let data = match arena.value(data) {
        Some(Value::List(items)) => ArrayData::Objects(items.clone()),
        _ => {
            ArrayData::Bytes(arena.bytes(data).ok_or_else(|| call.error("data", arena.kind(data), "bytes"))?)
        }
    };
    checked(&call, Array { number, shape, fortran, data }).map(Meaning::Array)
}

/// `numpy.core.numeric._frombuffer(data, dtype, shape, order)`.
pub(super) fn from_buffer(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let data = call.typed(0, "data", "bytes", |id| arena.bytes(id))?;
    let number = call.typed(1, "dtype", "a dtype of numpy", |id| arena.number(id))?;
    let shape = call.typed(2, "shape", "integers from 0 on", |id| arena.shape(id))?;
    let order = call.typed(3, "order", "text", |id| arena.text(id))?;
    let fortran = order == "F";
    checked(&call, Array { number, shape, fortran, data: ArrayData::Bytes(data) }).map(Meaning::Array)
}

/// `numpy.core.multiarray.scalar(dtype, data)`.
pub(super) fn scalar(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let number = call.typed(0, "dtype", "a dtype of numpy", |id| arena.number(id))?;
    let data = match call.arguments.get(1) {
        Some(data) => arena.bytes(*data),
        None => None,
    };
    let data = data.ok_or_else(|| call.error("data", "no bytes", "the bytes of one number"))?;
    let array = Array { number, shape: Vec::new(), fortran: false, data: ArrayData::Bytes(data) };
    checked(&call, array).map(Meaning::Scalar)
}

/// `numpy.dtype(…)` as a value.
pub(super) fn dtype(call: Call<'_>) -> Read<'_> {
    let name = call.typed(0, "name", "text", |id| call.arena.text(id))?;
    let order = call.object.states.first().and_then(|state| call.arena.items(*state));
    let order = order.and_then(|parts| parts.get(1)).and_then(|id| call.arena.text(*id));
    let order = order.filter(|order| matches!(*order, "<" | ">")).unwrap_or_default();
    Ok(Meaning::Named { kind: "dtype", text: format!("{order}{name}") })
}

/// joblib's `NumpyArrayWrapper`: the array stands behind it.
pub(super) fn joblib_array(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let state = call.state_entries();
    let part = |name: &'static str| {
        arena.entry(&state, name).ok_or_else(|| call.error("state", "no such entry", name))
    };
    let number = arena.number(part("dtype")?);
    let number = number.ok_or_else(|| call.error("dtype", "something else", "a dtype of numpy"))?;
    let shape = arena.shape(part("shape")?);
    let shape = shape.ok_or_else(|| call.error("shape", "something else", "integers from 0 on"))?;
    let fortran = arena.text(part("order")?) == Some("F");
    let data = match &call.object.behind {
        Behind::Bytes(Range { start, end }) => ArrayData::Bytes(Bytes::Far(*start..*end)),
        Behind::Pickle(root) => match arena.meaning(*root, call.depth.saturating_add(1))? {
            Meaning::Array(array) => return Ok(Meaning::Array(array)),
            _ => return Err(call.error("objects", arena.kind(*root), "an array of objects")),
        },
        Behind::Nothing => return Err(call.error("data", "nothing", "an array behind the record")),
    };
    checked(&call, Array { number, shape, fortran, data }).map(Meaning::Array)
}

/// joblib's `NDArrayWrapper` of before 0.10: the array is a `.npy` file beside this one.
pub(super) fn joblib_file(call: Call<'_>) -> Read<'_> {
    let state = call.state_entries();
    let name = side_file(&call, &state)?;
    let number = Number { kind: 'V', bytes: 0, big_endian: false, structured: true, has_objects: false };
    let data = ArrayData::File { name, bare: false };
    Ok(Meaning::Array(Array { number, shape: Vec::new(), fortran: false, data }))
}

/// The name of a file beside the pickle: no path.
fn side_file<'p>(call: &Call<'p>, state: &[(Id, Id)]) -> Result<&'p str, MeaningError> {
    let arena = call.arena;
    let name = arena.entry(state, "filename").and_then(|id| arena.text(id));
    let name = name.ok_or_else(|| call.error("filename", "none", "the name of a file"))?;
    if name.contains(['/', '\\', '\0']) || matches!(name, "" | "." | "..") {
        return Err(call.error(
            "filename",
            format!("`{}`", name.escape_debug()),
            "a name without a directory",
        ));
    }
    Ok(name)
}

/// joblib's `ZNDArrayWrapper` of before 0.10: the bytes of the array are a compressed file beside this
/// one; shape, dtype and order stand in the record.
pub(super) fn joblib_compressed(call: Call<'_>) -> Read<'_> {
    let arena = call.arena;
    let state = call.state_entries();
    let name = side_file(&call, &state)?;
    let parts = arena.entry(&state, "state").and_then(|id| arena.items(id));
    let Some([_, shape, dtype, fortran]) = parts else {
        return Err(call.error("state", "another", "version, shape, dtype and order"));
    };
    let shape =
        arena.shape(*shape).ok_or_else(|| call.error("shape", arena.kind(*shape), "integers from 0 on"))?;
    let number = arena.number(*dtype);
    let number = number.ok_or_else(|| call.error("dtype", arena.kind(*dtype), "a dtype of numpy"))?;
    let fortran = matches!(arena.value(*fortran), Some(Value::Bool(true) | Value::Int(1)));
    checked(&call, Array { number, shape, fortran, data: ArrayData::File { name, bare: true } })
        .map(Meaning::Array)
}

/// The bytes that are there against those that shape and dtype need.
fn checked<'p>(call: &Call<'p>, array: Array<'p>) -> Result<Array<'p>, MeaningError> {
    let count = array.shape.iter().try_fold(1u64, |all, length| all.checked_mul(*length));
    let needed = count.and_then(|count| count.checked_mul(array.number.bytes));
    let Some(needed) = needed else {
        return Err(call.error("shape", "a product beyond 64 bits", "one within"));
    };
    match &array.data {
        ArrayData::Bytes(bytes) if bytes.len() != needed && !array.number.has_objects => Err(call.error(
            "data",
            format!("{} bytes where shape and dtype ask for {needed}", bytes.len()),
            "as many",
        )),
        _ => Ok(array),
    }
}

fn is_array_class(module: &str, name: &str) -> bool {
    matches!(
        (module, name),
        ("numpy", "ndarray" | "matrix" | "memmap" | "recarray")
            | ("numpy.core.memmap" | "numpy._core.memmap", "memmap")
            | ("numpy.matrixlib.defmatrix", "matrix")
    )
}

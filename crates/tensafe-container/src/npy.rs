//! The header of one array of numpy: `\x93NUMPY`, a version, and a Python literal.
//!
//! The literal is the dictionary that numpy writes; a small strict parser reads that and nothing
//! else of Python. Structured dtypes are kept as their text.

mod literal;

use std::ops::Range;

use tensafe_io::Source;

use self::literal::Literal;
use crate::{
    Error, Limits,
    bytes::{read_exact, read_up_to, u16_at, u32_at},
};

const SUBJECT: &str = "npy header";
/// numpy itself refuses more.
const MOST_DIMENSIONS: usize = 64;

/// The header of one array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Npy {
    /// What the elements are.
    pub descr: Descr,
    /// Whether the first dimension is the one that runs fastest.
    pub fortran_order: bool,
    /// Elements in each dimension.
    pub shape: Vec<u64>,
    /// Where in the source the elements stand, half-open. Of [`Descr::Object`] and
    /// [`Descr::Structured`], whose lengths the header does not tell: all bytes up to the end.
    pub data: Range<u64>,
}

/// What the elements of an array are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Descr {
    /// One number, or one text or byte string of fixed length, for each element.
    Simple {
        /// Of its bytes.
        order: ByteOrder,
        /// numpy's letter: `b` boolean, `i` and `u` integers, `f` float, `c` complex, `S` bytes,
        /// `U` text, `V` raw, `m` and `M` times.
        kind: char,
        /// Bytes of one element.
        bytes: u64,
        /// What stands behind the size: the unit of a time, else nothing.
        unit: String,
    },
    /// Records of fields, as the header writes them.
    Structured(String),
    /// Objects of Python: the data is a pickle.
    Object,
}

/// The order of an element's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// `<`
    Little,
    /// `>`
    Big,
    /// `|`: elements of single bytes.
    None,
    /// `=`: that of the writer's machine, which the file does not tell.
    Native,
}

impl Npy {
    /// Reads the header whose first byte, that of the magic, is at `offset`.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where the header is not one that numpy writes, or the
    /// elements do not fit the source, [`Limit`](crate::ErrorKind::Limit) where it is longer than
    /// [`Limits::header_bytes`], [`Unsupported`](crate::ErrorKind::Unsupported) for a version other
    /// than 1, 2 and 3.
    ///
    /// # Cost
    /// Two reads; the header is in memory while it is parsed.
    pub fn read(source: &dyn Source, offset: u64, limits: &Limits) -> Result<Self, Error> {
        let head = read_up_to(source, offset.min(source.len()), 12)?;
        let (Some(major), Some(minor)) = (head.get(6).copied(), head.get(7).copied()) else {
            return Err(Error::short(SUBJECT, offset, head.len() as u64, 10));
        };
        if !head.starts_with(b"\x93NUMPY") {
            return Err(Error::wrong(SUBJECT, offset, "other bytes", "`\\x93NUMPY`"));
        }
        let (prefix, len) = match (major, minor) {
            (1, 0) => (10_u64, u16_at(&head, 8).map(u64::from)),
            (2 | 3, 0) => (12, u32_at(&head, 8).map(u64::from)),
            _ => return Err(Error::unsupported(SUBJECT, offset, format_args!("version {major}.{minor}"))),
        };
        let len = len.ok_or_else(|| Error::short(SUBJECT, offset, head.len() as u64, prefix))?;
        if len > limits.header_bytes {
            let what = "bytes of the npy header";
            return Err(Error::limit(what, offset, len, limits.header_bytes, "header_bytes"));
        }
        let at = offset.saturating_add(prefix);
        let text = read_exact(source, at, len, SUBJECT)?;
        // Versions 1 and 2 are Latin-1, 3 is UTF-8.
        let text = match major {
            3 => String::from_utf8(text).map_err(|e| {
                let place = at.saturating_add(e.utf8_error().valid_up_to() as u64);
                Error::wrong(SUBJECT, place, "bytes that are not UTF-8", "UTF-8")
            })?,
            _ => text.iter().copied().map(char::from).collect(),
        };
        let (descr, fortran_order, shape) = fields(&text, at)?;
        let start = at.saturating_add(len);
        let data = data(&descr, &shape, start, source.len())?;
        Ok(Self { descr, fortran_order, shape, data })
    }

    /// Elements in all; 1 where there are no dimensions.
    #[must_use]
    pub fn elements(&self) -> u64 {
        // That the product fits was checked when the header was read.
        self.shape.iter().fold(1, |product, n| product.saturating_mul(*n))
    }
}

/// The three entries of the dictionary, in any order, each once.
fn fields(text: &str, at: u64) -> Result<(Descr, bool, Vec<u64>), Error> {
    let literal = literal::parse(text).map_err(|(place, needed)| {
        let rest: String = text.get(place..).unwrap_or_default().chars().take(16).collect();
        let found = format!("`{}`", rest.escape_debug()).to_string();
        Error::wrong(SUBJECT, at.saturating_add(place as u64), found, needed)
    })?;
    let wrong = |found: &str, needed: &str| Error::wrong(SUBJECT, at, found, needed);
    let Literal::Dict(entries) = literal else { return Err(wrong("another literal", "a dictionary")) };
    let (mut descr, mut order, mut shape) = (None, None, None);
    for (key, value) in entries {
        let twice = match (&*key, value) {
            ("descr", value) => descr.replace(self::descr(value, at)?).is_some(),
            ("fortran_order", Literal::Bool(value)) => order.replace(value).is_some(),
            ("shape", Literal::Tuple(items)) => shape.replace(self::shape(items, at)?).is_some(),
            (key, _) => {
                let found = format!("an entry `{}` of this kind", key.escape_debug()).to_string();
                return Err(wrong(&found, "`descr`, `fortran_order` and `shape`"));
            }
        };
        if twice {
            return Err(wrong(&format!("the entry `{key}` twice"), "once"));
        }
    }
    match (descr, order, shape) {
        (Some(descr), Some(order), Some(shape)) => Ok((descr, order, shape)),
        _ => Err(wrong("an entry missing", "`descr`, `fortran_order` and `shape`")),
    }
}

fn shape(items: Vec<Literal>, at: u64) -> Result<Vec<u64>, Error> {
    if items.len() > MOST_DIMENSIONS {
        let found = format!("{} dimensions", items.len());
        return Err(Error::wrong(SUBJECT, at, found, format_args!("at most {MOST_DIMENSIONS}")));
    }
    let number = |item| match item {
        Literal::Int(number) => Ok(number),
        _ => Err(Error::wrong(SUBJECT, at, "a shape of other things", "numbers")),
    };
    items.into_iter().map(number).collect()
}

fn descr(value: Literal, at: u64) -> Result<Descr, Error> {
    let text = match value {
        Literal::Text(text) => text,
        Literal::List { source, .. } => return Ok(Descr::Structured(source)),
        _ => return Err(Error::wrong(SUBJECT, at, "a descr of another kind", "a text or a list")),
    };
    let wrong = || {
        let found = format!("descr `{}`", text.escape_debug()).to_string();
        Error::wrong(SUBJECT, at, found, "byte order, letter and size, such as `<f4`")
    };
    let mut chars = text.chars();
    let (order, kind) = match chars.next() {
        Some('<') => (ByteOrder::Little, chars.next()),
        Some('>') => (ByteOrder::Big, chars.next()),
        Some('|') => (ByteOrder::None, chars.next()),
        Some('=') => (ByteOrder::Native, chars.next()),
        first => (ByteOrder::Native, first),
    };
    let kind = kind.ok_or_else(wrong)?;
    let rest = chars.as_str();
    if kind == 'O' && matches!(rest, "" | "4" | "8") {
        return Ok(Descr::Object);
    }
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (size, unit) = rest.split_at_checked(digits).ok_or_else(wrong)?;
    let time = matches!(kind, 'm' | 'M') && (unit.is_empty() || unit.starts_with('[') && unit.ends_with(']'));
    if !matches!(kind, 'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'a' | 'U' | 'V' | 'm' | 'M')
        || !unit.is_empty() && !time
    {
        return Err(wrong());
    }
    let size: u64 = size.parse().map_err(|_| wrong())?;
    // Text counts characters of four bytes.
    let bytes = if kind == 'U' { size.checked_mul(4).ok_or_else(wrong)? } else { size };
    if matches!(kind, 'b' | 'i' | 'u' | 'f' | 'c' | 'm' | 'M') && !(1..=64).contains(&bytes) {
        return Err(wrong());
    }
    Ok(Descr::Simple { order, kind, bytes, unit: unit.to_owned() })
}

/// Where the elements stand.
fn data(descr: &Descr, shape: &[u64], start: u64, end: u64) -> Result<Range<u64>, Error> {
    // A dimension of zero does not excuse the others: their product has to fit too.
    let product = shape.iter().try_fold(1_u64, |product, n| product.checked_mul((*n).max(1)));
    let size = if let Descr::Simple { bytes, .. } = descr { Some(*bytes) } else { None };
    let needed = product.and_then(|product| product.checked_mul(size.unwrap_or(1)));
    let Some(needed) = needed else {
        return Err(Error::wrong("npy array", start, format_args!("shape {shape:?}"), "bytes below 2^64"));
    };
    let needed = if shape.contains(&0) { 0 } else { needed };
    match size {
        None => Ok(start..end.max(start)),
        Some(_) if end.saturating_sub(start) < needed => {
            Err(Error::short("npy array", start, end.saturating_sub(start), needed))
        }
        Some(_) => Ok(start..start.saturating_add(needed)),
    }
}

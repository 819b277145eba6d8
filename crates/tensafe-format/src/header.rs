//! The header of a safetensors file: parsed once, strictly. A [`Header`] that exists is valid.
//!
//! Implements rules S-01 to S-17 of `docs/spec.md`: `json` reads tokens, `parse` builds the table,
//! `cover` checks what the tensors claim of the file. Reads no files: callers bring the bytes.

mod canonical;
mod cover;
mod json;
mod parse;
#[cfg(test)]
mod tests;
mod words;

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, ops::Range};

pub(crate) use self::cover::bits;
pub(crate) use self::json::Reader;
use self::parse::Flaws;
use crate::{
    Dtype, Limits, ParseOptions,
    error::{Detail, Error},
};

/// The name in a header that no tensor can have.
pub const METADATA_NAME: &str = "__metadata__";

/// Bytes of the field at the start of a file that holds the length of its header.
pub const LENGTH_FIELD_BYTES: u64 = 8;

/// The free-form strings of a header, in the order of their keys.
pub type Metadata = BTreeMap<String, String>;

/// The header of a file: which tensors it holds and where their bytes are.
///
/// Keeps these promises: names are unique; each range of bytes is what dtype and shape need; the
/// ranges, in order, cover the data section from its first byte to its last.
///
/// # Cost
/// Two arenas and one table for all tensors, whatever their number. Look-up by name is a binary
/// search. Nothing borrows from the bytes that were parsed.
#[derive(Clone)]
pub struct Header {
    table: Table,
    data_start: u64,
    data_bytes: u64,
}

/// One tensor as the header describes it. Borrows from the [`Header`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'h> {
    name: &'h str,
    dtype: Dtype,
    shape: &'h [u64],
    begin: u64,
    end: u64,
}

/// What is wrong with a header, and what can be said of the file all the same.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Every flaw that was met, in the order of the checks.
    pub errors: Vec<Error>,
    /// The entries that could be read, by offset. They may overlap and reach beyond the file.
    pub tensors: Vec<DiagnosedTensor>,
    /// The metadata, if it could be read.
    pub metadata: Option<Metadata>,
    /// Bytes of the header, its length field not counted, if it lies within the file.
    pub header_bytes: Option<u64>,
    /// Bytes of the file after the header.
    pub data_bytes: u64,
}

/// One entry of a header that may be flawed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagnosedTensor {
    /// The name.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The shape, row-major, in elements.
    pub shape: Vec<u64>,
    /// The bytes it claims, counted from the start of the data section, half-open.
    pub range: Range<u64>,
}

#[derive(Clone, Default)]
struct Table {
    names: String,
    dims: Vec<u64>,
    entries: Vec<Entry>,
    by_name: Vec<u32>,
    metadata: Option<Metadata>,
    /// Whether a flawed entry was left out. Only a diagnosis goes on to see it.
    incomplete: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    begin: u64,
    end: u64,
    header_offset: u64,
    name: (u32, u32),
    dims: (u32, u32),
    dtype: Dtype,
}

/// The bytes of a file that hold its header's text, half-open, from the 8 bytes at its start.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) where the file is shorter than 8 bytes or than its header,
/// [`Limit`](crate::ErrorKind::Limit) where the header is longer than the limit.
///
/// Spec: S-01, S-02, S-03.
pub fn header_range(start: &[u8], file_bytes: u64, options: &ParseOptions) -> Result<Range<u64>, Error> {
    let Some(length) = start.first_chunk::<8>() else {
        return Err(Error::new(if file_bytes < LENGTH_FIELD_BYTES {
            Detail::TooShort { file_bytes }
        } else {
            Detail::StartCut { given: start.len() as u64 }
        }));
    };
    let header_bytes = u64::from_le_bytes(*length);
    let limit = options.limits.header_bytes;
    if header_bytes > limit {
        return Err(Error::new(Detail::HeaderTooLarge { header_bytes, limit }));
    }
    match header_bytes.checked_add(LENGTH_FIELD_BYTES) {
        Some(end) if end <= file_bytes => Ok(LENGTH_FIELD_BYTES..end),
        _ => Err(Error::new(Detail::HeaderBeyondFile { header_bytes, file_bytes })),
    }
}

impl Header {
    /// Parses the start of a file of `file_bytes` bytes: `start` holds at least the length field
    /// and the header, and may hold more.
    ///
    /// # Errors
    /// The first rule that the header breaks, in the order of `docs/spec.md`; or a limit.
    ///
    /// # Cost
    /// One pass over the header and a sort of its names. Memory stays within
    /// [`Limits::table_bytes`](crate::Limits::table_bytes).
    ///
    /// # Examples
    /// ```
    /// use tensafe_format::{Dtype, Header, ParseOptions};
    ///
    /// let mut file = vec![59, 0, 0, 0, 0, 0, 0, 0];
    /// file.extend(br#"{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  "#);
    /// file.extend([0; 8]);
    /// let header = Header::parse(&file, file.len() as u64, &ParseOptions::default())?;
    /// let bias = header.tensor("bias")?;
    /// assert_eq!((bias.dtype(), bias.shape()), (Dtype::F32, &[2][..]));
    /// assert_eq!(header.file_range(&bias), 67..75);
    /// # Ok::<(), tensafe_format::Error>(())
    /// ```
    ///
    /// Spec: S-01 to S-17.
    pub fn parse(start: &[u8], file_bytes: u64, options: &ParseOptions) -> Result<Self, Error> {
        let range = header_range(start, file_bytes, options)?;
        let text = header_text(start, &range)?;
        let mut table = Table::with_room_for(text.len(), &options.limits);
        parse::parse(text, options, &mut table, &mut Flaws::First)?;
        let data_bytes = file_bytes.saturating_sub(range.end);
        cover::check(&mut table, data_bytes, options.mode, &mut Flaws::First)?;
        Ok(Self { table, data_start: range.end, data_bytes })
    }

    /// Describes a file that may be damaged: every flaw, and the entries as far as they can be
    /// read. An empty list of errors means that [`parse`](Self::parse) succeeds.
    ///
    /// # Cost
    /// As [`parse`](Self::parse), and memory for the flaws, within
    /// [`Limits::table_bytes`](crate::Limits::table_bytes) once more: a diagnosis that meets the
    /// limit ends with the error for it.
    #[must_use]
    pub fn diagnose(start: &[u8], file_bytes: u64, options: &ParseOptions) -> Diagnosis {
        let mut errors = Vec::new();
        let mut table = Table::default();
        let found = header_range(start, file_bytes, options)
            .and_then(|range| header_text(start, &range).map(|text| (range, text)));
        let (range, text) = match found {
            Ok(found) => found,
            Err(e) => {
                errors.push(e);
                let data_bytes = file_bytes.saturating_sub(LENGTH_FIELD_BYTES);
                return Diagnosis::new(errors, table, None, data_bytes);
            }
        };
        let data_bytes = file_bytes.saturating_sub(range.end);
        let limit = options.limits.table_bytes;
        let mut flaws = Flaws::All { errors: &mut errors, limit, spent: 0 };
        let parsed = parse::parse(text, options, &mut table, &mut flaws);
        // What a header that breaks off would cover is not known: its gaps are not the file's.
        let checked = match parsed {
            Ok(()) => cover::check(&mut table, data_bytes, options.mode, &mut flaws),
            Err(e) => Err(e),
        };
        errors.extend(checked.err());
        Diagnosis::new(errors, table, Some(range.end.saturating_sub(LENGTH_FIELD_BYTES)), data_bytes)
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Whether the file holds no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// The tensors in the order of their bytes in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> + Clone {
        self.table.entries.iter().map(|entry| self.table.info(entry))
    }

    /// The tensors in the order of their names, byte by byte.
    pub fn tensors_by_name(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> + Clone {
        self.table.by_name.iter().map(|place| self.table.info_at(*place))
    }

    /// The places of [`tensors_by_name`](Self::tensors_by_name) in the order of
    /// [`tensors`](Self::tensors).
    pub fn places_by_name(&self) -> impl ExactSizeIterator<Item = usize> + Clone {
        self.table.by_name.iter().map(|place| *place as usize)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn tensor(&self, name: &str) -> Result<TensorInfo<'_>, Error> {
        self.position(name).and_then(|place| self.tensor_at(place)).ok_or_else(|| Error::not_found(name))
    }

    /// The tensor at a place in the order of [`tensors`](Self::tensors), as
    /// [`position`](Self::position) gives it.
    #[must_use]
    pub fn tensor_at(&self, place: usize) -> Option<TensorInfo<'_>> {
        self.table.entries.get(place).map(|entry| self.table.info(entry))
    }

    /// The place of the tensor called `name` in the order of [`tensors`](Self::tensors).
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        let order = &self.table.by_name;
        let found = order.binary_search_by(|place| self.table.name_at(*place).cmp(name)).ok()?;
        order.get(found).map(|place| *place as usize)
    }

    /// The metadata: `None` where the header has no `__metadata__`.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        self.table.metadata.as_ref()
    }

    /// Where the data section starts in the file: the length field and the header, in bytes.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Bytes of the data section.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.data_start.saturating_add(self.data_bytes)
    }

    /// Bytes of memory that the header takes: its tables with the room in them, and itself. The nodes
    /// of the metadata are an estimate.
    ///
    /// # Cost
    /// A walk over the metadata.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let table = &self.table;
        let strings = table.metadata.iter().flatten().map(|(key, value)| {
            // The nodes of the map are counted at twice the size of what they hold.
            let node = size_of::<(String, String)>().saturating_mul(2);
            node.saturating_add(key.capacity()).saturating_add(value.capacity())
        });
        [
            table.names.capacity(),
            size_of::<u64>().saturating_mul(table.dims.capacity()),
            size_of::<Entry>().saturating_mul(table.entries.capacity()),
            size_of::<u32>().saturating_mul(table.by_name.capacity()),
        ]
        .into_iter()
        .chain(strings)
        .fold(size_of::<Self>(), usize::saturating_add)
    }

    /// The bytes of `tensor`, counted from the start of the file, half-open.
    #[must_use]
    pub fn file_range(&self, tensor: &TensorInfo<'_>) -> Range<u64> {
        self.data_start.saturating_add(tensor.begin)..self.data_start.saturating_add(tensor.end)
    }
}

impl PartialEq for Header {
    fn eq(&self, other: &Self) -> bool {
        self.data_start == other.data_start
            && self.data_bytes == other.data_bytes
            && self.metadata() == other.metadata()
            && self.tensors().eq(other.tensors())
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("data_start", &self.data_start)
            .field("data_bytes", &self.data_bytes)
            .field("metadata", &self.table.metadata)
            .field("tensors", &self.tensors().collect::<Vec<_>>())
            .finish()
    }
}

impl<'h> TensorInfo<'h> {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &'h str {
        self.name
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape, row-major, in elements. Empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &'h [u64] {
        self.shape
    }

    /// The tensor's bytes, counted from the start of the data section, half-open.
    #[must_use]
    pub fn data_offsets(&self) -> Range<u64> {
        self.begin..self.end
    }

    /// Bytes of the tensor.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.begin)
    }

    /// Elements of the tensor: the product of its shape.
    #[must_use]
    pub fn elements(&self) -> u64 {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }
}

impl fmt::Debug for TensorInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} {:?} at {}..{}", self.name, self.dtype, self.shape, self.begin, self.end)
    }
}

impl Diagnosis {
    fn new(errors: Vec<Error>, table: Table, header_bytes: Option<u64>, data_bytes: u64) -> Self {
        let mut tensors: Vec<_> = table
            .entries
            .iter()
            .map(|entry| DiagnosedTensor {
                name: table.name(entry).into(),
                dtype: entry.dtype,
                shape: table.shape(entry).into(),
                range: entry.begin..entry.end,
            })
            .collect();
        tensors.sort_by_key(|t| (t.range.start, t.range.end));
        Self { errors, tensors, metadata: table.metadata, header_bytes, data_bytes }
    }
}

fn header_text<'a>(start: &'a [u8], range: &Range<u64>) -> Result<&'a [u8], Error> {
    let end = usize::try_from(range.end).ok();
    end.and_then(|end| start.get(8..end)).ok_or_else(|| {
        Error::new(Detail::HeaderCut {
            given: (start.len() as u64).saturating_sub(LENGTH_FIELD_BYTES),
            needed: range.end.saturating_sub(LENGTH_FIELD_BYTES),
        })
    })
}

impl Table {
    /// Room for what a header of this length usually holds; no more than a fraction of its bytes, and
    /// of those that the tables may take.
    fn with_room_for(header_bytes: usize, limits: &Limits) -> Self {
        let header_bytes = usize::try_from(limits.table_bytes).unwrap_or(usize::MAX).min(header_bytes);
        Self {
            names: String::with_capacity(header_bytes / 4),
            dims: Vec::with_capacity(header_bytes / 64),
            entries: Vec::with_capacity(header_bytes / 128),
            ..Self::default()
        }
    }

    fn push(
        &mut self,
        name: &str,
        header_offset: u64,
        dtype: Dtype,
        dims: (u32, u32),
        (begin, end): (u64, u64),
    ) -> Result<(), Error> {
        let start = self.names.len();
        self.names.push_str(name);
        let place = u32::try_from(start).ok().zip(u32::try_from(self.names.len()).ok());
        let Some(name) = place else {
            let (value, limit) = (self.names.len() as u64, u64::from(u32::MAX));
            return Err(Error::new(Detail::Limit { what: "bytes of names", value, limit }));
        };
        self.entries.push(Entry { begin, end, header_offset, name, dims, dtype });
        Ok(())
    }

    fn name(&self, entry: &Entry) -> &str {
        self.names.get(entry.name.0 as usize..entry.name.1 as usize).unwrap_or_default()
    }

    /// Without a look at the borders of characters: what is compared many times.
    fn name_bytes(&self, entry: &Entry) -> &[u8] {
        self.names.as_bytes().get(entry.name.0 as usize..entry.name.1 as usize).unwrap_or_default()
    }

    fn shape(&self, entry: &Entry) -> &[u64] {
        self.dims.get(entry.dims.0 as usize..entry.dims.1 as usize).unwrap_or_default()
    }

    fn name_at(&self, place: u32) -> &str {
        self.entries.get(place as usize).map_or("", |entry| self.name(entry))
    }

    fn header_offset_at(&self, place: u32) -> u64 {
        self.entries.get(place as usize).map_or(0, |entry| entry.header_offset)
    }

    fn info(&self, entry: &Entry) -> TensorInfo<'_> {
        TensorInfo {
            name: self.name(entry),
            dtype: entry.dtype,
            shape: self.shape(entry),
            begin: entry.begin,
            end: entry.end,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "`by_name` is a permutation of the entries")]
    fn info_at(&self, place: u32) -> TensorInfo<'_> {
        self.info(&self.entries[place as usize])
    }
}

//! From the text of a header to its table: rules S-05 to S-13, each checked where it is met.
//!
//! One pass serves two callers. Parsing stops at the first flaw; a diagnosis notes it and goes on
//! as far as the JSON can be followed. What the tensors cover is the business of `cover`.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use alloc::{borrow::Cow, string::String, vec::Vec};

use super::{
    Entry, METADATA_NAME, Metadata, Table,
    canonical::{self, MOST_DIMENSIONS},
    json::{Members, Reader},
};
use crate::{
    Dtype, Mode, ParseOptions,
    error::{Detail, Error, Found},
};

/// What to do with a flaw.
pub(super) enum Flaws<'a> {
    /// It is the result.
    First,
    /// Note it and go on, as long as the notes after the first stay within so many bytes.
    All { errors: &'a mut Vec<Error>, limit: u64, spent: u64 },
}

impl Flaws<'_> {
    pub(super) fn report(&mut self, detail: Detail) -> Result<(), Error> {
        // Names are what a stranger can repeat from flaw to flaw.
        let mut bytes = size_of::<Detail>();
        if let Detail::Overlap { other: Some(other), .. } = &detail {
            bytes = bytes.saturating_add(other.len());
        }
        let error = Error::new(detail);
        match self {
            Self::First => Err(error),
            Self::All { errors, limit, spent } => {
                bytes = bytes.saturating_add(error.tensor().map_or(0, str::len));
                *spent = spent.saturating_add(bytes as u64);
                if *spent > *limit && !errors.is_empty() {
                    return Err(Error::new(Detail::Limit {
                        what: "bytes of flaws",
                        value: *spent,
                        limit: *limit,
                    }));
                }
                errors.push(error);
                Ok(())
            }
        }
    }
}

/// Reads the text of a header, without the 8 bytes of its length, into `table`.
///
/// What was read before an error stays in the table.
pub(super) fn parse(
    text: &[u8],
    options: &ParseOptions,
    table: &mut Table,
    flaws: &mut Flaws<'_>,
) -> Result<(), Error> {
    Parser::new(text, options, table, flaws)?.header(true)
}

/// [`parse`] by the grammar alone, whose result the short cut for canonical entries must not change.
#[cfg(test)]
pub(super) fn parse_by_grammar(
    text: &[u8],
    options: &ParseOptions,
    table: &mut Table,
    flaws: &mut Flaws<'_>,
) -> Result<(), Error> {
    Parser::new(text, options, table, flaws)?.header(false)
}

struct Parser<'a, 'f, 'l> {
    json: Reader<'a>,
    options: &'f ParseOptions,
    table: &'f mut Table,
    flaws: &'f mut Flaws<'l>,
    budget: u64,
    /// Memory for the shape of one canonical entry.
    dims: [u64; MOST_DIMENSIONS],
    metadata_seen: bool,
}

/// The fields of an entry as far as they were read.
#[derive(Default)]
struct Fields {
    dtype: Field<Dtype>,
    /// Where the shape stands in the table of dimensions.
    shape: Field<(u32, u32)>,
    offsets: Field<(u64, u64)>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Field<T> {
    #[default]
    Missing,
    Flawed,
    Read(T),
}

impl<T> Field<T> {
    fn from(read: Option<T>) -> Self {
        read.map_or(Self::Flawed, Self::Read)
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl<'a, 'f, 'l> Parser<'a, 'f, 'l> {
    fn new(
        text: &'a [u8],
        options: &'f ParseOptions,
        table: &'f mut Table,
        flaws: &'f mut Flaws<'l>,
    ) -> Result<Self, Error> {
        let (json, budget) = (Reader::new(text, 8)?, options.limits.table_bytes);
        let dims = [0; MOST_DIMENSIONS];
        Ok(Self { json, options, table, flaws, budget, dims, metadata_seen: false })
    }

    fn strict(&self) -> bool {
        self.options.mode == Mode::Strict
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        let limit = self.options.limits.table_bytes;
        match self.budget.checked_sub(bytes as u64) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => {
                let value = limit.saturating_sub(self.budget).saturating_add(bytes as u64);
                Err(Error::new(Detail::Limit { what: "bytes of tables", value, limit }))
            }
        }
    }

    fn header(&mut self, short_cut: bool) -> Result<(), Error> {
        self.json.skip_space();
        if self.json.peek() != Some(b'{') {
            return Err(self.json.unexpected("the `{` of an object"));
        }
        let mut members = self.json.begin(b'{');
        while self.json.more(&mut members, b'}', "`,` or `}`")? {
            if short_cut && self.canonical_entry()? {
                continue;
            }
            let offset = self.json.offset();
            let name = self.json.string()?;
            self.json.expect(b':', "`:`")?;
            if name == METADATA_NAME {
                self.metadata(offset)?;
            } else {
                self.entry(&name, offset)?;
            }
        }
        self.json.end()
    }

    /// Reads the next member where it is an entry as writers write it, and within the limits. Takes
    /// nothing where it is anything else, an error among that.
    fn canonical_entry(&mut self) -> Result<bool, Error> {
        let likely = self.table.entries.last().map_or(Dtype::F32, |entry| entry.dtype);
        let Some(entry) = canonical::entry(self.json.rest_of_text(), likely, &mut self.dims) else {
            return Ok(false);
        };
        if entry.name == METADATA_NAME {
            return Ok(false);
        }
        let (shape, limits) = (entry.shape, &self.options.limits);
        let start = self.table.dims.len();
        let end = start.saturating_add(shape.len());
        let Some(dims) = u32::try_from(start).ok().zip(u32::try_from(end).ok()) else { return Ok(false) };
        let needed = size_of::<Entry>().saturating_add(entry.name.len()).saturating_add(size_of_val(shape));
        let Some(left) = self.budget.checked_sub(needed as u64) else { return Ok(false) };
        if self.table.entries.len() as u64 >= limits.tensors || shape.len() as u64 > limits.dimensions {
            return Ok(false);
        }
        self.budget = left;
        self.table.dims.extend_from_slice(shape);
        self.table.push(entry.name, self.json.offset(), entry.dtype, dims, entry.offsets)?;
        self.json.skip(entry.text_bytes);
        Ok(true)
    }

    fn metadata(&mut self, offset: u64) -> Result<(), Error> {
        if core::mem::replace(&mut self.metadata_seen, true) {
            self.flaws.report(Detail::MetadataTwice { offset })?;
        }
        let offset = self.json.offset();
        match self.json.kind() {
            Found::Object => {}
            Found::Null if !self.strict() => return self.json.skip_value(2),
            found => {
                self.flaws.report(Detail::MetadataType { key: None, offset, found })?;
                return self.json.skip_value(2);
            }
        }
        let mut read = Metadata::new();
        let mut members = self.json.begin(b'{');
        while self.json.more(&mut members, b'}', "`,` or `}`")? {
            let key_offset = self.json.offset();
            let key = self.json.string()?.into_owned();
            self.json.expect(b':', "`:`")?;
            let found = self.json.kind();
            let offset = self.json.offset();
            if found != Found::String {
                self.flaws.report(Detail::MetadataType { key: Some(key), offset, found })?;
                self.json.skip_value(3)?;
                continue;
            }
            let value = self.json.string()?.into_owned();
            // The nodes of the map are counted at twice the size of what they hold.
            self.spend(size_of::<(String, String)>().saturating_mul(2))?;
            self.spend(key.len().saturating_add(value.len()))?;
            if self.strict() && read.contains_key(&key) {
                self.flaws.report(Detail::MetadataKeyTwice { key: key.clone(), offset: key_offset })?;
            }
            read.insert(key, value);
        }
        self.table.metadata = Some(read);
        Ok(())
    }

    fn entry(&mut self, name: &str, offset: u64) -> Result<(), Error> {
        let tensors = self.options.limits.tensors;
        let count = (self.table.entries.len() as u64).saturating_add(1);
        if count > tensors {
            return Err(Error::new(Detail::Limit { what: "tensors", value: count, limit: tensors }));
        }
        self.spend(size_of::<Entry>().saturating_add(name.len()))?;
        let at = self.json.offset();
        let fields = match self.json.kind() {
            Found::Object => self.fields(name)?,
            Found::Array => {
                if self.strict() {
                    self.flaws.report(Detail::EntryArray { name: name.into(), offset: at })?;
                }
                self.fields_in_order(name)?
            }
            found => {
                self.flaws.report(Detail::EntryType { name: name.into(), offset: at, found })?;
                self.table.incomplete = true;
                return self.json.skip_value(2);
            }
        };
        let (Field::Read(dtype), Field::Read(dims), Field::Read((begin, end))) =
            (fields.dtype, fields.shape, fields.offsets)
        else {
            self.table.incomplete = true;
            return Ok(());
        };
        self.table.push(name, offset, dtype, dims, (begin, end))
    }

    fn fields(&mut self, name: &str) -> Result<Fields, Error> {
        let mut fields = Fields::default();
        let mut members = self.json.begin(b'{');
        while self.json.more(&mut members, b'}', "`,` or `}`")? {
            let offset = self.json.offset();
            let field = self.field_name()?;
            self.json.expect(b':', "`:`")?;
            let (known, missing) = match &*field {
                "dtype" => ("dtype", fields.dtype.is_missing()),
                "shape" => ("shape", fields.shape.is_missing()),
                "data_offsets" => ("data_offsets", fields.offsets.is_missing()),
                _ => {
                    if self.strict() {
                        let (name, field) = (name.into(), field.into_owned());
                        self.flaws.report(Detail::FieldUnknown { name, field, offset })?;
                    }
                    self.json.skip_value(3)?;
                    continue;
                }
            };
            if !missing {
                self.flaws.report(Detail::FieldTwice { name: name.into(), field: known, offset })?;
                self.json.skip_value(3)?;
                continue;
            }
            match known {
                "dtype" => fields.dtype = Field::from(self.dtype(name)?),
                "shape" => fields.shape = Field::from(self.shape(name)?),
                _ => fields.offsets = Field::from(self.offsets(name)?),
            }
        }
        self.note_missing(name, &fields)?;
        Ok(fields)
    }

    /// The name of a field. The three that writers write are told apart without reading a string.
    fn field_name(&mut self) -> Result<Cow<'static, str>, Error> {
        for (quoted, plain) in
            [("\"dtype\"", "dtype"), ("\"shape\"", "shape"), ("\"data_offsets\"", "data_offsets")]
        {
            if self.json.take_exact(quoted.as_bytes()) {
                return Ok(Cow::Borrowed(plain));
            }
        }
        Ok(Cow::Owned(self.json.string()?.into_owned()))
    }

    /// The form `["F32", [1], [0, 4]]`, which the reference reads.
    fn fields_in_order(&mut self, name: &str) -> Result<Fields, Error> {
        let mut fields = Fields::default();
        let mut members = self.json.begin(b'[');
        let mut place = 0u8;
        while self.json.more(&mut members, b']', "`,` or `]`")? {
            match place {
                0 => fields.dtype = Field::from(self.dtype(name)?),
                1 => fields.shape = Field::from(self.shape(name)?),
                2 => fields.offsets = Field::from(self.offsets(name)?),
                _ => {
                    let offset = self.json.offset();
                    self.flaws.report(Detail::FieldUnknown {
                        name: name.into(),
                        field: "fourth element".into(),
                        offset,
                    })?;
                    self.json.skip_value(3)?;
                }
            }
            place = place.saturating_add(1);
        }
        self.note_missing(name, &fields)?;
        Ok(fields)
    }

    fn note_missing(&mut self, name: &str, fields: &Fields) -> Result<(), Error> {
        let offset = self.json.offset();
        for (missing, field) in [
            (fields.dtype.is_missing(), "dtype"),
            (fields.shape.is_missing(), "shape"),
            (fields.offsets.is_missing(), "data_offsets"),
        ] {
            if missing {
                self.flaws.report(Detail::FieldMissing { name: name.into(), field, offset })?;
            }
        }
        Ok(())
    }

    fn dtype(&mut self, name: &str) -> Result<Option<Dtype>, Error> {
        let found = self.json.kind();
        let offset = self.json.offset();
        let dtype = match found {
            Found::String => self.json.string()?,
            Found::Object => {
                if self.strict() {
                    self.flaws.report(Detail::DtypeType { name: name.into(), offset, found })?;
                }
                self.dtype_as_object(name, offset)?
            }
            found => {
                self.flaws.report(Detail::DtypeType { name: name.into(), offset, found })?;
                self.json.skip_value(3)?;
                return Ok(None);
            }
        };
        let known = Dtype::from_name(&dtype);
        if known.is_none() {
            let dtype = dtype.into_owned();
            self.flaws.report(Detail::DtypeUnknown { name: name.into(), dtype, offset })?;
        }
        Ok(known)
    }

    /// The form `{"F32": null}`, which the reference reads.
    fn dtype_as_object(&mut self, name: &str, offset: u64) -> Result<Cow<'static, str>, Error> {
        let mut members = self.json.begin(b'{');
        let mut keys = 0u32;
        let mut dtype = Cow::Borrowed("");
        while self.json.more(&mut members, b'}', "`,` or `}`")? {
            keys = keys.saturating_add(1);
            dtype = Cow::Owned(self.json.string()?.into_owned());
            self.json.expect(b':', "`:`")?;
            let found = self.json.kind();
            if found != Found::Null {
                self.flaws.report(Detail::DtypeType { name: name.into(), offset, found })?;
            }
            self.json.skip_value(4)?;
        }
        Ok(if keys == 1 { dtype } else { Cow::Borrowed("") })
    }

    fn shape(&mut self, name: &str) -> Result<Option<(u32, u32)>, Error> {
        let found = self.json.kind();
        let offset = self.json.offset();
        if found != Found::Array {
            self.flaws.report(Detail::ShapeType { name: name.into(), offset, found })?;
            self.json.skip_value(3)?;
            return Ok(None);
        }
        let start = self.table.dims.len();
        let limit = self.options.limits.dimensions;
        let mut count = 0u64;
        let mut good = true;
        let mut members = self.json.begin(b'[');
        while self.json.more(&mut members, b']', "`,` or `]`")? {
            count = count.saturating_add(1);
            if count > limit {
                return Err(Error::new(Detail::Limit { what: "dimensions", value: count, limit }));
            }
            match self.integer(name, "shape")? {
                Some(dim) => {
                    self.spend(size_of::<u64>())?;
                    self.table.dims.push(dim);
                }
                None => good = false,
            }
        }
        let end = self.table.dims.len();
        let Some(range) = u32::try_from(start).ok().zip(u32::try_from(end).ok()) else {
            let (value, limit) = (end as u64, u64::from(u32::MAX));
            return Err(Error::new(Detail::Limit { what: "dimensions of all tensors", value, limit }));
        };
        Ok(good.then_some(range))
    }

    fn offsets(&mut self, name: &str) -> Result<Option<(u64, u64)>, Error> {
        let found = self.json.kind();
        let offset = self.json.offset();
        if found != Found::Array {
            self.flaws.report(Detail::OffsetsType { name: name.into(), offset, found })?;
            self.json.skip_value(3)?;
            return Ok(None);
        }
        let mut read = (None, None);
        let mut count = 0u64;
        let mut members: Members = self.json.begin(b'[');
        while self.json.more(&mut members, b']', "`,` or `]`")? {
            let value = self.integer(name, "data_offsets")?;
            match count {
                0 => read.0 = value,
                1 => read.1 = value,
                _ => {}
            }
            count = count.saturating_add(1);
        }
        if count != 2 {
            self.flaws.report(Detail::OffsetCount { name: name.into(), count, offset })?;
            return Ok(None);
        }
        Ok(read.0.zip(read.1))
    }

    fn integer(&mut self, name: &str, field: &'static str) -> Result<Option<u64>, Error> {
        let found = self.json.kind();
        if let Some(value) = self.json.integer() {
            return Ok(Some(value));
        }
        if let Found::End | Found::Byte(_) = found {
            return Err(self.json.unexpected("an integer"));
        }
        let offset = self.json.offset();
        let found = match found {
            Found::Number => Found::OtherNumber,
            other => other,
        };
        self.flaws.report(Detail::Integer { name: name.into(), field, offset, found })?;
        self.json.skip_value(4)?;
        Ok(None)
    }
}

//! Where a writer puts each tensor, and the header that says so: rules S-17 and S-22 to S-25.
//!
//! The bytes are those of the reference's writer for the same input, and the same on every run.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt::Write as _, ops::Range};

use crate::{
    Dtype, Limits, Metadata, Mode,
    error::{Detail, Error},
    header::{LENGTH_FIELD_BYTES, METADATA_NAME, bits},
};

/// A tensor that is to be written: its name, element type and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name. Any string but `__metadata__`.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The shape, row-major, in elements.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// A spec of the three parts.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<u64>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }
}

/// Choices of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayoutOptions {
    /// The data section starts at a multiple of this many bytes: a power of two from 8 to 2^20.
    /// 8 yields the reference's bytes; 4096 puts the data on a page.
    pub align: u64,
    /// Longest header that may be written.
    pub limits: Limits,
}

impl LayoutOptions {
    /// The default options with another alignment, in bytes.
    #[must_use]
    pub fn with_align(align: u64) -> Self {
        Self { align, ..Self::default() }
    }
}

impl Default for LayoutOptions {
    fn default() -> Self {
        Self { align: 8, limits: Limits::DEFAULT }
    }
}

/// The plan of a file: the rendered header, and the place of each tensor.
#[derive(Clone, Debug)]
pub struct Layout {
    header: Vec<u8>,
    order: Vec<usize>,
    ranges: Vec<Range<u64>>,
    file_bytes: u64,
}

/// Bytes of a tensor of this dtype and shape.
///
/// # Errors
/// [`Format`](crate::ErrorKind::Format) where the size overflows or is not of whole bytes.
///
/// Spec: S-12, S-13.
pub fn tensor_bytes(name: &str, dtype: Dtype, shape: &[u64]) -> Result<u64, Error> {
    // Lenient counting too, so that no file is written that the reference refuses to read.
    let strict = bits(dtype, shape, Mode::Strict);
    let counted = strict.filter(|_| bits(dtype, shape, Mode::Lenient).is_some());
    let Some(bits) = counted else {
        return Err(Error::new(Detail::Overflow { name: name.into(), dtype, shape: shape.into() }));
    };
    if bits % 8 != 0 {
        return Err(Error::new(Detail::PartialByte { name: name.into(), dtype, shape: shape.into(), bits }));
    }
    Ok(bits / 8)
}

impl Layout {
    /// Lays out `tensors`, which may come in any order.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) for a reserved or repeated name or a size that
    /// overflows; [`Limit`](crate::ErrorKind::Limit) for a header over the limit;
    /// [`Usage`](crate::ErrorKind::Usage) for an alignment out of range.
    ///
    /// # Cost
    /// A sort of the tensors. Nothing of the size of their data is allocated.
    ///
    /// Spec: S-17, S-22 to S-25.
    pub fn new(
        tensors: impl IntoIterator<Item = TensorSpec>,
        metadata: Option<&Metadata>,
        options: &LayoutOptions,
    ) -> Result<Self, Error> {
        if !options.align.is_power_of_two() || !(8..=1 << 20).contains(&options.align) {
            return Err(Error::new(Detail::Align { align: options.align }));
        }
        let specs: Vec<TensorSpec> = tensors.into_iter().collect();
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&specs[*a], &specs[*b]);
            b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name))
        });
        refuse_names(&specs)?;

        let mut ranges: Vec<Range<u64>> = Vec::new();
        ranges.resize(specs.len(), 0..0);
        let mut end = 0u64;
        for place in &order {
            let TensorSpec { name, dtype, shape } = &specs[*place];
            let begin = end;
            let bytes = tensor_bytes(name, *dtype, shape)?;
            end = begin.checked_add(bytes).ok_or_else(|| {
                Error::new(Detail::Overflow { name: name.clone(), dtype: *dtype, shape: shape.clone() })
            })?;
            ranges[*place] = begin..end;
        }

        let header = render(&specs, &order, &ranges, metadata, options)?;
        let start = header.len() as u64;
        let file_bytes = start.checked_add(end).ok_or_else(|| {
            Error::new(Detail::Limit { what: "bytes of the file", value: u64::MAX, limit: u64::MAX })
        })?;
        for range in &mut ranges {
            *range = start.saturating_add(range.start)..start.saturating_add(range.end);
        }
        Ok(Self { header, order, ranges, file_bytes })
    }

    /// The start of the file: length field, header and padding.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.header
    }

    /// The places of the tensors in the input, in the order of their bytes in the file.
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Where the tensor that was given as number `place` goes: bytes of the file, half-open.
    #[must_use]
    pub fn file_range(&self, place: usize) -> Option<Range<u64>> {
        self.ranges.get(place).cloned()
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// S-06, S-17.
fn refuse_names(specs: &[TensorSpec]) -> Result<(), Error> {
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::new(Detail::SpecTwice { name: pair[0].to_owned() }));
    }
    match names.binary_search(&METADATA_NAME) {
        Ok(_) => Err(Error::new(Detail::ReservedName)),
        Err(_) => Ok(()),
    }
}

/// S-23 to S-25.
fn render(
    specs: &[TensorSpec],
    order: &[usize],
    ranges: &[Range<u64>],
    metadata: Option<&Metadata>,
    options: &LayoutOptions,
) -> Result<Vec<u8>, Error> {
    let mut json = String::from("{");
    if let Some(metadata) = metadata {
        json.push_str("\"__metadata__\":{");
        for (i, (key, value)) in metadata.iter().enumerate() {
            if i > 0 {
                json.push(',');
            }
            push_json_string(&mut json, key);
            json.push(':');
            push_json_string(&mut json, value);
        }
        json.push('}');
    }
    for place in order {
        let TensorSpec { name, dtype, shape } = &specs[*place];
        if json.len() > 1 {
            json.push(',');
        }
        push_json_string(&mut json, name);
        json.push_str(":{\"dtype\":\"");
        json.push_str(dtype.name());
        json.push_str("\",\"shape\":[");
        for (i, dim) in shape.iter().enumerate() {
            push_number(&mut json, if i > 0 { "," } else { "" }, *dim);
        }
        let Range { start, end } = &ranges[*place];
        push_number(&mut json, "],\"data_offsets\":[", *start);
        push_number(&mut json, ",", *end);
        json.push_str("]}");
    }
    json.push('}');

    let unpadded = LENGTH_FIELD_BYTES.saturating_add(json.len() as u64);
    let padded = unpadded.checked_next_multiple_of(options.align).unwrap_or(u64::MAX);
    let header_bytes = padded.saturating_sub(LENGTH_FIELD_BYTES);
    let limit = options.limits.header_bytes;
    if header_bytes > limit {
        return Err(Error::new(Detail::HeaderTooLarge { header_bytes, limit }));
    }
    let mut out = Vec::with_capacity(json.len().saturating_add(16));
    out.extend(header_bytes.to_le_bytes());
    out.extend(json.as_bytes());
    out.extend((unpadded..padded).map(|_| b' '));
    Ok(out)
}

fn push_number(json: &mut String, before: &str, number: u64) {
    json.push_str(before);
    write!(json, "{number}").expect("a String takes every write");
}

/// A JSON string as the reference's writer spells it: only what must be escaped is.
pub(crate) fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\u{8}' => json.push_str("\\b"),
            '\t' => json.push_str("\\t"),
            '\n' => json.push_str("\\n"),
            '\u{c}' => json.push_str("\\f"),
            '\r' => json.push_str("\\r"),
            c if c < ' ' => write!(json, "\\u{:04x}", u32::from(c)).expect("a String takes every write"),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use alloc::{
        string::{String, ToString},
        vec,
        vec::Vec,
    };

    use proptest::prelude::*;

    use super::{Layout, LayoutOptions, TensorSpec};
    use crate::{Dtype, ErrorKind, Header, Metadata, ParseOptions, Rule};

    fn spec() -> impl Strategy<Value = TensorSpec> {
        (any::<String>(), 0..Dtype::ALL.len(), prop::collection::vec(0u64..5, 0..4)).prop_map(
            |(name, dtype, mut shape)| {
                let dtype = Dtype::ALL[dtype];
                if dtype.is_sub_byte() {
                    shape.push(4);
                }
                TensorSpec { name, dtype, shape }
            },
        )
    }

    fn specs() -> impl Strategy<Value = Vec<TensorSpec>> {
        prop::collection::vec(spec(), 0..8).prop_map(|mut specs| {
            specs.sort_by(|a, b| a.name.cmp(&b.name));
            specs.dedup_by(|a, b| a.name == b.name);
            specs
        })
    }

    fn theirs(specs: &[TensorSpec], metadata: Option<&Metadata>) -> Vec<u8> {
        let data = vec![0u8; 4096];
        let views: Vec<_> = specs
            .iter()
            .map(|s| {
                let dtype =
                    serde_json::from_value(serde_json::Value::String(s.dtype.name().to_string())).unwrap();
                let shape: Vec<usize> = s.shape.iter().map(|d| usize::try_from(*d).unwrap()).collect();
                let bytes = usize::try_from(super::tensor_bytes("", s.dtype, &s.shape).unwrap()).unwrap();
                let view = safetensors::tensor::TensorView::new(dtype, shape, &data[..bytes]).unwrap();
                (s.name.clone(), view)
            })
            .collect();
        let metadata = metadata.map(|m| m.clone().into_iter().collect());
        safetensors::serialize(views, metadata).unwrap()
    }

    proptest! {
        /// S-22 to S-25: the header is the reference's, to the byte.
        #[test]
        fn writes_the_bytes_of_the_reference(specs in specs(), value in prop::option::of(any::<String>())) {
            // One key at most: the reference writes several in an order that changes from run to run.
            let metadata = value.map(|v| Metadata::from([("key".to_string(), v)]));
            let layout = Layout::new(specs.clone(), metadata.as_ref(), &LayoutOptions::default()).unwrap();
            let theirs = theirs(&specs, metadata.as_ref());
            prop_assert_eq!(layout.header_bytes(), &theirs[..layout.header_bytes().len()]);
            prop_assert_eq!(layout.file_bytes(), theirs.len() as u64);
        }

        #[test]
        fn what_is_laid_out_parses_to_the_same(specs in specs(), align in 3u32..13) {
            let options = LayoutOptions::with_align(1 << align);
            let layout = Layout::new(specs.clone(), None, &options).unwrap();
            let header =
                Header::parse(layout.header_bytes(), layout.file_bytes(), &ParseOptions::default()).unwrap();
            prop_assert_eq!(header.data_start() % (1 << align), 0);
            prop_assert_eq!(header.len(), specs.len());
            for (place, spec) in specs.iter().enumerate() {
                let info = header.tensor(&spec.name).unwrap();
                prop_assert_eq!((info.dtype(), info.shape()), (spec.dtype, &spec.shape[..]));
                prop_assert_eq!(Some(header.file_range(&info)), layout.file_range(place));
            }
        }
    }

    #[test]
    fn refuses_what_could_not_be_read_back() {
        let refused = |specs: Vec<TensorSpec>, rule| {
            let error = Layout::new(specs, None, &LayoutOptions::default()).unwrap_err();
            assert_eq!((error.kind(), error.rule()), (ErrorKind::Format, Some(rule)), "{error}");
        };
        refused(vec![TensorSpec::new("__metadata__", Dtype::U8, [1])], Rule::RESERVED_NAME);
        refused(vec![TensorSpec::new("a", Dtype::U8, [1]); 2], Rule::UNIQUE_NAMES);
        refused(vec![TensorSpec::new("a", Dtype::F4, [3])], Rule::WHOLE_BYTES);
        refused(vec![TensorSpec::new("a", Dtype::U8, [1 << 61, 0])], Rule::OVERFLOW);
        refused(vec![TensorSpec::new("a", Dtype::U8, [0, 1 << 62])], Rule::OVERFLOW);
    }
}

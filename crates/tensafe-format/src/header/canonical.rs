//! Entries as writers write them, each read in one go:
//! `"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}`, in this order, without white space
//! and escapes.
//!
//! Only a short cut. Text of any other form is not an error here but `None`, and `parse` reads it by
//! the whole grammar; what is read here, `parse` reads with the same result. Implements no rule that
//! a file can break.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use super::words::{digits, plain_bytes};
use crate::Dtype;

/// Dimensions that an entry of this form may have. Models have up to five.
pub(super) const MOST_DIMENSIONS: usize = 8;

/// An entry, and how long its text is.
pub(super) struct Canonical<'t, 's> {
    pub(super) name: &'t str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'s [u64],
    pub(super) offsets: (u64, u64),
    /// Bytes from the quote before the name to the closing brace.
    pub(super) text_bytes: usize,
}

/// The entry that `text` begins with. `likely` is the dtype that is tried first; the shape is put into
/// `dims`, whose content before does not matter.
#[inline]
pub(super) fn entry<'t, 's>(
    text: &'t str,
    likely: Dtype,
    dims: &'s mut [u64; MOST_DIMENSIONS],
) -> Option<Canonical<'t, 's>> {
    let rest = text.as_bytes().strip_prefix(b"\"")?;
    let name_bytes = plain_bytes(rest)?;
    // The quote is ASCII: it ends no character.
    let name = text.get(1..name_bytes.checked_add(1)?)?;
    let rest = rest.get(name_bytes..)?.strip_prefix(b"\":{\"dtype\":\"")?;
    let (dtype, rest) = dtype(rest, likely)?;

    let mut rest = rest.strip_prefix(b"\",\"shape\":[")?;
    let mut dimensions = 0usize;
    if let Some(after) = rest.strip_prefix(b"]") {
        rest = after;
    } else {
        loop {
            let (dim, after) = integer(rest)?;
            *dims.get_mut(dimensions)? = dim;
            dimensions = dimensions.wrapping_add(1);
            let (next, after) = after.split_first()?;
            rest = after;
            match next {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
    }

    let (begin, rest) = integer(rest.strip_prefix(b",\"data_offsets\":[")?)?;
    let (end, rest) = integer(rest.strip_prefix(b",")?)?;
    let rest = rest.strip_prefix(b"]}")?;
    let text_bytes = text.len().checked_sub(rest.len())?;
    let shape = dims.get(..dimensions)?;
    Some(Canonical { name, dtype, shape, offsets: (begin, end), text_bytes })
}

/// A dtype, and what follows it, its closing quote first.
#[inline]
fn dtype(text: &[u8], likely: Dtype) -> Option<(Dtype, &[u8])> {
    if let Some(rest) = text.strip_prefix(likely.name().as_bytes()).filter(|rest| rest.first() == Some(&b'"'))
    {
        return Some((likely, rest));
    }
    let (name, rest) = text.split_at_checked(plain_bytes(text)?)?;
    Some((Dtype::from_name(core::str::from_utf8(name).ok()?)?, rest))
}

/// An integer without a leading zero, and what follows it.
#[inline(always)]
fn integer(text: &[u8]) -> Option<(u64, &[u8])> {
    let (value, count) = digits(text)?;
    if count == 0 || (count > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    Some((value, text.get(count..)?))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use alloc::{format, string::String, vec::Vec};

    use super::entry;
    use crate::{
        Dtype, Limits, Mode, ParseOptions,
        error::Error,
        header::{
            Metadata, Table,
            parse::{Flaws, parse, parse_by_grammar},
        },
    };
    use proptest::{collection, prelude::*, sample};

    type Parse = fn(&[u8], &ParseOptions, &mut Table, &mut Flaws<'_>) -> Result<(), Error>;
    type Row = (String, u64, Dtype, Vec<u64>, (u64, u64));
    type Read = (Vec<Row>, Option<Metadata>, bool, Vec<Error>);

    fn read(parse: Parse, text: &[u8], options: &ParseOptions, all: bool) -> Read {
        let (mut table, mut errors) = (Table::default(), Vec::new());
        let mut flaws = match all {
            true => Flaws::All { errors: &mut errors, limit: 1 << 20, spent: 0 },
            false => Flaws::First,
        };
        let result = parse(text, options, &mut table, &mut flaws);
        errors.extend(result.err());
        let row = |e| {
            let e: &super::super::Entry = e;
            (table.name(e).into(), e.header_offset, e.dtype, table.shape(e).into(), (e.begin, e.end))
        };
        let rows = table.entries.iter().map(row).collect();
        (rows, table.metadata, table.incomplete, errors)
    }

    fn agrees_with_the_grammar(text: &[u8], limits: Limits) {
        for mode in [Mode::Strict, Mode::Lenient] {
            for all in [false, true] {
                let options = ParseOptions { mode, limits };
                let short = read(parse, text, &options, all);
                let whole = read(parse_by_grammar, text, &options, all);
                assert_eq!(short, whole, "{}", String::from_utf8_lossy(text));
            }
        }
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let few = (0u64..400, 0u64..5, 0u64..10);
        let few = few.prop_map(|(bytes, tensors, dimensions)| {
            Limits::default().with_table_bytes(bytes).with_tensors(tensors).with_dimensions(dimensions)
        });
        prop_oneof![Just(Limits::default()), few]
    }

    /// Entries in the canonical form, or almost.
    fn entries() -> impl Strategy<Value = String> {
        let integer = || prop_oneof!["0", "[1-9][0-9]{0,21}", "[0-9]{1,3}", "-?[0-9]{0,9}(\\.0|e1)?"];
        let name = prop_oneof!["[a-z.0-9é]{0,20}", "[ -~]{0,9}", "__metadata__", "[a-z]{0,9}\\\\u0061"];
        let dtype = prop_oneof![
            sample::select(Dtype::ALL).prop_map(|dtype| String::from(dtype.name())),
            "F(3|8_E4M|32x)?"
        ];
        let shape = collection::vec(integer(), 0..11).prop_map(|dims| dims.join(","));
        let entry =
            (name, dtype, shape, integer(), integer()).prop_map(|(name, dtype, shape, begin, end)| {
                format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
            });
        collection::vec(entry, 0..5).prop_map(|entries| format!("{{{}}}", entries.join(",")))
    }

    proptest! {
        #[test]
        fn reads_files_as_the_grammar_does(file in tensafe_testkit::strategies::files(), limits in limits()) {
            agrees_with_the_grammar(&file[8..], limits);
            let length: [u8; 8] = file[..8].try_into().unwrap();
            let end = usize::try_from(u64::from_le_bytes(length)).unwrap() + 8;
            agrees_with_the_grammar(&file[8..end], limits);
        }

        #[test]
        fn reads_what_is_almost_canonical_as_the_grammar_does(
            text in entries(),
            changes in collection::vec((any::<sample::Index>(), any::<u8>(), 0usize..3), 0..3),
            limits in limits(),
        ) {
            let mut text = text.into_bytes();
            for (place, byte, removed) in changes {
                let at = place.index(text.len());
                text.splice(at..(at + removed).min(text.len()), [byte]);
            }
            agrees_with_the_grammar(&text, limits);
        }
    }

    #[test]
    fn takes_what_writers_write_and_nothing_else() {
        let taken = |text: &str| entry(text, Dtype::F32, &mut [0; 8]).map(|entry| entry.text_bytes);
        let text = r#""é.w":{"dtype":"BF16","shape":[2,30,0],"data_offsets":[0,18446744073709551615]},"x""#;
        assert_eq!(taken(text), text.find(r#","x""#));
        for (here, other) in [
            ("{\"d", "{ \"d"),
            ("é", "\\n"),
            ("BF16", "BF17"),
            ("30", "030"),
            ("0]", "0,]"),
            ("1844", "9844"),
            ("]}", ",0]}"),
            ("]}", "]"),
            ("dtype", "Dtype"),
            ("2,", "2,1,1,1,1,1,1,"),
        ] {
            assert!(text.contains(here));
            assert_eq!(taken(&text.replacen(here, other, 1)), None, "{other}");
        }
    }
}

//! What the entries of a header claim of the data section: rules S-06 and S-11 to S-16.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::{Entry, Table, parse::Flaws};
use crate::{
    Dtype, Mode,
    error::{Detail, Error},
};

/// Checks names, sizes and cover of a table, and puts it into its final order: entries by offset,
/// then name; the permutation that sorts them by name.
pub(super) fn check(
    table: &mut Table,
    data_bytes: u64,
    mode: Mode,
    flaws: &mut Flaws<'_>,
) -> Result<(), Error> {
    order_by_offset(table);
    unique_names(table, mode, flaws)?;
    for entry in &table.entries {
        size(table, entry, mode, flaws)?;
    }
    // What a flawed entry would cover is not known: gaps beside it are not the file's.
    if table.incomplete || table.entries.iter().any(|entry| entry.begin > entry.end) {
        return Ok(());
    }
    cover(table, data_bytes, flaws)
}

/// Sorts the entries by offset, then name. One pass where they are in this order already.
fn order_by_offset(table: &mut Table) {
    let order = |a: &Entry, b: &Entry| {
        let by_offset = (a.begin, a.end).cmp(&(b.begin, b.end));
        by_offset.then_with(|| table.name_bytes(a).cmp(table.name_bytes(b)))
    };
    let entries = &table.entries;
    if entries.is_sorted_by(|a, b| order(a, b).is_le()) {
        return;
    }
    // Offsets are sorted with their places, and each entry is moved once.
    let mut places: Vec<(u64, u32)> = entries.iter().map(|entry| entry.begin).zip(0..).collect();
    places.sort_by(|a, b| {
        let entry = |place: u32| entries.get(place as usize);
        a.0.cmp(&b.0).then_with(|| match (entry(a.1), entry(b.1)) {
            (Some(a), Some(b)) => order(a, b),
            _ => Ordering::Equal,
        })
    });
    table.entries = places.iter().filter_map(|(_, place)| entries.get(*place as usize)).copied().collect();
}

/// The permutation that sorts by name, entries of one name in the order of the header, and whether
/// no name stands twice.
///
/// One pass where the entries are in the order of their names already. Otherwise the sort is stable
/// and linear for what writers write: by name within each dtype.
fn order_by_name(table: &Table) -> (Vec<u32>, bool) {
    let names = table.entries.iter().map(|entry| table.name_bytes(entry));
    let places = (0u32..).take(names.len());
    let mut last = None;
    if names.clone().all(|name| last.replace(name) < Some(name)) {
        return (places.collect(), true);
    }
    // Most names differ in the eight bytes after what all have in common: a comparison of integers.
    let common = common_prefix(names.clone());
    let keyed = names.map(|name| (key(name.get(common..).unwrap_or_default()), name));
    let mut order: Vec<((u64, &[u8]), u32)> = keyed.zip(places).collect();
    order.sort_by(|(a, a_place), (b, b_place)| {
        a.cmp(b).then_with(|| table.header_offset_at(*a_place).cmp(&table.header_offset_at(*b_place)))
    });
    let unique = order.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a != b));
    (order.into_iter().map(|(_, place)| place).collect(), unique)
}

/// Bytes that all names begin with.
fn common_prefix<'t>(mut names: impl Iterator<Item = &'t [u8]>) -> usize {
    let mut common = names.next().unwrap_or_default();
    for name in names {
        while !name.starts_with(common) {
            let same = name.iter().zip(common).take_while(|(a, b)| a == b).count();
            common = common.get(..same).unwrap_or_default();
        }
    }
    common.len()
}

/// The first eight bytes as an integer that is ordered as they are. Shorter text is filled up with
/// zeros, which makes it equal to no text that it is greater than.
fn key(text: &[u8]) -> u64 {
    let first = text.first_chunk::<8>().copied().unwrap_or_else(|| {
        let mut filled = [0; 8];
        for (byte, text) in filled.iter_mut().zip(text) {
            *byte = *text;
        }
        filled
    });
    u64::from_be_bytes(first)
}

/// S-06. Lenient reading keeps the entry that stands last, as the reference does.
fn unique_names(table: &mut Table, mode: Mode, flaws: &mut Flaws<'_>) -> Result<(), Error> {
    let (by_name, unique) = order_by_name(table);
    table.by_name = by_name;
    if unique {
        return Ok(());
    }
    let mut shadowed = Vec::new();
    for pair in table.by_name.windows(2) {
        let &[earlier, later] = pair else { continue };
        let name = table.name_at(earlier);
        if name != table.name_at(later) {
            continue;
        }
        if mode == Mode::Strict {
            let offset = table.header_offset_at(later);
            flaws.report(Detail::DuplicateName { name: name.into(), offset })?;
        } else {
            shadowed.push(earlier);
        }
    }
    if !shadowed.is_empty() {
        shadowed.sort_unstable();
        let mut place = 0u32..;
        table.entries.retain(|_| place.next().is_none_or(|here| shadowed.binary_search(&here).is_err()));
        table.by_name = order_by_name(table).0;
    }
    Ok(())
}

/// S-11 (the order of the offsets: an entry that is shadowed may break it), S-12, S-13, S-14.
fn size(table: &Table, entry: &Entry, mode: Mode, flaws: &mut Flaws<'_>) -> Result<(), Error> {
    let (dtype, shape) = (entry.dtype, table.shape(entry));
    let name = || table.name(entry).into();
    if entry.begin > entry.end {
        let (begin, end) = (entry.begin, entry.end);
        return flaws.report(Detail::OffsetOrder { name: name(), begin, end });
    }
    let Some(bits) = bits(dtype, shape, mode) else {
        return flaws.report(Detail::Overflow { name: name(), dtype, shape: shape.into() });
    };
    if bits % 8 != 0 {
        return flaws.report(Detail::PartialByte { name: name(), dtype, shape: shape.into(), bits });
    }
    let (begin, end, needed) = (entry.begin, entry.end, bits / 8);
    if end.checked_sub(begin) == Some(needed) {
        return Ok(());
    }
    flaws.report(Detail::Size { name: name(), dtype, shape: shape.into(), begin, end, needed })
}

/// Bits of a tensor, or `None` where they overflow 64 bits.
///
/// A zero among the dimensions does not excuse the others: no framework can hold such a shape, and
/// the reference's verdict depends on where the zero stands. Lenient reading follows it in that.
pub(crate) fn bits(dtype: Dtype, shape: &[u64], mode: Mode) -> Option<u64> {
    let mut empty = false;
    let mut bits = 1u64;
    for dim in shape {
        empty |= *dim == 0;
        if *dim != 0 || mode == Mode::Lenient {
            bits = bits.checked_mul(*dim)?;
        }
    }
    let bits = bits.checked_mul(dtype.bits())?;
    Some(if empty { 0 } else { bits })
}

/// S-15, S-16. The entries are in order of their offsets.
fn cover(table: &Table, data_bytes: u64, flaws: &mut Flaws<'_>) -> Result<(), Error> {
    let mut expected = 0u64;
    let mut owner: Option<&Entry> = None;
    for entry in &table.entries {
        let (begin, end) = (entry.begin, entry.end);
        if begin > expected {
            let name = table.name(entry).into();
            flaws.report(Detail::Gap { name, begin, end, expected })?;
        } else if begin < expected {
            let name = table.name(entry).into();
            let other = owner.map(|o| table.name(o).into());
            flaws.report(Detail::Overlap { name, begin, end, expected, other })?;
        }
        if end >= expected {
            expected = end;
            owner = Some(entry);
        }
    }
    if expected > data_bytes {
        let cut = table.entries.iter().find(|e| e.end > data_bytes);
        let name = cut.map(|e| table.name(e).into());
        flaws.report(Detail::Truncated { data_bytes, needed: expected, name })
    } else if expected < data_bytes {
        flaws.report(Detail::Trailing { data_bytes, covered: expected })
    } else {
        Ok(())
    }
}

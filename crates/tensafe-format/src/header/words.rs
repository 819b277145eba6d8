//! Strings and digits, eight bytes at a time.
//!
//! A word holds eight bytes of the text, the first in its lowest byte. Masks have the highest bit of
//! each byte that is meant. Knows no grammar: `json` and `canonical` say what the bytes are for.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

/// The value 1 in each byte of a word.
const ONES: u64 = u64::from_le_bytes([1; 8]);

/// The highest bit of each byte of a word.
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// Powers of ten by the number of digits.
const POWERS: [u64; 9] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Bytes of `text` before the first that cannot stand in a string as it is: a quote, a backslash or
/// a control character. `None` where there is none.
#[inline]
pub(super) fn plain_bytes(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    let mut before = 0usize;
    for word in words {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(before.wrapping_add(first_marked(found)));
        }
        before = before.wrapping_add(8);
    }
    let in_rest = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
    Some(before.wrapping_add(in_rest))
}

/// Marks quotes, backslashes and control characters. The lowest mark is right; above it, a borrow
/// may have marked a byte that is none of them.
#[inline]
fn special(word: u64) -> u64 {
    let differs_from = |byte: u8| word ^ ONES.wrapping_mul(u64::from(byte));
    let below = |word: u64, n: u64| word.wrapping_sub(ONES.wrapping_mul(n));
    let marks = below(differs_from(b'"'), 1) | below(differs_from(b'\\'), 1) | below(word, 0x20);
    // Subtracting n borrows from the high bit of a byte below n. Bytes from 0x80 on have theirs set
    // already: they are none of these.
    marks & !word & HIGH
}

/// The place of the first byte that is marked; 8 where none is.
#[inline]
fn first_marked(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

/// The value of the digits that `text` begins with, and their number. `None` where the value is
/// greater than 64 bits hold, or where fewer than eight bytes follow the digits read so far, which
/// is no place for an integer of a header.
#[inline]
pub(super) fn digits(text: &[u8]) -> Option<(u64, usize)> {
    let (word, rest) = text.split_first_chunk::<8>()?;
    match leading_digits(*word) {
        (value, 8) => more_digits(rest, value),
        short => Some(short),
    }
}

/// [`digits`] of which eight were read.
fn more_digits(mut rest: &[u8], mut value: u64) -> Option<(u64, usize)> {
    let mut count = 8usize;
    loop {
        let (word, after) = rest.split_first_chunk::<8>()?;
        let (part, found) = leading_digits(*word);
        value = value.checked_mul(*POWERS.get(found)?)?.checked_add(part)?;
        count = count.wrapping_add(found);
        if found < 8 {
            return Some((value, count));
        }
        rest = after;
    }
}

/// The value of the digits at the start of a word, and their number.
#[inline]
fn leading_digits(word: [u8; 8]) -> (u64, usize) {
    let word = u64::from_le_bytes(word) ^ ONES.wrapping_mul(u64::from(b'0'));
    // Digits are 0 to 9 now. Adding 0x76 carries into the high bit of what is greater; a carry out of
    // a byte goes up, where the first byte that is no digit is known already.
    let others = (word.wrapping_add(ONES.wrapping_mul(0x76)) | word) & HIGH;
    let bits = others.trailing_zeros() & !7;
    // The digits move up to the end of the word, zeros come in before them.
    let digits = word.unbounded_shl(64u32.wrapping_sub(bits));
    // Neighbours are joined: eight of one digit, four of two, two of four, one of eight.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let value = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    (value, (bits / 8) as usize)
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String, vec::Vec};

    use super::{digits, plain_bytes};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_ends_a_string(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let expected = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_bytes(&text), expected);
        }

        #[test]
        fn finds_one_byte_among_plain_ones(len in 0usize..40, at in 0usize..40, byte in any::<u8>()) {
            let mut text: Vec<u8> = b"\x7f\x80\xff #!]["[..].iter().copied().cycle().take(len).collect();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            let expected = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_bytes(&text), expected);
        }

        #[test]
        fn reads_digits_as_the_standard_library_does(number in "[0-9]{0,22}", next in any::<u8>()) {
            prop_assume!(!next.is_ascii_digit());
            let mut text: Vec<u8> = number.clone().into_bytes();
            text.push(next);
            text.extend([0xff; 7]);
            let expected = if number.is_empty() { Some(0) } else { number.parse().ok() };
            prop_assert_eq!(digits(&text), expected.map(|value| (value, number.len())));
        }

        #[test]
        fn reads_every_integer(value in any::<u64>(), width in 0u32..64) {
            let value = value >> width;
            let text: String = format!("{value},12345678");
            prop_assert_eq!(digits(text.as_bytes()), Some((value, format!("{value}").len())));
        }
    }

    #[test]
    fn the_largest_integers_are_held() {
        assert_eq!(digits(b"18446744073709551615,xxxxxxx"), Some((u64::MAX, 20)));
        assert_eq!(digits(b"18446744073709551616,xxxxxxx"), None);
        assert_eq!(digits(b"1234567"), None);
    }
}

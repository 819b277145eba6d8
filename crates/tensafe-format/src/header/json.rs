//! A reader for the JSON of a header (RFC 8259), one token at a time, in place.
//!
//! It sees what general readers hide: duplicate keys, the spelling of a number, the offset of
//! each token. It allocates only for strings that hold escapes. Implements S-04 and S-05.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use alloc::{borrow::Cow, string::String};

use super::words::plain_bytes;
use crate::error::{Detail, Error, Found};

/// Nesting that the reference's JSON reader refuses.
const DEPTH: u32 = 127;

pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Added to positions to name bytes of the file.
    base: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: u64) -> Result<Self, Error> {
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0, base }),
            Err(e) => Err(Error::new(Detail::Utf8 { offset: base.saturating_add(e.valid_up_to() as u64) })),
        }
    }

    /// Offset in the file of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.base.saturating_add(self.at as u64)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// What is to be read yet.
    pub(super) fn rest_of_text(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.skip(1);
        }
    }

    /// Takes `byte` if it is next, white space before it skipped.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let next = self.peek() == Some(byte);
        if next {
            self.skip(1);
        }
        next
    }

    /// Takes `text` if it is next, to the letter.
    pub(crate) fn take_exact(&mut self, text: &[u8]) -> bool {
        let next = self.rest().starts_with(text);
        if next {
            self.skip(text.len());
        }
        next
    }

    pub(crate) fn expect(&mut self, byte: u8, needed: &'static str) -> Result<(), Error> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(needed)) }
    }

    #[cold]
    pub(crate) fn unexpected(&self, needed: &'static str) -> Error {
        let found = match self.text.get(self.at..).and_then(|t| t.chars().next()) {
            Some(c) => Found::Byte(c),
            None => Found::End,
        };
        Error::new(Detail::Json { offset: self.offset(), found, needed })
    }

    /// The kind of the value that begins at the next byte, judged by that byte alone.
    pub(crate) fn kind(&mut self) -> Found {
        self.skip_space();
        match self.peek() {
            Some(b'{') => Found::Object,
            Some(b'[') => Found::Array,
            Some(b'"') => Found::String,
            Some(b'-' | b'0'..=b'9') => Found::Number,
            Some(b't' | b'f') => Found::Bool,
            Some(b'n') => Found::Null,
            _ => self.text.get(self.at..).and_then(|t| t.chars().next()).map_or(Found::End, Found::Byte),
        }
    }

    /// A string; borrowed where it holds no escape.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let plain = plain_bytes(self.rest());
        self.skip(plain.unwrap_or(usize::MAX));
        match self.peek() {
            Some(b'"') => {
                let text = self.text.get(start..self.at).unwrap_or_default();
                self.skip(1);
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => self.string_with_escapes(start).map(Cow::Owned),
            _ => {
                self.at = self.at.min(self.text.len());
                Err(self.unexpected("a closed string without control characters"))
            }
        }
    }

    #[cold]
    fn string_with_escapes(&mut self, start: usize) -> Result<String, Error> {
        let mut out = String::from(self.text.get(start..self.at).unwrap_or_default());
        loop {
            let from = self.at;
            let plain = plain_bytes(self.rest());
            self.at = plain.map_or(self.text.len(), |n| from.saturating_add(n));
            out.push_str(self.text.get(from..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.skip(1);
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.skip(1);
                    out.push(self.escape()?);
                }
                _ => return Err(self.unexpected("a closed string without control characters")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.skip(1);
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("an escape of JSON")),
        };
        self.skip(1);
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let offset = self.offset();
        let lone = || Error::new(Detail::LoneSurrogate { offset });
        let first = self.four_hex()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        if !(0xd800..0xdc00).contains(&first) || !self.take_exact(b"\\u") {
            return Err(lone());
        }
        let second = self.four_hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone());
        }
        let high = first.wrapping_sub(0xd800) << 10;
        let low = second.wrapping_sub(0xdc00);
        char::from_u32((high | low).wrapping_add(0x1_0000)).ok_or_else(lone)
    }

    fn four_hex(&mut self) -> Result<u32, Error> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("four hexadecimal digits"));
            };
            value = (value << 4) | digit;
            self.skip(1);
        }
        Ok(value)
    }

    /// An integer from 0 to `u64::MAX`, written without sign, fraction, exponent or leading zero;
    /// `None`, with nothing taken, where the next value is anything else.
    pub(crate) fn integer(&mut self) -> Option<u64> {
        let mut value = 0u64;
        let mut digits = 0usize;
        for b in self.rest() {
            let Some(digit @ 0..=9) = b.checked_sub(b'0') else { break };
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            digits = digits.saturating_add(1);
        }
        if digits == 0 || (digits > 1 && self.peek() == Some(b'0')) {
            return None;
        }
        if let Some(b'.' | b'e' | b'E') = self.text.as_bytes().get(self.at.saturating_add(digits)) {
            return None;
        }
        self.skip(digits);
        Some(value)
    }

    /// Reads any value and drops it.
    pub(crate) fn skip_value(&mut self, depth: u32) -> Result<(), Error> {
        let deeper = depth.saturating_add(1);
        match self.kind() {
            Found::Array | Found::Object if depth > DEPTH => {
                Err(Error::new(Detail::JsonDepth { offset: self.offset(), limit: DEPTH }))
            }
            Found::String => self.string().map(drop),
            Found::Number => self.skip_number(),
            Found::Bool | Found::Null => {
                let known = [&b"true"[..], b"false", b"null"].iter().any(|word| self.take_exact(word));
                if known { Ok(()) } else { Err(self.unexpected("`true`, `false` or `null`")) }
            }
            Found::Array => {
                let mut list = self.begin(b'[');
                while self.more(&mut list, b']', "`,` or `]`")? {
                    self.skip_value(deeper)?;
                }
                Ok(())
            }
            Found::Object => {
                let mut list = self.begin(b'{');
                while self.more(&mut list, b'}', "`,` or `}`")? {
                    self.string()?;
                    self.expect(b':', "`:`")?;
                    self.skip_value(deeper)?;
                }
                Ok(())
            }
            Found::OtherNumber | Found::End | Found::Byte(_) => Err(self.unexpected("a value")),
        }
    }

    fn skip_number(&mut self) -> Result<(), Error> {
        let start = self.at;
        let offset = self.offset();
        self.take_exact(b"-");
        if !self.take_exact(b"0") {
            self.digits()?;
        }
        if self.take_exact(b".") {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.skip(1);
            if let Some(b'+' | b'-') = self.peek() {
                self.skip(1);
            }
            self.digits()?;
        }
        let finite = self.text.get(start..self.at).and_then(|t| t.parse::<f64>().ok());
        match finite {
            Some(value) if value.is_finite() => Ok(()),
            _ => Err(Error::new(Detail::NumberRange { offset })),
        }
    }

    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.skip(1);
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    /// Takes the bracket that opens an object or array; [`more`](Self::more) walks its members.
    pub(crate) fn begin(&mut self, open: u8) -> Members {
        self.take(open);
        Members { first: true }
    }

    /// Whether another member follows; takes the comma before it, or the closing bracket.
    pub(crate) fn more(
        &mut self,
        members: &mut Members,
        close: u8,
        needed: &'static str,
    ) -> Result<bool, Error> {
        if core::mem::take(&mut members.first) {
            return Ok(!self.take(close));
        }
        if self.take(b',') {
            self.skip_space();
            return Ok(true);
        }
        if self.take(close) { Ok(false) } else { Err(self.unexpected(needed)) }
    }

    /// Only white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.unexpected("the end of the header")) }
    }
}

/// The state of a walk over the members of an object or array.
pub(crate) struct Members {
    first: bool,
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use super::Reader;
    use proptest::prelude::*;

    fn accepts(text: &[u8]) -> bool {
        Reader::new(text, 0)
            .and_then(|mut r| {
                r.skip_value(1)?;
                r.end()
            })
            .is_ok()
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"\\u0-9a-fA-FtrulsenxyzE+.\- \t\n]{0,24}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(accepts(text.as_bytes()), theirs, "{}", text);
        }

        #[test]
        fn reads_every_string_that_serde_json_writes(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let mut reader = Reader::new(json.as_bytes(), 0).unwrap();
            prop_assert_eq!(reader.string().unwrap(), text);
        }

        #[test]
        fn integers_round_trip(value in any::<u64>()) {
            let json = value.to_string();
            prop_assert_eq!(Reader::new(json.as_bytes(), 0).unwrap().integer(), Some(value));
        }
    }

    #[test]
    fn nesting_stops_where_the_reference_stops() {
        for (depth, good) in [(127, true), (128, false), (2000, false)] {
            for inmost in ["", "0", "\"\""] {
                let text = "[".repeat(depth) + inmost + &"]".repeat(depth);
                assert_eq!(accepts(text.as_bytes()), good, "{depth}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), good, "{depth}");
            }
        }
    }

    #[test]
    fn integers_are_plain() {
        for text in ["-1", "-0", "1.0", "1e0", "01", "18446744073709551616", "\"1\"", "", "x"] {
            assert_eq!(Reader::new(text.as_bytes(), 0).unwrap().integer(), None, "{text}");
        }
    }
}

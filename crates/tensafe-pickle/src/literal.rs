//! The literals of a pickle: numbers and texts, as each protocol spells them.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::{borrow::Cow, cell::Cell, ops::Range};

use crate::{Argument, Opcode, Spellings, Value, error::Detail};

/// The value of an instruction that pushes a number or a truth value. An integer has at most
/// `integer_bytes` bytes.
pub(crate) fn number<'a>(
    opcode: Opcode,
    argument: Argument<'a>,
    integer_bytes: usize,
) -> Result<Value<'a>, Detail> {
    Ok(match (opcode, argument) {
        (Opcode::NewTrue, _) => Value::Bool(true),
        (Opcode::NewFalse, _) => Value::Bool(false),
        (Opcode::BinFloat, Argument::Float(value)) => Value::Float(value),
        (Opcode::Float, Argument::Bytes(line)) => Value::Float(float(&line)?),
        (Opcode::Int, Argument::Bytes(line)) => match &*line {
            b"00" => Value::Bool(false),
            b"01" => Value::Bool(true),
            // A truth value for one reader of Python, an integer for the other.
            [b'+' | b'-' | b' ' | b'\t'..=b'\r', b'0'] | [b'+' | b' ' | b'\t'..=b'\r', b'1'] => {
                return Err(Detail::Number { needed: "an integer" });
            }
            line => integer(line, integer_bytes)?,
        },
        (Opcode::Long, Argument::Bytes(line)) => {
            integer(line.strip_suffix(b"L").unwrap_or(&line), integer_bytes)?
        }
        (Opcode::Long1 | Opcode::Long4, Argument::Bytes(bytes)) => long(bytes, integer_bytes)?,
        (_, Argument::Far(range)) => {
            let length = range.end.saturating_sub(range.start);
            return Err(Detail::Bytes { length, left: integer_bytes as u64 });
        }
        (_, Argument::Signed(value)) => Value::Int(i64::from(value)),
        (_, Argument::Unsigned(value)) => Value::Int(i64::try_from(value).unwrap_or(i64::MAX)),
        _ => Value::None,
    })
}

/// A float as both readers of Python take it: nothing around it, and none beyond the largest, which
/// one of them refuses and the other calls infinite.
fn float(line: &[u8]) -> Result<f64, Detail> {
    let needed = Detail::Number { needed: "a float" };
    let Some(value) = std::str::from_utf8(line).ok().and_then(|text| text.parse::<f64>().ok()) else {
        return Err(needed);
    };
    if value.is_infinite() && line.iter().any(u8::is_ascii_digit) { Err(needed) } else { Ok(value) }
}

/// An integer of any size within the limit, as `int(line, 0)` takes it.
fn integer<'a>(line: &[u8], most: usize) -> Result<Value<'a>, Detail> {
    let (negative, radix, digits) = signed(line).ok_or(Detail::Number { needed: "an integer" })?;
    // The magnitude in bytes, from the least significant on.
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits {
        let mut carry = digit;
        for byte in &mut bytes {
            let value = u16::from(*byte).wrapping_mul(radix).wrapping_add(carry);
            let [low, high] = value.to_le_bytes();
            (*byte, carry) = (low, u16::from(high));
        }
        if carry > 0 {
            bytes.push(carry.to_le_bytes()[0]);
        }
        if bytes.len() > most {
            return Err(Detail::Limit { what: "bytes of an integer", limit: most as u64 });
        }
    }
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    // One byte more where the last does not tell the sign.
    if bytes.last().is_some_and(|last| (*last >= 0x80) != negative) {
        bytes.push(if negative { 0xff } else { 0 });
    }
    if bytes.len() <= size_of::<i64>() {
        return long(Cow::Owned(bytes), size_of::<i64>());
    }
    Ok(Value::Long(Cow::Owned(bytes)))
}

/// Whether it is negative, the base that its prefix says, and the digits. Zeros before a decimal number
/// are refused: `010` is 8 for one reader of Python and an error for the other.
fn signed(line: &[u8]) -> Option<(bool, u16, impl Iterator<Item = u16>)> {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = line.iter().position(|byte| !space(byte))?;
    let end = line.iter().rposition(|byte| !space(byte))?;
    let line = line.get(start..=end)?;
    let (negative, unsigned) = match line {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, line),
    };
    let (radix, digits) = match unsigned {
        // One underscore may follow the prefix.
        [b'0', b'x' | b'X', rest @ ..] => (16, rest.strip_prefix(b"_").unwrap_or(rest)),
        [b'0', b'o' | b'O', rest @ ..] => (8, rest.strip_prefix(b"_").unwrap_or(rest)),
        [b'0', b'b' | b'B', rest @ ..] => (2, rest.strip_prefix(b"_").unwrap_or(rest)),
        _ => (10, unsigned),
    };
    let value =
        move |digit: u8| char::from(digit).to_digit(radix).and_then(|digit| u16::try_from(digit).ok());
    // Each underscore stands between two digits.
    let whole = digits
        .split(|byte| *byte == b'_')
        .all(|run| !run.is_empty() && run.iter().all(|digit| value(*digit).is_some()));
    let zero = digits.iter().all(|digit| matches!(digit, b'0' | b'_'));
    if !whole || (radix == 10 && !zero && digits.first() == Some(&b'0')) {
        return None;
    }
    Some((negative, u16::try_from(radix).ok()?, digits.iter().filter_map(move |digit| value(*digit))))
}

/// Two's complement, little-endian; no bytes are 0.
fn long(bytes: Cow<'_, [u8]>, most: usize) -> Result<Value<'_>, Detail> {
    if bytes.len() > most {
        return Err(Detail::Limit { what: "bytes of an integer", limit: most as u64 });
    }
    if bytes.len() > 8 {
        return Ok(Value::Long(bytes));
    }
    let sign = bytes.last().map_or(0, |last| if *last >= 0x80 { 0xff } else { 0 });
    let mut full = [sign; 8];
    for (place, byte) in full.iter_mut().zip(&*bytes) {
        *place = *byte;
    }
    Ok(Value::Int(i64::from_le_bytes(full)))
}

/// The value of an instruction that pushes text or bytes. What the value does not tell of how it stood
/// there is noted in `met`.
pub(crate) fn text<'a>(
    opcode: Opcode,
    argument: Argument<'a>,
    met: &mut Spellings,
) -> Result<Value<'a>, Detail> {
    match opcode {
        Opcode::ByteArray8 => met.bytearray |= matches!(argument, Argument::Far(_)),
        Opcode::BinBytes | Opcode::ShortBinBytes | Opcode::BinBytes8 => met.bytes = true,
        Opcode::String | Opcode::BinString | Opcode::ShortBinString => met.python2 = true,
        _ => {}
    }
    let halves = Cell::new(met.surrogates);
    let value = valued(opcode, argument, &halves)?;
    met.surrogates = halves.get();
    Ok(value)
}

fn valued<'a>(opcode: Opcode, argument: Argument<'a>, halves: &Cell<bool>) -> Result<Value<'a>, Detail> {
    let bytes = match argument {
        Argument::Bytes(bytes) => bytes,
        Argument::Far(range) => return far(opcode, range),
        _ => return Err(Detail::Text),
    };
    Ok(match opcode {
        Opcode::ByteArray8 => Value::ByteArray(bytes),
        Opcode::BinBytes | Opcode::ShortBinBytes | Opcode::BinBytes8 => Value::Bytes(bytes),
        // What Python 2 wrote as text: ASCII is text, anything else stays bytes.
        Opcode::BinString | Opcode::ShortBinString => python2_text(bytes),
        Opcode::String => python2_text(spelled(bytes, quoted)?),
        Opcode::Unicode => Value::Str(spelled(bytes, |line| raw_unicode(line, halves))?),
        _ => Value::Str(spelled(bytes, |bytes| python_utf8(bytes, halves))?),
    })
}

/// Bytes may stay where they are; text has to be decoded, and is too long for that.
fn far<'a>(opcode: Opcode, range: Range<u64>) -> Result<Value<'a>, Detail> {
    match opcode {
        Opcode::ByteArray8
        | Opcode::BinBytes
        | Opcode::BinBytes8
        | Opcode::BinString
        | Opcode::ShortBinBytes
        | Opcode::ShortBinString => Ok(Value::Far(range)),
        _ => Err(Detail::Limit { what: "bytes of a text", limit: range.end.saturating_sub(range.start) }),
    }
}

/// Decodes what borrows into what borrows, and what is owned into what is owned.
fn spelled<'a, T: ?Sized + ToOwned>(
    bytes: Cow<'a, [u8]>,
    decode: impl for<'b> Fn(&'b [u8]) -> Result<Cow<'b, T>, Detail>,
) -> Result<Cow<'a, T>, Detail> {
    match bytes {
        Cow::Borrowed(bytes) => decode(bytes),
        Cow::Owned(bytes) => decode(&bytes).map(|value| Cow::Owned(value.into_owned())),
    }
}

fn python2_text(bytes: Cow<'_, [u8]>) -> Value<'_> {
    if !bytes.is_ascii() {
        return Value::Bytes(bytes);
    }
    match bytes {
        Cow::Borrowed(bytes) => Value::Str(String::from_utf8_lossy(bytes)),
        Cow::Owned(bytes) => Value::Str(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

/// Text that has to be UTF-8 as it stands, such as a name.
pub(crate) fn utf8(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Detail> {
    spelled(bytes, plain_utf8)
}

fn plain_utf8(bytes: &[u8]) -> Result<Cow<'_, str>, Detail> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Detail::Text)
}

/// Python encodes halves of surrogate pairs as UTF-8 would; nothing else may break UTF-8.
fn python_utf8<'b>(bytes: &'b [u8], halves: &Cell<bool>) -> Result<Cow<'b, str>, Detail> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                break;
            }
            Err(e) => e.valid_up_to(),
        };
        let (good, bad) = rest.split_at(valid);
        out.push_str(std::str::from_utf8(good).unwrap_or_default());
        match bad {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] => {
                halves.set(true);
                out.push(char::REPLACEMENT_CHARACTER);
                rest = after;
            }
            _ => return Err(Detail::Text),
        }
    }
    Ok(Cow::Owned(out))
}

/// The argument of STRING: quoted as Python's `repr` of bytes quotes.
fn quoted(line: &[u8]) -> Result<Cow<'_, [u8]>, Detail> {
    let ([b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\'']) = line else {
        return Err(Detail::Text);
    };
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next().ok_or(Detail::Text)? {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'x' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(Detail::Text);
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from((high << 4) | low).map_err(|_| Detail::Text)?);
            }
            byte @ (b'\\' | b'\'' | b'"') => out.push(byte),
            // `repr` writes no other escape.
            _ => return Err(Detail::Text),
        }
    }
    Ok(Cow::Owned(out))
}

/// The argument of UNICODE: Latin-1 with `\uXXXX` and `\UXXXXXXXX`. A backslash before a backslash
/// stands for both.
fn raw_unicode<'b>(line: &'b [u8], halves: &Cell<bool>) -> Result<Cow<'b, str>, Detail> {
    if line.is_ascii() && !line.contains(&b'\\') {
        return plain_utf8(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4usize,
            (b'\\', Some(b'U')) => 8,
            (b'\\', Some(b'\\')) => {
                out.push_str(r"\\");
                rest = after.get(1..).unwrap_or_default();
                continue;
            }
            _ => {
                out.push(char::from(*byte));
                continue;
            }
        };
        let (text, after) =
            after.get(1..).and_then(|after| after.split_at_checked(digits)).ok_or(Detail::Text)?;
        // Digits alone: a sign is none.
        let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = text.and_then(|text| u32::from_str_radix(text, 16).ok());
        let code = code.filter(|code| *code <= u32::from(char::MAX)).ok_or(Detail::Text)?;
        let found = char::from_u32(code);
        halves.set(halves.get() || found.is_none());
        out.push(found.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = after;
    }
    Ok(Cow::Owned(out))
}

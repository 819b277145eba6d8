//! Pickles and archives within the texts and bytes of a pickle: plain, in base64, in hexadecimal.
//!
//! Nothing loads them by itself, so they are notes; one that would run code is an error. The work is
//! bounded by a budget of bytes for a whole file.

mod opaque;

use std::ops::Range;

use tensafe_pickle::{Bytes, Dialect, Meaning, Object, Pickle, Value, evaluate, evaluate_stream};

use crate::{
    Finding, Level, Rule,
    input::Input,
    pickle::judge_evaluated,
    preview,
    scan::{Place, Scan},
    symbols,
};

/// Shorter than this, nothing of interest fits.
const LEAST_BYTES: usize = 12;
/// The start of a text that is decoded to see whether the rest is worth it.
const PROBE_BYTES: usize = 24;

/// Most pickles that are tried in one run of bytes, and most instructions of each.
const MOST_TRIES: usize = 1000;
const MOST_OPERATIONS: u64 = 10_000;

/// Searches bytes for a pickle that begins anywhere among them and would do harm.
pub(crate) fn search(bytes: &[u8], base: u64, place: Place<'_>, scan: &mut Scan<'_>) {
    let limits = scan.options.limits.pickle.with_operations(MOST_OPERATIONS);
    let starts = bytes.windows(2).enumerate().filter(|(_, pair)| matches!(pair, [0x80, 2..=5]));
    for (at, _) in starts.take(MOST_TRIES) {
        let Some(rest) = bytes.get(at..) else { return };
        if !scan.spend_try(place) {
            return;
        }
        let pickle = evaluate(rest, &limits);
        let mut named = pickle.symbols().iter().filter_map(|used| pickle.symbol(used.value));
        if let Some(symbol) = named.find(|symbol| symbols::judge(symbol).is_harm()) {
            let name = preview::named(&symbol.to_string());
            let text = format!("a pickle stands among other bytes and imports {name}");
            let finding = Finding::new(Rule::NestedPayload, text).of_symbol(symbol.to_string());
            scan.add(place, finding.at(base.saturating_add(at as u64)));
            return;
        }
    }
}

/// Bytes that are searched of what could not be read in any other way.
const SEARCHED_BYTES: u64 = 16 << 20;

/// Searches a range of `input` that no reader makes sense of.
pub(crate) fn search_range(input: &Input, range: &Range<u64>, place: Place<'_>, scan: &mut Scan<'_>) {
    let end = range.end.min(range.start.saturating_add(SEARCHED_BYTES));
    if let Ok(bytes) = input.read(range.start..end.max(range.start)) {
        search(&bytes, range.start, place, scan);
    }
}

/// Looks into every text and all bytes of `pickle`, which was read from `input`.
pub(crate) fn look(input: &Input, pickle: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    for (id, value) in pickle.entries() {
        let held: &[u8] = match value {
            Value::Str(text) => text.as_bytes(),
            Value::Bytes(held) => held,
            Value::ByteArray(held) => held,
            Value::Far(range) => {
                far(input, range, place, scan);
                continue;
            }
            // Python 2, and Python 3 in protocol 2, write bytes as a call.
            Value::Object(object) if is_encode(pickle, object) => {
                if let Ok(Meaning::Bytes(Bytes::Near(held))) = pickle.meaning(id) {
                    look_at(&held, input, place, scan);
                }
                continue;
            }
            Value::Dict(entries) => {
                entries.iter().for_each(|(_, value)| opaque::judge(pickle, *value, place, scan));
                continue;
            }
            Value::List(items) => {
                items.iter().for_each(|item| opaque::judge(pickle, *item, place, scan));
                continue;
            }
            _ => continue,
        };
        look_at(held, input, place, scan);
    }
}

fn is_encode(pickle: &Pickle<'_>, object: &Object) -> bool {
    let symbol = pickle.symbol(object.callable);
    symbol.is_some_and(|symbol| &*symbol.module == "_codecs" && &*symbol.name == "encode")
}

/// Looks into one run of bytes, which may borrow from `input`.
pub(crate) fn look_at(held: &[u8], input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    if held.len() < LEAST_BYTES {
        return;
    }
    let offset = input.offset_of(held);
    match candidate(held) {
        Some((form, decoded)) => {
            let held = decoded.unwrap_or_else(|| held.to_vec());
            if scan.spend_nested(held.len() as u64, place) {
                judge(form, Input::of_bytes(held), offset, place, scan);
            }
        }
        None if std::str::from_utf8(held).is_err() => {
            search(held, offset.unwrap_or_default(), place, scan);
        }
        None => {}
    }
}

/// Bytes that were left where they are: arrays, or what begins as something to load.
pub(crate) fn far(input: &Input, range: &Range<u64>, place: Place<'_>, scan: &mut Scan<'_>) {
    let start = input.read(range.start..range.start.saturating_add(PROBE_BYTES as u64));
    if start.is_ok_and(|start| looks_loadable(&start))
        && scan.spend_nested(range.end.saturating_sub(range.start), place)
    {
        judge("plain", input.part(range.clone()), Some(range.start), place, scan);
    }
}

/// What the bytes look like, and what they decode to where they are text.
fn candidate(held: &[u8]) -> Option<(&'static str, Option<Vec<u8>>)> {
    if looks_loadable(held) {
        return Some(("plain", None));
    }
    let start = held.get(..held.len().min(PROBE_BYTES))?;
    for (form, decode) in [("hexadecimal", hexadecimal as fn(&[u8]) -> Option<Vec<u8>>), ("base64", base64)] {
        if decode(start).is_some_and(|start| looks_loadable(&start))
            && let Some(decoded) = decode(held)
        {
            return Some((form, Some(decoded)));
        }
    }
    None
}

/// Whether bytes begin as a pickle, or as an archive or wrapper that may hold one.
fn looks_loadable(bytes: &[u8]) -> bool {
    match bytes {
        [0x80, protocol, ..] => *protocol <= 5,
        [b'c' | b'(', ..] => bytes.len() <= PROBE_BYTES || bytes.contains(&b'\n'),
        _ => looks_packed(bytes),
    }
}

fn looks_packed(bytes: &[u8]) -> bool {
    let zlib = matches!(bytes, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]);
    zlib || [&b"PK\x03\x04"[..], b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x93NUMPY"]
        .iter()
        .any(|magic| bytes.starts_with(magic))
}

fn judge(form: &str, held: Input, offset: Option<u64>, place: Place<'_>, scan: &mut Scan<'_>) {
    let Some(mut inner) = scan.below(place) else { return };
    let Ok(head) = held.head(PROBE_BYTES) else { return };
    if looks_packed(&head) {
        let kind = inner.content("nested", &held, Place::ROOT);
        if matches!(kind, "unknown" | "text") {
            return;
        }
    } else {
        let pickle = evaluate_stream(held.stream(), 0, Dialect::Plain, &scan.options.limits.pickle);
        // Without the byte that says so, text is a pickle where it names what harms, alone.
        let known = pickle.error().is_none() || !pickle.symbols().is_empty();
        let says_so = head.first() == Some(&0x80) && known;
        if !says_so && pickle.symbols().is_empty() {
            return;
        }
        judge_evaluated(&held, &pickle, Place::ROOT, &mut inner);
        let harms = [Rule::RunsCode, Rule::ReachesNetwork, Rule::TouchesFiles];
        if !says_so && !inner.findings.any_of(&harms) {
            return;
        }
    }
    let findings = inner.finish_below(scan);
    let worst = findings.iter().max_by_key(|finding| finding.level);
    let what = format!("{} bytes as {form} hold what a loader would read", held.len());
    let finding = match worst {
        Some(worst) if worst.level == Level::Error => {
            let finding = Finding::new(Rule::NestedPayload, format!("{what}: {}", worst.message));
            Finding { symbol: worst.symbol.clone(), opcode: worst.opcode, ..finding }
        }
        Some(worst) if worst.level == Level::Warning => {
            Finding::new(Rule::NestedPickle, format!("{what}: {}", worst.message)).leveled(Level::Warning)
        }
        _ => Finding::new(Rule::NestedPickle, what),
    };
    scan.add(place, Finding { offset, ..finding });
}

fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|b| !b" \n\r:".contains(b)).collect();
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

/// Base64 of both alphabets, with or without padding and line breaks.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.trim_ascii_end().iter().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => continue,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{base64, hexadecimal};

    #[test]
    fn texts_are_decoded() {
        assert_eq!(base64(b"Y29zCnN5c3RlbQo=").unwrap(), b"cos\nsystem\n");
        assert_eq!(base64(b"Y29z\nCnN5c3RlbQo").unwrap(), b"cos\nsystem\n");
        assert_eq!(base64(b"gASVAA--").unwrap(), [0x80, 4, 0x95, 0, 0x0f, 0xbe]);
        assert_eq!(base64(b"not base64"), None);
        assert_eq!(hexadecimal(b"80048C").unwrap(), [0x80, 4, 0x8c]);
        assert_eq!((hexadecimal(b"8004x0"), hexadecimal(b"800")), (None, None));
    }
}

//! Values of a pickle in a few words, for messages: what a call would have got.

use std::fmt::Write as _;

use tensafe_pickle::{Id, Pickle, Value};

/// Characters of a text, and items of a list, that are shown.
const MOST_CHARACTERS: usize = 80;
const MOST_ITEMS: usize = 4;
const MOST_DEPTH: usize = 3;

/// The arguments of a call, in parentheses.
pub(crate) fn arguments(pickle: &Pickle<'_>, arguments: Id) -> String {
    let mut out = String::new();
    match pickle.value(arguments) {
        Some(Value::Tuple(items)) => list(pickle, items, ("(", ")"), MOST_DEPTH, &mut out),
        _ => value(pickle, arguments, MOST_DEPTH, &mut out),
    }
    out
}

/// Text between quotes, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (place, character) in text.chars().enumerate() {
        if place == MOST_CHARACTERS {
            out.push('…');
            break;
        }
        out.extend(character.escape_debug());
    }
    out.push('"');
    out
}

/// A name between back-ticks, cut where it is long, so that a message stays one line.
pub(crate) fn named(text: &str) -> String {
    let mut out: String = text.chars().take(MOST_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST_CHARACTERS).is_some() {
        out.push('…');
    }
    format!("`{out}`")
}

fn value(pickle: &Pickle<'_>, id: Id, depth: usize, out: &mut String) {
    let Some(found) = pickle.value(id) else { return };
    match found {
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => _ = write!(out, "{value}"),
        Value::Float(value) => _ = write!(out, "{value}"),
        Value::Str(text) => out.push_str(&quoted(text)),
        Value::Bytes(bytes) => out.push_str(&quoted(&String::from_utf8_lossy(start(bytes)))),
        Value::Symbol(symbol) => _ = write!(out, "{}.{}", symbol.module, symbol.name),
        Value::Tuple(items) => list(pickle, items, ("(", ")"), depth, out),
        Value::List(items) => list(pickle, items, ("[", "]"), depth, out),
        Value::Object(object) if depth > 0 => {
            value(pickle, object.callable, 0, out);
            match pickle.value(object.arguments) {
                Some(Value::Tuple(items)) => list(pickle, items, ("(", ")"), depth - 1, out),
                _ => value(pickle, object.arguments, depth - 1, out),
            }
        }
        other => _ = write!(out, "<{}>", other.kind()),
    }
}

fn list(pickle: &Pickle<'_>, items: &[Id], (open, close): (&str, &str), depth: usize, out: &mut String) {
    out.push_str(open);
    if depth == 0 && !items.is_empty() {
        out.push('…');
        return out.push_str(close);
    }
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push_str(", ");
        }
        if place == MOST_ITEMS {
            out.push('…');
            break;
        }
        value(pickle, *item, depth.saturating_sub(1), out);
    }
    out.push_str(close);
}

/// As many bytes as can be shown.
fn start(bytes: &[u8]) -> &[u8] {
    bytes.get(..bytes.len().min(4 * MOST_CHARACTERS)).unwrap_or_default()
}

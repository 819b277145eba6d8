//! The integration tests of tensafe-pickle: one binary. Python's own `pickle` writes the benign
//! pickles and says what they hold; hostile ones are bytes, written here, and nobody runs them.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod hostile;
mod meaning;
mod python;

use std::fmt::Write as _;

use tensafe_pickle::{Id, Pickle, Value, evaluate};

/// A value as a text that Python can write too.
fn show(pickle: &Pickle<'_>, value: &Value<'_>, out: &mut String) {
    let each = |ids: &[Id], out: &mut String| {
        for id in ids {
            show(pickle, pickle.value(*id).unwrap(), out);
            out.push(' ');
        }
    };
    match value {
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => write!(out, "{value}").unwrap(),
        Value::Long(bytes) => {
            // One spelling for each number: pickles may hold a byte more than it takes.
            let mut bytes = &bytes[..];
            while let [rest @ .., before, last] = bytes
                && *last == if *before > 127 { 255 } else { 0 }
            {
                bytes = &bytes[..rest.len() + 1];
            }
            write!(out, "long:{}", hex(bytes)).unwrap();
        }
        Value::Float(value) => write!(out, "float:{:016x}", value.to_bits()).unwrap(),
        Value::Str(text) => write!(out, "str:{}", hex(text.as_bytes())).unwrap(),
        Value::Bytes(bytes) => write!(out, "bytes:{}", hex(bytes)).unwrap(),
        Value::ByteArray(bytes) => write!(out, "bytearray:{}", hex(bytes)).unwrap(),
        Value::Far(range) => write!(out, "far:{}..{}", range.start, range.end).unwrap(),
        Value::Symbol(symbol) => write!(out, "{}.{}", symbol.module, symbol.name).unwrap(),
        Value::Tuple(items) => bracket("tuple", out, |out| each(items, out)),
        Value::List(items) => bracket("list", out, |out| each(items, out)),
        Value::Set(items) => bracket("set", out, |out| each(items, out)),
        Value::FrozenSet(items) => bracket("frozenset", out, |out| each(items, out)),
        Value::Dict(entries) => bracket("dict", out, |out| {
            entries.iter().for_each(|(key, value)| each(&[*key, *value], out));
        }),
        Value::Persistent(id) => bracket("persistent", out, |out| each(&[*id], out)),
        Value::Object(object) => bracket("object", out, |out| {
            each(&[object.callable, object.arguments], out);
            each(object.keywords.as_slice(), out);
            each(&object.states, out);
            each(&object.items, out);
            object.entries.iter().for_each(|(key, value)| each(&[*key, *value], out));
        }),
    }
}

fn bracket(name: &str, out: &mut String, inside: impl FnOnce(&mut String)) {
    write!(out, "{name}(").unwrap();
    inside(out);
    out.push(')');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(bytes: &[u8]) -> String {
    let pickle = evaluate(bytes, &Default::default());
    let mut out = String::new();
    match (pickle.root(), pickle.error()) {
        (Some(root), None) => show(&pickle, root, &mut out),
        (_, error) => write!(out, "error: {}", error.unwrap()).unwrap(),
    }
    out
}

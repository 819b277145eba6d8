//! What Python's own library and plain records of others write.

use std::fmt::Write as _;

use super::{
    Meaning, MeaningError,
    arena::Call,
    table::{Called, Grows, grown},
};
use crate::{Made, Value};

type Read<'p> = Result<Meaning<'p>, MeaningError>;

/// `OrderedDict()`, `dict(pairs)`, `Counter({…})`, `defaultdict(factory)` and their kin: pairs of the
/// argument, and what is set as items.
pub(super) fn map(call: Call<'_>) -> Read<'_> {
    let mut entries = Vec::new();
    for argument in call.arguments {
        match call.arena.value(*argument) {
            Some(Value::Dict(pairs)) => entries.extend_from_slice(pairs),
            // What a defaultdict makes of missing keys.
            Some(Value::Symbol(_) | Value::None) => {}
            _ => {
                let pairs = call.arena.items(*argument);
                let pairs = pairs.ok_or_else(|| call.error("items", call.arena.kind(*argument), "pairs"))?;
                for pair in pairs {
                    let Some([key, value]) = call.arena.items(*pair) else {
                        return Err(call.error("items", call.arena.kind(*pair), "a key and a value"));
                    };
                    entries.push((*key, *value));
                }
            }
        }
    }
    entries.extend_from_slice(&call.object.entries);
    let state = call.state_entries();
    if state.is_empty() {
        return Ok(Meaning::Map(entries));
    }
    // A state dict keeps `_metadata` beside its items.
    let attributes = call.object.states.clone();
    Ok(Meaning::With { value: Box::new(Meaning::Map(entries)), class: None, attributes })
}

/// `list(…)`, `tuple(…)`: the items of the argument, and what is appended.
pub(super) fn sequence(call: Call<'_>) -> Read<'_> {
    let mut items = Vec::new();
    if let Some(argument) = call.arguments.first() {
        let given = call.arena.items(*argument);
        let given = given.ok_or_else(|| call.error("items", call.arena.kind(*argument), "a list"))?;
        items.extend_from_slice(given);
    }
    items.extend_from_slice(&call.object.items);
    Ok(Meaning::Sequence(items))
}

/// `deque(…, maxlen)`: of more items than that, the last.
pub(super) fn deque(call: Call<'_>) -> Read<'_> {
    let mut read = sequence(call)?;
    if let Meaning::Sequence(items) = &mut read
        && call.arguments.get(1).is_some_and(|most| !call.arena.is_none(*most))
    {
        let most = call.typed(1, "maxlen", "an integer from 0 on", |id| call.arena.unsigned(id))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        items.drain(..items.len().saturating_sub(most));
    }
    Ok(read)
}

/// `set([…])`, `frozenset([…])`.
pub(super) fn set(call: Call<'_>) -> Read<'_> {
    match sequence(call)? {
        Meaning::Sequence(items) => Ok(Meaning::Set(items)),
        other => Ok(other),
    }
}

/// A record whose attributes are its content, such as `argparse.Namespace`. It may be a dict, too.
pub(super) fn record(call: Call<'_>) -> Read<'_> {
    let mut entries = call.object.entries.clone();
    entries.extend(call.state_entries());
    Ok(Meaning::Map(entries))
}

/// `copyreg._reconstructor(class, base, state)`: an instance as protocols before 2 write it.
pub(super) fn reconstructor(call: Call<'_>) -> Read<'_> {
    let class = call.typed(0, "class", "a name", |id| call.arena.symbol(id))?;
    let base = call.typed(1, "base", "a name", |id| call.arena.symbol(id))?;
    match Called::find(&class.module, &class.name) {
        // An instance whose state says all: read as the class reads it.
        Some(called) if (&*base.module, &*base.name) == ("builtins", "object") => {
            called.read(Call { symbol: class, arguments: &[], ..call })
        }
        Some(_) if (&*base.module, &*base.name) == ("builtins", "dict") => {
            grown(&call, Grows::Entries)?;
            let Meaning::Map(mut entries) = record(call)? else { return record(call) };
            if let Some(Value::Dict(given)) = call.arguments.get(2).and_then(|id| call.arena.value(*id)) {
                let mut all = given.clone();
                all.append(&mut entries);
                entries = all;
            }
            Ok(Meaning::Map(entries))
        }
        _ => Ok(Meaning::Unknown { symbol: Some(class), object: call.object }),
    }
}

/// `_codecs.encode(text, "latin1")`, `bytes()`, `bytearray(b"…")`.
pub(super) fn bytes(call: Call<'_>) -> Read<'_> {
    let bytes = call.arena.encoded(call.object);
    bytes.map(Meaning::Bytes).ok_or_else(|| call.error("text", "another use", "bytes as text of Latin-1"))
}

/// `complex(real, imaginary)`.
pub(super) fn complex(call: Call<'_>) -> Read<'_> {
    let real = call.typed(0, "real part", "a float", |id| call.arena.float(id))?;
    let imaginary = call.typed(1, "imaginary part", "a float", |id| call.arena.float(id))?;
    Ok(Meaning::Named { kind: "complex", text: format!("{real:?}{imaginary:+?}j") })
}

/// `PosixPath("a", "b")`.
pub(super) fn path(call: Call<'_>) -> Read<'_> {
    let parts: Option<Vec<&str>> = call.arguments.iter().map(|id| call.arena.text(*id)).collect();
    let parts = parts.ok_or_else(|| call.error("parts", "something else", "text"))?;
    let separator = if call.symbol.name.contains("Windows") { "\\" } else { "/" };
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() && !text.ends_with(['/', '\\']) {
            text.push_str(separator);
        }
        text.push_str(part);
    }
    Ok(Meaning::Named { kind: "path", text })
}

/// `datetime(bytes)`, `date(bytes)`, `timedelta(days, seconds, microseconds)`.
pub(super) fn moment(call: Call<'_>) -> Read<'_> {
    let kind = if call.symbol.name == "timedelta" { "duration" } else { "date" };
    if kind == "duration" {
        let parts: Option<Vec<i64>> = call.arguments.iter().map(|id| call.arena.int(*id)).collect();
        let parts = parts.ok_or_else(|| call.error("parts", "something else", "integers"))?;
        let mut text = String::from("timedelta");
        for part in parts {
            // Writing to a string does not fail.
            let _ = write!(text, " {part}");
        }
        return Ok(Meaning::Named { kind, text });
    }
    let packed = call.argument(0, "bytes")?;
    let bytes = call.arena.bytes(packed);
    let Some(super::Bytes::Near(bytes)) = &bytes else {
        return Err(call.error("bytes", call.arena.kind(packed), "4 to 10 bytes"));
    };
    let text = match bytes[..] {
        [high, low, month, day] => date(high, low, month, day),
        [high, low, month, day, hour, minute, second, a, b, c] => {
            let micro = u32::from_be_bytes([0, a, b, c]);
            format!("{}T{hour:02}:{minute:02}:{second:02}.{micro:06}", date(high, low, month, day))
        }
        [hour, minute, second, a, b, c] => {
            let micro = u32::from_be_bytes([0, a, b, c]);
            format!("{hour:02}:{minute:02}:{second:02}.{micro:06}")
        }
        _ => return Err(call.error("bytes", format!("{} bytes", bytes.len()), "4, 6 or 10 bytes")),
    };
    Ok(Meaning::Named { kind, text })
}

fn date(high: u8, low: u8, month: u8, day: u8) -> String {
    format!("{:04}-{month:02}-{day:02}", u16::from_be_bytes([high, low]))
}

/// `fractions.Fraction("1/3")`, `decimal.Decimal("0.1")`, `uuid.UUID` and what else is one text.
pub(super) fn spelled(call: Call<'_>) -> Read<'_> {
    let text = call.typed(0, "value", "text", |id| call.arena.text(id))?;
    Ok(Meaning::Named { kind: "number", text: text.to_owned() })
}

/// `ZeroStageEnum(2)`: a member of an enumeration, as the number that it stands for.
pub(super) fn member(call: Call<'_>) -> Read<'_> {
    let value = call.typed(0, "value", "an integer", |id| call.arena.int(id))?;
    Ok(Meaning::Int(value))
}

/// `object()`: an instance without content. Anything else of a class of Python is not read.
pub(super) fn nothing(call: Call<'_>) -> Read<'_> {
    if call.object.made != Made::Call || call.arguments.is_empty() {
        return Ok(Meaning::Map(call.state_entries()));
    }
    Err(call.error("arguments", format!("{}", call.arguments.len()), "none"))
}

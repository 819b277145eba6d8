//! What no writer of checkpoints writes: arguments of the wrong kind, keys that cannot be keys, values
//! that grow beyond measure when someone walks over them.
//!
//! None of it runs code. Loaders written in C have been brought to corrupt memory by such arguments,
//! and programs to exhaust theirs.

mod work;

use std::collections::HashSet;

use tensafe_pickle::{Argument, Decoder, Id, Made, Object, Opcode, Pickle, Symbol, Value};

use self::work::Work;
use super::{growth, tensors::Storages};

use crate::{
    Finding, Level, Rule,
    input::Input,
    preview,
    scan::{Place, Scan},
    symbols::{self, Judgement},
};

/// Bytes of an integer. The longest that writers write is torch's magic number.
const MOST_INTEGER_BYTES: usize = 16;
/// Characters of a number as text.
const MOST_DIGITS: usize = 400;
/// Keys whose hashes Python may have made equal.
const MOST_HUGE_KEYS: usize = 32;
/// The modulus of Python's hashes of integers.
const HASH_MODULUS: i64 = (1 << 61) - 1;

pub(super) fn judge(input: &Input, pickle: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    if pickle.leftover() > 0 && pickle.error().is_none() {
        let text = format!("{} values are left on the stack at the end", pickle.leftover());
        scan.add(place, Finding::new(Rule::OddStream, text));
    }
    let mut storages = Storages::default();
    let mut work = Work::new(pickle);
    let mut unread = 0u64;
    for (id, value) in pickle.entries() {
        match value {
            Value::Object(object) if !work.spend(id, object) => unread = unread.saturating_add(1),
            Value::Object(_) | Value::Persistent(_) => {
                match pickle.meaning(id) {
                    Ok(meaning) => storages.judge(pickle, &meaning, place, scan),
                    Err(error) => scan.add(place, Finding::new(Rule::OddArguments, error.to_string())),
                }
                if let Value::Object(object) = value {
                    record(pickle, object, place, scan);
                }
            }
            Value::Dict(entries) => keys(pickle, entries, place, scan),
            Value::Long(bytes) if bytes.len() > MOST_INTEGER_BYTES => {
                let text = format!("an integer of {} bytes", bytes.len());
                scan.add(place, Finding::new(Rule::Exhausts, text));
            }
            _ => {}
        }
    }
    if unread > 0 {
        let text = format!("the arguments of {unread} calls were not looked at: many share large ones");
        scan.add(place, Finding::new(Rule::LimitMet, text));
    }
    growth::judge(pickle, place, scan);
    instructions(input, pickle, place, scan);
}

/// What the readers of known calls say of their arguments.
fn record(pickle: &Pickle<'_>, object: &Object, place: Place<'_>, scan: &mut Scan<'_>) {
    match pickle.value(object.callable) {
        Some(Value::Symbol(symbol)) => {
            if symbols::judge(symbol) != Judgement::Harmless {
                return;
            }
            if let Some(why) = odd_use(pickle, symbol, object) {
                let text = format!("{symbol}{}: {why}", preview::arguments(pickle, object.arguments));
                scan.add(place, Finding::new(Rule::OddArguments, text).of_symbol(symbol.to_string()));
            }
            if let Some(why) = sizes(pickle, &symbol.name, object.arguments) {
                let text = format!("{symbol}{}: {why}", preview::arguments(pickle, object.arguments));
                scan.add(place, Finding::new(Rule::Exhausts, text).of_symbol(symbol.to_string()));
            }
        }
        Some(Value::Object(_) | Value::Persistent(_)) | None => {}
        Some(other) => {
            let text = format!("calls {}, which is no name", other.kind());
            scan.add(place, Finding::new(Rule::OddStream, text));
        }
    }
}

/// What no writer does with a harmless name.
fn odd_use(pickle: &Pickle<'_>, symbol: &Symbol<'_>, object: &Object) -> Option<&'static str> {
    let items = match pickle.value(object.arguments) {
        Some(Value::Tuple(items)) => &items[..],
        _ => &[],
    };
    let argument = |at: usize| items.get(at).and_then(|id| pickle.value(*id));
    let state = |id: &Id| {
        let plain = Some(Value::None);
        let state = pickle.value(*id);
        state != plain.as_ref() && !matches!(state, Some(Value::Dict(_) | Value::Tuple(_) | Value::Object(_)))
    };
    let truth = |at| match argument(at) {
        Some(Value::Tuple(items)) => items.iter().any(|id| matches!(pickle.value(*id), Some(Value::Bool(_)))),
        _ => false,
    };
    if &*symbol.module == "builtins" && &*symbol.name != "object" && object.made == Made::New {
        return Some("a builtin is made without its constructor");
    }
    if object.states.iter().any(state) {
        return Some("the state is no dict and no tuple");
    }
    match &*symbol.name {
        "_rebuild_parameter" if !matches!(argument(0), Some(Value::Object(_))) => {
            Some("the data is no tensor")
        }
        "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" if truth(2) || truth(3) => {
            Some("truth values stand for sizes")
        }
        "Size" => match argument(0) {
            Some(Value::Tuple(shape) | Value::List(shape)) => {
                let fits = |id: &Id| matches!(pickle.value(*id), Some(Value::Int(0..)));
                (!shape.iter().all(fits)).then_some("the sizes are no numbers from 0 on")
            }
            _ => None,
        },
        _ => None,
    }
}

/// Numbers that a harmless function takes for sizes.
fn sizes(pickle: &Pickle<'_>, name: &str, arguments: Id) -> Option<&'static str> {
    let Some(Value::Tuple(items)) = pickle.value(arguments) else { return None };
    let number = |id: &Id| match pickle.value(*id) {
        Some(Value::Int(value)) => *value,
        Some(Value::Long(_)) => i64::MAX,
        _ => 0,
    };
    let huge = items.iter().any(|id| number(id) > 1 << 32);
    match name {
        "bytearray" | "bytes" | "range" if huge => Some("a number that is taken for a size"),
        "_reconstruct" => match items.get(1).and_then(|id| pickle.value(*id)) {
            Some(Value::Tuple(shape)) if shape.iter().any(|id| number(id) > 0) => {
                Some("an array without its data")
            }
            _ => None,
        },
        "Size" => match items.first().and_then(|id| pickle.value(*id)) {
            Some(Value::Tuple(shape) | Value::List(shape)) if shape.len() > 64 => {
                Some("more dimensions than a tensor has")
            }
            _ => None,
        },
        "dtype" => match items.first().and_then(|id| pickle.value(*id)) {
            Some(Value::Str(text)) if text.len() > 9 => Some("elements of more bytes than an array has"),
            _ => None,
        },
        "_rebuild_meta_tensor_no_storage" => match items.get(1).and_then(|id| pickle.value(*id)) {
            Some(Value::Tuple(shape)) => {
                let size = |all: u64, id| all.checked_mul(u64::try_from(number(id)).ok()?);
                let all = shape.iter().try_fold(1u64, size).filter(|all| *all < 1 << 48);
                all.is_none().then_some("more elements than memory holds")
            }
            _ => None,
        },
        "Counter" => {
            let Some(Value::Dict(entries)) = items.first().and_then(|id| pickle.value(*id)) else {
                return None;
            };
            entries
                .iter()
                .any(|(_, count)| number(count) > 1 << 32)
                .then_some("more elements than memory holds")
        }
        _ => None,
    }
}

/// Keys of a dict that Python refuses, or that make it slow.
fn keys(pickle: &Pickle<'_>, entries: &[(Id, Id)], place: Place<'_>, scan: &mut Scan<'_>) {
    let mut huge = 0usize;
    let mut names = HashSet::new();
    let mut last = None;
    for (key, _) in entries {
        let value = pickle.value(*key);
        match value {
            Some(Value::List(_) | Value::Dict(_) | Value::Set(_) | Value::ByteArray(_)) => {
                let kind = value.map_or("", Value::kind);
                scan.add(
                    place,
                    Finding::new(Rule::OddStream, format!("{kind} is a key, which Python refuses")),
                );
            }
            Some(Value::Float(number)) if number.is_nan() => {
                scan.add(place, Finding::new(Rule::OddStream, "a key is no number, and never found again"));
            }
            Some(Value::Object(object)) => {
                let symbol = pickle.symbol(object.callable);
                if symbol.is_some_and(|symbol| symbol.name.contains("tensor")) {
                    scan.add(place, Finding::new(Rule::OddStream, "a tensor is a key"));
                }
            }
            Some(Value::Int(number)) if number.unsigned_abs() >= HASH_MODULUS.unsigned_abs() => huge += 1,
            Some(Value::Long(_)) => huge += 1,
            _ => {}
        }
        if last.is_some() && last == value {
            scan.add(place, Finding::new(Rule::OddStream, "a key is set twice in a row"));
        }
        if let Some(Value::Str(name)) = value
            && name.bytes().any(|b| b.is_ascii_uppercase())
        {
            names.insert(name.to_ascii_lowercase());
        }
        last = value;
    }
    let lower = |id: &Id| matches!(pickle.value(*id), Some(Value::Str(name)) if names.contains(&**name));
    if !names.is_empty() && entries.iter().any(|(key, _)| lower(key)) {
        let finding = Finding::new(Rule::OddStream, "two names differ in nothing but the case of letters");
        scan.add(place, finding.leveled(Level::Note));
    }
    if huge > MOST_HUGE_KEYS {
        let text = format!("{huge} keys beyond 2^61, whose hashes Python may find equal");
        scan.add(place, Finding::new(Rule::Exhausts, text));
    }
}

/// Instructions that build nothing, and numbers longer than any.
fn instructions(input: &Input, pickle: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    let range = pickle.range();
    let mut decoder = Decoder::starting_at(input.stream(), range.start);
    let mut before = None;
    while let Ok(Some(instruction)) = decoder.next_instruction() {
        if instruction.offset >= range.end {
            return;
        }
        let opcode = instruction.opcode;
        let odd = match (before, opcode, &instruction.argument) {
            (_, Opcode::Dup, _) => Some("DUP, which no writer uses"),
            (Some(Opcode::Mark), Opcode::Appends | Opcode::SetItems | Opcode::AddItems, _) => {
                Some("nothing is added to a container")
            }
            (Some(Opcode::Mark), Opcode::Pop | Opcode::PopMark, _) => Some("a mark is set and taken away"),
            (Some(Opcode::Memoize), Opcode::Memoize, _) => Some("a value is stored twice in a row"),
            (_, Opcode::Float | Opcode::Int | Opcode::Long, Argument::Bytes(text)) => {
                let zero = opcode == Opcode::Int
                    && text.len() > 1
                    && text.starts_with(b"0")
                    && !matches!(**text, [b'0', b'0' | b'1']);
                if zero {
                    Some("an integer with a zero before it, which Python refuses")
                } else {
                    (text.len() > MOST_DIGITS).then_some("a number of more digits than any")
                }
            }
            _ => None,
        };
        if let Some(text) = odd {
            let finding = Finding::new(Rule::OddStream, text).by(opcode.name()).at(instruction.offset);
            scan.add(place, finding);
        }
        before = Some(opcode);
    }
}

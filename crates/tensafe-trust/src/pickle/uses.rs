//! Names that are harmless where they are called as writers of checkpoints call them, and not in
//! another place: what calls a name that stands as a value is not in the program.

use std::collections::HashSet;

use tensafe_pickle::{Id, Object, Pickle, Symbol, Value};

use crate::{
    Finding, Rule,
    preview::{self, named},
    scan::{Place, Scan},
};

/// Attributes of an object that instructions of pickle call, where it has them.
const CALLED_BY_INSTRUCTIONS: [&str; 3] = ["add", "append", "extend"];

/// Values that stand within others: as items, keys, arguments and states.
pub(super) fn standing(pickle: &Pickle<'_>) -> HashSet<Id> {
    let mut found = HashSet::new();
    for value in pickle.values() {
        match value {
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
                found.extend(items);
            }
            Value::Dict(entries) => found.extend(entries.iter().flat_map(|(key, value)| [key, value])),
            Value::Object(object) => {
                found.extend([object.arguments].iter().chain(&object.keywords));
                found.extend(object.states.iter().chain(&object.items));
                found.extend(object.entries.iter().flat_map(|(key, value)| [key, value]));
            }
            _ => {}
        }
    }
    found
}

/// What is told of a call beside its name. A state that objects share is told of once: `states` has those
/// that were looked at.
pub(super) fn judge(
    pickle: &Pickle<'_>,
    object: &Object,
    states: &mut HashSet<Id>,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) {
    for state in object.states.iter().chain(&object.keywords) {
        if states.insert(*state) {
            attributes(pickle, *state, place, scan);
        }
    }
    let Some(symbol) = pickle.symbol(object.callable) else { return };
    let arguments = preview::arguments(pickle, object.arguments);
    let mut add = |rule, text: String| {
        scan.add(place, Finding::new(rule, text).of_symbol(symbol.to_string()));
    };
    if calls_its_argument(pickle, symbol, object) {
        let text = format!("{}{arguments} calls what it is given", named(&symbol.to_string()));
        add(Rule::ComputedCall, text);
    }
    if takes_memory(pickle, symbol, object) {
        let text = format!("{}{arguments} takes bytes for whatever it is told", named(&symbol.to_string()));
        add(Rule::ComputedCall, text);
    }
    if changes_what_lives(pickle, symbol, object) {
        add(
            Rule::ChangesLive,
            format!("sets the state of what {}{arguments} finds", named(&symbol.to_string())),
        );
    }
}

/// Attributes that make an instruction call what they are.
fn attributes(pickle: &Pickle<'_>, state: Id, place: Place<'_>, scan: &mut Scan<'_>) {
    // A state may be of two parts: attributes in a dict, and those of slots.
    let parts = match pickle.value(state) {
        Some(Value::Tuple(parts)) if parts.len() == 2 => parts.as_slice(),
        _ => std::slice::from_ref(&state),
    };
    for part in parts {
        let Some(Value::Dict(entries)) = pickle.value(*part) else { continue };
        for (key, value) in entries {
            let Some(Value::Str(key)) = pickle.value(*key) else { continue };
            let is_called =
                CALLED_BY_INSTRUCTIONS.contains(&&**key) || (key.starts_with("__") && key.ends_with("__"));
            if is_called && matches!(pickle.value(*value), Some(Value::Symbol(_) | Value::Object(_))) {
                let text = format!("sets {}, which loading may call", named(key));
                scan.add(place, Finding::new(Rule::ComputedCall, text));
            }
        }
    }
}

/// Constructors of numpy's generators call the constructor that they are given.
fn calls_its_argument(pickle: &Pickle<'_>, symbol: &Symbol<'_>, object: &Object) -> bool {
    if &*symbol.module != "numpy.random._pickle" {
        return false;
    }
    let given = match pickle.value(object.arguments) {
        Some(Value::Tuple(items)) => items.as_slice(),
        _ => &[],
    };
    let of_numpy = |id: &Id| match pickle.value(*id) {
        Some(Value::Symbol(given)) => given.module.starts_with("numpy.random."),
        _ => true,
    };
    object.keywords.is_some() || !given.iter().all(of_numpy)
}

/// Arrays that are made over bytes may take them for addresses of objects.
fn takes_memory(pickle: &Pickle<'_>, symbol: &Symbol<'_>, object: &Object) -> bool {
    let is_array =
        symbol.module.split('.').next() == Some("numpy") && matches!(&*symbol.name, "ndarray" | "recarray");
    // Shape and dtype, and then the memory.
    let many = matches!(pickle.value(object.arguments), Some(Value::Tuple(items)) if items.len() > 2);
    is_array && (many || object.keywords.is_some())
}

/// Functions that return what the program has already, whose state is then another's too.
fn changes_what_lives(pickle: &Pickle<'_>, symbol: &Symbol<'_>, object: &Object) -> bool {
    let finds = |symbol: &Symbol<'_>| {
        matches!(
            (&*symbol.module, &*symbol.name),
            ("logging", "getLogger") | ("torch.jit._pickle", "restore_type_tag")
        )
    };
    let grows = !object.states.is_empty() || !object.items.is_empty() || !object.entries.is_empty();
    if finds(symbol) {
        return grows;
    }
    // The function that torch is given to call, whose result it sets a state of.
    symbol.name.starts_with("_rebuild_from_type")
        && match pickle.value(object.arguments) {
            Some(Value::Tuple(items)) => items.first().and_then(|id| pickle.symbol(*id)).is_some_and(finds),
            _ => false,
        }
}

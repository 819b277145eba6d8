//! One pickle, judged: its symbols, its calls, its texts, and how it ends.
//!
//! The machine of `tensafe-pickle` follows the program. Where it stops early, a second walk over the
//! bare instructions (`linear`) finds the symbols that come after, as far as opcodes can be read.

mod growth;
mod linear;
mod odd;
mod tensors;
mod uses;

use std::collections::{HashMap, HashSet};

use tensafe_pickle::{
    Bytes, Dialect, ErrorKind, Id, Made, Meaning, Object, Opcode, Pickle, Symbol, Value, evaluate_stream,
};

use crate::{
    Finding, Level, Rule,
    input::Input,
    nested,
    preview::{self, named},
    scan::{Place, Scan},
    symbols::{self, Judgement},
};

/// The number of legacy torch files, 0x1950a86a20f9469cfc6c, as bytes of a pickle's integer.
const TORCH_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Judges a pickle that `pickle` would load, and as joblib would load it, and returns the byte after
/// its STOP; `None` where it breaks.
pub(crate) fn judge(
    input: &Input,
    pickle: &Pickle<'_>,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) -> Option<u64> {
    if !is_of_joblib(pickle) {
        return judge_evaluated(input, pickle, place, scan);
    }
    // joblib reads arrays where `pickle` reads instructions: each reader has its own program.
    let (at, limits) = (pickle.range().start, &scan.options.limits.pickle);
    let of_joblib = evaluate_stream(input.stream(), at, Dialect::Joblib, limits);
    for_others(pickle, &of_joblib, place, scan);
    judge_evaluated(input, &of_joblib, place, scan)
}

/// Whether joblib wrote arrays into it.
pub(crate) fn is_of_joblib(pickle: &Pickle<'_>) -> bool {
    pickle
        .symbols()
        .iter()
        .filter_map(|used| pickle.symbol(used.value))
        .any(|symbol| &*symbol.module == "joblib.numpy_pickle" && &*symbol.name == "NumpyArrayWrapper")
}

/// Whether it is the number that legacy files of torch begin with.
pub(crate) fn is_torch_magic(pickle: &Pickle<'_>) -> bool {
    matches!(pickle.root(), Some(Value::Long(number)) if **number == TORCH_MAGIC)
}

/// Judges a pickle that was evaluated.
pub(crate) fn judge_evaluated(
    input: &Input,
    pickle: &Pickle<'_>,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) -> Option<u64> {
    let calls = Calls::of(pickle);
    symbols_of(pickle, &calls, place, scan);
    objects(input, pickle, place, scan);
    if let Some(error) = pickle.error() {
        ending(input, pickle, error, place, scan);
    }
    odd::judge(input, pickle, place, scan);
    nested::look(input, pickle, place, scan);
    pickle.error().is_none().then(|| pickle.range().end)
}

/// What `pickle` would import of a file of joblib, and joblib would not: instructions among the bytes
/// of arrays. What is unknown may be such bytes by chance.
fn for_others(pickle: &Pickle<'_>, of_joblib: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    let told: HashSet<u64> = of_joblib.symbols().iter().map(|used| used.offset).collect();
    for used in pickle.symbols().iter().filter(|used| !told.contains(&used.offset)) {
        let Some(symbol) = pickle.symbol(used.value) else { continue };
        let judgement = symbols::judge(symbol);
        let Some(rule) = rule_of(judgement, false) else { continue };
        let name = symbol.to_string();
        let message = format!("imports {} for readers that know no joblib", named(&name));
        let finding = Finding::new(rule, message).of_symbol(name).by(used.opcode.name()).at(used.offset);
        let known = judgement.is_harm() || judgement == Judgement::Attribute;
        scan.add(place, finding.leveled(if known { Level::Error } else { Level::Note }));
    }
}

/// Who is called, by whom, and with what.
struct Calls {
    /// The first call of each value.
    first: HashMap<Id, (Made, Id)>,
    /// Values that stand as the function of `getattr` alone.
    attributes: HashSet<Id>,
}

impl Calls {
    fn of(pickle: &Pickle<'_>) -> Self {
        let mut first = HashMap::new();
        let mut attributes = HashSet::new();
        for value in pickle.values() {
            if let Value::Object(object) = value {
                first.entry(object.callable).or_insert((object.made, object.arguments));
                if let Some((function, arguments)) = called_by_torch(pickle, object) {
                    first.entry(function).or_insert((Made::Call, arguments));
                }
                if is_plain_attribute(pickle, object) {
                    attributes.insert(object.callable);
                }
            }
        }
        // `getattr` that is called once in another way is judged by that.
        for value in pickle.values() {
            if let Value::Object(object) = value
                && !is_plain_attribute(pickle, object)
            {
                attributes.remove(&object.callable);
            }
        }
        Self { first, attributes }
    }
}

/// The function and arguments that `torch._tensor._rebuild_from_type_v2` is given to call.
fn called_by_torch(pickle: &Pickle<'_>, object: &Object) -> Option<(Id, Id)> {
    let symbol = pickle.symbol(object.callable)?;
    if !(symbol.module.starts_with("torch") && symbol.name.starts_with("_rebuild_from_type")) {
        return None;
    }
    match pickle.value(object.arguments)? {
        Value::Tuple(items) => match items[..] {
            [function, _, arguments, ..] => Some((function, arguments)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the call takes a public attribute of a symbol that is not known to do harm, as pickles of
/// enumerations and of methods do.
fn is_plain_attribute(pickle: &Pickle<'_>, object: &Object) -> bool {
    let Some(Value::Tuple(items)) = pickle.value(object.arguments) else { return false };
    let [of, name] = &items[..] else { return false };
    let (Some(of), Some(Value::Str(name))) = (pickle.symbol(*of), pickle.value(*name)) else { return false };
    let attribute = Symbol { module: of.module.clone(), name: format!("{}.{name}", of.name).into() };
    // The judgement of a dotted name looks at each attribute of it.
    matches!(symbols::judge(of), Judgement::Unknown | Judgement::Harmless | Judgement::Module)
        && matches!(symbols::judge(&attribute), Judgement::Dotted)
}

fn symbols_of(pickle: &Pickle<'_>, calls: &Calls, place: Place<'_>, scan: &mut Scan<'_>) {
    let standing = uses::standing(pickle);
    for used in pickle.symbols() {
        let Some(symbol) = pickle.symbol(used.value) else { continue };
        let call = calls.first.get(&used.value);
        let plain = calls.attributes.contains(&used.value);
        let judgement = match symbols::judge(symbol) {
            Judgement::Attribute if !plain => Judgement::RunsCode,
            // Whoever is given it calls it with bytes that are not to be seen.
            Judgement::LoadsBytes if standing.contains(&used.value) => Judgement::RunsCode,
            // A class as a value: the type of an array, or of what a dict holds.
            _ if call.is_none() && symbols::is_harmless_value(symbol) => Judgement::Harmless,
            other => other,
        };
        if scan.options.policy.is_some()
            && let Some(finding) = scan.denied(&symbol.to_string())
        {
            scan.add(place, finding.by(used.opcode.name()).at(used.offset));
        }
        let Some(rule) = rule_of(judgement, call.is_some()) else { continue };
        let name = symbol.to_string();
        let message = match call {
            Some((made, arguments)) => {
                let arguments = preview::arguments(pickle, *arguments);
                let verb = if *made == Made::New { "makes" } else { "calls" };
                format!("{verb} {}{arguments}", named(&name))
            }
            None => format!("imports {}", named(&name)),
        };
        scan.add(place, Finding::new(rule, message).of_symbol(name).by(used.opcode.name()).at(used.offset));
    }
}

/// The rule for a symbol; `None` for what is harmless.
pub(crate) fn rule_of(judgement: Judgement, called: bool) -> Option<Rule> {
    Some(match judgement {
        Judgement::Harmless | Judgement::LoadsBytes => return None,
        Judgement::RunsCode => Rule::RunsCode,
        Judgement::Network => Rule::ReachesNetwork,
        Judgement::Files => Rule::TouchesFiles,
        Judgement::Attribute => Rule::Attribute,
        Judgement::LoadsFile => Rule::LoadsFile,
        Judgement::Module => Rule::PickledModule,
        Judgement::TorchScript => Rule::TorchScript,
        Judgement::Dotted => Rule::DottedName,
        Judgement::Deceptive => Rule::DeceptiveName,
        Judgement::StandardLibrary if called => Rule::CallsStandardLibrary,
        Judgement::Unknown if called => Rule::CallsUnknown,
        Judgement::StandardLibrary | Judgement::Unknown => Rule::NamesUnknown,
    })
}

fn objects(input: &Input, pickle: &Pickle<'_>, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut states = HashSet::new();
    for value in pickle.values() {
        match value {
            Value::Object(object) => {
                judge_object(input, pickle, object, place, scan);
                uses::judge(pickle, object, &mut states, place, scan);
            }
            Value::Persistent(id) => persistent(pickle, *id, place, scan),
            Value::Dict(entries) => {
                for (key, value) in entries {
                    imported_text(pickle, *key, *value, place, scan);
                }
            }
            _ => {}
        }
    }
}

fn judge_object(input: &Input, pickle: &Pickle<'_>, object: &Object, place: Place<'_>, scan: &mut Scan<'_>) {
    for (key, value) in &object.entries {
        imported_text(pickle, *key, *value, place, scan);
    }
    let Some(symbol) = pickle.symbol(object.callable) else {
        let computed = match pickle.value(object.callable) {
            Some(Value::Object(_)) => true,
            // Old files of torch name the class of a module in this way.
            Some(Value::Persistent(id)) => persistent_word(pickle, *id) != "module",
            _ => false,
        };
        if computed {
            let arguments = preview::arguments(pickle, object.arguments);
            let what = preview::arguments(pickle, object.callable);
            scan.add(
                place,
                Finding::new(Rule::ComputedCall, format!("calls what {what} returns with {arguments}")),
            );
        }
        return;
    };
    let grown = !object.entries.is_empty() || !object.items.is_empty();
    if grown && &*symbol.module != "collections" && is_of_torch(symbol) {
        let text = format!("sets items of what {} makes", named(&symbol.to_string()));
        scan.add(place, Finding::new(Rule::ItemsOfOther, text).of_symbol(symbol.to_string()));
    }
    if &*symbol.module == "torch.storage" && &*symbol.name == "_load_from_bytes" {
        loaded_bytes(input, pickle, object, place, scan);
    }
}

/// Tensors and what makes them: setting their items writes to memory.
fn is_of_torch(symbol: &Symbol<'_>) -> bool {
    symbol.module.split('.').next() == Some("torch") && symbols::judge(symbol) == Judgement::Harmless
}

/// `torch.storage._load_from_bytes(b)` is `torch.load(b)`: what `b` holds is loaded.
fn loaded_bytes(input: &Input, pickle: &Pickle<'_>, object: &Object, place: Place<'_>, scan: &mut Scan<'_>) {
    let arguments = match pickle.value(object.arguments) {
        Some(Value::Tuple(items)) => &items[..],
        _ => &[],
    };
    let held = arguments.first().and_then(|id| pickle.meaning(*id).ok());
    if matches!(held, Some(Meaning::Bytes(_))) {
        scan.add(
            place,
            Finding::new(Rule::NestedPickle, "loads another checkpoint from bytes in the pickle"),
        );
    }
    match held {
        Some(Meaning::Bytes(Bytes::Near(bytes))) => {
            scan.member("_load_from_bytes", bytes.into_owned(), place)
        }
        Some(Meaning::Bytes(Bytes::Far(range))) => scan.member_range("_load_from_bytes", input, range, place),
        _ => {
            let text = "loads a checkpoint from bytes that are computed".to_owned();
            scan.add(
                place,
                Finding::new(Rule::ComputedCall, text).of_symbol("torch.storage._load_from_bytes"),
            );
        }
    }
}

fn persistent(pickle: &Pickle<'_>, id: Id, place: Place<'_>, scan: &mut Scan<'_>) {
    match persistent_word(pickle, id) {
        "storage" => {}
        // Files in tar archives number their tensors.
        "number" if scan.numbered => {}
        "module" => {
            let text = "a class is pickled with its source, which old versions of torch compare";
            scan.add(place, Finding::new(Rule::PickledModule, text));
        }
        _ => {
            let found = preview::arguments(pickle, id);
            let text = format!("a reference to {found} outside of the pickle is no storage");
            scan.add(place, Finding::new(Rule::PersistentOther, text));
        }
    }
}

/// What kind of thing a persistent reference names, in its own word.
fn persistent_word<'p>(pickle: &'p Pickle<'_>, id: Id) -> &'p str {
    let first = match pickle.value(id) {
        Some(Value::Tuple(items)) => items.first().and_then(|id| pickle.value(*id)),
        Some(Value::Int(_)) => return "number",
        Some(Value::Str(text)) if text.bytes().all(|b| b.is_ascii_digit()) => return "number",
        _ => None,
    };
    match first {
        Some(Value::Str(text)) => text,
        Some(Value::Bytes(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

/// Texts that training frameworks import by: they outlive loaders that refuse pickled code.
fn imported_text(pickle: &Pickle<'_>, key: Id, value: Id, place: Place<'_>, scan: &mut Scan<'_>) {
    let (Some(Value::Str(key)), Some(Value::Str(value))) = (pickle.value(key), pickle.value(value)) else {
        return;
    };
    if !matches!(&**key, "_instantiator" | "_target_") {
        return;
    }
    let (module, name) = value.rsplit_once('.').unwrap_or((value, ""));
    let symbol = Symbol { module: module.into(), name: name.into() };
    let harmful =
        matches!(symbols::judge(&symbol), Judgement::RunsCode | Judgement::Network | Judgement::Files);
    let text = format!("the text `{key}` names {}, to be imported and called", named(value));
    let finding = Finding::new(Rule::ImportsByText, text);
    scan.add(place, if harmful { finding.leveled(Level::Error) } else { finding });
}

/// Why a pickle stops early, and what comes after.
fn ending(
    input: &Input,
    pickle: &Pickle<'_>,
    error: &tensafe_pickle::Error,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) {
    let text = error.to_string();
    let rule = match (error.kind(), error.opcode()) {
        (ErrorKind::Limit, _) => Rule::LimitMet,
        (ErrorKind::Unsupported, Some(Opcode::Ext1 | Opcode::Ext2 | Opcode::Ext4)) => Rule::ExtensionRegistry,
        (ErrorKind::Unsupported, Some(Opcode::PersId)) => Rule::PersistentText,
        (ErrorKind::Unsupported, Some(Opcode::NextBuffer | Opcode::ReadonlyBuffer)) => Rule::OutOfBand,
        _ if linear::is_frame_broken(error) => Rule::FrameBroken,
        (_, Some(Opcode::Build)) if text.contains("found a symbol") => Rule::ChangesLive,
        (_, Some(opcode)) if is_grower(opcode) && text.contains("found a symbol") => Rule::ChangesLive,
        (_, Some(opcode)) if is_grower(opcode) && text.contains("found ") => Rule::ItemsOfOther,
        _ => Rule::Broken,
    };
    let mut finding = Finding::new(rule, text).at(error.offset());
    finding.opcode = error.opcode().map(Opcode::name);
    scan.add(place, finding);
    // A loader reads on where this machine refuses, or ran what came before: the rest counts.
    if rule != Rule::LimitMet && rule != Rule::Broken {
        let text = format!("what follows byte {} was judged by its names alone", error.offset());
        scan.add(place, Finding::new(Rule::Broken, text).at(error.offset()));
    }
    let seen = pickle.symbols().last().map_or(0, |used| used.offset.saturating_add(1));
    linear::judge_rest(input, pickle.range().start, seen.max(error.offset()), place, scan);
}

fn is_grower(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::SetItem | Opcode::SetItems | Opcode::Append | Opcode::Appends | Opcode::AddItems)
}

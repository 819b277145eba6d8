//! Pickles one after another: a file of one, of several, and torch's legacy files.

use std::{ops::Range, sync::Arc};

use tensafe_pickle::{Dialect, LegacyStream, Pickle, Stream as _, Value, evaluate_stream};

use crate::{
    Finding, Level, Rule,
    input::Input,
    nested,
    pickle::{self, is_torch_magic},
    scan::{Place, Scan},
};

/// Pickles of one file that are judged. Each takes some time however short it is.
const MOST_PICKLES: u64 = 1 << 20;

/// Judges every pickle from byte `at` on and returns the word for the kind.
pub(crate) fn scan(input: &Input, at: u64, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let first = plain(input, at, scan);
    scan_from(input, first, place, scan)
}

/// The same where the first pickle was evaluated already.
pub(crate) fn scan_from<'i>(
    input: &'i Input,
    first: Pickle<'i>,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) -> &'static str {
    if is_torch_magic(&first) {
        legacy(input, place, scan);
        return "torch-legacy";
    }
    let kind = if pickle::is_of_joblib(&first) { "joblib" } else { "pickle" };
    all(input, first, MOST_PICKLES, place, scan);
    kind
}

fn plain<'i>(input: &'i Input, at: u64, scan: &Scan<'_>) -> Pickle<'i> {
    evaluate_stream(input.stream(), at, Dialect::Plain, &scan.options.limits.pickle)
}

fn all<'i>(input: &'i Input, first: Pickle<'i>, most: u64, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut next = Some(first);
    let mut left = most;
    while let Some(pickle) = next {
        let Some(end) = pickle::judge(input, &pickle, place, scan) else { return };
        drop(pickle);
        left = left.saturating_sub(1);
        if left == 0 && end < input.len() {
            let text = format!("what follows {most} pickles was not judged");
            scan.add(place, Finding::new(Rule::LimitMet, text).at(end));
            return nested::search_range(input, &(end..input.len()), place, scan);
        }
        next = following(input, end, place, scan);
    }
}

/// What follows the end of a pickle: another, or bytes that are told.
fn following<'i>(input: &'i Input, end: u64, place: Place<'_>, scan: &mut Scan<'_>) -> Option<Pickle<'i>> {
    let left = input.len().checked_sub(end).filter(|left| *left > 0)?;
    let next = plain(input, end, scan);
    if says_so(input, end) || next.error().is_none() || !next.symbols().is_empty() {
        scan.add(place, Finding::new(Rule::SecondPickle, "another pickle follows").at(end));
        return Some(next);
    }
    let text = format!("{left} bytes follow the end of the pickle");
    scan.add(place, Finding::new(Rule::AfterStop, text).at(end));
    nested::search_range(input, &(end..input.len()), place, scan);
    None
}

fn says_so(input: &Input, at: u64) -> bool {
    matches!(input.stream().peek(at, 2), Ok([0x80, 0..=5]))
}

/// Whether the sizes of the writer's types are those that torch always writes.
fn has_usual_types(info: &Pickle<'_>) -> bool {
    let usual = [("short", 2), ("int", 4), ("long", 4)];
    let pairs = info.values().iter().filter_map(|value| match value {
        Value::Dict(entries) => Some(entries),
        _ => None,
    });
    pairs.flatten().all(|(key, value)| match (info.value(*key), info.value(*value)) {
        (Some(Value::Str(key)), Some(Value::Int(size))) => {
            usual.iter().all(|(name, usual)| *name != &**key || usual == size)
        }
        _ => true,
    })
}

fn says_big_endian(info: &Pickle<'_>) -> bool {
    let pairs = info.values().iter().filter_map(|value| match value {
        Value::Dict(entries) => Some(entries),
        _ => None,
    });
    pairs.flatten().any(|(key, value)| {
        matches!(info.value(*key), Some(Value::Str(key)) if &**key == "little_endian")
            && info.value(*value) == Some(&Value::Bool(false))
    })
}

/// Five pickles, the storages, and nothing after them.
fn legacy(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let legacy = LegacyStream::read(input.stream(), &scan.options.limits.pickle);
    let sizes = |range: &Range<u64>| range.end.saturating_sub(range.start);
    let storages = legacy.storages().iter().map(|found| (found.key.clone(), sizes(&found.range)));
    scan.storages = legacy.error().is_none().then(|| Arc::new(storages.collect()));
    for pickle in legacy.pickles() {
        pickle::judge_evaluated(input, pickle, place, scan);
    }
    scan.storages = None;
    if legacy.pickles().get(2).is_some_and(|info| !has_usual_types(info)) {
        scan.add(place, Finding::new(Rule::OddArguments, "the sizes of the writer's types are not torch's"));
    }
    if legacy.pickles().get(2).is_some_and(says_big_endian) {
        let finding = Finding::new(Rule::OddStream, "the writer's bytes are big-endian");
        scan.add(place, finding.leveled(Level::Note));
    }
    for storage in legacy.storages() {
        nested::far(input, &storage.range, place, scan);
    }
    if let Some(error) = legacy.error() {
        if legacy.pickles().iter().all(|pickle: &Pickle<'_>| pickle.error().is_none()) {
            scan.add(place, Finding::new(Rule::Broken, error.to_string()).at(error.offset()));
            nested::search_range(input, &(error.offset()..input.len()), place, scan);
        }
        return;
    }
    if let Some(next) = following(input, legacy.end(), place, scan) {
        all(input, next, MOST_PICKLES, place, scan);
    }
}

#[cfg(test)]
mod tests {
    use super::{all, plain};
    use crate::{
        Rule, ScanOptions,
        input::Input,
        scan::{Place, Scan},
    };

    #[test]
    fn no_more_pickles_are_judged_than_so_many() {
        let options = ScanOptions::default();
        let found = |bytes: &[u8]| {
            let input = Input::of_bytes(bytes.to_vec());
            let mut scan = Scan::new("m.pkl", &options);
            all(&input, plain(&input, 0, &scan), 3, Place::ROOT, &mut scan);
            scan.findings.into_sorted().iter().map(|found| (found.rule, found.offset)).collect::<Vec<_>>()
        };
        let seconds = (Rule::SecondPickle, Some(2));
        assert_eq!(found(b"N.N.N."), [seconds]);
        assert_eq!(found(b"N.N.N.N."), [seconds, (Rule::LimitMet, Some(6))]);
        // What does harm behind them is searched for.
        let behind = found(b"N.N.N.N.\x80\x02cos\nsystem\n(X\x02\0\0\0idtR.");
        assert_eq!(behind, [seconds, (Rule::LimitMet, Some(6)), (Rule::NestedPayload, Some(8))]);
    }
}

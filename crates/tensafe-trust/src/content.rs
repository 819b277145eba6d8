//! What bytes are, by their content and never by their name, and who looks into them.

use tensafe_pickle::{Dialect, Limits, Pickle, evaluate_stream};

use crate::{
    Finding, Rule,
    input::Input,
    scan::{Place, Scan},
    sequence,
    symbols::{self, Judgement},
    text,
};

/// Bytes that tell what a file is.
const HEAD_BYTES: usize = 4096;

/// Scans bytes of any kind and returns the word for the kind.
pub(crate) fn scan(name: &str, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let head = match input.head(HEAD_BYTES) {
        Ok(head) => head,
        Err(error) => {
            scan.unread(&error, place);
            return "unknown";
        }
    };
    if head.is_empty() {
        return "empty";
    }
    if matches!(*head, [0x80, 0..=5, ..]) {
        return sequence::scan(input, place, scan);
    }
    plain(name, input, &head, place, scan)
}

/// Pickles without the byte that says so, text, and what is unknown.
fn plain(name: &str, input: &Input, head: &[u8], place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let is_text = text::is_text(head);
    let pickle = evaluate_stream(input.stream(), 0, Dialect::Plain, &scan.options.limits.pickle);
    // Where the name says weights, whatever can be followed is followed.
    let named = text::is_weights(name) && pickle.range().end > 0;
    if named || is_pickle(&pickle, input, is_text) {
        return sequence::scan_from(input, pickle, place, scan);
    }
    if is_text {
        return text::scan(name, input, place, scan);
    }
    // What breaks as a pickle may have done its harm before.
    if !pickle.symbols().is_empty() {
        return sequence::scan_from(input, pickle, place, scan);
    }
    scan.add(place, Finding::new(Rule::UnknownFormat, "the content is of no known format"));
    "unknown"
}

/// Whether bytes that do not say so are a pickle. Text may look like one by chance, for a while.
fn is_pickle(pickle: &Pickle<'_>, input: &Input, is_text: bool) -> bool {
    let whole = pickle.error().is_none();
    if whole && (!is_text || !pickle.symbols().is_empty() || pickle.range().end == input.len()) {
        return true;
    }
    if names_what_is_known(pickle) {
        return true;
    }
    // A pickle without names may stand before one that has some.
    let mut end = whole.then(|| pickle.range().end);
    while let Some(at) = end {
        let next = evaluate_stream(input.stream(), at, Dialect::Plain, &Limits::DEFAULT);
        if names_what_is_known(&next) {
            return true;
        }
        end = next.error().is_none().then(|| next.range().end).filter(|end| *end > at);
    }
    false
}

/// Whether a symbol is one that any table knows, for good or bad.
fn names_what_is_known(pickle: &Pickle<'_>) -> bool {
    let named = pickle.symbols().iter().filter_map(|used| pickle.symbol(used.value));
    named.map(symbols::judge).any(|judgement| {
        judgement.is_harm()
            || matches!(judgement, Judgement::Harmless | Judgement::Attribute | Judgement::Module)
    })
}

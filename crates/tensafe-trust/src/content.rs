//! What bytes are, by their content and never by their name, and who looks into them.

use tensafe_pickle::{Dialect, Pickle, evaluate_stream};

use crate::{
    Finding, Rule,
    input::Input,
    scan::{Place, Scan},
    sequence, symbols, text,
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
    if is_pickle(&pickle, input.len(), is_text) {
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
fn is_pickle(pickle: &Pickle<'_>, len: u64, is_text: bool) -> bool {
    let named = || pickle.symbols().iter().filter_map(|used| pickle.symbol(used.value));
    let whole = pickle.error().is_none() && (!pickle.symbols().is_empty() || pickle.range().end == len);
    whole || named().any(|symbol| symbols::judge(symbol).is_harm()) || (!is_text && pickle.error().is_none())
}

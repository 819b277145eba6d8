//! What bytes are, by their content and never by their name, and who looks into them.

use tensafe_container::{Descr, Kind, Npy, decompress, detect};
use tensafe_pickle::{Dialect, ErrorKind, Limits, Pickle, Symbol, Value, evaluate_stream};

use crate::{
    Finding, Rule, archive,
    fields::{self, Fields},
    foreign,
    input::Input,
    nested,
    scan::{Place, Scan},
    sequence,
    symbols::{self, Judgement},
    text, weights,
};

/// Bytes that tell what a file is.
const HEAD_BYTES: usize = 4096;

/// The largest vocabulary that is looked at.
const VOCABULARY_BYTES: u64 = 64 << 20;

/// Scans bytes of any kind and returns the word for the kind.
pub(crate) fn scan(name: &str, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let head = match input.head(HEAD_BYTES) {
        Ok(head) => head,
        Err(error) => {
            scan.unread(&error, place);
            return "unknown";
        }
    };
    let kind = match detect(&*input.source()) {
        Ok(kind) => kind,
        Err(error) => {
            scan.refused(&error, place);
            return "unknown";
        }
    };
    let word = by_kind(kind, name, input, &head, place, scan);
    // A name that promises safety, and a content that a loader may take for what it is.
    if text::ending(name) == "safetensors" && word != "safetensors" && word != "lfs-pointer" {
        if is_loadable(word) {
            let text = format!("the name says safetensors and the content is {word}");
            scan.add(place, Finding::new(Rule::Misnamed, text));
        } else {
            weights::safetensors(input, place, scan);
            return "safetensors";
        }
    }
    word
}

fn is_loadable(word: &str) -> bool {
    !matches!(word, "empty" | "text" | "json" | "unknown" | "safetensors")
}

fn by_kind(
    kind: Kind,
    name: &str,
    input: &Input,
    head: &[u8],
    place: Place<'_>,
    scan: &mut Scan<'_>,
) -> &'static str {
    if !matches!(kind, Kind::Pickle | Kind::Unknown | Kind::Empty) {
        also_a_pickle(input, head, place, scan);
    }
    match kind {
        Kind::Empty => {
            if text::is_weights(name) {
                scan.add(place, Finding::new(Rule::UnknownFormat, "the file is empty"));
            }
            "empty"
        }
        Kind::Zip => archive::zip(name, input, head, place, scan),
        Kind::Tar => archive::tar(input, place, scan),
        Kind::Npy => npy(input, place, scan),
        Kind::Safetensors => {
            weights::safetensors(input, place, scan);
            "safetensors"
        }
        Kind::Gguf => {
            weights::gguf(input, place, scan);
            "gguf"
        }
        Kind::Hdf5 => {
            weights::hdf5(input, place, scan);
            "hdf5"
        }
        Kind::SevenZip => foreign::unread("7z", place, scan),
        Kind::Zlib | Kind::Lzma => match unpacked(kind, input, scan) {
            // Their marks are weak: text may begin so.
            Err(_) => plain(name, input, head, place, scan),
            Ok(inner) => wrapped(kind, name, &inner, place, scan),
        },
        kind if kind.is_compressed() => match unpacked(kind, input, scan) {
            Ok(inner) => wrapped(kind, name, &inner, place, scan),
            Err(error) => {
                scan.refused(&error, place);
                nested::search_range(input, &(0..input.len()), place, scan);
                kind.name()
            }
        },
        _ => plain(name, input, head, place, scan),
    }
}

/// Whatever else bytes are: a loader of pickles reads them as one.
fn also_a_pickle(input: &Input, head: &[u8], place: Place<'_>, scan: &mut Scan<'_>) {
    let pickle = evaluate_stream(input.stream(), 0, Dialect::Plain, &scan.options.limits.pickle);
    let says_so = matches!(head, [0x80, 0..=5, ..]);
    let mut named = pickle.symbols().iter().filter_map(|used| pickle.symbol(used.value));
    if says_so || named.any(|symbol| symbols::judge(symbol).is_harm()) || calls_a_name(&pickle) {
        scan.add(place, Finding::new(Rule::Polyglot, "the bytes can be read as a pickle too"));
        sequence::scan_from(input, pickle, place, scan);
    } else if pickle.error().is_some_and(|error| error.kind() == ErrorKind::Limit) {
        let text = "the bytes may be a pickle too, which a limit kept from being followed";
        scan.add(place, Finding::new(Rule::LimitMet, text));
    }
}

/// Whether a name that Python code could spell is called: bytes do that by no chance.
fn calls_a_name(pickle: &Pickle<'_>) -> bool {
    pickle.values().iter().any(|value| match value {
        Value::Object(object) => pickle.symbol(object.callable).is_some_and(Symbol::is_plain),
        _ => false,
    })
}

fn unpacked(kind: Kind, input: &Input, scan: &mut Scan<'_>) -> Result<Input, tensafe_container::Error> {
    let limits = scan.container_limits();
    let source = decompress(input.source(), kind, &limits)?;
    scan.spend_unpacked(source.len());
    Ok(Input::of_source(source))
}

fn wrapped(kind: Kind, name: &str, inner: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let file = name.rsplit(['/', '\\', '!']).next().unwrap_or(name);
    let name = match file.rsplit_once('.') {
        Some((before, ending))
            if ending.eq_ignore_ascii_case(kind.name()) || matches!(ending, "gz" | "bz2" | "zst" | "z") =>
        {
            before
        }
        _ => file,
    };
    scan.member_input(if name.is_empty() { "content" } else { name }, inner, place);
    kind.name()
}

/// An array of numpy, and the pickle in it where it holds objects.
fn npy(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let array = match Npy::read(&*input.source(), 0, &scan.container_limits()) {
        Ok(array) => array,
        Err(error) => {
            scan.refused(&error, place);
            nested::search_range(input, &(0..input.len()), place, scan);
            return "npy";
        }
    };
    let fields = match &array.descr {
        Descr::Object => Fields::Objects,
        Descr::Structured(text) => fields::judge(text),
        _ => Fields::Plain,
    };
    if fields == Fields::Unknown {
        let text = "the array has fields of a dtype that is not known, which may hold objects";
        scan.add(place, Finding::new(Rule::UnknownFormat, text));
    }
    if fields != Fields::Plain {
        if fields == Fields::Objects {
            scan.add(place, Finding::new(Rule::ObjectArray, "the array holds objects, which are pickled"));
        }
        sequence::scan(input, array.data.start, place, scan);
    } else if array.data.end < input.len() {
        let text = format!("{} bytes follow the array", input.len().saturating_sub(array.data.end));
        scan.add(place, Finding::new(Rule::AfterStop, text).at(array.data.end));
        nested::search_range(input, &(array.data.end..input.len()), place, scan);
    }
    "npy"
}

/// Pickles without the byte that says so, text, and what is unknown.
fn plain(name: &str, input: &Input, head: &[u8], place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let is_text = text::is_text(head);
    let pickle = evaluate_stream(input.stream(), 0, Dialect::Plain, &scan.options.limits.pickle);
    // Where the name says weights, or the bytes do, whatever can be followed is followed.
    let named = text::is_weights(name) && pickle.range().end > 0;
    let says_so = matches!(head, [0x80, 0..=5, ..]);
    if says_so || named || is_pickle(&pickle, input, is_text) {
        return sequence::scan_from(input, pickle, place, scan);
    }
    if is_text {
        return text::scan(name, input, place, scan);
    }
    if let Some(word) = foreign::known(head, name) {
        return foreign::judge(word, name, place, scan);
    }
    if head.first() == Some(&0x0a)
        && let Ok(Some(bytes)) = input.all(VOCABULARY_BYTES)
        && foreign::is_sentencepiece(&bytes)
    {
        return "sentencepiece";
    }
    // What breaks as a pickle may have done its harm before.
    if !pickle.symbols().is_empty() {
        return sequence::scan_from(input, pickle, place, scan);
    }
    scan.add(place, Finding::new(Rule::UnknownFormat, "the content is of no known format"));
    nested::search_range(input, &(0..input.len()), place, scan);
    "unknown"
}

/// Whether bytes that do not say so are a pickle. Text may look like one by chance, for a while.
fn is_pickle(pickle: &Pickle<'_>, input: &Input, is_text: bool) -> bool {
    let whole = pickle.error().is_none();
    if calls_a_name(pickle) {
        return true;
    }
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

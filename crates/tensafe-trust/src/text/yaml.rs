//! YAML beside weights: tags that make objects of Python, and keys that name what a framework imports.
//!
//! Nothing is parsed, because readers of YAML disagree: on versions, on line breaks, on what ends a
//! tag. Whatever any of them may take for a tag or a key is looked at, wherever it stands. That is more
//! than is there, and never less:
//!
//! - A tag has no spaces in it, and no more than percent escapes hide its letters. Handles of its own,
//!   which `%TAG` declares, are resolved, and leave the document inconclusive.
//! - A scalar that is one of the keys stands in the text as it is, or in double quotes with escapes. The
//!   text is searched as it is, and with all escapes undone.

use std::{borrow::Cow, collections::HashSet, iter::Peekable, str::Chars};

use super::config;
use crate::{
    Finding, Rule,
    preview::named,
    scan::{Place, Scan},
};

/// Names of tags for which Python's reader has constructors that import, call or make objects.
const TAGS: [&str; 2] = ["!!python/", "tag:yaml.org,2002:python/"];
/// Tags by which HyperPyYAML names what it imports, and mostly calls.
const IMPORTS: [&str; 5] = ["!apply:", "!applyref:", "!module:", "!name:", "!new:"];
/// Keys whose value is imported and called.
const KEYS: [&str; 2] = ["_target_", "_instantiator"];
/// Characters that end a line for some reader.
const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
/// Handles of one text that are resolved. No text needs so many.
const MOST_HANDLES: usize = 16;
/// Characters of a value, or bytes of a tag, that are read.
const MOST_CHARACTERS: usize = 300;

/// Judges a text that is read as YAML.
pub(super) fn judge(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    tags(text, place, scan);
    imports(&percent_decoded(text), place, scan);
    handles(text, place, scan);
    keys(text, place, scan);
}

fn tags(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    for tag in TAGS {
        if let Some(at) = text.find(tag) {
            let finding = makes_object(text.get(at..).unwrap_or_default());
            scan.add(place, finding.at(at as u64));
        }
    }
    if text.contains('%') {
        let decoded = percent_decoded(text);
        for tag in TAGS.into_iter().filter(|tag| !text.contains(tag)) {
            if let Some(at) = decoded.find(tag) {
                scan.add(place, makes_object(decoded.get(at..).unwrap_or_default()));
            }
        }
    }
}

/// What tags name to be imported. The same name by the same tag is told once.
fn imports(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut seen = HashSet::new();
    for tag in IMPORTS {
        // Behind another mark it is a tag by a handle.
        let starts = text.match_indices(tag).map(|(at, _)| at);
        for at in starts.filter(|at| !text.get(..*at).unwrap_or_default().ends_with('!')) {
            let rest = text.get(at.saturating_add(tag.len())..).unwrap_or_default();
            let end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.'));
            let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if !name.is_empty() && seen.insert((tag, name)) {
                config::imported(tag.trim_end_matches(':'), name, place, scan);
            }
        }
    }
}

fn makes_object(from: &str) -> Finding {
    let tag: String = from.chars().take_while(|c| !c.is_whitespace()).collect();
    Finding::new(Rule::RunsCode, format!("the tag {} makes an object of Python", named(&tag)))
}

/// Tags by handles that the text declares: `%TAG !p! tag:yaml.org,2002:py`, and then `!p!thon/…`.
fn handles(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let lines = text.split(BREAKS).map(|line| line.trim_start_matches('\u{feff}'));
    let declared: Vec<(&str, &str)> = lines
        .filter_map(|line| line.strip_prefix("%TAG"))
        .take(MOST_HANDLES)
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap_or_default(), words.next().unwrap_or_default())
        })
        .collect();
    if declared.is_empty() {
        return;
    }
    for (at, _) in text.match_indices('!') {
        let rest = text.get(at..).unwrap_or_default();
        for (handle, prefix) in &declared {
            let Some(name) = rest.strip_prefix(handle).filter(|_| !handle.is_empty()) else { continue };
            let resolved = format!("{}{}", percent_decoded(start(prefix)), percent_decoded(start(name)));
            if TAGS.iter().any(|tag| resolved.starts_with(tag)) {
                return scan.add(place, makes_object(&resolved).at(at as u64));
            }
        }
    }
    let text = "the document declares handles of tags, and what they make is not known";
    scan.add(place, Finding::new(Rule::UnknownFormat, text));
}

/// As much of a text as a tag may have.
fn start(text: &str) -> &str {
    let end = (0..=MOST_CHARACTERS).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or(text)
}

/// Keys whose value is imported. The same key with the same value is told once.
fn keys(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut seen = HashSet::new();
    let mut unclear = false;
    for text in [unescaped(plain), Cow::Borrowed(plain)] {
        // A key is written apart from its colon behind `?`, or elsewhere, behind an anchor.
        let may_stand_apart = has_indicator(&text, ['?', '&']);
        for (key, found) in scalars(&text) {
            match found {
                Some(value) => {
                    if seen.insert((key, value.clone())) {
                        config::imported(key, &value, place, scan);
                    }
                }
                None => unclear |= may_stand_apart,
            }
        }
    }
    if unclear {
        let text = "a key that names what is imported may stand where it was not understood";
        scan.add(place, Finding::new(Rule::UnknownFormat, text));
    }
}

/// Whether one of these characters stands where a reader may take it for the start of a token.
fn has_indicator(text: &str, indicators: [char; 2]) -> bool {
    let mut before = ' ';
    text.chars().any(|c| {
        let is_start = indicators.contains(&c) && !before.is_alphanumeric();
        before = c;
        is_start
    })
}

/// Where one of the keys may be a whole scalar, with the value behind it where a colon follows.
fn scalars(text: &str) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let starts = text.match_indices('_').map(|(at, _)| at);
    let mut comments = Comments { text, at: 0, open: false };
    starts.filter_map(move |at| {
        let rest = text.get(at..)?;
        let key = KEYS.into_iter().find(|key| rest.starts_with(key))?;
        let rest = rest.strip_prefix(key)?;
        let before = text.get(..at)?.chars().next_back();
        let joined = |c: char| c.is_alphanumeric() || c == '_';
        if before.is_some_and(|c| joined(c) || c == '.') || rest.starts_with(joined) {
            return None;
        }
        if comments.reaches(at) {
            return None;
        }
        // Behind a quote, the scalar ends with another.
        let rest = match before.filter(|c| matches!(c, '"' | '\'')) {
            Some(quote) => rest.strip_prefix(quote)?,
            None => rest,
        };
        Some((key, rest.trim_start().strip_prefix(':').map(value)))
    })
}

/// Whether what stands at a place is in a comment. It is where a `#` stands before it in its line, a
/// space or nothing before that, and no quote between: a text that begins before the `#` has it in it,
/// or ends behind it with a quote.
struct Comments<'t> {
    text: &'t str,
    at: usize,
    open: bool,
}

impl Comments<'_> {
    /// The same for places that ascend.
    fn reaches(&mut self, at: usize) -> bool {
        let mut before = self.text.get(..self.at).and_then(|text| text.chars().next_back());
        for c in self.text.get(self.at..at).unwrap_or_default().chars() {
            self.open = match c {
                '"' | '\'' => false,
                '#' => self.open || matches!(before, None | Some(' ' | '\n' | '\r')),
                c => self.open && !BREAKS.contains(&c),
            };
            before = Some(c);
        }
        self.at = at;
        self.open
    }
}

/// The scalar behind a colon, without its tag, anchor, quotes and what follows it.
fn value(rest: &str) -> String {
    let mut rest = start(rest).trim_start();
    while rest.starts_with(['!', '&', '|', '>']) {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        return rest.get(1..).and_then(|rest| rest.split(quote).next()).unwrap_or_default().to_owned();
    }
    let line = rest.split(BREAKS).next().unwrap_or_default();
    let line = line.split(" #").next().unwrap_or_default();
    // What is computed ends with a brace of its own.
    let scalar =
        if line.starts_with("${") { line } else { line.split([',', ']', '}']).next().unwrap_or(line) };
    scalar.trim().to_owned()
}

/// The text with `%70` as `p`, wherever it stands.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let decoded = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        bytes.push(decoded.unwrap_or(*first));
        rest = decoded.and_then(|_| behind.get(2..)).unwrap_or(behind);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text with the escapes of double quotes undone that can stand for a letter, or for nothing. It
/// is undone outside of quotes too, where it means nothing: no escape begins before a quote and ends
/// behind it.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(kind) = rest.next() else { break };
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if BREAKS.contains(&kind) {
            if kind == '\r' {
                rest.next_if_eq(&'\n');
            }
            while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        } else if let Some(decoded) = number(&mut rest, digits).and_then(char::from_u32) {
            out.push(decoded);
        } else {
            out.extend(['\\', kind]);
        }
    }
    Cow::Owned(out)
}

/// So many hexadecimal digits; fewer are taken where fewer stand there.
fn number(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<u32> {
    let mut number = None;
    for _ in 0..digits {
        let digit = rest.next_if(char::is_ascii_hexdigit)?.to_digit(16)?;
        number = Some(number.unwrap_or(0u32).checked_mul(16)?.checked_add(digit)?);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::{percent_decoded, scalars, unescaped};

    #[test]
    fn escapes_are_undone_in_pairs() {
        assert_eq!(unescaped(r#""\x5fa\u005F\U0000005f\\x5f\q""#), r#""_a__\\x5f\q""#);
        assert_eq!(unescaped("\"_tar\\\r\n \tget_\" \\"), "\"_target_\" ");
        assert_eq!(percent_decoded("%70%2%70%%zz%"), "p%2p%%zz%");
    }

    #[test]
    fn keys_are_whole_scalars_outside_of_comments() {
        let found = |text| scalars(text).collect::<Vec<_>>();
        let key = |value: &str| [("_target_", Some(value.to_owned()))];
        assert_eq!(found("- _target_ : a.b # c"), key("a.b"));
        assert_eq!(found("{'_target_':a.b, c: d}"), key("a.b"));
        assert_eq!(found("_target_: !!str &x >-\n  a.b\n"), key("a.b"));
        assert_eq!(found("_target_: ${a.b}"), key("${a.b}"));
        assert_eq!(found("[_target_]"), [("_target_", None)]);
        for text in [
            "my_target_: a",
            "_target_s: a",
            "a._target_: b",
            "'_target_ of': b",
            "# _target_: a",
            "x  # see _target_",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
        // The quote ends a text that begins in the line before.
        assert_eq!(found("{\"\n # \", _target_: a.b}"), key("a.b"));
        assert_eq!(found("# x\u{2028}_target_: a.b"), key("a.b"));
    }
}

//! Jinja templates, such as chat templates: text that a loader renders with Python objects at hand.
//!
//! Only what stands between `{{ }}` and `{% %}` is looked at. A template has no use for attributes with
//! two underscores, nor for the filter that takes an attribute by a text that is computed.

use crate::{
    Finding, Rule,
    preview::quoted,
    scan::{Place, Scan},
};

/// What leads from any object to everything that Python can do.
const WORDS: &[&str] = &[
    "__base__",
    "__bases__",
    "__builtins__",
    "__class__",
    "__code__",
    "__closure__",
    "__dict__",
    "__func__",
    "__getattribute__",
    "__globals__",
    "__import__",
    "__init__",
    "__loader__",
    "__mro__",
    "__reduce__",
    "__self__",
    "__spec__",
    "__subclasses__",
    "_TemplateReference__context",
    "func_globals",
    "gi_frame",
    "cr_frame",
    "f_globals",
    "\\x5f",
    "\\u005f",
    "\\137",
    "'__'",
    "\"__\"",
    ".mro(",
    "lipsum",
    "os.popen",
    "os.system",
    "subprocess",
    "getattr(",
    "['__",
    "[\"__",
    ".__",
];

/// Whether a member of a configuration holds a template.
pub(crate) fn is_template_key(key: &str) -> bool {
    key == "chat_template" || key == "template" || key.starts_with("tokenizer.chat_template")
}

/// Judges the text of a template.
pub(crate) fn judge(text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    for (offset, code) in code_of(text) {
        let found = WORDS.iter().copied().find(|word| code.contains(word));
        let found = found.or_else(|| has_attr_filter(code).then_some("|attr"));
        let found = found.or_else(|| loads_other(code));
        if found.is_none() && counts_far(code) {
            let text = format!("the template counts far in {}", quoted(code.trim()));
            scan.add(place, Finding::new(Rule::Exhausts, text).at(offset as u64));
        }
        if let Some(word) = found {
            let text = format!("the template has `{word}` in {}", quoted(code.trim()));
            scan.add(place, Finding::new(Rule::TemplateReaches, text).at(offset as u64));
        }
    }
}

/// Statements that read other templates, which may be any file.
fn loads_other(code: &str) -> Option<&'static str> {
    let first = code.trim_start_matches(['-', '+']).split_whitespace().next()?;
    ["include", "import", "extends", "from"].into_iter().find(|word| *word == first)
}

/// A range of more steps than any conversation has.
fn counts_far(code: &str) -> bool {
    let arguments = code.split("range(").skip(1).filter_map(|rest| rest.split(')').next());
    let mut numbers = arguments.flat_map(|text| text.split(|c: char| !c.is_ascii_digit() && c != '*'));
    numbers.any(|number| number.contains("**") || number.len() >= 7)
}

/// The filter `attr`, however it is spaced.
fn has_attr_filter(code: &str) -> bool {
    code.split('|').skip(1).any(|filter| {
        let rest = filter.trim_start().strip_prefix("attr");
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            || filter.trim_start().strip_prefix("map").is_some_and(|rest| rest.contains("attr"))
    })
}

/// What stands in tags, with its offset.
fn code_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0usize;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let (start, close) = match (rest.find("{{"), rest.find("{%")) {
            (Some(a), Some(b)) if a < b => (a, "}}"),
            (Some(a), None) => (a, "}}"),
            (_, Some(b)) => (b, "%}"),
            (None, None) => return None,
        };
        let start = at.saturating_add(start).saturating_add(2);
        let inner = text.get(start..)?;
        let length = inner.find(close).unwrap_or(inner.len());
        at = start.saturating_add(length);
        Some((start, inner.get(..length)?))
    })
}

#[cfg(test)]
mod tests {
    use super::{code_of, has_attr_filter};

    #[test]
    fn code_is_what_stands_in_tags() {
        let text = "a {{ x }} __class__ {%- if y %}{{z";
        let found: Vec<_> = code_of(text).collect();
        assert_eq!(found, [(4, " x "), (22, "- if y "), (33, "z")]);
        assert!(has_attr_filter("x | attr ('a')") && has_attr_filter("x|attr('a')"));
        assert!(!has_attr_filter("attr") && !has_attr_filter("x|attribute"));
    }
}

//! JSON beside weights: configurations that ask loaders to run code, and the templates in them.
//!
//! A file is parsed only where it holds one of the words that matter, whose letters may be escaped. One
//! that holds such a word and cannot be parsed is inconclusive: other readers take what this one refuses.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tensafe_format::ShardIndex;
use tensafe_pickle::Symbol;

use super::template;
use crate::{
    Finding, Level, Rule,
    preview::named,
    scan::{Place, Scan},
    symbols::{self, Judgement},
};

/// Keys that matter, and one word of each document that has them.
const WORDS: &[&str] = &[
    "auto_map",
    "custom_pipeline",
    "trust_remote_code",
    "chat_template",
    "_target_",
    "_instantiator",
    "py/",
    "\"class_name\"",
    "\"template\"",
];

pub(super) fn looks_like_json(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '['])
}

pub(super) fn judge(name: &str, text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let name = name.rsplit(['/', '\\', '!']).next().unwrap_or(name);
    if name.ends_with(".index.json")
        && unescaped(text).contains("\"weight_map\"")
        && let Err(error) = ShardIndex::parse(text.as_bytes())
    {
        let outside = error.rule() == Some(tensafe_format::Rule::SHARD_PATH);
        let rule = if outside { Rule::MemberPath } else { Rule::SafetensorsRule };
        scan.add(place, Finding::new(rule, error.to_string()));
    }
    let by_name = matches!(name, "modules.json" | "model_index.json") || name.ends_with(".model_index.json");
    let plain = unescaped(text);
    if !by_name && !WORDS.iter().any(|word| plain.contains(word)) {
        return;
    }
    match parsed(text.trim_start_matches('\u{feff}')) {
        Ok(document) => {
            if name == "modules.json" {
                sentence_modules(&document, place, scan);
            } else if by_name {
                pipeline(&document, place, scan);
            }
            walk(&document, place, scan);
        }
        Err(error) => {
            let text = format!("the configuration could not be read: {error}");
            scan.add(place, Finding::new(Rule::UnknownFormat, text));
        }
    }
}

/// The document, read as Python reads it: with numbers that JSON does not have. They are null here.
fn parsed(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        if text.contains("NaN") || text.contains("Infinity") {
            serde_json::from_str(&without_numbers_of_python(text))
        } else {
            Err(error)
        }
    })
}

fn without_numbers_of_python(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let number = ["NaN", "Infinity", "-Infinity"].into_iter().filter(|_| !quoted);
        if let Some(behind) = { number }.find_map(|number| rest.strip_prefix(number)) {
            out.push_str("null");
            rest = behind;
            continue;
        }
        let length = match c {
            '"' => {
                quoted = !quoted;
                1
            }
            // With what it escapes, which may be a quote.
            '\\' => rest.chars().take(2).map(char::len_utf8).sum(),
            c => c.len_utf8(),
        };
        let Some((taken, behind)) = rest.split_at_checked(length) else { break };
        out.push_str(taken);
        rest = behind;
    }
    out
}

/// The text with the escapes of JSON undone that can stand for a character of the words.
fn unescaped(text: &str) -> Cow<'_, str> {
    let Some((before, mut rest)) = text.split_once('\\') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    out.push_str(before);
    loop {
        let code = rest.strip_prefix('u').and_then(|rest| rest.get(..4));
        let code = code.filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        let length = if let Some(decoded) = code.and_then(char::from_u32) {
            out.push(decoded);
            5
        } else if rest.starts_with('/') {
            out.push('/');
            1
        } else {
            out.push('\\');
            let escaped = rest.chars().next();
            out.extend(escaped);
            escaped.map_or(0, char::len_utf8)
        };
        rest = rest.get(length..).unwrap_or_default();
        let Some((before, behind)) = rest.split_once('\\') else { break };
        out.push_str(before);
        rest = behind;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The reader of JSON bounds how deep this goes.
fn walk(value: &Value, place: Place<'_>, scan: &mut Scan<'_>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, place, scan)),
        Value::Object(entries) => {
            keras(entries, place, scan);
            for (key, value) in entries {
                entry(key, value, place, scan);
                walk(value, place, scan);
            }
        }
        _ => {}
    }
}

fn entry(key: &str, value: &Value, place: Place<'_>, scan: &mut Scan<'_>) {
    match (key, value) {
        ("auto_map", Value::Object(map)) => {
            let classes: Vec<String> = map.values().take(4).map(|value| value.to_string()).collect();
            let text = format!("`auto_map` names code: {}", classes.join(", "));
            scan.add(place, Finding::new(Rule::RemoteCode, text));
        }
        ("custom_pipeline" | "custom_pipelines", Value::String(_) | Value::Object(_)) => {
            scan.add(place, Finding::new(Rule::RemoteCode, format!("`{key}` names code")));
        }
        ("trust_remote_code", Value::Bool(true)) => {
            scan.add(place, Finding::new(Rule::RemoteCode, "`trust_remote_code` is true"));
        }
        ("_target_" | "_instantiator", Value::String(text)) => imported(key, text, place, scan),
        (key, Value::String(text)) if key.starts_with("py/") => {
            let text = format!("`{key}` makes an object of Python: {}", named(text));
            scan.add(place, Finding::new(Rule::RunsCode, text));
        }
        (key, Value::String(text)) if template::is_template_key(key) => template::judge(text, place, scan),
        ("chat_template", Value::Object(map)) => {
            map.values().filter_map(Value::as_str).for_each(|text| template::judge(text, place, scan));
        }
        _ => {}
    }
}

pub(super) fn imported(key: &str, text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let (module, name) = text.rsplit_once('.').unwrap_or((text, ""));
    let judgement = symbols::judge(&Symbol { module: module.into(), name: name.into() });
    let text = format!("the text `{key}` names {}, to be imported and called", named(text));
    let finding = Finding::new(Rule::ImportsByText, text);
    scan.add(place, if judgement.is_harm() { finding.leveled(Level::Error) } else { finding });
}

/// What a document of Keras asks its loader to make.
fn keras(entries: &Map<String, Value>, place: Place<'_>, scan: &mut Scan<'_>) {
    let Some(class) = entries.get("class_name").and_then(Value::as_str) else { return };
    if class == "Lambda" {
        scan.add(place, Finding::new(Rule::KerasLambda, "a Lambda layer holds code"));
    }
    let Some(module) = entries.get("module").and_then(Value::as_str) else { return };
    let of_keras = ["keras", "keras_cv", "keras_hub", "keras_nlp", "tensorflow", "tf_keras"];
    if module.split('.').next().is_some_and(|top| of_keras.contains(&top)) && class != "function" {
        return;
    }
    // A function stands under `config`, a class under `class_name`.
    let name = match entries.get("config") {
        Some(Value::String(function)) => function,
        _ => class,
    };
    let symbol = Symbol { module: module.into(), name: name.into() };
    let rule = match symbols::judge(&symbol) {
        Judgement::Network => Rule::ReachesNetwork,
        Judgement::Files => Rule::TouchesFiles,
        Judgement::RunsCode | Judgement::Attribute | Judgement::StandardLibrary => Rule::RunsCode,
        Judgement::Harmless => return,
        _ => Rule::CallsUnknown,
    };
    let text = format!("the layer imports {}", named(&symbol.to_string()));
    scan.add(place, Finding::new(rule, text).of_symbol(symbol.to_string()));
}

/// The modules of a sentence-transformers model: names of classes that are imported.
fn sentence_modules(document: &Value, place: Place<'_>, scan: &mut Scan<'_>) {
    let types = document.as_array().into_iter().flatten().filter_map(|module| module.get("type")?.as_str());
    for class in types.filter(|class| !class.starts_with("sentence_transformers.")) {
        let text = format!("`modules.json` names {}, to be imported", named(class));
        scan.add(place, Finding::new(Rule::RemoteCode, text));
    }
}

/// Libraries, and modules of diffusers, that the index of a pipeline may name.
const PIPELINES: &[&str] = &[
    "alt_diffusion",
    "audioldm",
    "audioldm2",
    "deepfloyd_if",
    "diffusers",
    "flax",
    "k_diffusion",
    "kandinsky",
    "latent_diffusion",
    "onnxruntime",
    "optimum",
    "paint_by_example",
    "peft",
    "schedulers",
    "semantic_stable_diffusion",
    "sentence_transformers",
    "shap_e",
    "stable_diffusion",
    "stable_diffusion_safe",
    "stable_diffusion_xl",
    "stable_audio",
    "transformers",
    "unidiffuser",
    "versatile_diffusion",
    "wuerstchen",
];

/// The index of a diffusers pipeline: classes by library and name.
fn pipeline(document: &Value, place: Place<'_>, scan: &mut Scan<'_>) {
    let Some(entries) = document.as_object() else { return };
    for (key, value) in entries {
        let Some([library, class]) = value.as_array().map(Vec::as_slice) else { continue };
        let (Some(library), Some(class)) = (library.as_str(), class.as_str()) else { continue };
        if key == "_class_name" || !PIPELINES.contains(&library) {
            let text = format!("`{key}` names {}, to be imported", named(&format!("{library}.{class}")));
            scan.add(place, Finding::new(Rule::RemoteCode, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{parsed, unescaped};

    #[test]
    fn escapes_are_undone_in_pairs() {
        assert_eq!(unescaped(r#"{"a\u005f\\u005f\/b\"\ud800\"#), "{\"a_\\\\u005f/b\\\"\\ud800\\");
        assert_eq!(unescaped("plain"), "plain");
    }

    #[test]
    fn numbers_of_python_are_read_outside_of_texts() {
        let read = parsed(r#"{"a\"NaN": [NaN, -Infinity,Infinity, "NaN \\", NaN]}"#).unwrap();
        assert_eq!(read.to_string(), r#"{"a\"NaN":[null,null,null,"NaN \\",null]}"#);
        for text in ["[nan]", "[+NaN]", "[NaN", "[NaNs]", "[1] NaN"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}

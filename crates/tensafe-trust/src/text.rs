//! Text: configurations, templates, Python, and what is nothing but text.
//!
//! Text alone runs nothing. It is a finding where a loader takes it for code, imports what it names,
//! or would have expected weights.

mod config;
mod python;
mod template;
mod yaml;

pub(crate) use template::{is_template_key, judge as judge_template};

use crate::{
    Finding, Rule,
    input::Input,
    scan::{Place, Scan},
};

/// Texts beyond this are not read whole.
const MOST_BYTES: u64 = 64 << 20;

/// Endings of texts that are judged by what they say.
const JUDGED: [&str; 9] = ["jinja", "jinja2", "j2", "json", "py", "pyi", "pyw", "yaml", "yml"];

/// Endings of files that loaders take for weights.
const WEIGHTS: &[&str] = &[
    "bin",
    "ckpt",
    "data",
    "dat",
    "dill",
    "gguf",
    "h5",
    "hdf5",
    "joblib",
    "keras",
    "mar",
    "model",
    "msgpack",
    "nemo",
    "npy",
    "npz",
    "onnx",
    "pb",
    "pickle",
    "pkl",
    "pt",
    "pt2",
    "ptl",
    "pth",
    "safetensors",
    "t7",
    "tflite",
];

/// The ending of a name in lower case, without its dot.
pub(crate) fn ending(name: &str) -> String {
    let name = name.rsplit(['/', '\\', '!']).next().unwrap_or(name);
    name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a file of this name is taken for weights.
pub(crate) fn is_weights(name: &str) -> bool {
    WEIGHTS.contains(&ending(name).as_str())
}

/// Whether bytes are text, maybe cut within a character.
pub(crate) fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !valid.is_empty() && !valid.bytes().any(|b| matches!(b, 0..=8 | 11 | 14..=26 | 28..=31 | 127))
}

/// Scans text and returns the word for the kind.
pub(crate) fn scan(name: &str, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let bytes = match input.all(MOST_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            // No loader takes any other: a configuration is never so long, but may be filled up to be.
            if is_weights(name) || JUDGED.contains(&&*ending(name)) {
                let text = format!("a text of more than {MOST_BYTES} bytes was not read");
                scan.add(place, Finding::new(Rule::LimitMet, text));
            }
            return "text";
        }
        Err(error) => {
            scan.unread(&error, place);
            return "text";
        }
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        scan.add(place, Finding::new(Rule::UnknownFormat, "begins as text and goes on as something else"));
        return "unknown";
    };
    if text.starts_with("version https://git-lfs.github.com/spec/") {
        scan.add(place, Finding::new(Rule::Pointer, "the file is a pointer of Git LFS, not the weights"));
        return "lfs-pointer";
    }
    match ending(name).as_str() {
        "py" | "pyi" | "pyw" => {
            python::judge(name, text, place, scan);
            "python"
        }
        "jinja" | "jinja2" | "j2" => {
            template::judge(text, place, scan);
            "template"
        }
        "yaml" | "yml" => {
            yaml::judge(text, place, scan);
            "yaml"
        }
        _ if config::looks_like_json(text) && !is_weights(name) => {
            config::judge(name, text, place, scan);
            "json"
        }
        _ if is_weights(name) => {
            scan.add(
                place,
                Finding::new(Rule::UnknownFormat, "the name says weights and the content is text"),
            );
            "text"
        }
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::{ending, is_text, is_weights};

    #[test]
    fn text_is_told_from_bytes_and_names_by_their_ending() {
        assert!(is_text(b"plain\r\n\ttext") && is_text("é".as_bytes()) && !is_text(&"é".as_bytes()[..1]));
        assert!(is_text(b"x\xc3") && !is_text(b"x\xc3y") && !is_text(b"a\0b"));
        assert_eq!(
            (ending("a/b.PT"), ending("x!y.bin"), ending("noend")),
            ("pt".into(), "bin".into(), String::new())
        );
        assert!(is_weights("a.ckpt") && !is_weights("README.md"));
    }
}

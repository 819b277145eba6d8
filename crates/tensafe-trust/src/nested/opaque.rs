//! Texts and bytes that stand for something else, which is not undone here: base85, uuencode, what was
//! compressed without a header or encrypted; and texts that are source code.
//!
//! Only items of dicts and lists are looked at: the bytes of arrays and of states are arguments.

use tensafe_pickle::{Id, Pickle, Value};

use crate::{
    Finding, Rule,
    preview::quoted,
    scan::{Place, Scan},
};

/// Shorter texts and bytes are names and keys.
const LEAST_BYTES: usize = 40;
/// Words of code that does something.
const WORDS: &[&str] = &[
    "import os",
    "import subprocess",
    "import sys",
    "import socket",
    "__import__(",
    "os.system(",
    "exec(",
    "eval(",
];

pub(super) fn judge(pickle: &Pickle<'_>, id: Id, place: Place<'_>, scan: &mut Scan<'_>) {
    let opaque = |bytes: &[u8]| {
        is_opaque(bytes)
            .then(|| Finding::new(Rule::Opaque, format!("{} bytes of no known form", bytes.len())))
    };
    let finding = match pickle.value(id) {
        Some(Value::Bytes(bytes) | Value::ByteArray(bytes)) => opaque(bytes),
        Some(Value::Str(text)) if WORDS.iter().any(|word| text.contains(word)) => {
            Some(Finding::new(Rule::SourceText, format!("the text {} holds source code", quoted(text))))
        }
        Some(Value::Str(text)) if text.len() >= LEAST_BYTES && (is_uuencoded(text) || is_base85(text)) => {
            Some(Finding::new(Rule::Opaque, format!("the text {} is encoded", quoted(text))))
        }
        _ => None,
    };
    if let Some(finding) = finding {
        scan.add(place, finding);
    }
}

fn is_opaque(bytes: &[u8]) -> bool {
    bytes.len() >= LEAST_BYTES && (std::str::from_utf8(bytes).is_err() || bytes.contains(&0))
}

/// A first line that is as long as its first character says.
fn is_uuencoded(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().as_bytes();
    let Some((length, rest)) = line.split_first() else { return false };
    let length = usize::from(length.wrapping_sub(b' ') & 0x3f);
    let needed = length.div_ceil(3).saturating_mul(4);
    length > 0 && rest.len() == needed && rest.iter().all(|b| (b' '..=b'`').contains(b))
}

/// No spaces, and letters, digits and many kinds of signs in a mix.
fn is_base85(text: &str) -> bool {
    const SIGNS: &str = "!#$%&()*+-;<=>?@^_`{|}~";
    let signs = SIGNS.chars().filter(|sign| text.contains(*sign)).count();
    let all = text.bytes().all(|b| b.is_ascii_alphanumeric() || SIGNS.as_bytes().contains(&b));
    let mixed = text.bytes().any(|b| b.is_ascii_uppercase()) && text.bytes().any(|b| b.is_ascii_lowercase());
    all && mixed && signs >= 6 && text.bytes().any(|b| b.is_ascii_digit())
}

//! Files that are known by their first bytes and not read: other formats of weights, which may carry
//! code, and pictures and documents, which no loader takes for weights.

use crate::{
    Finding, Rule,
    scan::{Place, Scan},
    text,
};

/// What a format may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    /// Weights or code that is not looked for.
    Anything,
    /// Nothing that a loader of weights reads.
    Nothing,
    /// Native code.
    Code,
}

/// First bytes, the word, and what it may carry.
#[rustfmt::skip]
const MAGICS: &[(&[u8], &str, Carries)] = &[
    (b"Rar!\x1a\x07", "rar", Carries::Anything),
    (b"PK\x05\x06", "zip", Carries::Anything),
    (b"\x7fELF", "elf", Carries::Code),
    (b"MZ", "exe", Carries::Code),
    (b"\xca\xfe\xba\xbe", "mach-o", Carries::Code),
    (b"\xcf\xfa\xed\xfe", "mach-o", Carries::Code),
    (b"\xce\xfa\xed\xfe", "mach-o", Carries::Code),
    (b"\0asm", "wasm", Carries::Code),
    (b"SQLite format 3\0", "sqlite", Carries::Anything),
    (b"ARROW1\0\0", "arrow", Carries::Anything),
    (b"PAR1", "parquet", Carries::Anything),
    (b"CDF\x01", "netcdf", Carries::Anything),
    (b"RDX", "rdata", Carries::Anything),
    (b"!<arch>", "ar", Carries::Anything),
    (b"MSCF", "cab", Carries::Anything),
    (b"\x89PNG\r\n\x1a\n", "png", Carries::Nothing),
    (b"\xff\xd8\xff", "jpeg", Carries::Nothing),
    (b"GIF87a", "gif", Carries::Nothing),
    (b"GIF89a", "gif", Carries::Nothing),
    (b"%PDF-", "pdf", Carries::Nothing),
    (b"OggS", "ogg", Carries::Nothing),
    (b"fLaC", "flac", Carries::Nothing),
    (b"ID3", "mp3", Carries::Nothing),
    (b"II*\0", "tiff", Carries::Nothing),
    (b"MM\0*", "tiff", Carries::Nothing),
    (b"\0\x01\0\0\0", "font", Carries::Nothing),
    (b"OTTO", "font", Carries::Nothing),
    (b"wOFF", "font", Carries::Nothing),
    (b"wOF2", "font", Carries::Nothing),
];

/// The word for a format that is known by its first bytes.
pub(crate) fn known(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"RIFF") && matches!(head.get(8..12), Some(b"WEBP" | b"WAVE" | b"AVI ")) {
        return Some("riff");
    }
    if matches!(head.get(4..8), Some(b"ftyp")) {
        return Some("mp4");
    }
    if matches!(head.get(4..8), Some(b"TFL3")) {
        return Some("tflite");
    }
    MAGICS.iter().find(|(magic, _, _)| head.starts_with(magic)).map(|(_, word, _)| *word)
}

/// Says what is to be said of a format by its word.
pub(crate) fn judge(word: &'static str, name: &str, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let carries = MAGICS.iter().find(|(_, known, _)| *known == word).map(|(_, _, carries)| *carries);
    let carries = carries.unwrap_or(if word == "tflite" { Carries::Anything } else { Carries::Nothing });
    match carries {
        Carries::Code => {
            scan.add(place, Finding::new(Rule::NativeCode, format!("native code ({word})")));
        }
        Carries::Nothing if !text::is_weights(name) => {}
        _ => {
            unread(word, place, scan);
        }
    }
    word
}

/// Says that a format is known and not read.
pub(crate) fn unread(word: &'static str, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    scan.add(place, Finding::new(Rule::UnreadFormat, format!("{word} is not read here")));
    word
}

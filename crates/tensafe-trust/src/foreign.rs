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
    (b"\xff\xfb", "mp3", Carries::Nothing),
    (b"\xff\xf3", "mp3", Carries::Nothing),
    (b"\0\0\0\x01Bud1", "ds-store", Carries::Nothing),
    (b"OTTO", "font", Carries::Nothing),
    (b"wOFF", "font", Carries::Nothing),
    (b"wOF2", "font", Carries::Nothing),
];

/// The word for a format that is known by its first bytes.
pub(crate) fn known(head: &[u8], name: &str) -> Option<&'static str> {
    if head.get(2..4) == Some(b"\r\n") && text::ending(name) == "pyc" {
        return Some("python-bytecode");
    }
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

/// Whether bytes are a vocabulary of sentencepiece: a message of protobuf whose first field, of pieces,
/// stands again and again. It holds texts and numbers and nothing else.
pub(crate) fn is_sentencepiece(bytes: &[u8]) -> bool {
    let (mut rest, mut pieces) = (bytes, 0u64);
    while let Some((tag, after)) = rest.split_first() {
        // Fields 1 to 5, each of a length and as many bytes.
        if !matches!(tag, 0x0a | 0x12 | 0x1a | 0x22 | 0x2a) {
            return false;
        }
        let Some((length, after)) = varint(after) else { return false };
        let Some(Some((field, after))) =
            usize::try_from(length).ok().map(|length| after.split_at_checked(length))
        else {
            return false;
        };
        // A piece begins with its text.
        if *tag == 0x0a && field.first() != Some(&0x0a) {
            return false;
        }
        pieces += u64::from(*tag == 0x0a);
        rest = after;
    }
    pieces > 0
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place..)?.get(1..)?));
        }
    }
    None
}

/// Says what is to be said of a format by its word.
pub(crate) fn judge(word: &'static str, name: &str, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let carries = MAGICS.iter().find(|(_, known, _)| *known == word).map(|(_, _, carries)| *carries);
    let carries = carries.unwrap_or(match word {
        "tflite" => Carries::Anything,
        "python-bytecode" => Carries::Code,
        _ => Carries::Nothing,
    });
    match carries {
        Carries::Code => {
            scan.add(place, Finding::new(Rule::NativeCode, format!("a program or a library: {word}")));
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

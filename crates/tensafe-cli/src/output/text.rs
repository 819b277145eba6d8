//! Figures and names as people read them.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::commands::DtypeFigures;

/// `1234567` as `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len().saturating_add(digits.len() / 3));
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len().saturating_sub(place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in decimal units: `13.48 GB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: &[(&str, u64)] = &[
        ("PB", 10u64.pow(15)),
        ("TB", 10u64.pow(12)),
        ("GB", 10u64.pow(9)),
        ("MB", 10u64.pow(6)),
        ("kB", 1000),
    ];
    let Some((unit, in_bytes)) = UNITS.iter().find(|(_, in_bytes)| bytes >= *in_bytes) else {
        return format!("{bytes} B");
    };
    let hundredths = (u128::from(bytes) * 100 + u128::from(*in_bytes) / 2) / u128::from(*in_bytes);
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

/// Bytes in decimal units, and to the byte where the unit hides some.
pub(super) fn size_in_full(bytes: u64) -> String {
    if bytes < 1000 { size(bytes) } else { format!("{} ({} bytes)", size(bytes), count(bytes)) }
}

/// `2.5 %`, of the whole.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    match (part * 1000 + whole / 2) / whole {
        0 if part > 0 => "<0.1 %".to_owned(),
        thousandths => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

/// `1 tensor`, `2 tensors`.
pub(super) fn plural(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `file`, or `directory, 3 files`.
pub(super) fn kind(kind: &str, files: u64) -> String {
    let words = match kind {
        "file" => return "file".to_owned(),
        "indexed-directory" => "directory with an index of shards",
        "index" => "index of shards",
        other => other,
    };
    format!("{words}, {}", plural(files, "file"))
}

/// `BF16 98.1 %, F32 1.9 %`.
pub(super) fn dtypes(dtypes: &[DtypeFigures], whole: u64) -> String {
    let one = |d: &DtypeFigures| match dtypes.len() {
        1 => d.dtype.to_owned(),
        _ => format!("{} {}", d.dtype, share(d.figures.bytes, whole)),
    };
    if dtypes.is_empty() { "none".to_owned() } else { dtypes.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// `[2, 3]`.
pub(super) fn shape(shape: &[u64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dimensions.join(", "))
}

/// Text of a file as it may be shown on a terminal: controls and what is not seen, escaped.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    let plain = |c: char| matches!(c, '"' | '\'' | '\\' | ' '..='~') || c.escape_debug().len() == 1;
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if plain(c) { escaped.push(c) } else { escaped.extend(c.escape_debug()) }
    }
    Cow::Owned(escaped)
}

/// Columns that text takes.
pub(super) fn columns(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Text cut in the middle to fit: the ends of a name tell most.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if columns(text) <= most {
        return Cow::Borrowed(text);
    }
    let room = most.saturating_sub(1);
    let tail_room = room / 2;
    let tail: Vec<char> = taken(text.chars().rev(), tail_room);
    let mut cut: String = taken(text.chars(), room.saturating_sub(tail_room)).into_iter().collect();
    cut.push('…');
    cut.extend(tail.into_iter().rev());
    Cow::Owned(cut)
}

/// Text cut at its end to fit.
pub(super) fn cut_end(text: &str, most: Option<usize>) -> Cow<'_, str> {
    match most {
        Some(most) if columns(text) > most => {
            let mut cut: String = taken(text.chars(), most.saturating_sub(1)).into_iter().collect();
            cut.push('…');
            Cow::Owned(cut)
        }
        _ => Cow::Borrowed(text),
    }
}

fn taken(text: impl Iterator<Item = char>, room: usize) -> Vec<char> {
    let mut used = 0usize;
    text.take_while(|c| {
        used = used.saturating_add(c.width().unwrap_or(0));
        used <= room
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{count, cut, share, shown, size};

    #[test]
    fn figures_are_grouped_rounded_and_never_hidden() {
        assert_eq!(
            ["0", "999", "1,000", "18,446,744,073,709,551,615"],
            [0, 999, 1000, u64::MAX].map(count)[..]
        );
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1005), "1.01 kB");
        assert_eq!(size(13_476_831_232), "13.48 GB");
        assert_eq!(size(u64::MAX), "18446.74 PB");
        assert_eq!(share(1, 1_000_000), "<0.1 %");
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(u64::MAX, u64::MAX), "100.0 %");
        assert_eq!(share(0, 0), "-");
    }

    #[test]
    fn names_are_cut_in_the_middle_and_controls_are_escaped() {
        assert_eq!(cut("model.layers.0.weight", 11), "model…eight");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("日本語日本語", 7), "日…語");
        assert_eq!(shown("a\u{1b}[31mb\u{202e}é'\""), "a\\u{1b}[31mb\\u{202e}é'\"");
    }
}

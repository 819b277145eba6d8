//! What keeps the rules and still meets trouble in use: limits of the Hub, alignment, names that
//! deceive, truth values that are none.

use std::collections::HashMap;

use tensafe_format::{DiagnosedTensor, Dtype, LENGTH_FIELD_BYTES, Quoted};
use tensafe_io::{FileSource, Source as _};

use super::{FileReport, Finding, Level, VerifyOptions};

/// The Hub's viewers, in Python and in the browser, refuse longer headers.
const HUB_HEADER_BYTES: u64 = 25_000_000;

/// A dimension beyond this loses digits in the Hub's viewer.
const HUB_DIMENSION: u64 = 1 << 32;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 1 << 20;

pub(super) fn warn(report: &mut FileReport, options: &VerifyOptions) {
    let mut found = Vec::new();
    if let Some(bytes) = report.header_bytes.filter(|bytes| {
        *bytes > HUB_HEADER_BYTES && bytes.saturating_add(LENGTH_FIELD_BYTES) <= report.file_bytes
    }) {
        let text = format!(
            "header of {bytes} bytes: viewers of the Hub give up above {HUB_HEADER_BYTES}, the format allows it"
        );
        found.push(Finding::new(Level::Warning, "hub-header", text));
    }
    warn_of_alignment(report, &mut found);
    warn_of_dimensions(&report.tensors, &mut found);
    warn_of_names(&report.tensors, options.normalize, &mut found);
    note_format(report, &mut found);
    report.findings.extend(found);
}

fn warn_of_alignment(report: &FileReport, found: &mut Vec<Finding>) {
    let Some(start) = report.data_start().filter(|start| *start <= report.file_bytes) else { return };
    if report.tensors.is_empty() {
        return;
    }
    if !start.is_multiple_of(8) {
        let text = format!(
            "data section at byte {start}, not a multiple of 8: readers that map the file have to copy"
        );
        found.push(Finding::new(Level::Warning, "data-alignment", text).at(start));
    }
    let aligned_start = start.next_multiple_of(8);
    let is_off = |tensor: &&DiagnosedTensor| {
        // Judged from an aligned data section, so that one cause is told once.
        let begin = aligned_start.saturating_add(tensor.range.start);
        !tensor.range.is_empty() && !begin.is_multiple_of(tensor.dtype.alignment_bytes())
    };
    let mut off = report.tensors.iter().filter(is_off);
    if let Some(first) = off.next() {
        let more = off.count();
        let begin = start.saturating_add(first.range.start);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        let text = format!(
            "tensor `{}`{others}: {} at byte {begin}, not a multiple of {}: readers that map the file have to copy",
            Quoted(&first.name),
            first.dtype,
            first.dtype.alignment_bytes()
        );
        found.push(Finding::new(Level::Warning, "tensor-alignment", text).about(&first.name).at(begin));
    }
}

fn warn_of_dimensions(tensors: &[DiagnosedTensor], found: &mut Vec<Finding>) {
    for tensor in tensors {
        let Some(dimension) = tensor.shape.iter().find(|dimension| **dimension > HUB_DIMENSION) else {
            continue;
        };
        let text = format!(
            "tensor `{}`: dimension of {dimension}, viewers of the Hub give up above {HUB_DIMENSION}",
            Quoted(&tensor.name)
        );
        found.push(Finding::new(Level::Warning, "hub-dimension", text).about(&tensor.name));
    }
}

fn warn_of_names(
    tensors: &[DiagnosedTensor],
    normalize: Option<fn(&str) -> String>,
    found: &mut Vec<Finding>,
) {
    for tensor in tensors {
        if let Some(c) = tensor.name.chars().find(|c| is_unseen(*c)) {
            let text = format!(
                "tensor `{}`: the name holds U+{:04X}, which is not seen where it is shown",
                Quoted(&tensor.name),
                u32::from(c)
            );
            found.push(Finding::new(Level::Warning, "name-unseen", text).about(&tensor.name));
        }
    }
    let Some(normalize) = normalize.filter(|_| tensors.iter().any(|t| !t.name.is_ascii())) else { return };
    let mut seen: HashMap<String, &str> = HashMap::new();
    for tensor in tensors {
        let first = *seen.entry(normalize(&tensor.name)).or_insert(&tensor.name);
        if first != tensor.name {
            let text = format!(
                "tensor `{}`: another name is the same but for the Unicode form, its characters are {} and {}",
                Quoted(&tensor.name),
                CodePoints(first),
                CodePoints(&tensor.name)
            );
            found.push(Finding::new(Level::Warning, "name-twins", text).about(&tensor.name));
        }
    }
}

/// The characters of a name beyond ASCII, by number.
struct CodePoints<'a>(&'a str);

impl std::fmt::Display for CodePoints<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 4;
        let mut beyond = self.0.chars().filter(|c| !c.is_ascii());
        for (i, c) in beyond.by_ref().take(SHOWN).enumerate() {
            write!(f, "{}U+{:04X}", if i == 0 { "" } else { " " }, u32::from(c))?;
        }
        match (beyond.next(), self.0.is_ascii()) {
            (Some(_), _) => f.write_str(" …"),
            (None, true) => f.write_str("ASCII"),
            (None, false) => Ok(()),
        }
    }
}

/// Controls, and characters that take no room or turn the direction of the text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn note_format(report: &FileReport, found: &mut Vec<Finding>) {
    if report.tensors.is_empty() || !report.complete {
        return;
    }
    let format = report.metadata.as_ref().and_then(|metadata| metadata.get("format"));
    let text = match format.map(String::as_str) {
        Some("pt" | "tf" | "flax" | "jax" | "np" | "mlx" | "paddle") => return,
        Some(other) => {
            format!("metadata: `format` is `{}`, loaders know `pt`, `tf`, `flax` and `mlx`", Quoted(other))
        }
        None => "metadata: no `format`, some loaders of model hubs ask for one, such as `pt`".to_owned(),
    };
    found.push(Finding::new(Level::Note, "format-key", text));
}

/// Counts the bytes of `BOOL` tensors that are neither 0 nor 1.
pub(super) fn look_at_bools(source: &FileSource, report: &mut FileReport) -> Result<(), tensafe_io::Error> {
    let Some(data_start) = report.data_start() else { return Ok(()) };
    let mut chunk = Vec::new();
    for tensor in report.tensors.iter().filter(|tensor| tensor.dtype == Dtype::BOOL) {
        let mut at = data_start.saturating_add(tensor.range.start);
        let end = data_start.saturating_add(tensor.range.end).min(source.len());
        let (mut wrong, mut first) = (0u64, None);
        while at < end {
            let bytes = end.saturating_sub(at).min(CHUNK_BYTES);
            chunk.resize(usize::try_from(bytes).unwrap_or_default(), 0);
            source.read_at(at, &mut chunk)?;
            for (offset, byte) in (at..).zip(&chunk).filter(|(_, byte)| **byte > 1) {
                wrong = wrong.saturating_add(1);
                first = first.or(Some((offset, *byte)));
            }
            at = at.saturating_add(bytes);
        }
        if let Some((offset, byte)) = first {
            let text = format!(
                "tensor `{}`: BOOL bytes that are neither 0 nor 1: {wrong}, the first is {byte} at byte {offset}",
                Quoted(&tensor.name)
            );
            let finding = Finding::new(Level::Warning, "bool-bytes", text);
            report.findings.push(finding.about(&tensor.name).at(offset));
        }
    }
    Ok(())
}

//! The page of `tensafe verify`.

use std::io::{self, Write};

use anstyle::Style;

use super::{BAD, BOLD, DIM, GOOD, NOTE, Settings, WARNING, text};
use crate::commands::verify::{FileFacts, FindingFacts, ModelReport, SegmentFacts, Verification};

pub(super) fn human(page: &Verification, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    for model in &page.models {
        // One file is its own model.
        let alone = model.files.len() == 1 && model.kind == "file";
        if !alone {
            writeln!(out, "{}  {BOLD}{}{BOLD:#}", verdict(model.verdict), text::shown(&model.path))?;
        }
        findings(&model.findings, 2, out)?;
        for file in &model.files {
            show_file(file, page.map, if alone { 0 } else { 2 }, settings, out)?;
        }
    }
    tally(page, out)
}

pub(super) fn quiet(page: &Verification, out: &mut impl Write) -> io::Result<()> {
    for model in &page.models {
        let before = model.findings.iter().filter(|f| f.level == "error").map(|_| &model.path).take(1);
        let bad = model.files.iter().filter(|file| file.verdict == "bad").map(|file| &file.path);
        for path in before.chain(bad) {
            writeln!(out, "{}", text::shown(path))?;
        }
    }
    Ok(())
}

fn show_file(
    file: &FileFacts,
    map_always: bool,
    indent: usize,
    settings: &Settings,
    out: &mut impl Write,
) -> io::Result<()> {
    let totals = file.totals;
    let path = text::shown(&file.path);
    write!(out, "{:indent$}{}  {BOLD}{path}{BOLD:#}", "", verdict(file.verdict))?;
    if file.verdict == "unreadable" && file.segments.is_empty() {
        return writeln!(out);
    }
    let read = if file.verdict == "good" { "" } else { " could be read" };
    let tensors = text::plural(totals.tensors, "tensor");
    writeln!(out, "  {DIM}{tensors}{read}, {}{DIM:#}", text::size(file.bytes))?;
    findings(&file.findings, indent.saturating_add(2), out)?;
    if map_always || file.segments.iter().any(|s| !matches!(s.kind, "length" | "header" | "tensor")) {
        byte_map(&file.segments, map_always, indent.saturating_add(2), settings, out)?;
    }
    Ok(())
}

fn verdict(word: &str) -> String {
    let style = match word {
        "good" => GOOD,
        "bad" => BAD,
        _ => WARNING,
    };
    format!("{style}{word}{style:#}")
}

fn findings(findings: &[FindingFacts], indent: usize, out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let style: Style = match finding.level {
            "error" => BAD,
            "warning" => WARNING,
            _ => NOTE,
        };
        let lenient = if finding.lenient { "; the reference implementation reads past it" } else { "" };
        writeln!(
            out,
            "{:indent$}{style}{:<7}{style:#}  {}{lenient}",
            "",
            finding.level,
            text::shown(&finding.text)
        )?;
    }
    Ok(())
}

/// The bytes of the file, from the first to the last. Tensors in a row are one line, unless every
/// one was asked for.
fn byte_map(
    segments: &[SegmentFacts],
    each: bool,
    indent: usize,
    settings: &Settings,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut lines: Vec<((u64, u64), &str, String)> = Vec::new();
    let mut segments = segments.iter().peekable();
    while let Some(first) = segments.next() {
        let mut range = first.range;
        let mut last = None;
        let mut more = 0u64;
        let joins = !each && first.kind == "tensor";
        while let Some(next) = segments.next_if(|next| joins && next.kind == "tensor") {
            range.1 = range.1.max(next.range.1);
            last = next.tensors.first();
            more = more.saturating_add(1);
        }
        lines.push((range, first.kind, describe(first, last, more)));
    }
    writeln!(out, "{:indent$}{DIM}bytes of the file{DIM:#}", "")?;
    let ranges: Vec<String> = lines.iter().map(|((begin, end), _, _)| format!("{begin}..{end}")).collect();
    let widest = ranges.iter().map(String::len).max().unwrap_or(0);
    for (range, ((begin, end), kind, what)) in ranges.iter().zip(&lines) {
        let style = if matches!(*kind, "length" | "header" | "tensor") { Style::new() } else { BAD };
        let line =
            format!("{:indent$}{range:<widest$}  {:>10}  {what}", "", text::size(end.saturating_sub(*begin)));
        let room = settings.width.map(|width| width.max(40));
        writeln!(out, "{style}{}{style:#}", text::cut_end(&line, room))?;
    }
    Ok(())
}

fn describe(segment: &SegmentFacts, last: Option<&String>, more: u64) -> String {
    let first = segment.tensors.first().map(|name| text::shown(name)).unwrap_or_default();
    let second = segment.tensors.get(1).or(last).map(|name| text::shown(name)).unwrap_or_default();
    match segment.kind {
        "length" => "length of the header".to_owned(),
        "header" => "header".to_owned(),
        "tensor" if more == 0 => format!("`{first}`"),
        "tensor" => format!("`{first}` to `{second}`, {}", text::plural(more.saturating_add(1), "tensor")),
        "gap" => "gap: no tensor claims it".to_owned(),
        "overlap" => format!("overlap: of `{first}` and `{second}`"),
        "trailing" => "trailing: after the last tensor".to_owned(),
        "missing" if segment.tensors.is_empty() => "missing: not in the file".to_owned(),
        "missing" => format!("missing: not in the file, from `{first}` on"),
        _ => "unknown: no entry that could be read claims it".to_owned(),
    }
}

fn tally(page: &Verification, out: &mut impl Write) -> io::Result<()> {
    let files = || page.models.iter().flat_map(|model| &model.files);
    let all = files().count() as u64;
    if all < 2 {
        return Ok(());
    }
    let of = |word: &str| files().filter(|file| file.verdict == word).count() as u64;
    let mut parts = vec![format!("{} good", text::count(of("good")))];
    for word in ["bad", "unreadable"] {
        if of(word) > 0 {
            parts.push(format!("{} {word}", text::count(of(word))));
        }
    }
    let whole = |model: &&ModelReport| model.findings.iter().any(|f| f.level == "error");
    let disagree = page.models.iter().filter(whole).count() as u64;
    if disagree > 0 {
        parts.push(format!("{} whose files disagree", text::plural(disagree, "model")));
    }
    writeln!(out, "{}: {}", text::plural(all, "file"), parts.join(", "))
}

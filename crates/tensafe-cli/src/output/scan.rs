//! The page of `tensafe scan`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anstyle::Style;
use tensafe::{
    FileError,
    trust::{FileReport, Finding, Level, Verdict, to_cyclonedx, to_json, to_sarif},
};

use super::{BAD, BOLD, DIM, NOTE, Settings, WARNING, text};
use crate::{args::Format, commands::scan::Scanned};

pub(super) fn show(page: &Scanned, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    match settings.format {
        Format::Human => human(page, out),
        Format::Quiet => quiet(page, out),
        Format::Json => writeln!(out, "{}", to_json(&page.report)),
        Format::Sarif => writeln!(out, "{}", to_sarif(&page.report)),
        Format::Cyclonedx => writeln!(out, "{}", to_cyclonedx(&page.report)),
    }
}

/// The same page, without colour, in a file.
pub(super) fn to_file(page: &Scanned, settings: &Settings, path: &Path) -> io::Result<()> {
    let failed = |e| io::Error::other(FileError::from_os("create", path, e).chain().to_string());
    let file = File::create(path).map_err(failed)?;
    let mut out = BufWriter::new(anstream::StripStream::new(file));
    show(page, settings, &mut out)?;
    out.flush()
}

/// The paths that fail the scan, and those that could not be judged.
fn quiet(page: &Scanned, out: &mut impl Write) -> io::Result<()> {
    for file in &page.report.files {
        if file.worst() >= Some(page.fail_on) || file.is_inconclusive() {
            writeln!(out, "{}", text::shown(&file.path))?;
        }
    }
    Ok(())
}

fn human(page: &Scanned, out: &mut impl Write) -> io::Result<()> {
    for file in &page.report.files {
        if !matches!(file.verdict(), Verdict::Clean) {
            block(file, out)?;
        }
    }
    tally(page, out)
}

fn block(file: &FileReport, out: &mut impl Write) -> io::Result<()> {
    let style = file.worst().map_or(WARNING, style_of);
    let path = text::shown(&file.path);
    write!(out, "{style}{}{style:#}  {BOLD}{path}{BOLD:#}", file.verdict())?;
    if file.unreadable.is_some() {
        return writeln!(out);
    }
    writeln!(out, "  {DIM}{}, {}{DIM:#}", file.kind, text::size(file.bytes))?;
    let standing = || file.findings.iter().filter(|finding| finding.allowed.is_none());
    let widest = standing().map(|finding| finding.level.to_string().len()).max().unwrap_or(0).max(7);
    for finding in standing() {
        let style = style_of(finding.level);
        writeln!(
            out,
            "  {style}{:<widest$}{style:#}  {}  {}{}",
            finding.level,
            finding.rule,
            text::shown(&finding.message),
            place(finding)
        )?;
    }
    Ok(())
}

fn style_of(level: Level) -> Style {
    match level {
        Level::Error => BAD,
        Level::Warning | Level::Inconclusive => WARNING,
        Level::Note => NOTE,
    }
}

/// ` (data.pkl, byte 12, 3 times)`.
fn place(finding: &Finding) -> String {
    let mut parts = Vec::new();
    if let Some(member) = &finding.member {
        parts.push(text::shown(member).into_owned());
    }
    if let Some(offset) = finding.offset {
        parts.push(format!("byte {offset}"));
    }
    if finding.count > 1 {
        parts.push(format!("{} times", text::count(finding.count)));
    }
    if parts.is_empty() { String::new() } else { format!("  {DIM}({}){DIM:#}", parts.join(", ")) }
}

/// `3 files: 1 clean, 2 with findings; 1 error, 3 warnings`.
fn tally(page: &Scanned, out: &mut impl Write) -> io::Result<()> {
    let files = &page.report.files;
    if files.is_empty() {
        return Ok(());
    }
    let of = |verdict| files.iter().filter(|file| file.verdict() == verdict).count() as u64;
    let mut parts = vec![format!("{} clean", text::count(of(Verdict::Clean)))];
    for (verdict, words) in [
        (Verdict::Findings, "with findings"),
        (Verdict::Inconclusive, "inconclusive"),
        (Verdict::Unreadable, "unreadable"),
    ] {
        if of(verdict) > 0 {
            parts.push(format!("{} {words}", text::count(of(verdict))));
        }
    }
    let findings = || page.report.findings().map(|(_, finding)| finding);
    let level = |level| findings().filter(|f| f.level == level && f.allowed.is_none()).count() as u64;
    let mut counts = Vec::new();
    for (wanted, word) in [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Note, "note")] {
        if level(wanted) > 0 {
            counts.push(text::plural(level(wanted), word));
        }
    }
    let allowed = findings().filter(|finding| finding.allowed.is_some()).count() as u64;
    if allowed > 0 {
        counts.push(format!("{} allowed by the policy", text::count(allowed)));
    }
    let counts = if counts.is_empty() { String::new() } else { format!("; {}", counts.join(", ")) };
    writeln!(out, "{}: {}{counts}", text::plural(files.len() as u64, "file"), parts.join(", "))
}

//! The page of `tensafe convert`.

use std::io::{self, Write};

use super::{BOLD, DIM, GOOD, Settings, text};
use crate::commands::convert::Converted;

pub(super) fn human(page: &Converted, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let Some(conversion) = &page.conversion else { return Ok(()) };
    for file in conversion.files() {
        writeln!(
            out,
            "{BOLD}{}{BOLD:#}  {}, {}",
            text::shown(&file.path.display().to_string()),
            text::plural(file.tensors.len() as u64, "tensor"),
            text::size(file.bytes())
        )?;
    }
    if let Some(index) = conversion.index() {
        writeln!(out, "{BOLD}{}{BOLD:#}", text::shown(&index.display().to_string()))?;
    }
    let checkpoint = conversion.checkpoint();
    let unknown = checkpoint.symbols().iter().filter(|seen| !seen.known).count() as u64;
    let values = checkpoint.values().len() as u64;
    let kept = if page.sidecar { "kept in the sidecar" } else { "left out; --sidecar keeps them" };
    let lines = [
        ("from", Some(text::shown(&page.input).into_owned())),
        ("aliases", some(conversion.aliases().len() as u64, |n| format!("{n}, named in the metadata"))),
        ("no tensors", some(values, |n| format!("{}, {kept}", text::plural(n, "value")))),
        (
            "selected",
            some(conversion.left_out().len() as u64, |n| format!("all but {}", text::plural(n, "tensor"))),
        ),
        ("unknown", some(unknown, |n| format!("{}, not believed", text::plural(n, "name")))),
    ];
    for (what, value) in lines {
        if let Some(value) = value {
            let room = settings.width.map(|width| width.saturating_sub(14).max(16));
            writeln!(out, "  {DIM}{what:<10}{DIM:#}  {}", text::cut_end(&value, room))?;
        }
    }
    for note in checkpoint.notes() {
        writeln!(out, "  {DIM}note{DIM:#}        {}", text::shown(note))?;
    }
    let (word, rest) =
        if page.dry_run { ("planned", "nothing was written") } else { ("converted", "nothing was executed") };
    writeln!(out, "  {GOOD}{word}{GOOD:#}, {rest}")
}

fn some(number: u64, text: impl FnOnce(u64) -> String) -> Option<String> {
    (number > 0).then(|| text(number))
}

pub(super) fn quiet(page: &Converted, out: &mut impl Write) -> io::Result<()> {
    let Some(conversion) = &page.conversion else { return Ok(()) };
    for file in conversion.files() {
        writeln!(out, "{}", text::shown(&file.path.display().to_string()))?;
    }
    Ok(())
}

pub(super) fn json(page: &Converted, out: &mut impl Write) -> io::Result<()> {
    if page.conversion.is_some() {
        serde_json::to_writer(&mut *out, &page.report)?;
        writeln!(out)?;
    }
    Ok(())
}

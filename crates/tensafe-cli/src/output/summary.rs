//! The page of `tensafe PATH`.

use std::io::{self, Write};

use super::{BAD, BOLD, DIM, GOOD, Settings, text};
use crate::commands::summary::{Summaries, Summary};

pub(super) fn human(page: &Summaries, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    for (place, model) in page.models.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        card(model, settings, out)?;
    }
    Ok(())
}

pub(super) fn quiet(page: &Summaries, out: &mut impl Write) -> io::Result<()> {
    for model in &page.models {
        writeln!(out, "{} {}", model.verdict, text::shown(&model.path))?;
    }
    Ok(())
}

fn card(model: &Summary, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let totals = model.totals;
    let keys: Vec<_> = model.metadata_keys.iter().map(|key| text::shown(key)).collect();
    let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    let style = if model.verdict == "good" { GOOD } else { BAD };
    let mut found = Vec::new();
    for (number, word) in [(model.errors, "error"), (model.warnings, "warning"), (model.notes, "note")] {
        if number > 0 {
            found.push(format!(", {}", text::plural(number as u64, word)));
        }
    }
    let lines = [
        ("kind", text::kind(model.kind, model.files as u64)),
        ("tensors", text::count(totals.tensors)),
        ("parameters", text::count(totals.parameters)),
        (
            "size",
            format!("{}, header {}", text::size_in_full(model.file_bytes), text::size(model.header_bytes)),
        ),
        ("dtypes", text::dtypes(&model.dtypes, totals.bytes)),
        ("metadata", keys),
    ];
    writeln!(out, "{BOLD}{}{BOLD:#}", text::shown(&model.path))?;
    for (what, value) in lines {
        let room = settings.width.map(|width| width.saturating_sub(14).max(16));
        writeln!(out, "  {DIM}{what:<10}{DIM:#}  {}", text::cut_end(&value, room))?;
    }
    writeln!(out, "  {DIM}verdict{DIM:#}     {style}{}{style:#}{}", model.verdict, found.concat())
}

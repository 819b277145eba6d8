//! The only place that prints: data to stdout, all else to stderr.
//!
//! A reader that goes away, such as `head`, is no error: what is left unsaid is left unsaid, and
//! the exit code is that of the answer.

mod convert;
mod inspect;
mod scan;
mod summary;
mod table;
mod text;
mod verify;

use std::io::{self, BufWriter, IsTerminal as _, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::{
    args::{Color, Format, Shared},
    commands::{Failure, Outcome, Page},
};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    format: Format,
    color: anstream::ColorChoice,
    /// Columns of a line; `None` where nothing bounds them.
    width: Option<usize>,
    no_truncate: bool,
}

impl Settings {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            format: shared.format,
            color: match shared.color {
                Color::Auto => anstream::ColorChoice::Auto,
                Color::Always => anstream::ColorChoice::Always,
                Color::Never => anstream::ColorChoice::Never,
            },
            width: if shared.no_truncate { None } else { width() },
            no_truncate: shared.no_truncate,
        }
    }
}

/// `COLUMNS`, else the terminal's; a pipe has no width.
fn width() -> Option<usize> {
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    columns.or_else(|| {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| terminal_size::terminal_size_of(&stdout)).flatten();
        size.map(|(terminal_size::Width(columns), _)| usize::from(columns))
    })
}

/// Prints the outcome of a command and returns the exit code.
pub(crate) fn show(outcome: &Outcome, settings: &Settings) -> u8 {
    // First what was found, then what went wrong: on a terminal the error stands last.
    let printed = show_page(outcome, settings).inspect_err(|error| {
        // Nothing is left to tell anyone where this fails.
        let _ = show_refusal(error, settings);
    });
    let told = show_messages(outcome, settings);
    let refused =
        [printed, told].into_iter().filter_map(Result::err).any(|e| e.kind() != io::ErrorKind::BrokenPipe);
    let inconclusive = matches!(&outcome.page, Page::Scan(page) if page.inconclusive());
    match (refused || !outcome.failures.is_empty(), outcome.negative) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) if inconclusive => 3,
        (false, false) => 0,
    }
}

/// Prints help, the version, or what is wrong with the arguments.
pub(crate) fn show_usage(error: &clap::Error) -> u8 {
    // Nothing is left to tell anyone where this fails.
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(2)
}

fn show_page(outcome: &Outcome, settings: &Settings) -> io::Result<()> {
    if let Page::Scan(page) = &outcome.page
        && let Some(path) = &page.output
    {
        return scan::to_file(page, settings, path);
    }
    let stdout = anstream::AutoStream::new(io::stdout().lock(), settings.color);
    let mut out = BufWriter::new(stdout);
    match (&outcome.page, settings.format) {
        (Page::Text(text), _) => out.write_all(text)?,
        (Page::Convert(page), Format::Human) => convert::human(page, settings, &mut out)?,
        (Page::Convert(page), Format::Json) => convert::json(page, &mut out)?,
        (Page::Convert(page), Format::Quiet) => convert::quiet(page, &mut out)?,
        (Page::Inspect(page), Format::Human) => inspect::human(page, settings, &mut out)?,
        (Page::Inspect(page), Format::Json) => {
            json("tensafe.inspect/1", &page.models, &outcome.failures, &mut out)?;
        }
        (Page::Inspect(page), Format::Quiet) => inspect::quiet(page, &mut out)?,
        (Page::Verify(page), Format::Human) => verify::human(page, settings, &mut out)?,
        (Page::Verify(page), Format::Json) => {
            json("tensafe.verify/1", &page.models, &outcome.failures, &mut out)?;
        }
        (Page::Verify(page), Format::Quiet) => verify::quiet(page, &mut out)?,
        (Page::Summary(page), Format::Human) => summary::human(page, settings, &mut out)?,
        (Page::Summary(page), Format::Json) => {
            json("tensafe.summary/1", &page.models, &outcome.failures, &mut out)?;
        }
        (Page::Summary(page), Format::Quiet) => summary::quiet(page, &mut out)?,
        (Page::Scan(page), _) => scan::show(page, settings, &mut out)?,
        // The arguments were refused before.
        (_, Format::Sarif | Format::Cyclonedx) => {}
    }
    out.flush()
}

#[derive(Serialize)]
struct Document<'a, M> {
    schema: &'static str,
    models: &'a [M],
    errors: &'a [Failure],
}

fn json<M: Serialize>(
    schema: &'static str,
    models: &[M],
    errors: &[Failure],
    out: &mut impl Write,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Document { schema, models, errors })?;
    writeln!(out)
}

/// Says that a page could not be written.
fn show_refusal(error: &io::Error, settings: &Settings) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    let mut out = anstream::AutoStream::new(io::stderr().lock(), settings.color);
    writeln!(out, "{BAD}error:{BAD:#} {}", text::shown(&error.to_string()))
}

fn show_messages(outcome: &Outcome, settings: &Settings) -> io::Result<()> {
    let stderr = anstream::AutoStream::new(io::stderr().lock(), settings.color);
    let mut out = BufWriter::new(stderr);
    for failure in &outcome.failures {
        writeln!(out, "{BAD}error:{BAD:#} {}", text::shown(&failure.message))?;
    }
    if settings.format == Format::Human {
        let mut hints: Vec<&str> = Vec::new();
        for hint in outcome.failures.iter().filter_map(|f| f.hint.as_deref()).chain(hints_of(outcome)) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        for hint in hints {
            writeln!(out, "{NOTE}hint:{NOTE:#} {}", text::shown(hint))?;
        }
    }
    out.flush()
}

fn hints_of(outcome: &Outcome) -> impl Iterator<Item = &str> {
    outcome.hints.iter().map(String::as_str)
}

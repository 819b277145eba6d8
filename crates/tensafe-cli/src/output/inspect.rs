//! The page of `tensafe inspect`.

use std::io::{self, Write};

use anstyle::Style;
use serde_json::Value;
use tensafe::Node;

use super::{
    BOLD, DIM, Settings,
    table::{Column, Row, Table},
    text,
};
use crate::commands::inspect::{Explained, Inspection, Model};

/// Lines of one value of the metadata that are shown.
const MOST_LINES: usize = 20;

pub(super) fn human(page: &Inspection, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    for (place, model) in page.models.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        card(model, out)?;
        if !model.tensors.is_empty() {
            writeln!(out)?;
            if page.flat {
                flat(model).write(settings.width, out)?;
            } else {
                tree(model).write(settings.width, out)?;
            }
        }
        metadata(model, settings, out)?;
        if let Some(explained) = &model.explain {
            explain(explained, model, out)?;
        }
    }
    Ok(())
}

pub(super) fn quiet(page: &Inspection, out: &mut impl Write) -> io::Result<()> {
    for row in page.models.iter().flat_map(|model| &model.tensors) {
        writeln!(out, "{}", text::shown(&row.name))?;
    }
    Ok(())
}

fn card(model: &Model, out: &mut impl Write) -> io::Result<()> {
    let totals = model.totals;
    let headers = model.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.header_bytes));
    writeln!(out, "{BOLD}{}{BOLD:#}", text::shown(&model.path))?;
    writeln!(out, "  {DIM}kind{DIM:#}        {}", text::kind(model.kind, model.files.len() as u64))?;
    let shown = match model.shown.tensors {
        shown if shown == totals.tensors => String::new(),
        shown => format!(", {} shown", text::count(shown)),
    };
    writeln!(out, "  {DIM}tensors{DIM:#}     {}{shown}", text::count(totals.tensors))?;
    writeln!(out, "  {DIM}parameters{DIM:#}  {}", text::count(totals.parameters))?;
    let size = text::size_in_full(totals.bytes);
    writeln!(out, "  {DIM}size{DIM:#}        {size}, header {}", text::size(headers))?;
    writeln!(out, "  {DIM}dtypes{DIM:#}      {}", text::dtypes(&model.dtypes, totals.bytes))
}

fn explain(explained: &Explained, model: &Model, out: &mut impl Write) -> io::Result<()> {
    let (read, times) = (text::size_in_full(explained.bytes_read), explained.amplification);
    writeln!(out, "\n{BOLD}loading{BOLD:#}")?;
    writeln!(out, "  {DIM}needed{DIM:#}      {}", text::size_in_full(explained.bytes_needed))?;
    writeln!(out, "  {DIM}read{DIM:#}        {read}, {times:.3} times as much")?;
    let (requests, workers) = (text::count(explained.requests), text::count(explained.workers));
    writeln!(out, "  {DIM}requests{DIM:#}    {requests}, {workers} at once")?;
    writeln!(out, "  {DIM}memory{DIM:#}      {} at most", text::size(explained.peak_memory))?;
    for range in &explained.ranges {
        let path = model.files.get(range.file).map_or("", |file| file.path.as_str());
        let (needed, read) = (text::size(range.needed), text::size(range.read));
        let requests = text::plural(range.requests, "request");
        writeln!(
            out,
            "  {DIM}{:<10}{DIM:#}  {needed} needed, {read} read in {requests}: {}",
            range.method, range.why
        )?;
        let (start, end) = range.range;
        writeln!(out, "              {DIM}bytes {start}..{end} of {}{DIM:#}", text::shown(path))?;
    }
    Ok(())
}

fn flat(model: &Model) -> Table {
    let mut columns = vec![
        Column::left("shape", Some(5)),
        Column::left("dtype", Some(4)),
        Column::right("parameters", Some(2)),
        Column::right("size", None),
        Column::right("share", Some(3)),
    ];
    let many = model.files.len() > 1;
    if many {
        columns.push(Column::left("file", Some(1)));
    }
    let mut table = Table::new(columns);
    for row in &model.tensors {
        let mut cells = vec![
            text::shape(&row.shape),
            row.dtype.name().to_owned(),
            text::count(row.parameters),
            text::size(row.bytes),
            text::share(row.bytes, model.totals.bytes),
        ];
        if many {
            let path = model.files.get(row.file).map_or("", |file| file.path.as_str());
            let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
            cells.push(text::shown(name).into_owned());
        }
        table.push(Row { depth: 0, name: name(&row.name), cells, style: Style::new() });
    }
    table
}

fn tree(model: &Model) -> Table {
    let mut table = Table::new(vec![
        Column::left("shape", Some(5)),
        Column::left("dtype", Some(3)),
        Column::right("parameters", Some(2)),
        Column::right("size", None),
        Column::right("share", Some(4)),
    ]);
    for node in &model.tree.nodes {
        branch(node, 0, model.totals.bytes, &mut table);
    }
    table
}

fn branch(node: &Node, depth: usize, whole: u64, table: &mut Table) {
    let (shape, dtype) = match &node.tensor {
        Some((dtype, shape)) if node.copies > 1 => {
            (format!("{} × {}", text::count(node.copies), text::shape(shape)), dtype.name())
        }
        Some((dtype, shape)) => (text::shape(shape), dtype.name()),
        None => (text::plural(node.totals.tensors, "tensor"), ""),
    };
    let cells = vec![
        shape,
        dtype.to_owned(),
        text::count(node.totals.parameters),
        text::size(node.totals.bytes),
        text::share(node.totals.bytes, whole),
    ];
    let style = if node.children.is_empty() { Style::new() } else { BOLD };
    table.push(Row { depth, name: name(&node.label), cells, style });
    for child in &node.children {
        branch(child, depth.saturating_add(1), whole, table);
    }
}

fn name(name: &str) -> String {
    if name.is_empty() { "``".to_owned() } else { text::shown(name).into_owned() }
}

fn metadata(model: &Model, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let Some(metadata) = model.metadata.as_ref().filter(|metadata| !metadata.is_empty()) else {
        return Ok(());
    };
    writeln!(out, "\n{BOLD}metadata{BOLD:#}")?;
    let widest = metadata.keys().map(|key| text::columns(&text::shown(key))).filter(|w| *w <= 32).max();
    for (key, value) in metadata {
        let key_shown = text::shown(key);
        write!(out, "  {DIM}{key_shown}{DIM:#}")?;
        let lines = match model.unfolded.get(key) {
            Some(value) => unfolded(value),
            None => vec![text::shown(value).into_owned()],
        };
        let [line] = &lines[..] else {
            writeln!(out)?;
            many_lines(&lines, settings, out)?;
            continue;
        };
        let blank = widest.unwrap_or(0).saturating_sub(text::columns(&key_shown)).saturating_add(2);
        let used = text::columns(&key_shown).saturating_add(blank).saturating_add(2);
        let room = value_room(settings).map(|room| room.saturating_sub(used).max(16));
        writeln!(out, "{:blank$}{}", "", text::cut_end(line, room))?;
    }
    Ok(())
}

/// A value may be an image, or a whole book: without a width it is cut too, unless asked not to.
fn value_room(settings: &Settings) -> Option<usize> {
    if settings.no_truncate { None } else { Some(settings.width.unwrap_or(500)) }
}

fn many_lines(lines: &[String], settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let most = if settings.no_truncate || lines.len() <= MOST_LINES { lines.len() } else { MOST_LINES };
    for line in lines.iter().take(most) {
        let room = value_room(settings).map(|room| room.saturating_sub(4).max(16));
        writeln!(out, "    {}", text::cut_end(line, room))?;
    }
    let more = lines.len().saturating_sub(most) as u64;
    if more > 0 {
        writeln!(out, "    {DIM}… {}, shown by `--no-truncate`{DIM:#}", text::plural(more, "more line"))?;
    }
    Ok(())
}

/// A JSON value as indented lines.
fn unfolded(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    unfold_into(&mut lines, value, 0);
    if lines.is_empty() {
        lines.push(value.to_string());
    }
    lines
}

fn unfold_into(lines: &mut Vec<String>, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let nested = |value: &Value| match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        _ => false,
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = text::shown(key);
                if nested(value) {
                    lines.push(format!("{indent}{key}:"));
                    unfold_into(lines, value, depth.saturating_add(1));
                } else {
                    lines.push(format!("{indent}{key}: {}", scalar(value)));
                }
            }
        }
        Value::Array(items) if nested(value) => {
            for (place, item) in items.iter().enumerate() {
                if nested(item) {
                    lines.push(format!("{indent}{place}:"));
                    unfold_into(lines, item, depth.saturating_add(1));
                } else {
                    lines.push(format!("{indent}{place}: {}", scalar(item)));
                }
            }
        }
        other => lines.push(format!("{indent}{}", scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text::shown(text).into_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

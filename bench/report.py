"""The report of a run: the bars, a table for each cell, losses like gains."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from bars import Checked, Spread, ratios
from runner import Outcome

Row = dict[str, Any]
BEGIN, END = "<!-- begin: bench/load.py -->", "<!-- end: bench/load.py -->"
_METHOD = """\
Every measurement is a process of its own; ways take turns within a round, in an order of chance. Times and
figures are medians of the rounds. *Beside* is a way's time over that of the first row, round by round: the
median, and the tenth to the ninetieth part; above 1 the first row is faster. *Cold*: the pages of the file
were dropped, and the page cache said so; the host of a virtual machine may still have them. Before each clock
as much memory as most ways take is written to and let go: a host that takes free memory away would have
whoever touches it next wait, for reasons that are no loader's. *Read* is what the process read from the disk,
*growth* the most that its anonymous memory (RssAnon of /proc/PID/status, every 2 ms, seen from outside) grew
while the clock ran, *peak* its VmHWM, torch included. A bar is reached where the median reaches it. *May be chance*
stands where the rounds leave open on which side of the bar the median of many more would lie: where the bar is
within the interval that has it 95 times of 100, which follows from the order of the ratios alone."""


def replace_section(text: str, section: str) -> str:
    """A document with the section of this run in the place of the last one's, or at its end."""
    section = f"{BEGIN}\n{section.strip()}\n{END}"
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{section}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{section}{after}"


def render(
    about: dict[str, str], outcomes: list[Outcome], checked: list[Checked], headers: list[Row] | str | None
) -> str:
    parts = [
        "## Loading, cutting and saving: what `bench/load.py` measured",
        table(("", ""), ([key, value] for key, value in about.items())),
        _METHOD,
        "### Bars",
        table(
            ("cell", "bar", "measured", "which", "reached"),
            ([bar.cell, bar.text, bar.measured, bar.note, _reached(bar)] for bar in checked),
        ),
        "![Rates of the ways of some cells](results.svg)",
        *(part for outcome in outcomes for part in _cell(outcome)),
    ]
    if headers is not None:
        parts += ["### header: instructions of parsing and validating a header", _headers(headers)]
    return "\n\n".join(parts)


def _reached(bar: Checked) -> str:
    word = {True: "yes", False: "**no**", None: "—"}[bar.reached]
    return f"{word}, may be chance" if bar.chance else word


def table(head: Iterable[str], rows: Iterable[list[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _headers(headers: list[Row] | str) -> str:
    if isinstance(headers, str):
        return headers
    names = list(headers[0])
    rows = ([_number(row[name]) for name in names] for row in headers)
    return table((name.replace("_", " ") for name in names), rows)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(outcome: Outcome) -> list[str]:
    cell = outcome.cell
    parts = [f"### {cell.name}: {cell.title}", f"The clock stops: {cell.finish}. {_rounds(outcome)}."]
    if outcome.aborted:
        parts.append(f"**Aborted**: {outcome.aborted}")
    measured = [name for name in outcome.names if outcome.measured(name)]
    # A column that nobody has a figure for is none.
    columns = [
        column for column in _COLUMNS if any(column[1](outcome.rows[name]) is not None for name in measured)
    ]
    base = next((name for name in measured if name not in cell.limits), None)
    rows = []
    for name in outcome.names:
        reason = outcome.failed.get(name) or outcome.skipped.get(name)
        if reason is not None or name not in measured:
            word = "failed" if name in outcome.failed else "skipped"
            rows.append([outcome.label(name), f"{word}: {reason or 'not run'}", *[""] * len(columns)])
            continue
        cells = [column[1](outcome.rows[name]) or "" for column in columns]
        beside = "" if base is None or name == base else _beside(outcome, base, name)
        rows.append([outcome.label(name), cells[0], beside, *cells[1:]])
    head = ["", columns[0][0] if columns else "time", "beside", *(column[0] for column in columns[1:])]
    parts.append(table(head, rows))
    return parts


def _rounds(outcome: Outcome) -> str:
    count = max((len(rows) for rows in outcome.rows.values()), default=0)
    return f"{count} rounds" if count != 1 else "1 round"


def _beside(outcome: Outcome, base: str, name: str) -> str:
    return str(ratios(outcome.rows[base], outcome.rows[name], "wall"))


def median(rows: list[Row], figure: str) -> float | None:
    """The median of a figure over the rounds; ``None`` where a way has none."""
    values = [row[figure] for row in rows if row.get(figure) is not None]
    return statistics.median(values) if values else None


def _seconds(figure: str) -> Callable[[list[Row]], str | None]:
    def show(rows: list[Row]) -> str | None:
        values = [row[figure] for row in rows if row.get(figure) is not None]
        if not values:
            return None
        spread = Spread.of([value * 1e3 for value in values])
        digits = 0 if spread.median >= 100 else 2
        return f"{spread.median:,.{digits}f} ms ({spread.low:,.{digits}f} to {spread.high:,.{digits}f})"

    return show


def _rate(rows: list[Row]) -> str | None:
    size, wall = median(rows, "bytes"), median(rows, "wall")
    return None if size is None or wall is None else f"{size / wall / 1e9:.2f}"


def _megabytes(figure: str) -> Callable[[list[Row]], str | None]:
    def show(rows: list[Row]) -> str | None:
        found = median(rows, figure)
        return None if found is None else f"{found / 1e6:,.1f}"

    return show


def _amplification(rows: list[Row]) -> str | None:
    """Read over needed, where parts of tensors were asked for."""
    read, needed = median(rows, "read_bytes"), median(rows, "bytes")
    if median(rows, "parts") is None or read is None or not needed:
        return None
    return f"{read / needed:.2f}"


def _plain(figure: str, digits: int = 0) -> Callable[[list[Row]], str | None]:
    def show(rows: list[Row]) -> str | None:
        found = median(rows, figure)
        return None if found is None else f"{found:,.{digits}f}"

    return show


_COLUMNS: tuple[tuple[str, Callable[[list[Row]], str | None]], ...] = (
    ("time", _seconds("wall")),
    ("GB/s", _rate),
    ("T1", _seconds("returned")),
    ("second load", _seconds("second")),
    ("user s", _plain("user", 2)),
    ("system s", _plain("system", 2)),
    ("needed MB", _megabytes("bytes")),
    ("read MB", _megabytes("read_bytes")),
    ("read / needed", _amplification),
    ("planned MB", _megabytes("planned")),
    ("rchar MB", _megabytes("rchar")),
    ("minor faults", _plain("minor_faults")),
    ("major", _plain("major_faults")),
    ("growth MB", _megabytes("anon")),
    ("beyond held MB", _megabytes("beyond")),
    ("peak MB", _megabytes("hwm")),
)

"""The picture of a run: rates of the ways of the headline cells, as bars, in SVG."""

from __future__ import annotations

from html import escape

from report import median
from runner import Outcome

CELLS = ("cold-one", "warm-one", "owned", "many-torch", "cut-columns", "save-durable")
_OURS, _THEIRS, _LIMIT = "#0f766e", "#9ca3af", "#e5e7eb"
_WIDTH, _LABEL, _BAR, _ROW = 860, 300, 470, 18


def render(outcomes: list[Outcome]) -> str:
    """Longer is faster; each cell has a scale of its own. Rates are medians of the rounds."""
    parts: list[str] = []
    top = 10
    for outcome in outcomes:
        if outcome.cell.name in CELLS and not outcome.aborted:
            rows, top = _cell(outcome, top)
            parts += rows
    style = "text{font:12px sans-serif;fill:#111827}.title{font-weight:bold}"
    background = f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
    return "\n".join([head, f"<style>{style}</style>", background, *parts, "</svg>"]) + "\n"


def _cell(outcome: Outcome, top: int) -> tuple[list[str], int]:
    rates = {name: _rate(outcome, name) for name in outcome.names if outcome.measured(name)}
    if not rates:
        return [], top
    most = max(rates.values())
    unit, scale = ("GB/s", 1e9) if most >= 1e8 else ("MB/s", 1e6)
    parts = [f'<text class="title" x="10" y="{top + 14}">{escape(outcome.cell.title)}, {unit}</text>']
    top += 24
    for name in sorted(rates, key=lambda name: -rates[name]):
        width = max(rates[name] / most * _BAR, 1)
        parts += [
            f'<text x="{_LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(_label(outcome, name))}</text>',
            f'<rect x="{_LABEL}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}" fill="{_colour(outcome, name)}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 12}">{rates[name] / scale:.2f}</text>',
        ]
        top += _ROW
    return parts, top + 16


def _rate(outcome: Outcome, name: str) -> float:
    size, wall = (median(outcome.rows[name], figure) for figure in ("bytes", "wall"))
    return (size or 0.0) / wall if wall else 0.0


def _label(outcome: Outcome, name: str) -> str:
    return outcome.label(name).split(", ")[0] if name in outcome.cell.limits else outcome.label(name)


def _colour(outcome: Outcome, name: str) -> str:
    if name in outcome.cell.limits:
        return _LIMIT
    return _OURS if outcome.way(name).ours else _THEIRS

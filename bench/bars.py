"""What tensafe has set itself, in one table, and whether a run reached it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cells import BUDGET_BYTES
from runner import Outcome

Row = dict[str, Any]
MIB = 1 << 20


# How often the median of many more rounds may lie outside of `Spread.surely`.
_CHANCE = 0.05


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the tenth and ninetieth part of them. ``surely`` is where the median of many
    more rounds would lie, ``None`` where so few say nothing of it."""

    median: float
    low: float
    high: float
    greatest: float
    surely: tuple[float, float] | None

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        ordered = sorted(values)
        # With few rounds these are the least and the greatest.
        edge = len(ordered) // 10
        outside = _outside(len(ordered))
        surely = None if outside is None else (ordered[outside], ordered[-1 - outside])
        return cls(statistics.median(ordered), ordered[edge], ordered[-1 - edge], ordered[-1], surely)

    def may_cross(self, bar: float) -> bool:
        """Whether the median of many more rounds may lie on the other side of a bar."""
        return self.surely is None or self.surely[0] < bar <= self.surely[1]

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def _outside(count: int) -> int | None:
    """How many of so many rounds are left out at each end of :attr:`Spread.surely`.

    A round is as likely above the true median as below it, whatever the times are spread like. So many or fewer
    of them are on one side as often as that many coins of ``count`` show heads. ``None`` where all of them are
    on one side too often already.
    """
    one_side, heads = 0.0, 0
    while (one_side := one_side + math.comb(count, heads) / 2**count) <= _CHANCE / 2:
        heads += 1
    return heads - 1 if heads else None


def ratios(ours: list[Row], theirs: list[Row], figure: str) -> Spread:
    """Their time over ours, round by round: above 1, ours is faster."""
    return Spread.of([b[figure] / a[figure] for a, b in zip(ours, theirs, strict=False)])


@dataclass(frozen=True)
class Checked:
    """A bar with what was measured; ``reached`` is ``None`` where nothing was. ``chance`` says that more rounds
    may find otherwise."""

    cell: str
    text: str
    measured: str
    note: str
    reached: bool | None
    chance: bool = False


@dataclass(frozen=True)
class Faster:
    """The time of the fastest of ``rivals`` over that of ours is at least ``least``.

    Where several of our ways are named, it is the fastest, and the report says which. Where a limit is named, the
    report has what it reaches beside the same rival: more than that the machine does not do.
    """

    cell: str
    text: str
    least: float
    ours: tuple[str, ...]
    rivals: tuple[str, ...]
    figure: str = "wall"
    limit: str | None = None

    def check(self, outcome: Outcome) -> Checked:
        ours = self._fastest(outcome, self.ours)
        rival = self._fastest(outcome, self.rivals)
        text = f"{self.text} >= {self.least:g}"
        if ours is None or rival is None:
            return Checked(self.cell, text, "", "not measured", None)
        found = ratios(outcome.rows[ours], outcome.rows[rival], self.figure)
        note = f"{outcome.label(ours)}, beside {outcome.label(rival)}"
        if self.limit is not None and outcome.measured(self.limit):
            reached = ratios(outcome.rows[self.limit], outcome.rows[rival], self.figure)
            note += f"; {outcome.label(self.limit)}: {reached}"
        chance = found.may_cross(self.least)
        return Checked(self.cell, text, str(found), note, found.median >= self.least, chance)

    def _fastest(self, outcome: Outcome, names: tuple[str, ...]) -> str | None:
        there = [name for name in names if outcome.measured(name) and outcome.rows[name][0].get(self.figure)]

        def median(name: str) -> float:
            return float(statistics.median(row[self.figure] for row in outcome.rows[name]))

        return min(there, key=median, default=None)


@dataclass(frozen=True)
class Within:
    """A figure of one of our ways is at most ``most`` in every round."""

    cell: str
    text: str
    most: float
    ours: str
    figure: Callable[[Row], float]

    def check(self, outcome: Outcome) -> Checked:
        text = f"{self.text} <= {self.most:g}"
        if not outcome.measured(self.ours):
            return Checked(self.cell, text, "", "not measured", None)
        found = Spread.of([self.figure(row) for row in outcome.rows[self.ours]])
        note = f"{outcome.label(self.ours)}; at most {found.greatest:.3g}"
        return Checked(self.cell, text, str(found), note, found.greatest <= self.most)


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{version}-{name}" for name in names for version in ("safetensors", "safetensors-rc"))


_OURS = ("tensafe", "tensafe-direct", "tensafe-owned", "tensafe-stream")
_PUBLISHED = _both("mmap", "pread", "bytes")
_RIVALS = (*_PUBLISHED, "torch-mmap", "torch", "fastsafetensors", "runai", "tensorizer")
_LIMITS = ("direct-read", "fio-read", "dd-read")


def _read_over_needed(row: Row) -> float:
    return float(row["read_bytes"] / row["bytes"])


def _read_over_planned(row: Row) -> float:
    return float(row["read_bytes"] / row["planned"])


def _anon_mib(row: Row) -> float:
    return float(row["anon"] / MIB)


def _beyond_mib(row: Row) -> float:
    return float((row["beyond"] - BUDGET_BYTES) / MIB)


BARS: tuple[Faster | Within, ...] = (
    Faster("many-torch", "first load, beside 0.9.0rc1", 8, ("tensafe",), ("safetensors-rc-mmap",)),
    Faster("many-numpy", "first load, beside 0.9.0rc1", 5, ("tensafe-numpy",), ("safetensors-rc-numpy",)),
    Faster("cold-one", "beside the direct read", 0.9, _OURS, _LIMITS),
    Faster("cold-one", "beside safetensors", 1.3, _OURS, _PUBLISHED),
    Faster("cold-one", "beside everyone", 1.0, _OURS, _RIVALS),
    Faster("cold-near", "beside the direct read", 0.9, ("tensafe-stream",), ("direct-read",)),
    Faster("cold-near", "beside the nearest", 1.0, ("tensafe-stream",), ("runai",), limit="summed"),
    Faster("warm-one", "mapped, beside safetensors", 0.97, ("tensafe",), _both("mmap")),
    Faster("owned", "first load, beside load(bytes)", 2, ("tensafe-owned",), _both("bytes")),
    Faster("owned", "first load, beside pread", 2, ("tensafe-owned",), _both("pread")),
    Faster("owned", "second load, beside both", 4, ("tensafe-owned",), _both("bytes", "pread"), "second"),
    Within("cut-rows", "bytes read over bytes needed", 1.02, "tensafe-plan", _read_over_needed),
    Faster("cut-rows", "beside get_slice", 1.5, ("tensafe-plan",), _both("mmap", "pread")),
    Within("cut-columns", "bytes read over those of the plan", 1.02, "tensafe-plan", _read_over_planned),
    Faster("cut-columns", "beside get_slice", 1.5, ("tensafe-plan",), _both("mmap", "pread")),
    Faster("save-durable", "beside safetensors", 1.5, ("tensafe",), _both("save")),
    Faster("save-durable", "beside the direct write", 0.8, ("tensafe",), ("fio-write",)),
    Within("save-durable", "growth of RssAnon, MiB", 64, "tensafe", _anon_mib),
    Faster("save", "beside safetensors", 1.3, ("tensafe",), _both("save"), limit="write"),
    Within("save", "growth of RssAnon, MiB", 64, "tensafe", _anon_mib),
    Within("budget", "beyond budget and held tensors, MiB", 64, "tensafe-budget", _beyond_mib),
)
HEADER_TENSORS = 50_000
HEADER_MOST = 1 / 3


def check(outcomes: list[Outcome], headers: list[Row] | str | None) -> list[Checked]:
    """Every bar of the cells that were run, in the order of the table."""
    run = {outcome.cell.name: outcome for outcome in outcomes}
    checked = [bar.check(run[bar.cell]) for bar in BARS if bar.cell in run]
    if headers is not None:
        checked += _check_headers(headers)
    return checked


def _check_headers(headers: list[Row] | str) -> list[Checked]:
    text = f"instructions beside safetensors' <= {HEADER_MOST:.3f}"
    if isinstance(headers, str):
        return [Checked("header", text, "", headers, None)]
    return [
        Checked("header", text, f"{row['ratio']:.3f}", str(row["header"]), row["ratio"] <= HEADER_MOST)
        for row in headers
        if row["tensors"] == HEADER_TENSORS and not math.isnan(row["ratio"])
    ]

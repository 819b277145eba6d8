"""Carries a cell out: rounds, whose turn it is, the state of the pages, the child, what came of it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import limits
import loaders
from cells import Cell
from child import Child, ChildError, Server
from files import Place
from measure import CacheError, Sampler, make_cold, make_warm, remove, touch

Row = dict[str, Any]


@dataclass
class Outcome:
    """What a cell has measured. ``rows`` holds the figures of each way, one per round, in order;
    ``skipped`` the reason of a way that cannot run here, ``failed`` of one that should have."""

    cell: Cell
    rows: dict[str, list[Row]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    aborted: str = ""
    seconds: float = 0.0

    @property
    def timed(self) -> float:
        """Seconds of the whole cell that the clock ran."""
        return float(sum(row["wall"] + row.get("second", 0.0) for rows in self.rows.values() for row in rows))

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.cell.ways, *self.cell.limits)

    def label(self, name: str) -> str:
        return limits.LABELS[name] if name in self.cell.limits else self.way(name).label

    def way(self, name: str) -> loaders.Way:
        way: loaders.Way = getattr(loaders, self.cell.table)[name]
        return way

    def measured(self, name: str) -> bool:
        """Whether a way has figures of every round."""
        whole = not self.aborted and name not in self.failed and name not in self.skipped
        return whole and bool(self.rows.get(name))


def turns(names: tuple[str, ...], turn: int) -> Iterator[tuple[int, str]]:
    """Whose turn it is, with the number of the copy: in an order that chance gives each round, the same in
    every run, so that nobody always follows the same one."""
    return enumerate(random.Random(turn).sample(names, len(names)))


class Runner:
    """Carries out cells with the servers of the environments; ``missing`` says why one has none."""

    def __init__(
        self, servers: dict[str, Server], missing: dict[str, str], place: Place, rounds: int
    ) -> None:
        self._servers = servers
        self._missing = missing
        self._place = place
        self._rounds = rounds

    def run(self, cell: Cell) -> Outcome:
        outcome = Outcome(cell)
        start = time.monotonic()
        # What others have written shall not be on its way to the disk while the clock runs.
        os.sync()
        for turn in range(cell.rounds(self._rounds)):
            for number, name in turns(outcome.names, turn):
                # Pages that stay are of other sizes in each copy: in a round all ways have the same ones. Of
                # what is cold nobody reads what the one before has read, which the host may still have.
                copy = turn if cell.state == "warm" else number
                if name not in outcome.skipped and name not in outcome.failed and not outcome.aborted:
                    self._take_turn(outcome, name, copy, first=turn == 0)
        self._compare_digests(outcome)
        outcome.seconds = time.monotonic() - start
        return outcome

    def _take_turn(self, outcome: Outcome, name: str, copy: int, first: bool) -> None:
        try:
            measure = self._limit if name in outcome.cell.limits else self._way
            outcome.rows.setdefault(name, []).append(measure(outcome, name, copy, first))
        except CacheError as error:
            outcome.aborted = str(error)
        except ChildError as error:
            wrong = "WrongBytesError" in str(error)
            # Others may not run here, and the report says so; what is ours has to.
            ours = name not in outcome.cell.limits and outcome.way(name).ours
            fails = wrong or (ours and not error.unavailable)
            (outcome.failed if fails else outcome.skipped)[name] = str(error)
            print(f"    {outcome.label(name)}: {error}", file=sys.stderr, flush=True)

    def _way(self, outcome: Outcome, name: str, copy: int, first: bool) -> Row:
        cell, way = outcome.cell, outcome.way(name)
        server = self._server(way.environment)
        files = self._place.files(cell.file, way.kind, copy)
        reference = self._place.files(cell.file, "safetensors", copy)
        # What is saved is what is in a file of ours, whatever format it is saved in.
        (small,) = self._place.files(cell.first, "safetensors" if cell.state == "memory" else way.kind, copy)
        out = self._place.root / f"saved.{way.kind}"
        whole = files[0].parent if len(files) > 1 else files[0]
        task = {
            "action": cell.action,
            "way": name,
            "path": str(out if cell.state == "memory" else whole),
            "paths": [str(path) for path in files],
            "reference": [str(path) for path in reference],
            "small": str(small),
            "select": cell.select,
            "world": 4,
            "durable": cell.durable,
            "check": first,
            "variables": way.variables,
        }
        ranks = range(cell.ranks) if cell.ranks > 1 else [1]
        try:
            rows = self._timed(
                server, [task | {"rank": rank} for rank in ranks], lambda: prepare(cell, files)
            )
        finally:
            remove(out)
        return rows[0] if len(rows) == 1 else together(rows)

    def _limit(self, outcome: Outcome, name: str, copy: int, first: bool) -> Row:
        cell = outcome.cell
        files = self._place.files(cell.file, "safetensors", copy)
        size = sum(path.stat().st_size for path in files)
        path = self._place.root / "saved.limit" if cell.state == "memory" else files[0]
        if name in limits.PROGRAMS:
            prepare(cell, files)
            row = limits.PROGRAMS[name](path, size)
        else:
            reference = [str(path) for path in files]
            task = {"action": name, "path": str(path), "reference": reference, "durable": cell.durable}
            try:
                (row,) = self._timed(self._server("main"), [task], lambda: prepare(cell, files))
            finally:
                if cell.state == "memory":
                    remove(path)
        # A program reads or writes whole blocks: its time is that of the whole file at its rate.
        return row | {"wall": row["wall"] * size / row["bytes"], "bytes": size}

    def _timed(self, server: Server, tasks: list[Row], before: Callable[[], None]) -> list[Row]:
        with ExitStack() as stack:
            children: list[Child] = []
            samplers: list[Sampler] = []
            for task in tasks:
                children.append(stack.enter_context(server.child(task)))
            for child in children:
                child.wait()
            before()
            with ExitStack() as sampling:
                for child in children:
                    samplers.append(sampling.enter_context(Sampler(child.pid)))
                for child in children:
                    child.go()
                for child in children:
                    child.wait()
            for child in children:
                child.go()
            rows = [child.result() for child in children]
        return [row | {"anon": sampler.peak} for row, sampler in zip(rows, samplers, strict=True)]

    def _server(self, environment: str) -> Server:
        server = self._servers.get(environment)
        if server is None:
            raise ChildError(self._missing[environment], unavailable=True)
        return server

    def _compare_digests(self, outcome: Outcome) -> None:
        """In each round every way has consumed the same bytes; the first way's sum is as good as any."""
        sums = {
            name: {row["digest"] for row in rows if "digest" in row} for name, rows in outcome.rows.items()
        }
        everything = set().union(*sums.values())
        if len(everything) > 1:
            for name, found in sums.items():
                outcome.failed[name] = f"sums of the words differ: {sorted(found)}"


def prepare(cell: Cell, files: list[Path]) -> None:
    """The state of the pages that a cell begins with, verified, and memory that the machine has."""
    if cell.state == "cold":
        make_cold(files)
    elif cell.state == "warm":
        make_warm(files)
    if cell.touched:
        touch(round(sum(path.stat().st_size for path in files) * cell.touched))


def together(rows: list[Row]) -> Row:
    """Processes that ran at once, as one: the wall of the slowest, the sums of what is counted."""
    row = {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], int | float)}
    return row | {"wall": max(row["wall"] for row in rows), "hwm": max(row["hwm"] for row in rows)}

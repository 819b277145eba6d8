"""Drives a run: batches in, rows out, what was lost again, never more in hand than engines ask for."""

from __future__ import annotations

import concurrent.futures
import heapq
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from .._errors import UnsupportedError, UsageError
from .._tensafe import __version__
from ._operations import Item, Operation, is_there, measure, operation, perform
from ._progress import Progress
from ._rows import Row

# Before the second attempt, in seconds; twice as long before each one after.
_PAUSE = 0.1
# Rows of earlier runs that are gathered before those in hand are looked after again.
_MOST_ROWS = 1000

Results = list[tuple[Row, bool]]


class WorkerLost(Exception):
    """Whoever worked on a batch is gone: the process, or its machine."""


class Engine(Protocol):
    """Who works on batches."""

    def room(self) -> int:
        """How many more batches it takes now, so that nobody is idle and nothing piles up."""

    def submit(self, operation: Operation, items: Sequence[Item]) -> None: ...

    def wait(self, timeout: float | None) -> list[tuple[Sequence[Item], Results | WorkerLost]]:
        """What is finished, waiting for one at least unless ``timeout`` seconds pass; empty at once if
        nothing is under way. Raises what no other batch could mend."""

    def close(self) -> None:
        """Ends what is under way."""


class LocalEngine:
    """Threads of this process; the core lets go of the interpreter while it works."""

    def __init__(self, threads: int = 0) -> None:
        threads = threads or _processors()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="tensafe-fleet")
        self._most = 2 * threads
        self._under_way: dict[concurrent.futures.Future[Results], Sequence[Item]] = {}

    def room(self) -> int:
        return self._most - len(self._under_way)

    def submit(self, operation: Operation, items: Sequence[Item]) -> None:
        self._under_way[self._pool.submit(perform, operation, items)] = items

    def wait(self, timeout: float | None) -> list[tuple[Sequence[Item], Results | WorkerLost]]:
        first = concurrent.futures.FIRST_COMPLETED
        done, _ = concurrent.futures.wait(self._under_way, timeout, return_when=first)
        return [(self._under_way.pop(future), future.result()) for future in done]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def run(
    what: str | Operation,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    engine: str | Engine = "local",
    address: str | None = None,
    threads: int = 0,
    progress: str | os.PathLike[str] | None = None,
    batch: int | None = None,
    attempts: int = 3,
    leave_out: Iterable[str | os.PathLike[str]] = (),
    **options: Any,
) -> Iterator[Row]:
    """Scans, verifies or converts the files ``paths`` and those below directories: a row for each, as they
    are finished, in no order. Nothing is done before the first row is asked for, and no file that is at
    fault ends a run.

    ``what`` is ``"scan"``, ``"verify"`` or ``"convert"`` with the ``options`` of :class:`Scan`,
    :class:`Verify` or :class:`Convert`. ``engine`` is ``"local"``, ``threads`` of this process (0: one for each
    processor), or ``"ray"``, the cluster at ``address``; see :mod:`tensafe.integrations.ray`. Every machine
    must see the files by the same paths, which are made absolute.

    ``progress`` names a file of JSON lines: a run that is given it again passes over what is done, where size,
    time of change, options and version of tensafe are the same; its rows are told again. What could not be
    read is tried ``attempts`` times, in this run and in the next. ``batch`` is the most files of one call
    (default: 128; 4 for ``convert``); a run starts with one file each and doubles. ``leave_out`` names
    files to pass over, as ``progress`` itself is.

    Memory: the batches in hand, the names of one directory, and about 200 bytes for each file that
    ``progress`` says is done and each output of ``convert``.
    """
    if attempts < 1 or (batch is not None and batch < 1) or threads < 0:
        raise UsageError(f"attempts {attempts}, batch {batch}, threads {threads}: needed 1, 1 and 0 at least")
    given = operation(what, options) if isinstance(what, str) else what
    if options and not isinstance(what, str):
        raise UsageError(f"options {', '.join(options)}: {type(what).__name__} has its own")
    chosen = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    start = _starter(engine, address, threads)
    own = {os.path.abspath(path) for path in (progress, *leave_out) if path is not None}
    inputs = (each for each in given.inputs(chosen) if each.path not in own)
    return _run(given, inputs, start, progress, batch or given.batch, attempts)


def _starter(engine: str | Engine, address: str | None, threads: int) -> Callable[[], Engine]:
    if not isinstance(engine, str):
        return lambda: engine
    if engine == "local":
        return lambda: LocalEngine(threads)
    if engine != "ray":
        raise UsageError(f"engine `{engine}` is not known; needed local or ray")
    try:
        from ..integrations.ray import RayEngine
    except ImportError as error:
        raise UnsupportedError(f'engine "ray" needs Ray, `pip install ray`: {error}') from None
    return lambda: RayEngine(address, threads=threads)


def _run(
    given: Operation,
    inputs: Iterator[Item | Row],
    start: Callable[[], Engine],
    progress: str | os.PathLike[str] | None,
    batch: int,
    attempts: int,
) -> Iterator[Row]:
    identity = {"tensafe": __version__, "operation": given.name, "options": given.options()}
    noted = None if progress is None else Progress(progress, identity)
    try:
        engine = start()
        try:
            yield from _Run(given, engine, noted, batch, attempts).rows(inputs)
        finally:
            engine.close()
    finally:
        if noted is not None:
            noted.close()


class _Run:
    def __init__(
        self, given: Operation, engine: Engine, noted: Progress | None, batch: int, attempts: int
    ) -> None:
        self._operation = given
        self._engine = engine
        self._noted = noted
        self._batch = batch
        self._attempts = attempts
        # Batches for another attempt: when it may start, and a number that keeps equal times in order.
        self._again: list[tuple[float, int, list[Item]]] = []
        self._numbers = itertools.count()
        self._submitted = 0
        self._under_way = 0
        # Rows to hand out.
        self._rows: list[Row] = []

    def rows(self, inputs: Iterator[Item | Row]) -> Iterator[Row]:
        while True:
            room = self._engine.room()
            while room > 0 and len(self._rows) < _MOST_ROWS:
                items = self._due() or self._gather(inputs)
                if not items:
                    break
                self._submit(items)
                room -= 1
            more = len(self._rows) >= _MOST_ROWS
            yield from self._handed()
            if more:
                continue
            pause = max(0.0, self._again[0][0] - time.monotonic()) if self._again else None
            if self._under_way:
                for done, results in self._engine.wait(pause if room > 0 else None):
                    self._under_way -= 1
                    if isinstance(results, WorkerLost):
                        self._lost(done, results)
                    else:
                        self._finished(done, results)
                yield from self._handed()
            elif pause is not None:
                time.sleep(pause)
            else:
                return

    def _handed(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def _gather(self, inputs: Iterator[Item | Row]) -> list[Item]:
        """The next batch. The first are small, so that few files keep everybody busy too."""
        most = min(self._batch, 1 << min(self._submitted // 8, 30))
        items: list[Item] = []
        while len(items) < most and len(self._rows) < _MOST_ROWS:
            given = next(inputs, None)
            if given is None:
                break
            row = given if isinstance(given, Row) else self._known(given)
            if row is not None:
                self._rows.append(row)
            else:
                assert isinstance(given, Item)
                items.append(given)
        return items

    def _known(self, item: Item) -> Row | None:
        """The row of an item that an earlier run finished, if all is as it was."""
        if self._noted is None:
            return None
        row = self._noted.row(item.path)
        if row is not None and row.status != "failed":
            whole = row.status != "ok" or item.output is None or is_there(item.output)
            if whole and row.output == item.output and measure(item.path) == (row.bytes, row.mtime_ns):
                return row
        item.replaces = self._noted.was_begun(item.path)
        return None

    def _submit(self, items: list[Item]) -> None:
        if self._operation.writes:
            for item in items:
                # What is there now is another's, and the input is refused.
                item.ours = item.replaces or (item.output is not None and not is_there(item.output))
            if self._noted is not None:
                self._noted.begin(item.path for item in items if item.ours)
        self._engine.submit(self._operation, items)
        self._submitted += 1
        self._under_way += 1

    def _finished(self, items: Sequence[Item], results: Results) -> None:
        rows = []
        for item, (row, may_pass) in zip(items, results, strict=True):
            if may_pass and row.attempts < self._attempts:
                item.attempts = row.attempts
                self._later([item], row.attempts)
            else:
                rows.append(row)
        self._record(rows)

    def _lost(self, items: Sequence[Item], error: WorkerLost) -> None:
        """Halves what was lost, until a file that kills its worker is alone."""
        for item in items:
            item.attempts += 1
            item.replaces = item.ours
        if len(items) > 1:
            middle = len(items) // 2
            self._later(items[:middle], 0)
            self._later(items[middle:], 0)
            return
        item = items[0]
        item.deaths += 1
        if item.deaths < self._attempts:
            self._later(items, item.deaths)
            return
        said = f"its worker died {item.deaths} times with no other file in hand: {error}"
        row = Row(item.path, self._operation.name, "failed", output=item.output, error=said)
        self._record([replace(row, attempts=item.attempts)])

    def _record(self, rows: list[Row]) -> None:
        if self._noted is not None:
            self._noted.record(rows)
        self._rows.extend(rows)

    def _later(self, items: Sequence[Item], attempts: int) -> None:
        pause = _PAUSE * 2.0 ** (attempts - 1) if attempts else 0.0
        heapq.heappush(self._again, (time.monotonic() + pause, next(self._numbers), list(items)))

    def _due(self) -> list[Item] | None:
        if self._again and self._again[0][0] <= time.monotonic():
            return heapq.heappop(self._again)[2]
        return None


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

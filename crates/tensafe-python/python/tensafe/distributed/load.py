"""``load_sharded``: each rank its part of a model; ranks of one host read what they share once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from .. import _checkpoint
from .._errors import IoError, UsageError
from .._plan import Running
from .host import BLOCK, PAGE, Host, Ranges, Shared
from .parts import Part
from .rules import Rules, add

if TYPE_CHECKING:
    from .._checkpoint import Checkpoint

# Shapes, and the bytes of each tensor in the data of its file.
_Table = dict[str, tuple[tuple[int, ...], int, int]]
_SHARE = ("auto", "page-cache", "memfd", "none")
# Runs of a rank that lie further apart than this are read one by one.
_FAR = 256 << 10
# Blocks that each rank reads of a window: what is filled, and then taken from, at a time.
_WINDOW_BLOCKS = 2
# Bytes that ranks have in common of a file below which sharing costs more than it saves.
_WORTH_IT = 64 << 10


def load_sharded(
    path: str | os.PathLike[str],
    rules: Rules,
    *,
    rank: int | None = None,
    world: int | None = None,
    group: Any = None,
    share: str = "auto",
    framework: str = "torch",
    device: Any = "cpu",
    budget: int | str | None = None,
    timeout: float = 30.0,
    io: str = "auto",
    pad: bool = False,
) -> dict[str, Any]:
    """The tensors of a model that this rank holds by ``rules``, or its parts of them, in memory of their own.

    ``path`` is a file, a directory or an index of shards. Without ``rank`` and ``world`` they are those of ``group``, a
    process group of ``torch.distributed``, or of the default one; with them and no ``group`` the rank reads by itself.

    ``share`` says how the ranks of a host read what several of them need, such as row-parallel weights:

    - ``"memfd"``: each byte once, past the page cache, into memory of the host that is given back: up to three
      times 16 MiB for each rank, or the largest tensor that they share, and up to 20 MiB of each rank to read by. A rank's
      exclusive bytes go straight to its tensors.
    - ``"page-cache"``: all through the page cache, where the file system has one that ranks share.
    - ``"none"``: each rank by itself.
    - ``"auto"``: ``"memfd"`` where a group has several ranks on this host and the file is not in the page cache.

    All ranks call it, in the same order, with the same rules. ``timeout`` bounds, in seconds, how long one waits for
    others that do not come or do not go on: it then reads by itself, and has the same tensors. A rank that dies is
    noticed at once where it has come. ``budget`` is that of a plan, for what the memfd does not hold; ``io`` is
    ``"auto"``, ``"pread"`` or ``"direct"``; ``pad`` fills short parts up with zeros (:meth:`Rules.plan`).
    """
    return dict(
        iter_sharded(
            path,
            rules,
            rank=rank,
            world=world,
            group=group,
            share=share,
            framework=framework,
            device=device,
            budget=budget,
            timeout=timeout,
            io=io,
            pad=pad,
        )
    )


def iter_sharded(
    path: str | os.PathLike[str],
    rules: Rules,
    *,
    rank: int | None = None,
    world: int | None = None,
    group: Any = None,
    share: str = "auto",
    framework: str = "torch",
    device: Any = "cpu",
    budget: int | str | None = None,
    timeout: float = 30.0,
    io: str = "auto",
    pad: bool = False,
) -> Iterator[tuple[str, Any]]:
    """As :func:`load_sharded`, tensor by tensor, file after file; of each file first what ranks share."""
    if share not in _SHARE:
        raise UsageError(f'share "{share}" is invalid (expected one of: {", ".join(_SHARE)})')
    if io not in ("auto", "pread", "direct"):
        raise UsageError(f'io "{io}" is invalid (expected one of: auto, pread, direct)')
    joined = group is not None or (rank is None and world is None)
    rank, world = _ranks(rank, world, group)
    if share == "page-cache" or (share == "auto" and io == "pread"):
        share, io = "none", "pread"
    host = None
    if joined and share != "none" and sys.platform == "linux" and world > 1:
        host = Host.meet(group, rank, world, timeout)
    load = _Load(os.fspath(path), rules, rank, world, io, budget, pad, framework, device)
    return load.run(host, timeout, forced=share == "memfd")


def _ranks(rank: int | None, world: int | None, group: Any) -> tuple[int, int]:
    if (rank is None) != (world is None):
        raise UsageError("give rank= and world= together")
    if rank is not None and world is not None:
        return rank, world
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        raise UsageError(
            "torch.distributed is not initialised: give rank= and world=, or call init_process_group() first"
        )
    return torch.distributed.get_rank(group), torch.distributed.get_world_size(group)


class _Load:
    """What one call asks for."""

    def __init__(
        self,
        path: str,
        rules: Rules,
        rank: int,
        world: int,
        io: str,
        budget: int | str | None,
        pad: bool,
        framework: str,
        device: Any,
    ) -> None:
        self._checkpoint = _open(path, io)
        self._rules = rules
        self._rank = rank
        self._world = world
        self._budget = budget
        self._pad = pad
        self._framework = framework
        self._device = device
        self._local_ranks = 1

    def run(self, host: Host | None, timeout: float, *, forced: bool) -> Iterator[tuple[str, Any]]:
        if host is not None:
            self._local_ranks = len(host.peers)
        opened = self._checkpoint._checkpoint()
        files = self._checkpoint.files
        rows: list[_Table] = [{} for _ in files]
        for name, _, shape, file, start, end in opened.infos():
            rows[file][name] = (tuple(shape), start, end)
        for path, tensors in zip(files, rows, strict=True):
            if host is None or path is None:
                yield from self._read(self._checkpoint, tensors)
            else:
                yield from self._together(host, path, tensors, timeout, forced)

    def _read(self, checkpoint: Checkpoint, tensors: _Table) -> Iterator[tuple[str, Any]]:
        with self._start(checkpoint, tensors) as running:
            yield from running

    def _start(self, checkpoint: Checkpoint, tensors: _Table) -> Running:
        plan = checkpoint.plan(budget=self._budget, local_ranks=self._local_ranks)
        shapes = ((name, shape) for name, (shape, _, _) in tensors.items())
        add(plan, self._rules, shapes, self._rank, self._world, pad=self._pad)
        return Running(plan, self._framework, self._device, None, own=True)

    def _together(
        self, host: Host, path: str, tensors: _Table, timeout: float, forced: bool
    ) -> Iterator[tuple[str, Any]]:
        common = self._common(host, tensors)
        if sum(end - start for _, start, end in common.values()) < (1 if forced else _WORTH_IT):
            yield from self._read(self._checkpoint, tensors)
            return
        header, size = _header_bytes(path), os.stat(path).st_size
        windows = list(_windows(common, BLOCK * _WINDOW_BLOCKS * len(host.peers)))
        alone = {name: row for name, row in tensors.items() if name not in common}
        held: list[Shared | None] = []

        def join(window: _Table) -> None:
            mine = {name: row for name, row in window.items() if self._holds(name, row[0])}
            pages = [_pages(rows.values(), header, size) for rows in (window, mine)]
            shared = Shared.join(host, path, header, *pages, wanted=forced or self._is_cold(window))
            held.append(shared)
            if shared is not None:
                shared.fill()

        try:
            # What is this rank's alone is read meanwhile, ahead of the caller.
            with self._start(self._checkpoint, alone) as running:
                for window in windows[:1]:
                    join(window)
                for number, window in enumerate(windows):
                    for after in windows[number + 1 : number + 2]:
                        join(after)
                    yield from self._take(held[number], window, timeout)
                    # The one before: nobody waits for a rank that is only a little behind.
                    for before in held[max(number - 1, 0) : number]:
                        _leave(before, timeout)
                yield from running
            for shared in held[-1:]:
                _leave(shared, timeout)
        finally:
            for shared in held:
                if shared is not None:
                    shared.close()

    def _take(self, shared: Shared | None, window: _Table, timeout: float) -> Iterator[tuple[str, Any]]:
        """The tensors of a window out of memory that was filled, and from the file where that did not come."""
        left = dict(window)
        if shared is not None and shared.wait(timeout):
            try:
                for name, tensor in self._read(_checkpoint.open(shared.path, io="mmap"), window):
                    del left[name]
                    yield name, tensor
                return
            except IoError:
                # A rank that needs more of it than this one still writes there.
                pass
        yield from self._read(self._checkpoint, left)

    def _holds(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._rules.part(name, shape, self._rank, self._world) is not None

    def _common(self, host: Host, tensors: _Table) -> _Table:
        """The tensors that two of the peers, or more, have bytes of in common, in the order of the file. Every
        peer finds the same."""
        places = [self._rules.place(rank, self._world) for rank in host.peers]
        common = {}
        for name, row in sorted(tensors.items(), key=lambda item: item[1][1]):
            shape, start, end = row
            parts = [self._rules._part(name, shape, place) for place in places]
            if start < end and not _are_apart(parts, shape, end - start):
                common[name] = row
        return common

    def _is_cold(self, tensors: _Table) -> bool:
        """Whether most of these tensors would be read from storage."""
        plan = self._checkpoint.plan()
        for name in tensors:
            plan.add(name)
        rows = plan.explain().ranges
        cold = sum(row.needed for row in rows if row.why != "in memory already")
        return cold * 2 > plan.nbytes


def _are_apart(parts: list[Part | None], shape: tuple[int, ...], nbytes: int) -> bool:
    """Whether no two ranks read the same bytes of a tensor, whose parts are these."""
    held = [part for part in parts if part is not None and 0 not in part.shape(shape)]
    if len(held) < 2:
        return True
    dims = {part.cuts[0][0] if len(part.cuts) == 1 else None for part in held}
    dim = dims.pop()
    if dims or dim is None:
        return False
    rows = sorted(interval for part in held for interval in part.cuts[0][1])
    if any(a[1] > b[0] for a, b in pairwise(rows)):
        return False
    # Runs with small gaps between them are read in one go, with what is another rank's.
    position = nbytes / prod(shape[: dim + 1])
    alone = prod(shape[:dim]) == 1 and all(len(part.cuts[0][1]) == 1 for part in held)
    return alone or min(b - a for a, b in rows) * position > _FAR


def _leave(shared: Shared | None, timeout: float) -> None:
    if shared is not None:
        shared.leave(timeout)


def _windows(tensors: _Table, most: int) -> Iterator[_Table]:
    """Tensors in the order of the file, as many at a time as have ``most`` bytes or a little more."""
    window: _Table = {}
    size = 0
    for name, row in tensors.items():
        window[name] = row
        size += row[2] - row[1]
        if size >= most:
            yield window
            window, size = {}, 0
    if window:
        yield window


def _open(path: str, io: str) -> Checkpoint:
    return _checkpoint.open(path, owned=True) if io == "auto" else _checkpoint.open(path, io=io)


def _header_bytes(path: str) -> int:
    """From where on a file's data are."""
    with open(path, "rb", buffering=0) as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _pages(tensors: Iterable[tuple[tuple[int, ...], int, int]], header: int, size: int) -> Ranges:
    """The pages of a file that tensors are in, as ranges of bytes, and one where two touch; ascending."""
    rows: Ranges = []
    for _, first, last in tensors:
        start, end = (header + first) // PAGE * PAGE, min(-(-(header + last) // PAGE) * PAGE, size)
        if rows and start <= rows[-1][1]:
            rows[-1] = (rows[-1][0], max(end, rows[-1][1]))
        else:
            rows.append((start, end))
    return rows

"""What a child is timed at: the finish lines, the same for who maps lazily and who reads eagerly.

Every action takes a task, loads a small file first, tells the driver that it is ready, waits for the
word, and returns its figures. The clock runs around the load alone: neither around imports, nor around
the memory that is made ready before, nor around the comparison of bytes after.
"""

from __future__ import annotations

import gc
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loaders
import numpy as np
import torch
from files import Entry, cut_of, entries, tensors
from measure import Counters, Sampler, clear_peak, remove, slabs, status

Row = dict[str, Any]
# Tells the driver how far a child is, and returns at its word.
Pause = Callable[[], None]


@dataclass
class Task:
    """What the driver asks for. Paths are those of the cell's file; ``small`` those of the first load."""

    action: str
    way: str = ""
    path: str = ""
    paths: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    small: str = ""
    select: str = "all"
    rank: int = 1
    world: int = 4
    durable: bool = False
    check: bool = False
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> loaders.Source:
        return loaders.Source(self.path, self.paths)

    @property
    def first(self) -> loaders.Source:
        return loaders.Source(self.small, [self.small])


class WrongBytesError(Exception):
    """A loader's tensors are not those of the file."""


def as_bytes(tensor: Any) -> np.ndarray[Any, Any]:
    """The elements in row-major order as bytes; a copy where they are not contiguous."""
    if isinstance(tensor, torch.Tensor):
        return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)


def words(tensor: Any) -> int:
    """The one kernel that consumes: the sum of a tensor's 64-bit words, on one thread."""
    data = as_bytes(tensor)
    whole = data.size & ~7
    return int(data[:whole].view(np.uint64).sum(dtype=np.uint64)) + int(data[whole:].sum(dtype=np.uint64))


def pairs(loaded: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of what a loader returned: a dict, or a stream."""
    return iter(loaded.items()) if isinstance(loaded, dict) else loaded


def compare(loaded: Iterable[tuple[str, Any]], expected: dict[str, Entry], cuts: loaders.Cuts) -> None:
    """Every tensor, byte by byte, with what positioned reads find; raises :class:`WrongBytesError`."""
    seen = set()
    for name, tensor in loaded:
        entry = expected[name]
        data = np.frombuffer(entry.read(), np.uint8).reshape(*entry.shape, -1)
        if name in cuts:
            dim, rank, world = cuts[name]
            length = entry.shape[dim] // world
            part = slice(rank * length, (rank + 1) * length)
            data = data[part] if dim == 0 else data[:, part]
        if list(tensor.shape) != list(data.shape[:-1]) or not np.array_equal(
            as_bytes(tensor), np.ascontiguousarray(data).reshape(-1)
        ):
            raise WrongBytesError(f"tensor `{name}` differs from the file")
        seen.add(name)
    if missing := expected.keys() - seen:
        raise WrongBytesError(f"{len(missing)} tensors are missing")


class Clock:
    """Waits for the driver's word, then measures a block; laps are seconds since its start."""

    def __init__(self, pause: Pause) -> None:
        gc.collect()
        clear_peak()
        self._pause = pause
        pause()
        self._before = Counters.now()
        self._start = time.perf_counter()

    def lap(self) -> float:
        return time.perf_counter() - self._start

    def stop(self) -> Row:
        wall = self.lap()
        row = {"wall": wall, **self._before.since(), "hwm": status("VmHWM")}
        # What comes now, such as the comparison of bytes, is not to be seen in the peak of memory, nor to
        # disturb another rank.
        self._pause()
        return row


def consume(task: Task, pause: Pause) -> Row:
    """T1, the dict is returned, and T2, every byte is consumed, in the order of the file."""
    load = loaders.LOADERS[task.way].prepare()
    _warm_up(load, task)
    clock = Clock(pause)
    loaded = load(task.source)
    # A stream hands out nothing before it is consumed.
    returned = clock.lap() if isinstance(loaded, dict) else None
    digest = total = 0
    for _, tensor in pairs(loaded):
        digest += words(tensor)
        total += tensor.nbytes
    row = clock.stop() | {"returned": returned, "digest": digest % (1 << 64), "bytes": total}
    _check(load, loaded, task)
    return row


def twice(task: Task, pause: Pause) -> Row:
    """T1 of a first and of a second load in one process; the first result is dropped in between."""
    load = loaders.LOADERS[task.way].prepare()
    _warm_up(load, task)
    clock = Clock(pause)
    loaded: Any = dict(pairs(load(task.source)))
    first = clock.stop()
    first["bytes"] = sum(tensor.nbytes for tensor in loaded.values())
    loaded = None
    gc.collect()
    start = time.perf_counter()
    loaded = dict(pairs(load(task.source)))
    first["second"] = time.perf_counter() - start
    _check(load, loaded, task)
    return first


def copied(task: Task, pause: Pause) -> Row:
    """T3: every tensor is copied into a parameter whose memory is there and was touched."""
    load = loaders.LOADERS[task.way].prepare()
    parameters = tensors(entries(task.reference))
    for parameter in parameters.values():
        parameter.zero_()
    _warm_up(load, task)
    clock = Clock(pause)
    loaded = load(task.source)
    with torch.no_grad():
        for name, tensor in pairs(loaded):
            parameters[name].copy_(tensor)
    row = clock.stop() | {"bytes": sum(tensor.nbytes for tensor in parameters.values())}
    if task.check:
        compare(parameters.items(), entries(task.reference), {})
    return row


def cut(task: Task, pause: Pause) -> Row:
    """One rank's part of every projection, contiguous and consumed; ``needed`` is its bytes."""
    load = loaders.CUTTERS[task.way].prepare()
    cuts, small = (_cuts(task, paths) for paths in (task.reference, [task.small]))
    for _, tensor in pairs(load(task.first, small)):
        words(tensor)
    clock = Clock(pause)
    loaded = load(task.source, cuts)
    digest = total = 0
    for _, tensor in pairs(loaded):
        digest += words(tensor)
        total += tensor.nbytes
    row = clock.stop() | {"digest": digest % (1 << 64), "bytes": total, "parts": len(cuts)}
    if isinstance(load, loaders.PlannedCut):
        row["planned"] = load.planned
    if task.check:
        expected = {name: entry for name, entry in entries(task.reference).items() if name in cuts}
        compare(pairs(loaded), expected, cuts)
    return row


def _cuts(task: Task, paths: list[str]) -> loaders.Cuts:
    dims = {name: cut_of(name, task.select) for name in entries(paths)}
    return {name: (dim, task.rank, task.world) for name, dim in dims.items() if dim is not None}


def save(task: Task, pause: Pause) -> Row:
    """Writes a state dict that is in memory; ``durable`` until file and directory are on the disk."""
    write = loaders.SAVERS[task.way].prepare()
    state = tensors(entries(task.reference))
    write(tensors(entries([task.small])), task.path, task.durable)
    remove(Path(task.path))
    clock = Clock(pause)
    write(state, task.path, task.durable)
    row = clock.stop() | {"bytes": sum(tensor.nbytes for tensor in state.values())}
    if task.check:
        kind = loaders.SAVERS[task.way].kind
        reader = {"safetensors": "safetensors-mmap", "pth": "torch-mmap", "tensors": "tensorizer"}[kind]
        read = loaders.LOADERS[reader].prepare()
        compare(pairs(read(loaders.Source(task.path, [task.path]))), entries(task.reference), {})
    return row


def budget(task: Task, pause: Pause) -> Row:
    """The peak of memory beyond what the consumer holds, who drops each tensor after it is consumed."""
    load = loaders.LOADERS[task.way].prepare()
    for _, tensor in pairs(load(task.first)):
        words(tensor)
    held = digest = total = 0
    with Sampler("self", lambda: held) as sampler:
        clock = Clock(pause)
        for _, tensor in pairs(load(task.source)):
            held = tensor.nbytes
            digest += words(tensor)
            total += held
            # The name would hold it while the next one is made.
            del tensor
            held = 0
        row = clock.stop()
    row |= {"digest": digest % (1 << 64), "bytes": total, "beyond": sampler.peak}
    _check(load, {}, task)
    return row


def read(task: Task, pause: Pause) -> Row:
    """A limit: what ``cp`` does to read, buffered, into one piece of memory again and again."""
    buffer = bytearray(8 << 20)
    handle = os.open(task.path, os.O_RDONLY)
    clock = Clock(pause)
    total = 0
    while count := os.preadv(handle, [buffer], total):
        total += count
    row = clock.stop() | {"bytes": total}
    os.close(handle)
    return row


def summed(task: Task, pause: Pause) -> Row:
    """A limit: direct reads, four at once, each summed before its memory is read into again."""
    block, readers = 8 << 20, 4
    handle = os.open(task.path, os.O_RDONLY | os.O_DIRECT)
    memory = slabs(2 * readers, block)
    under_way: deque[tuple[mmap.mmap, Future[int]]] = deque()

    def consumed() -> int:
        slab, read = under_way.popleft()
        count = read.result()
        words(np.frombuffer(slab, np.uint8, count))
        return count

    with ThreadPoolExecutor(readers) as pool:
        clock = Clock(pause)
        total = 0
        for number, offset in enumerate(range(0, os.path.getsize(task.path), block)):
            if len(under_way) == len(memory):
                total += consumed()
            slab = memory[number % len(memory)]
            under_way.append((slab, pool.submit(os.preadv, handle, [slab], offset)))
        while under_way:
            total += consumed()
        row = clock.stop() | {"bytes": total}
    os.close(handle)
    return row


def memcpy(task: Task, pause: Pause) -> Row:
    """A limit: a copy on one thread from the page cache, mapped before, to memory touched before."""
    with open(task.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ)
    source = np.frombuffer(mapped, np.uint8)
    target = np.empty_like(source)
    target.fill(1)
    clock = Clock(pause)
    np.copyto(target, source)
    return clock.stop() | {"bytes": source.size}


def write(task: Task, pause: Pause) -> Row:
    """A limit: buffered writes of as many bytes, from one piece of memory again and again."""
    size = sum(os.path.getsize(path) for path in task.reference)
    block = np.random.default_rng(0).bytes(8 << 20)
    clock = Clock(pause)
    handle = os.open(task.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    done = 0
    while done < size:
        done += os.write(handle, memoryview(block)[: size - done])
    if task.durable:
        os.fsync(handle)
    os.close(handle)
    return clock.stop() | {"bytes": size}


def _warm_up(load: Any, task: Task) -> None:
    for _, tensor in pairs(load(task.first)):
        words(tensor)


def _check(load: Any, loaded: Any, task: Task) -> None:
    """What was timed is compared; a stream is gone and is loaded once more."""
    if task.check:
        again = loaded if isinstance(loaded, dict) and loaded else load(task.source)
        compare(pairs(again), entries(task.reference), {})


ACTIONS: dict[str, Callable[[Task, Pause], Row]] = {
    action.__name__: action
    for action in (consume, twice, copied, cut, save, budget, read, summed, memcpy, write)
}

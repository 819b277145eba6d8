"""The files of a model, what parts of tensors they have, and reading of such parts."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .._checkpoint import Checkpoint
from .._checkpoint import open as _open
from .._errors import FormatError, MissingFileError, UnsupportedError, UsageError
from .._plan import Plan, Running
from ..torch import _PACKED, _TYPES

# What torch's writer puts into a header: where in the whole tensor the part of a file begins.
SHARDING = "DCP_SHARDING_INFO"
OFFSETS = "saved_offsets"
INDEX = "model.safetensors.index.json"

_SHARD_FILE = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors\Z")
# Files that hold parts of one tensor are plans of their own: so many are read at once.
_AT_ONCE = 4
# Bytes of tensors on the way to memory that bytes of a file cannot be read into, of all plans under way, unless one
# is larger.
_BUDGET = 1 << 30
_MOST = (1 << 63) - 1


@dataclass(frozen=True)
class Chunk:
    """The part of a tensor that a file has: offset and shape in elements of torch."""

    file: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass
class Stored:
    """A tensor of one file or of several."""

    code: str
    """The dtype as the header calls it."""
    shape: tuple[int, ...]
    """Of the whole, in elements of torch."""
    chunks: list[Chunk]

    @property
    def dtype(self) -> torch.dtype:
        return _TYPES[self.code]


@dataclass(frozen=True)
class Part:
    """A part of a tensor of a file that is wanted, and what is done with it."""

    file: str
    name: str
    offset: tuple[int, ...]
    """Within what the file has, in elements of torch."""
    shape: tuple[int, ...]
    out: torch.Tensor | None
    """Memory to read into; ``done`` gets a tensor of its own without it."""
    done: Callable[[torch.Tensor], None]


@dataclass
class Files:
    """The open files of a model, each in a checkpoint of its own, or all in one."""

    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Files:
        """Opens a file, an index of shards, or a directory: the files that its index names, or all of it."""
        path = os.fspath(path)
        if not os.path.isdir(path):
            return cls._of(_opened(path))
        names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors") and name[0] != ".")
        if os.path.exists(os.path.join(path, INDEX)):
            if parts := [name for name in names if _SHARD_FILE.match(name)]:
                raise UsageError(
                    f"{path}: there are both {INDEX} and files of ranks, such as {parts[0]}: remove those that"
                    " are of an older save, or give the path of the index"
                )
            return cls._of(_opened(path))
        if not names:
            raise no_files(path)
        files = cls()
        for name in names:
            files.open(os.path.join(path, name))
        known = Counter(name for checkpoint in files.checkpoints.values() for name in checkpoint)
        if len(names) > 1 and "model.safetensors" not in names and all(n == 1 for n in known.values()):
            # No name twice: one checkpoint, and so one plan.
            return cls._of(_opened(path))
        return files

    @classmethod
    def _of(cls, checkpoint: Checkpoint) -> Files:
        return cls({file: checkpoint for file in checkpoint.files if file is not None})

    def open(self, file: str) -> Checkpoint:
        if file not in self.checkpoints:
            self.checkpoints[file] = _opened(file)
        return self.checkpoints[file]

    def stored(self) -> dict[str, Stored]:
        """All tensors by name, from headers alone."""
        found: dict[str, Stored] = {}
        for checkpoint in dict.fromkeys(self.checkpoints.values()):
            files = [str(file) for file in checkpoint.files]
            sharding = _sharding(checkpoint, files)
            for name, code, sizes, number, _, _ in checkpoint._checkpoint().infos():
                file = files[number]
                if code not in _TYPES:
                    raise UnsupportedError(f"{file}: tensor `{name}`: this version of torch has no {code}")
                shape = _torch_shape(code, sizes)
                offset = _offset(file, name, shape, sharding.get(file))
                _add(found, name, code, Chunk(file, offset, shape))
        for name, stored in found.items():
            _settle(name, stored)
        return found


def _opened(path: str) -> Checkpoint:
    """Opens files to be read: a small tensor of a cold mapping would have the kernel read far beyond it, a second time."""
    return _open(path, owned=True)


def _sharding(checkpoint: Checkpoint, files: list[str]) -> dict[str, Any]:
    """What the header of each file says of the places of its tensors, where one says it."""
    if SHARDING not in checkpoint.metadata:
        return {}
    # The metadata of a checkpoint of several files are the first one's.
    single = [checkpoint] if len(files) == 1 else [_opened(file) for file in files]
    rows = {}
    for file, opened in zip(files, single, strict=True):
        if SHARDING in opened.metadata:
            try:
                rows[file] = json.loads(opened.metadata[SHARDING])
            except (ValueError, RecursionError) as error:
                raise broken(file, f"metadata {SHARDING} are no JSON: {error}") from None
    return rows


def _offset(file: str, name: str, shape: tuple[int, ...], sharding: Any) -> tuple[int, ...]:
    if sharding is None:
        return (0,) * len(shape)
    row = sharding.get(name) if isinstance(sharding, dict) else None
    offset = row.get(OFFSETS) if isinstance(row, dict) else None
    if not isinstance(offset, list) or len(offset) != len(shape):
        raise broken(file, f"metadata {SHARDING} have no offset of {len(shape)} dimensions", name)
    for start, size in zip(offset, shape, strict=True):
        if type(start) is not int or not 0 <= start <= _MOST - size:
            raise broken(file, f"metadata {SHARDING} have the offset {str(offset)[:200]}", name)
    return tuple(offset)


def _add(found: dict[str, Stored], name: str, code: str, chunk: Chunk) -> None:
    end = tuple(start + size for start, size in zip(chunk.offset, chunk.shape, strict=True))
    stored = found.setdefault(name, Stored(code, end, []))
    first = stored.chunks[0] if stored.chunks else chunk
    if stored.code != code or len(end) != len(stored.shape):
        was, now = f"{stored.code} {list(first.shape)}", f"{code} {list(chunk.shape)}"
        raise broken(chunk.file, f"a part {now}, in {first.file} one {was}", name)
    stored.shape = tuple(max(sizes) for sizes in zip(stored.shape, end, strict=True))
    stored.chunks.append(chunk)


def _settle(name: str, stored: Stored) -> None:
    """Keeps one of equal parts, and checks that parts make up the tensor."""
    if len(stored.chunks) == 1 and stored.chunks[0].shape == stored.shape:
        return
    # Ranks that keep the same part may all have written it; and parts of nothing are of no use.
    different = {(chunk.offset, chunk.shape): chunk for chunk in reversed(stored.chunks)}
    chunks = [chunk for chunk in reversed(different.values()) if math.prod(chunk.shape) > 0]
    stored.chunks = chunks or stored.chunks[:1]
    if pair := _overlapping(chunks):
        rows = " and ".join(
            f"{Path(chunk.file).name} {list(chunk.shape)} at {list(chunk.offset)}" for chunk in pair
        )
        raise broken(pair[0].file, f"parts overlap, {rows}: they may be of several saves", name)
    elements, needed = sum(math.prod(chunk.shape) for chunk in chunks), math.prod(stored.shape)
    if elements != needed:
        files = ", ".join(Path(chunk.file).name for chunk in chunks[:4])
        files += ", …" if len(chunks) > 4 else ""
        raise broken(
            stored.chunks[0].file,
            f"parts in {files} hold {elements} elements, the shape {list(stored.shape)} needs {needed}: a file is"
            " missing",
            name,
        )


def _overlapping(chunks: list[Chunk]) -> tuple[Chunk, Chunk] | None:
    """Two parts, none of them empty, that have an element in common."""
    if len(chunks) < 2:
        return None
    # Along the dimension that is cut most, few parts are beside another.
    dim = max(range(len(chunks[0].shape)), key=lambda dim: len({chunk.offset[dim] for chunk in chunks}))
    beside: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset[dim]):
        beside = [other for other in beside if other.offset[dim] + other.shape[dim] > chunk.offset[dim]]
        for other in beside:
            sides = zip(chunk.offset, chunk.shape, other.offset, other.shape, strict=True)
            if all(a < b + count and b < a + size for a, size, b, count in sides):
                return other, chunk
        beside.append(chunk)
    return None


def read(files: Files, parts: Iterable[Part]) -> None:
    """Reads all parts: those of one checkpoint in one plan, unless a name comes twice or devices differ."""
    groups: dict[tuple[int, int, str], tuple[Checkpoint, list[Part]]] = {}
    times: Counter[tuple[int, str]] = Counter()
    for part in parts:
        checkpoint = files.open(part.file)
        turn = times[id(checkpoint), part.name]
        times[id(checkpoint), part.name] += 1
        device = "cpu" if part.out is None else str(part.out.device)
        groups.setdefault((id(checkpoint), turn, device), (checkpoint, []))[1].append(part)
    under_way: deque[tuple[Running, dict[str, Part]]] = deque()
    try:
        for (_, _, device), (checkpoint, group) in groups.items():
            running = _plan(checkpoint, group, _BUDGET // min(len(groups), _AT_ONCE)).execute("torch", device)
            under_way.append((running, {part.name: part for part in group}))
            if len(under_way) == _AT_ONCE:
                _finish(under_way)
        while under_way:
            _finish(under_way)
    finally:
        for running, _ in under_way:
            running.close()


def _finish(under_way: deque[tuple[Running, dict[str, Part]]]) -> None:
    running, parts = under_way[0]
    for name, tensor in running:
        parts[name].done(tensor)
    running.close()
    under_way.popleft()


def _plan(checkpoint: Checkpoint, parts: list[Part], budget: int) -> Plan:
    beside = [checkpoint[part.name] for part in parts if part.out is None]
    most = max([budget, *(2 * tensor.nbytes for tensor in beside)]) if beside else None
    plan = checkpoint.plan(budget=most)
    for part in parts:
        code, shape, _, _ = checkpoint._checkpoint().info(part.name)
        whole = part.shape == _torch_shape(code, shape)
        ranges = [slice(start, start + size) for start, size in zip(part.offset, part.shape, strict=True)]
        if ranges and _TYPES[code] in _PACKED:
            ranges[-1] = slice(2 * ranges[-1].start, 2 * ranges[-1].stop)
        plan.add(part.name, index=None if whole else tuple(ranges))
        if part.out is not None:
            plan.into(part.name, part.out)
    return plan


def _torch_shape(code: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape of a header as torch has it, which counts bytes of packed elements."""
    sizes = tuple(shape)
    return (*sizes[:-1], sizes[-1] // 2) if sizes and _TYPES[code] in _PACKED else sizes


def copy(out: torch.Tensor, tensor: torch.Tensor) -> None:
    if tensor.dtype in _PACKED and out.dtype == tensor.dtype:
        # torch copies none of them.
        out, tensor = out.view(torch.uint8), tensor.view(torch.uint8)
    with torch.no_grad():
        out.copy_(tensor)


def broken(file: str, text: str, name: str | None = None) -> FormatError:
    error = FormatError(f"{file}: {text}" if name is None else f"{file}: tensor `{name}`: {text}")
    error.path, error.tensor = file, name
    return error


def no_files(path: str | os.PathLike[str]) -> MissingFileError:
    error = MissingFileError(f"{os.fspath(path)}: no *.safetensors files")
    error.path = error.filename = os.fspath(path)
    return error

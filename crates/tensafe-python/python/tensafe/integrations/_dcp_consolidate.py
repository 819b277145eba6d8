"""Whole tensors made of the parts that ranks wrote."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._errors import UsageError
from .._tensafe import Writer
from ..torch import _PACKED, _lendable
from ._dcp_files import INDEX, Chunk, Files, Part, Stored, copy, no_files, read

# Bytes that are held of each file that is written.
_BATCH = 64 << 20


def each(threads: int, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
    if threads <= 1 or len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(function, items))


def file_name(number: int, last: int, shard: int | None = None) -> str:
    name = f"model-{number:05}-of-{last:05}.safetensors"
    return name if shard is None else f"shard-{shard:05}-{name}"


def write_index(directory: Path, places: Mapping[str, str], total: int, durable: bool) -> None:
    """An index of shards, which is there as a whole or not at all."""
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": dict(places)}, indent=2)
    beside = directory / f".{INDEX}.{uuid.uuid4().hex}"
    try:
        with beside.open("w") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(directory / INDEX)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def consolidate(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    fqn_to_index_mapping: dict[str, int] | None = None,
    num_threads: int = 1,
    *,
    durable: bool = True,
) -> None:
    """Makes whole tensors of the files that ranks wrote, and an index of shards, in ``output_dir``.

    ``fqn_to_index_mapping`` has the number of the file, from 1, of each tensor; all are in one without it. Of what the
    mapping lacks nothing is written. Parts are read and written by 64 MiB for each of ``num_threads`` files that are
    written at once; no tensor is in memory as a whole. The tensors are those of torch's
    ``consolidate_safetensors_files``; headers are sorted as safetensors are, and say ``"format": "pt"``.

    Errors: :class:`tensafe.UsageError` for a name that no file has, :class:`tensafe.FormatError` where the
    parts of a tensor do not make it up.
    """
    names = sorted(name for name in os.listdir(input_dir) if name.endswith(".safetensors") and name[0] != ".")
    if not names:
        raise no_files(input_dir)
    files = [os.path.join(input_dir, name) for name in names]
    os.makedirs(output_dir, exist_ok=True)
    consolidate_files(files, Path(output_dir), fqn_to_index_mapping, num_threads, durable)


def consolidate_files(
    paths: list[str], output: Path, mapping: dict[str, int] | None, threads: int, durable: bool
) -> None:
    files = Files()
    for path in paths:
        files.open(path)
    found = files.stored()
    numbers = dict.fromkeys(found, 1) if mapping is None else mapping
    last = max(numbers.values(), default=1)
    outputs: dict[str, dict[str, Stored]] = {}
    for name, number in numbers.items():
        if name not in found:
            raise UsageError(f"tensor `{name}` of fqn_to_index_mapping is in none of {len(paths)} files")
        outputs.setdefault(file_name(number, last), {})[name] = found[name]

    def make(file: str) -> None:
        _write_whole(files, output / file, outputs[file], durable)

    each(threads, make, list(outputs))
    total = sum(
        _nbytes(stored.dtype, stored.shape) for table in outputs.values() for stored in table.values()
    )
    places = {name: file for file, table in outputs.items() for name in table}
    write_index(output, places, total, durable)


@dataclass(frozen=True)
class _Block:
    """What of a tensor is contiguous in a file, and is read and written at once."""

    name: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    """In bytes, from the tensor's first."""
    nbytes: int


def _write_whole(files: Files, path: Path, table: dict[str, Stored], durable: bool) -> None:
    specs = []
    for name, stored in table.items():
        shape = list(stored.shape)
        if shape and stored.dtype in _PACKED:
            shape[-1] *= 2
        specs.append((name, stored.code, shape))
    writer = Writer(path, specs, {"format": "pt"}, durable=durable)
    try:
        for batch in _batches(table):
            memory = torch.empty(sum(_padded(block.nbytes) for block in batch), dtype=torch.uint8)
            parts, at = [], 0
            for block in batch:
                stored = table[block.name]
                out = memory[at : at + block.nbytes].view(stored.dtype).view(block.shape)
                parts += [part for chunk in stored.chunks if (part := _common(stored, chunk, block, out))]
                at += _padded(block.nbytes)
            read(files, parts)
            at = 0
            for block in batch:
                writer.write(block.name, memory[at : at + block.nbytes].numpy(), block.start)
                at += _padded(block.nbytes)
        writer.finish()
    finally:
        # After `finish` there is nothing to drop.
        writer.abort()


def _padded(count: int) -> int:
    """So that the next block begins where elements of any dtype may."""
    return -(-count // 64) * 64


def _nbytes(dtype: torch.dtype, shape: Iterable[int]) -> int:
    return math.prod(shape) * dtype.itemsize


def _batches(table: dict[str, Stored]) -> Iterator[list[_Block]]:
    """Blocks that are read together, of `_BATCH` bytes or less, and each of another tensor."""
    batch: list[_Block] = []
    held = 0
    for name, stored in table.items():
        if math.prod(stored.shape) == 0:
            continue
        for block in _blocks(name, stored.dtype.itemsize, stored.shape):
            if batch and (held + block.nbytes > _BATCH or batch[-1].name == name):
                yield batch
                batch, held = [], 0
            batch.append(block)
            held += block.nbytes
    if batch:
        yield batch


def _blocks(name: str, itemsize: int, shape: tuple[int, ...]) -> Iterator[_Block]:
    """A tensor in blocks of `_BATCH` bytes or less: as many rows as fit, of the first dimension whose do."""
    for cut in range(len(shape) + 1):
        row = math.prod(shape[cut + 1 :]) * itemsize
        if row <= _BATCH or cut >= len(shape) - 1:
            break
    if not shape:
        yield _Block(name, (), (), 0, itemsize)
        return
    rows = max(_BATCH // row, 1)
    outer = math.prod(shape[:cut])
    for number in range(outer):
        before, left = [], number
        for size in reversed(shape[:cut]):
            before.append(left % size)
            left //= size
        for first in range(0, shape[cut], rows):
            count = min(rows, shape[cut] - first)
            offset = (*reversed(before), first, *(0 for _ in shape[cut + 1 :]))
            part = (*(1 for _ in before), count, *shape[cut + 1 :])
            yield _Block(name, offset, part, (number * shape[cut] + first) * row, count * row)


def _common(stored: Stored, chunk: Chunk, block: _Block, out: torch.Tensor) -> Part | None:
    """What a chunk has of a block, to be read into the block's place in `out`."""
    starts = [max(pair) for pair in zip(chunk.offset, block.offset, strict=True)]
    ends = [
        min(a + size, b + count)
        for a, size, b, count in zip(chunk.offset, chunk.shape, block.offset, block.shape, strict=True)
    ]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        return None
    shape = tuple(end - start for start, end in zip(starts, ends, strict=True))
    within = tuple(start - at for start, at in zip(starts, chunk.offset, strict=True))
    place = out[tuple(slice(a - b, c - b) for a, b, c in zip(starts, block.offset, ends, strict=True))]

    def done(tensor: torch.Tensor) -> None:
        if tensor is not place:
            copy(place, tensor)

    direct = place if _lendable(place, stored.code) is not None else None
    return Part(chunk.file, block.name, within, shape, direct, done)

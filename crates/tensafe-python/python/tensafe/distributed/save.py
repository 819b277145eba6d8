"""``save_sharded``: one file, or the shards of the Hub, that every rank writes its parts of."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import CancelledError, IoError, UsageError
from .._writer import Writer
from .host import _alive, _who
from .parts import Part, Place, Placed, Rule
from .rules import Rules, placed

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
# Calls so far of each store: all ranks count the same.
_calls: dict[int, tuple[Any, int]] = {}


def save_sharded(
    tensors: Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    *,
    rules: Rules | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    group: Any = None,
    max_shard_size: int | str | None = None,
    metadata: dict[str, str] | None = None,
    durable: bool = True,
    timeout: float = 300.0,
) -> None:
    """Writes the whole tensors of which each rank has its parts: the bytes that ``tensafe.torch.save_file`` writes
    of all of them. All ranks of ``group`` call it, in the same order.

    ``tensors`` are this rank's: DTensors, which know where they belong, or plain tensors that are the parts by
    ``rules``; without rules, every rank has the whole. The whole shapes follow from all parts; where they do not, give
    ``shapes``. What several ranks hold is written by one of them.

    With ``max_shard_size``, such as ``"5GB"``, ``path`` is a directory that gets ``model-00001-of-0000N.safetensors`` and
    ``model.safetensors.index.json``, or ``model.safetensors`` alone if all fits. Each file is there as a whole or not at all, and
    the index is the last.

    An error of one rank is raised by all, and leaves the old file. So is the death of a rank, at once on the leader's host, else
    after ``timeout`` seconds. Parts of other dimensions than the first are written run by run: costly where
    runs are short. Ranks must see the same file system.
    """
    ranks = _Ranks(group, timeout)
    table = _Table(tensors, rules, shapes, ranks)
    target = Path(path)
    if max_shard_size is None:
        _write(target, list(table.rows), table, ranks, metadata, durable, "file")
        return
    files = _split(table, _bytes(max_shard_size))
    if ranks.rank == 0:
        target.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        weight_map |= dict.fromkeys(names, name)
        _write(target / name, names, table, ranks, metadata, durable, name)
    if len(files) > 1 and ranks.rank == 0:
        total = sum(row.nbytes for row in table.rows.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _replace(target / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n", durable)
    ranks.meet("index")


class _Row(NamedTuple):
    """A whole tensor: dtype as torch calls it, shape, bytes, and what each rank holds of it."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    parts: list[Part | None]

    def writer(self, name: str, rank: int) -> bool:
        """Whether ``rank`` is the one that writes its part: of those that hold the same, one by the name."""
        holders = [number for number, part in enumerate(self.parts) if part == self.parts[rank]]
        return holders[zlib.crc32(name.encode()) % len(holders)] == rank


class _Ranks:
    """The ranks of a group, which tell each other things by its store."""

    def __init__(self, group: Any, timeout: float) -> None:
        import torch.distributed as dist
        from torch.distributed import distributed_c10d

        if not dist.is_available() or not dist.is_initialized():
            raise UsageError("torch.distributed is not initialised: call init_process_group() first")
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        self._store = distributed_c10d._get_process_group_store(
            group or distributed_c10d._get_default_group()
        )
        known, calls = _calls.get(id(self._store), (None, 0))
        calls = calls + 1 if known is self._store else 1
        _calls[id(self._store)] = self._store, calls
        self._prefix = f"tensafe/save/{calls}"
        self._timeout = timeout
        self._processes: dict[int, dict[str, Any]] = {}

    def tell(self, what: str, value: Any) -> None:
        self._store.set(
            f"{self._prefix}/{what}/{self.rank}",
            b85encode(zlib.compress(json.dumps(value).encode())).decode(),
        )

    def ask(self, what: str, rank: int) -> Any:
        """What a rank told, or will tell; its death, and silence for too long, are errors."""
        key, deadline = f"{self._prefix}/{what}/{rank}", time.monotonic() + self._timeout
        try:
            while not self._store.check([key]):
                process = self._processes.get(rank)
                dead = process is not None and process["host"] == _who()["host"] and not _alive(process)
                if dead and not self._store.check([key]):
                    raise CancelledError(f"rank {rank} has ended before it was done with {what}")
                if time.monotonic() > deadline:
                    raise CancelledError(f"rank {rank} did not come to {what} within {self._timeout:.0f} s")
                time.sleep(0.005)
            return json.loads(zlib.decompress(b85decode(self._store.get(key))))
        except RuntimeError as error:
            raise IoError(f"the store of the group does not answer: {error}") from None

    def all(self, what: str, value: Any) -> list[Any]:
        """What all ranks tell."""
        self.tell(what, value)
        return [self.ask(what, rank) for rank in range(self.world)]

    def know(self, processes: list[dict[str, Any]]) -> None:
        self._processes = dict(enumerate(processes))

    def meet(self, what: str) -> None:
        self.all(what, None)


class _Table:
    """All tensors of all ranks, by name in the order of the ranks."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        rules: Rules | None,
        shapes: Mapping[str, Sequence[int]] | None,
        ranks: _Ranks,
    ) -> None:
        placed = {name: _placement(tensor) for name, tensor in tensors.items()}
        self.local = {name: _local(tensor) for name, tensor in tensors.items()}
        told = {
            name: (
                str(local.dtype).removeprefix("torch."),
                list(local.shape),
                placed[name],
                local.element_size(),
            )
            for name, local in self.local.items()
        }
        answers = ranks.all("tensors", {"process": _who(), "tensors": told})
        ranks.know([answer["process"] for answer in answers])
        rules = rules or Rules()
        places = [rules.place(rank, ranks.world) for rank in range(ranks.world)]
        names = dict.fromkeys(name for answer in answers for name in answer["tensors"])
        self.rows: dict[str, _Row] = {}
        for name in names:
            held = [answer["tensors"].get(name) for answer in answers]
            self.rows[name] = _row(name, held, rules, places, None if shapes is None else shapes.get(name))


def _row(name: str, held: list[Any], rules: Rules, places: list[Place], shape: Sequence[int] | None) -> _Row:
    first = next(row for row in held if row is not None)
    dtype, _, placement, element = first
    if any(row is not None and (row[0] != dtype or row[2] != placement) for row in held):
        raise UsageError(f"tensor `{name}`: ranks have it in different dtypes, or placed differently")
    locals_ = [None if row is None else tuple(row[1]) for row in held]
    if placement is not None:
        whole, rows, mesh, numbers = placement
        rule: Rule = _placed_rule(rows, mesh, numbers)
        parts = [rule.part(name, tuple(whole), place) for place in places]
        if not _fit(parts, tuple(whole), locals_):
            raise UsageError(
                f"tensor `{name}`: the local tensors {locals_} are not those of a DTensor of {whole}"
            )
        return _Row(dtype, tuple(whole), prod(whole) * element, parts)
    candidates = [tuple(shape)] if shape is not None else _candidates(locals_)
    for candidate in candidates:
        try:
            parts = [rules._part(name, candidate, place) for place in places]
        except UsageError:
            continue
        if _fit(parts, candidate, locals_):
            return _Row(dtype, candidate, prod(candidate) * element, parts)
    raise UsageError(
        f"tensor `{name}`: ranks hold the shapes {locals_}, which the rules cut from no whole shape"
        f" ({'given ' + str(list(shape)) if shape is not None else 'give shapes='})"
    )


def _fit(parts: list[Part | None], whole: tuple[int, ...], locals_: list[tuple[int, ...] | None]) -> bool:
    """Whether the parts of a whole shape have the shapes that ranks hold. Who holds more than asked is fine."""
    shapes = [None if part is None else part.shape(whole) for part in parts]
    return all(a is None or a == b for a, b in zip(shapes, locals_, strict=True))


def _candidates(locals_: list[tuple[int, ...] | None]) -> Iterator[tuple[int, ...]]:
    """Whole shapes that parts of these shapes may come from: all the same, or added up along a dimension."""
    held = [shape for shape in locals_ if shape is not None]
    yield held[0]
    for dim in range(len(held[0])):
        total = sum(shape[dim] for shape in held)
        for replicas in range(1, len(held)):
            if total % replicas == 0:
                yield (*held[0][:dim], total // replicas, *held[0][dim + 1 :])


def _placement(tensor: Any) -> Any:
    """The whole shape and the placements of a DTensor, in numbers; ``None`` of another tensor."""
    # Where nobody imported it, there is none; importing it takes a second.
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(tensor, module.DTensor):
        return None
    rule = placed("", tensor.placements, tensor.device_mesh)
    rows = [None if row is None else list(row) for row in rule.placements]
    return [list(tensor.shape), rows, list(rule.mesh), list(rule.ranks)]


def _placed_rule(rows: list[Any], mesh: list[int], numbers: list[int]) -> Rule:
    return Placed(
        tuple(None if row is None else (row[0], row[1]) for row in rows), tuple(mesh), tuple(numbers)
    )


def _local(tensor: Any) -> torch.Tensor:
    local: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()


def _write(
    path: Path,
    names: list[str],
    table: _Table,
    ranks: _Ranks,
    metadata: dict[str, str] | None,
    durable: bool,
    what: str,
) -> None:
    """Writes one file. The first rank is the leader: what goes wrong anywhere, it tells to all."""
    specs = {name: (table.rows[name].dtype, table.rows[name].shape) for name in names}
    if ranks.rank != 0:
        token, error = ranks.ask(f"{what}: begin", 0)
        if error is not None:
            raise IoError(f"rank 0: {error}")
        try:
            with Writer(path, specs, metadata, durable=durable, shared=token, leader=False) as writer:
                _write_parts(writer, names, table, ranks.rank)
                if durable:
                    writer.flush()
                told = {"written": writer.written()}
        except Exception as failure:
            ranks.tell(f"{what}: parts", {"error": f"rank {ranks.rank}: {failure}"})
            raise
        ranks.tell(f"{what}: parts", told)
        error = ranks.ask(f"{what}: end", 0)
        if error is not None:
            raise IoError(error)
        return
    token = uuid.uuid4().hex
    try:
        writer = Writer(path, specs, metadata, durable=durable, shared=token)
    except Exception as failure:
        ranks.tell(f"{what}: begin", (token, str(failure)))
        raise
    try:
        with writer:
            ranks.tell(f"{what}: begin", (token, None))
            _write_parts(writer, names, table, 0)
            for rank in range(1, ranks.world):
                answer = ranks.ask(f"{what}: parts", rank)
                if "error" in answer:
                    raise IoError(answer["error"])
                writer.absorb(map(tuple, answer["written"]))
    except BaseException as failure:
        ranks.tell(f"{what}: end", str(failure) or type(failure).__name__)
        raise
    ranks.tell(f"{what}: end", None)


def _write_parts(writer: Writer, names: list[str], table: _Table, rank: int) -> None:
    from .. import torch as adapter

    for name in names:
        row = table.rows[name]
        part = row.parts[rank]
        if part is None or not row.writer(name, rank):
            continue
        local = table.local[name]
        if not part.cuts:
            writer.write(name, local.contiguous())
            continue
        data = memoryview(adapter._host_bytes(local))
        element = row.nbytes // max(prod(row.shape), 1)
        for start, end, offset in _runs(part, row.shape, element):
            writer.write(name, data[start:end], offset)


def _runs(part: Part, shape: tuple[int, ...], element: int) -> Iterator[tuple[int, int, int]]:
    """The runs of a part: from where to where in its own bytes, and from which byte of the whole tensor on."""
    cuts = dict(part.cuts)
    # Behind the last dimension that is cut, positions are whole.
    last = max(cuts)
    inner = element * prod(shape[last + 1 :])
    strides = [element * prod(shape[dim + 1 :]) for dim in range(last)]
    positions = [
        [place for start, end in cuts.get(dim, ((0, shape[dim]),)) for place in range(start, end)]
        for dim in range(last)
    ]
    done = 0
    for outer in product(*positions):
        base = sum(place * stride for place, stride in zip(outer, strides, strict=True))
        for start, end in cuts[last]:
            size = (end - start) * inner
            yield done, done + size, base + start * inner
            done += size


def _split(table: _Table, most: int) -> list[list[str]]:
    """Names in files of ``most`` bytes at most, or of one tensor, in the order of the tensors."""
    files: list[list[str]] = [[]]
    size = 0
    for name, row in table.rows.items():
        if files[-1] and size + row.nbytes > most:
            files.append([])
            size = 0
        files[-1].append(name)
        size += row.nbytes
    return files


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B?)\s*", size.upper())
    if found is None or found[2] not in _UNITS:
        raise UsageError(
            f'max_shard_size "{size}" is invalid (expected a number, or text such as "5GB" or "5GiB")'
        )
    return int(float(found[1]) * _UNITS[found[2]])


def _replace(path: Path, text: str, durable: bool) -> None:
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    beside.replace(path)

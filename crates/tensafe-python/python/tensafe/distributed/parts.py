"""What one rank holds of a tensor, and the kinds of rules that say so. No I/O.

A rule knows a tensor's name and shape and where a rank is; every rank can work out what every other rank holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._errors import UnsupportedError, UsageError

Intervals = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Part:
    """What a rank holds of a tensor: of each dimension that is cut, ranges of positions, half-open, ascending.

    ``padded`` is the shape with the zeros behind it, where the rank's part is filled up to that of the others.
    """

    cuts: tuple[tuple[int, Intervals], ...] = ()
    padded: tuple[int, ...] | None = None

    def shape(self, whole: Sequence[int]) -> tuple[int, ...]:
        """The shape of the part that is in the file, row-major, in elements, of a tensor of the shape ``whole``."""
        shape = list(whole)
        for dim, intervals in self.cuts:
            shape[dim] = _length(intervals)
        return tuple(shape)

    def arguments(self, whole: Sequence[int], name: str) -> dict[str, Any]:
        """The part as the arguments of :meth:`tensafe.Plan.add`."""
        if not self.cuts:
            return {}
        if all(len(intervals) <= 1 for _, intervals in self.cuts):
            index = [slice(None)] * len(whole)
            for dim, intervals in self.cuts:
                index[dim] = slice(*(intervals[0] if intervals else (0, 0)))
            return {"index": tuple(index)}
        if len(self.cuts) > 1:
            raise UnsupportedError(
                f"tensor `{name}`: cut along the dimensions {[dim for dim, _ in self.cuts]}, one of which is cut"
                " into several ranges; ranges of one dimension only can be read"
            )
        ((dim, intervals),) = self.cuts
        return {"intervals": list(intervals), "dim": dim}


WHOLE = Part()


@dataclass(frozen=True)
class Place:
    """Where a rank is: in the world, and along each axis of it."""

    rank: int
    world: int
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)

    def along(self, axis: str | None) -> tuple[int, int]:
        """The rank's number along an axis, and how many there are; without axes, those of the world."""
        if not self.axes:
            return self.rank, self.world
        if axis is not None and axis in self.axes:
            return self.axes[axis]
        raise UsageError(f"axis {axis!r} is not one of the mesh: {sorted(self.axes)}")


class Rule:
    """What a rank holds of the tensors that match. Subclasses are frozen dataclasses."""

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        """The rank's part of the tensor; ``None`` where it holds nothing and the tensor is left out."""
        raise NotImplementedError


@dataclass(frozen=True)
class Replicate(Rule):
    """Every rank holds the whole tensor."""

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        return WHOLE


@dataclass(frozen=True)
class Skip(Rule):
    """No rank holds the tensor: its bytes are not read."""

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        return None


@dataclass(frozen=True)
class Shard(Rule):
    """Each rank holds one range of positions of a dimension, as ``torch.chunk`` cuts: the last may be short.

    Column-parallel and vocab-parallel weights are cut along dimension 0, row-parallel ones along 1; -1 is the last.
    ``block`` positions stay together, such as those of an attention head or of a group of quantized weights.
    ``replicas`` ranks in a row hold the same, as where there are fewer heads of keys than ranks. ``even`` refuses
    what does not come out even; ``pad`` fills the last ranks up with zeros, to whole blocks.
    """

    dim: int = 0
    block: int = 1
    replicas: int = 1
    even: bool = False
    pad: bool = False
    axis: str | None = "tp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        dim = _dimension(name, shape, self.dim)
        rank, world = _among(name, *place.along(self.axis), self.replicas)
        size = shape[dim]
        if self.even and size % (world * self.block):
            unit = f" in blocks of {self.block}" if self.block > 1 else ""
            raise UsageError(
                f"tensor `{name}`: dimension {dim} has {size} positions, {world} ranks need equal parts{unit}"
            )
        intervals = _chunk(((0, size),), rank, world, self.block)
        padded = None
        if self.pad:
            full = _up(_up(size, self.block) // self.block, world) // world * self.block
            padded = (*shape[:dim], full, *shape[dim + 1 :])
            padded = padded if _length(intervals) < full else None
        return Part(((dim, intervals),), padded)


@dataclass(frozen=True)
class Fused(Rule):
    """Several weights stored as one, behind one another along a dimension: each is cut by itself.

    ``sizes`` are their positions, such as those of queries, keys and values, or how many equal ones there are, 2 of
    gate and up. ``replicas`` is that of each, or of all; ``block`` as in :class:`Shard`.
    """

    dim: int = 0
    sizes: int | tuple[int, ...] = 2
    block: int = 1
    replicas: int | tuple[int, ...] = 1
    axis: str | None = "tp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        dim = _dimension(name, shape, self.dim)
        size = shape[dim]
        if isinstance(self.sizes, int):
            if size % self.sizes:
                raise UsageError(
                    f"tensor `{name}`: dimension {dim} has {size} positions, not {self.sizes} equal parts"
                )
            sizes = (size // self.sizes,) * self.sizes
        else:
            sizes = self.sizes
        if sum(sizes) != size:
            raise UsageError(
                f"tensor `{name}`: dimension {dim} has {size} positions, the fused parts {list(sizes)} have {sum(sizes)}"
            )
        each = (self.replicas,) * len(sizes) if isinstance(self.replicas, int) else self.replicas
        if len(each) != len(sizes):
            raise UsageError(f"tensor `{name}`: {len(sizes)} fused parts, {len(each)} numbers of replicas")
        intervals: list[tuple[int, int]] = []
        start = 0
        for length, replicas in zip(sizes, each, strict=True):
            rank, world = _among(name, *place.along(self.axis), replicas)
            intervals += _chunk(((start, start + length),), rank, world, self.block)
            start += length
        return Part(((dim, _joined(intervals)),))


@dataclass(frozen=True)
class Column(Rule):
    """A layer cut by its outputs: dimension 0 of the weight and of the bias, the last but one of stacked weights."""

    axis: str | None = "tp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        return Shard(max(len(shape) - 2, 0), axis=self.axis).part(name, shape, place)


@dataclass(frozen=True)
class Row(Rule):
    """A layer cut by its inputs: the last dimension of the weight; every rank holds the bias."""

    axis: str | None = "tp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        if name.rpartition(".")[2] == "bias":
            return WHOLE
        return Shard(-1, axis=self.axis).part(name, shape, place)


@dataclass(frozen=True)
class Numbered(Rule):
    """Tensors that belong to one of ``count`` things by a number in their name: ranks hold those of their things.

    ``number`` is a regular expression with one group, the number. ``count`` is how many there are, cut as ``torch.chunk``
    cuts, or the borders of the ranks: ``(0, 10, 22, 32)`` for three. Tensors without a number: every rank holds them.
    """

    count: int | tuple[int, ...]
    number: str
    axis: str | None = None

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        found = re.search(self.number, name)
        if found is None:
            return self.unnumbered(name, shape, place)
        number = int(found[1])
        rank, world = place.along(self.axis)
        first, last, count = self._range(rank, world)
        if number >= count:
            raise UsageError(f"tensor `{name}`: number {number} of {count} by the rule")
        return WHOLE if first <= number < last else None

    def unnumbered(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        return WHOLE

    def _range(self, rank: int, world: int) -> tuple[int, int, int]:
        if isinstance(self.count, int):
            each = -(-self.count // world)
            return rank * each, (rank + 1) * each, self.count
        if len(self.count) != world + 1:
            raise UsageError(f"{len(self.count)} borders for {world} ranks, needed {world + 1}")
        return self.count[rank], self.count[rank + 1], self.count[-1]


@dataclass(frozen=True)
class Experts(Numbered):
    """Experts of a mixture: ``experts.7.`` in the name, or dimension 0 of stacked weights ``[experts, …]``."""

    number: str = r"\bexperts\.(\d+)(?:\.|$)"
    axis: str | None = "ep"

    def unnumbered(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        rank, world = place.along(self.axis)
        first, last, count = self._range(rank, world)
        if not shape or shape[0] != count:
            raise UsageError(
                f"tensor `{name}`: neither an expert's number nor a dimension 0 of {count} experts"
            )
        return Part(((0, _joined([(min(first, count), min(last, count))])),))


@dataclass(frozen=True)
class Layers(Numbered):
    """Layers of a pipeline's stages: ``layers.7.`` (or ``h.7.``, ``blocks.7.``) in the name."""

    number: str = r"\b(?:layers|h|blocks)\.(\d+)\."
    axis: str | None = "pp"


@dataclass(frozen=True)
class Stage(Rule):
    """Tensors of one stage of a pipeline: 0 is the first, -1 the last."""

    stage: int
    axis: str | None = "pp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        rank, world = place.along(self.axis)
        if not -world <= self.stage < world:
            raise UsageError(f"tensor `{name}`: stage {self.stage} of {world}")
        return WHOLE if rank == self.stage % world else None


@dataclass(frozen=True)
class Placed(Rule):
    """Placements of a DTensor over a mesh: for each dimension of the mesh ``None``, or the dimension that it cuts and
    the split factor (1, but for strided shards). ``ranks`` are those of the mesh, row-major."""

    placements: tuple[tuple[int, int] | None, ...]
    mesh: tuple[int, ...]
    ranks: tuple[int, ...]

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        if place.rank not in self.ranks:
            return None
        coordinate = unravel(self.ranks.index(place.rank), self.mesh)
        cuts: dict[int, Intervals] = {}
        for placement, at, count in zip(self.placements, coordinate, self.mesh, strict=True):
            if placement is None:
                continue
            dim = _dimension(name, shape, placement[0])
            held = cuts.get(dim, ((0, shape[dim]),))
            pieces = [_chunk(held, piece, placement[1]) for piece in range(placement[1])]
            cuts[dim] = _joined([row for piece in pieces for row in _chunk(piece, at, count)])
        return Part(tuple(sorted(cuts.items())))


def _dimension(name: str, shape: tuple[int, ...], dim: int) -> int:
    if not -len(shape) <= dim < len(shape):
        raise UsageError(f"tensor `{name}`: shape {list(shape)} has no dimension {dim} to cut")
    return dim % len(shape)


def _among(name: str, rank: int, world: int, replicas: int) -> tuple[int, int]:
    if world % replicas:
        raise UsageError(f"tensor `{name}`: {replicas} replicas do not divide {world} ranks")
    return rank // replicas, world // replicas


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _length(intervals: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in intervals)


def _chunk(intervals: Intervals, index: int, count: int, block: int = 1) -> Intervals:
    """The ``index``-th of ``count`` chunks of positions: all but the last ones have ``ceil(blocks / count)`` blocks."""
    total = _length(intervals)
    size = _up(_up(total, block) // block, count) // count * block
    first, last = min(index * size, total), min((index + 1) * size, total)
    found, before = [], 0
    for start, end in intervals:
        a, b = max(first, before), min(last, before + end - start)
        if a < b:
            found.append((start + a - before, start + b - before))
        before += end - start
    return tuple(found)


def _joined(intervals: Iterable[tuple[int, int]]) -> Intervals:
    """Without empty ranges, and with one where two touch."""
    rows: list[tuple[int, int]] = []
    for start, end in intervals:
        if start == end:
            continue
        if rows and rows[-1][1] == start:
            rows[-1] = (rows[-1][0], end)
        else:
            rows.append((start, end))
    return tuple(rows)


def unravel(rank: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The coordinates of a rank in a mesh of these sizes, row-major."""
    numbers = []
    for size in reversed(sizes):
        numbers.append(rank % size)
        rank //= size
    return tuple(reversed(numbers))

"""Which part of which tensor each rank holds: rules by name, and the plans that they make. No I/O.

A rule says of a tensor's name and shape what one rank of a world holds of it. ``Rules`` is a list of them
by name pattern; it comes from a ``tp_plan`` of transformers, from placements of DTensors, or from the caller.
Every rank can work out what every other rank holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from math import prod
from typing import TYPE_CHECKING, Any

from .._errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

    from .._checkpoint import Checkpoint
    from .._plan import Plan

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
        coordinate = _unravel(self.ranks.index(place.rank), self.mesh)
        cuts: dict[int, Intervals] = {}
        for placement, at, count in zip(self.placements, coordinate, self.mesh, strict=True):
            if placement is None:
                continue
            dim = _dimension(name, shape, placement[0])
            held = cuts.get(dim, ((0, shape[dim]),))
            pieces = [_chunk(held, piece, placement[1]) for piece in range(placement[1])]
            cuts[dim] = _joined([row for piece in pieces for row in _chunk(piece, at, count)])
        return Part(tuple(sorted(cuts.items())))


# What each style of transformers does to the parameters of its module; the rest of a style is about forward().
_STYLES: dict[str, Rule] = {
    **dict.fromkeys(("colwise", "colwise_rep", "colwise_gather_output", "local_colwise"), Column()),
    **dict.fromkeys(("rowwise", "rowwise_rep", "rowwise_split_input", "local_rowwise"), Row()),
    "embedding_rowwise": Shard(0),
    "embedding_colwise": Shard(1),
    "grouped_gemm": Shard(0, even=True),
    **dict.fromkeys(
        (
            "all_reduce",
            "ep_dispatch_experts",
            "ep_router",
            "gather",
            "local",
            "local_params",
            "mla_kv_a_proj",
            "moe_identity_expert",
            "moe_tp_experts",
            "replicate",
            "replicated_with_grad_allreduce",
            "sequence_parallel",
        ),
        Replicate(),
    ),
}


@dataclass(frozen=True)
class _Packed(Rule):
    """``packed_colwise`` and ``packed_rowwise``: two weights in one, but of a bias, which is cut as it is or whole."""

    rows: bool
    axis: str | None = "tp"

    def part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        if len(shape) == 1:
            return WHOLE if self.rows else Shard(0, axis=self.axis).part(name, shape, place)
        return Fused(-1 if self.rows else -2, 2, axis=self.axis).part(name, shape, place)


_STYLES |= dict.fromkeys(("packed_colwise", "local_packed_colwise"), _Packed(rows=False))
_STYLES |= dict.fromkeys(("packed_rowwise", "local_packed_rowwise"), _Packed(rows=True))


class Rules:
    """Rules by name: the first whose pattern matches a tensor says which part of it each rank holds.

    A pattern is a glob over the whole name, whose ``*`` crosses dots, or a compiled regular expression that the whole
    name must match. Tensors that no pattern matches have the rule ``default``. ``mesh`` names the axes of the world
    and their sizes, row-major: ``{"pp": 2, "tp": 4}`` puts ranks 0 to 3 in the first stage; rules follow the axis
    that they name. Without a mesh every axis is the world. ``a & b`` is both: a tensor that either leaves out is left
    out, and one that both cut is cut by both, along different dimensions.
    """

    def __init__(
        self,
        rules: Iterable[tuple[str | re.Pattern[str], Rule]] | Mapping[str, Rule] = (),
        *,
        mesh: Mapping[str, int] | None = None,
        default: Rule | None = None,
    ) -> None:
        rows = list(rules.items()) if isinstance(rules, Mapping) else list(rules)
        for pattern, rule in rows:
            if not isinstance(rule, Rule):
                raise UsageError(
                    f"pattern {pattern!r}: {rule!r} is no rule; give Shard(0), Replicate() and the like"
                )
        self._patterns: list[tuple[int, re.Pattern[str], Rule]] = []
        # Names without a wildcard are looked up: a rule for each tensor of a large model is no search.
        self._names: dict[str, tuple[int, Rule]] = {}
        for at, (pattern, rule) in enumerate(rows):
            if isinstance(pattern, re.Pattern):
                self._patterns.append((at, pattern, rule))
            elif any(sign in pattern for sign in "*?["):
                self._patterns.append((at, re.compile(translate(pattern)), rule))
            else:
                self._names.setdefault(pattern, (at, rule))
        self.mesh = dict(mesh or {})
        self.default = default or Replicate()
        self._also: tuple[Rules, ...] = ()

    @classmethod
    def from_tp_plan(cls, plan: Mapping[str, str], *, prefix: str = "", axis: str | None = "tp") -> Rules:
        """The rules of a ``tp_plan`` or ``ep_plan`` of transformers, as ``model.tp_plan`` has it.

        Its keys name modules or parameters, with ``*`` for a number. ``base_model_tp_plan`` of a configuration leaves
        out the name of the base model: ``prefix="model."``. Names are those of the model's parameters; a checkpoint
        that calls them otherwise, as some with experts do, needs rules of its own. A style that is not known here is
        refused.
        """
        unknown = sorted({style for style in plan.values() if style not in _STYLES})
        if unknown:
            raise UnsupportedError(f"styles {unknown} of the tp_plan are not known: found {sorted(_STYLES)}")
        rows: list[tuple[str | re.Pattern[str], Rule]] = []
        # A parameter's own rule comes before that of its module.
        for ending in ("", r"\.[^.]+"):
            for key, style in plan.items():
                parts = [r"\d+" if part == "*" else re.escape(part) for part in (prefix + key).split(".")]
                rows.append((re.compile(r"\.".join(parts) + ending), _STYLES[style]))
        return cls((pattern, _along(rule, axis)) for pattern, rule in rows)

    @classmethod
    def from_placements(cls, placements: Mapping[str, Sequence[Any]], mesh: Any) -> Rules:
        """The rules of DTensors: ``placements`` maps names (or globs) to placements over ``mesh``, a ``DeviceMesh``.

        ``mesh`` may be the sizes of a mesh, whose ranks are then 0, 1, … row-major. A rank that is not in the mesh
        holds nothing. ``Partial`` is refused: what a file holds is no partial sum.
        """
        return cls({name: _placed(name, row, mesh) for name, row in placements.items()})

    @classmethod
    def of_module(cls, module: torch.nn.Module) -> Rules:
        """The rules of a module's parameters and buffers: those that are DTensors are cut as they are."""
        from torch.distributed.tensor import DTensor

        rules: dict[str, Rule] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if isinstance(tensor, DTensor):
                rules[name] = _placed(name, tensor.placements, tensor.device_mesh)
        return cls(rules)

    @classmethod
    def stages(
        cls,
        layers: int | tuple[int, ...],
        *,
        first: Iterable[str] = ("*embed*",),
        last: Iterable[str] = ("*lm_head*", "*norm*"),
        number: str = Layers.number,
        axis: str | None = "pp",
    ) -> Rules:
        """The stages of a pipeline: layers by the number in their names, ``first`` and ``last`` for the ends.

        ``layers`` is how many there are, or the borders of the stages. Meant for ``Rules.stages(32) & tensor_parallel``.
        """
        numbered = Layers(layers, number, axis)
        ends = [(pattern, Stage(0, axis)) for pattern in first] + [
            (pattern, Stage(-1, axis)) for pattern in last
        ]
        rows: list[tuple[str | re.Pattern[str], Rule]] = [(re.compile(f".*?{number}.*"), numbered)]
        return cls([*rows, *ends])

    def on(self, mesh: Mapping[str, int]) -> Rules:
        """The same rules over a mesh: its axes and their sizes, row-major."""
        rules = Rules(mesh=mesh, default=self.default)
        rules._patterns, rules._names, rules._also = self._patterns, self._names, self._also
        return rules

    def __and__(self, other: Rules) -> Rules:
        if self.mesh and other.mesh and list(self.mesh.items()) != list(other.mesh.items()):
            raise UsageError(f"rules of two meshes, {self.mesh} and {other.mesh}")
        both = self.on(self.mesh or other.mesh)
        both._also = (*self._also, other)
        return both

    def rule(self, name: str) -> Rule:
        """The rule for a name."""
        best, chosen = self._names.get(name, (None, self.default))
        for at, pattern, rule in self._patterns:
            if best is not None and at > best:
                break
            if pattern.fullmatch(name):
                return rule
        return chosen

    def place(self, rank: int, world: int) -> Place:
        """Where a rank is. An error where the mesh has not ``world`` ranks, or ``rank`` is none of them."""
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} of a world of {world}")
        if not self.mesh:
            return Place(rank, world)
        if prod(self.mesh.values()) != world:
            raise UsageError(f"mesh {self.mesh} has {prod(self.mesh.values())} ranks, the world has {world}")
        sizes = tuple(self.mesh.values())
        numbers = zip(_unravel(rank, sizes), sizes, strict=True)
        return Place(rank, world, dict(zip(self.mesh, numbers, strict=True)))

    def part(self, name: str, shape: Sequence[int], rank: int, world: int) -> Part | None:
        """What ``rank`` holds of a tensor of ``shape``; ``None`` where it is left out."""
        return self._part(name, tuple(shape), self.place(rank, world))

    def _part(self, name: str, shape: tuple[int, ...], place: Place) -> Part | None:
        part = self.rule(name).part(name, shape, place)
        for other in self._also:
            more = None if part is None else other._part(name, shape, place)
            part = None if part is None or more is None else _both(name, part, more)
        return part

    def plan(
        self,
        checkpoint: Checkpoint,
        rank: int,
        world: int,
        *,
        budget: int | str | None = None,
        order: str = "file",
        pad: bool = False,
    ) -> Plan:
        """The plan of one rank over an open model: what it holds, and nothing else. Reads nothing.

        ``pad=True`` fills the parts of :class:`Shard` rules up with zeros to ``ceil(size / world)`` positions, so that
        all ranks have the same shapes. ``budget`` and ``order`` are those of :meth:`tensafe.Checkpoint.plan`.
        """
        plan = checkpoint.plan(budget=budget, order=order)
        add(plan, self, ((name, tensor.shape) for name, tensor in checkpoint.items()), rank, world, pad=pad)
        return plan

    def __repr__(self) -> str:
        return (
            f"<tensafe.distributed.Rules: {len(self._patterns) + len(self._names)}, mesh {self.mesh or None}>"
        )


def add(
    plan: Plan,
    rules: Rules,
    tensors: Iterable[tuple[str, tuple[int, ...]]],
    rank: int,
    world: int,
    *,
    pad: bool = False,
) -> None:
    """Adds to a plan what ``rank`` holds of ``tensors``, names with shapes."""
    place = rules.place(rank, world)
    for name, shape in tensors:
        part = rules._part(name, shape, place)
        if part is None:
            continue
        plan.add(name, **part.arguments(shape, name))
        padded = part.padded or (_even_shape(rules.rule(name), name, shape, place) if pad else None)
        if padded is not None and padded != plan.shape(name):
            plan.pad(name, padded)


def _even_shape(rule: Rule, name: str, shape: tuple[int, ...], place: Place) -> tuple[int, ...] | None:
    if isinstance(rule, Column):
        rule = Shard(max(len(shape) - 2, 0), axis=rule.axis)
    if isinstance(rule, Row) and name.rpartition(".")[2] != "bias":
        rule = Shard(-1, axis=rule.axis)
    if not isinstance(rule, Shard):
        return None
    part = Shard(rule.dim, rule.block, rule.replicas, pad=True, axis=rule.axis).part(name, shape, place)
    return None if part is None else part.padded


def _both(name: str, a: Part, b: Part) -> Part:
    if {dim for dim, _ in a.cuts} & {dim for dim, _ in b.cuts}:
        raise UnsupportedError(f"tensor `{name}`: two rules cut the same dimension")
    if a.padded is not None or b.padded is not None:
        raise UnsupportedError(f"tensor `{name}`: two rules, one of which pads")
    return Part(tuple(sorted((*a.cuts, *b.cuts))))


def _along(rule: Rule, axis: str | None) -> Rule:
    return replace(rule, axis=axis) if hasattr(rule, "axis") else rule  # type: ignore[type-var]


def _placed(name: str, placements: Sequence[Any], mesh: Any) -> Placed:
    if hasattr(mesh, "mesh"):
        ranks, sizes = mesh.mesh, tuple(mesh.mesh.shape)
        numbers = tuple(int(rank) for rank in ranks.flatten().tolist())
    else:
        sizes = tuple(int(size) for size in mesh)
        numbers = tuple(range(prod(sizes)))
    if len(placements) != len(sizes):
        raise UsageError(
            f"tensor `{name}`: {len(placements)} placements over a mesh of {len(sizes)} dimensions"
        )
    rows: list[tuple[int, int] | None] = []
    for placement in placements:
        if placement.is_partial():
            raise UnsupportedError(f"tensor `{name}`: {placement} is a partial sum, which no file holds")
        if placement.is_replicate():
            rows.append(None)
        else:
            rows.append((placement.dim, int(getattr(placement, "split_factor", 1))))
    return Placed(tuple(rows), sizes, numbers)


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


def _unravel(rank: int, sizes: Sequence[int]) -> tuple[int, ...]:
    numbers = []
    for size in reversed(sizes):
        numbers.append(rank % size)
        rank //= size
    return tuple(reversed(numbers))

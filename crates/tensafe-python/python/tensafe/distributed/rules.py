"""Rules for the tensors of a model by their names, where rules come from, and the plans that they make. No I/O.

``Rules`` is a list of rules by name pattern; it comes from a ``tp_plan`` of transformers, from placements of
DTensors, or from the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from math import prod
from typing import TYPE_CHECKING, Any

from .._errors import UnsupportedError, UsageError
from .parts import (
    WHOLE,
    Column,
    Fused,
    Layers,
    Part,
    Place,
    Placed,
    Replicate,
    Row,
    Rule,
    Shard,
    Stage,
    unravel,
)

if TYPE_CHECKING:
    import torch

    from .._checkpoint import Checkpoint
    from .._plan import Plan

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
        return cls({name: placed(name, row, mesh) for name, row in placements.items()})

    @classmethod
    def of_module(cls, module: torch.nn.Module) -> Rules:
        """The rules of a module's parameters and buffers: those that are DTensors are cut as they are."""
        from torch.distributed.tensor import DTensor

        rules: dict[str, Rule] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if isinstance(tensor, DTensor):
                rules[name] = placed(name, tensor.placements, tensor.device_mesh)
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
        numbers = zip(unravel(rank, sizes), sizes, strict=True)
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


def placed(name: str, placements: Sequence[Any], mesh: Any) -> Placed:
    """The rule of a DTensor's placements over a mesh, or over the sizes of one."""
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

"""Ranks: each reads what it holds, ranks of one host read each byte once, and all write one file.

- ``Rules``: which part of which tensor a rank holds, by name pattern, by a ``tp_plan`` of transformers, by the
  placements of DTensors.
"""

from .rules import (
    Column,
    Experts,
    Fused,
    Layers,
    Numbered,
    Part,
    Placed,
    Replicate,
    Row,
    Rule,
    Rules,
    Shard,
    Skip,
    Stage,
)

__all__ = [
    "Column",
    "Experts",
    "Fused",
    "Layers",
    "Numbered",
    "Part",
    "Placed",
    "Replicate",
    "Row",
    "Rule",
    "Rules",
    "Shard",
    "Skip",
    "Stage",
]

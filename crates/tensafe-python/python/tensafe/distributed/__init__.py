"""Ranks: each reads what it holds, ranks of one host read each byte once, and all write one file.

- ``Rules``: which part of which tensor a rank holds, by name pattern, by a ``tp_plan`` of transformers, by the
  placements of DTensors.
- ``load_sharded``: what a rank holds of a model, from one file or many.
- ``save_sharded``: one file, or the shards of the Hub, from all ranks.
"""

from .load import iter_sharded, load_sharded
from .parts import (
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
    Shard,
    Skip,
    Stage,
)
from .rules import Rules
from .save import save_sharded

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
    "iter_sharded",
    "load_sharded",
    "save_sharded",
]

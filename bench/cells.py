"""What is measured: each cell is a file, the state of its pages, a finish line, and who takes part.

``--cells`` selects by group. The ways of a cell and its limits take turns in every round.
"""

from __future__ import annotations

from dataclasses import dataclass

_SAFETENSORS = ("safetensors", "safetensors-rc")
_TENSAFE = ("tensafe", "tensafe-direct", "tensafe-owned", "tensafe-pread", "tensafe-plan")
_OTHERS = ("torch-mmap", "torch", "fastsafetensors", "runai", "tensorizer")


def _both(*names: str) -> tuple[str, ...]:
    """Ways of the published package, in both versions."""
    return tuple(f"{version}-{name}" for name in names for version in _SAFETENSORS)


@dataclass(frozen=True)
class Cell:
    """``state`` is of the file's pages before the clock starts: ``cold``, ``warm``, or ``memory`` for a
    save. ``finish`` says in words when the clock stops."""

    name: str
    group: str
    title: str
    file: str
    state: str
    action: str
    finish: str
    ways: tuple[str, ...]
    limits: tuple[str, ...] = ()
    select: str = "all"
    durable: bool = False
    ranks: int = 1
    # Seconds of one turn, about: the file is read or made ready, loaded and checked.
    estimate: float = 2.0

    @property
    def table(self) -> str:
        """Which of the tables of ``loaders`` the ways are of."""
        return {"cut": "CUTTERS", "save": "SAVERS"}.get(self.action, "LOADERS")

    @property
    def first(self) -> str:
        """The small file that is loaded before: numpy has no BF16."""
        return "tiny" if self.file == "many" else "few"


_CONSUMED = "all bytes consumed (T2); T1, the dict returned, in the same load"
_COPIED = "copied into preallocated parameters (T3)"
_DICT = "dict returned (T1), a first and a second load in one process"
_CUT = "the rank's part of every tensor contiguous and consumed"
_CUTTERS = ("tensafe-plan", "tensafe-slice", "tensafe-slice-pread", *_both("mmap", "pread"))
_COPIERS = (
    "tensafe",
    "tensafe-direct",
    "tensafe-plan",
    *_both("mmap"),
    "torch-mmap",
    "fastsafetensors",
    "runai",
)
_MANY = ("tensafe", "tensafe-owned", *_both("mmap"), "torch", "fastsafetensors")
_SHARDED = ("tensafe", "tensafe-direct", "tensafe-plan", *_both("mmap"), "fastsafetensors", "runai")
_SAVERS = ("tensafe", *_both("save"), "torch", "tensorizer")
_READS = ("fio-read", "dd-read", "read")

CELLS: tuple[Cell, ...] = (
    Cell(
        "cold-one",
        "cold",
        "One file, cold",
        "one",
        "cold",
        "consume",
        _CONSUMED,
        (*_TENSAFE, *_both("mmap", "pread", "bytes"), *_OTHERS),
        _READS,
    ),
    Cell(
        "cold-copied", "cold", "One file, cold, into parameters", "one", "cold", "copied", _COPIED, _COPIERS
    ),
    Cell(
        "cold-shards",
        "shards",
        "Four shards, cold",
        "shards",
        "cold",
        "consume",
        _CONSUMED,
        _SHARDED,
    ),
    Cell(
        "warm-one",
        "warm",
        "One file, warm",
        "one",
        "warm",
        "consume",
        _CONSUMED,
        (*_TENSAFE, *_both("mmap", "pread", "bytes"), *_OTHERS),
        ("memcpy", "read"),
    ),
    Cell(
        "warm-copied", "warm", "One file, warm, into parameters", "one", "warm", "copied", _COPIED, _COPIERS
    ),
    Cell(
        "warm-shards",
        "shards",
        "Four shards, warm",
        "shards",
        "warm",
        "consume",
        _CONSUMED,
        _SHARDED,
    ),
    Cell(
        "owned",
        "owned",
        "One file, warm, into memory of the process",
        "one",
        "warm",
        "twice",
        _DICT,
        ("tensafe-owned", *_both("bytes", "pread"), "torch", "fastsafetensors"),
        ("memcpy",),
    ),
    Cell("many-torch", "many", "Small tensors, torch, warm", "many", "warm", "twice", _DICT, _MANY),
    Cell(
        "many-numpy",
        "many",
        "Small tensors, numpy, warm",
        "many",
        "warm",
        "twice",
        _DICT,
        ("tensafe-numpy", *_both("numpy")),
    ),
    Cell(
        "cut-rows",
        "cut",
        "Rank 1 of 4: q, k, v, gate and up by rows, cold",
        "one",
        "cold",
        "cut",
        _CUT,
        _CUTTERS,
        select="rows",
    ),
    Cell(
        "cut-columns",
        "cut",
        "Rank 1 of 4: o and down by columns, cold",
        "one",
        "cold",
        "cut",
        _CUT,
        _CUTTERS,
        select="columns",
    ),
    Cell(
        "ranks",
        "ranks",
        "Four ranks at once, each its part of every projection, cold",
        "one",
        "cold",
        "cut",
        f"{_CUT}, in the slowest of the processes",
        _CUTTERS,
        ranks=4,
    ),
    Cell(
        "save-durable",
        "save",
        "Save, until file and directory are on the disk",
        "one",
        "memory",
        "save",
        "file and directory flushed",
        _SAVERS,
        ("fio-write", "write"),
        durable=True,
    ),
    Cell(
        "save",
        "save",
        "Save, not waiting for the disk",
        "one",
        "memory",
        "save",
        "the function returned",
        _SAVERS,
        ("write",),
    ),
    Cell(
        "budget",
        "budget",
        "One file within a budget of 256 MiB, cold, tensors dropped one by one",
        "one",
        "cold",
        "budget",
        "all bytes consumed",
        ("tensafe-budget", "runai"),
    ),
)
# Counted by bench/header.py, in instructions: there is no clock and there are no rounds.
HEADER = "header"
GROUPS = (*dict.fromkeys(cell.group for cell in CELLS), HEADER)
BUDGET_BYTES = 256 << 20

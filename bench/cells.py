"""What is measured: each cell is a file, the state of its pages, a finish line, and who takes part.

``--cells`` selects by group. The ways of a cell and its limits take turns in every round.
"""

from __future__ import annotations

from dataclasses import dataclass

_SAFETENSORS = ("safetensors", "safetensors-rc")
_TENSAFE = ("tensafe", "tensafe-direct", "tensafe-owned", "tensafe-stream")
_OTHERS = ("torch-mmap", "fastsafetensors", "runai", "tensorizer")


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
    action: str
    finish: str
    ways: tuple[str, ...]
    limits: tuple[str, ...] = ()
    file: str = "one"
    state: str = "cold"
    select: str = "all"
    durable: bool = False
    ranks: int = 1
    # The part of the rounds that is run where no bar depends on it; more than 1 where it takes more.
    share: float = 1.0
    # Memory that is made to be there before the clock, in sizes of the file: about what most ways take.
    touched: float = 1.25
    # Seconds of one turn on a quiet machine, about: made ready, loaded, let go.
    estimate: float = 4.0

    def rounds(self, asked: int) -> int:
        return max(round(asked * self.share), min(asked, 2))

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
_ALL = (*_TENSAFE, *_both("mmap"), *_OTHERS)
# Ways that no bar looks at cold.
_READ = ("tensafe-owned", "tensafe-pread", *_both("pread", "bytes"), "torch")
# Ways that differ warm: `pread` and `bytes` are in the cell of owned memory.
_WARM = ("tensafe", "tensafe-owned", *_both("mmap"), "torch", *_OTHERS)
_SOME = ("tensafe", "tensafe-direct", "tensafe-plan", *_both("mmap"), "fastsafetensors", "runai")
_OWNED = ("tensafe-owned", *_both("bytes", "pread"))
_MANY = ("tensafe", "tensafe-owned", *_both("mmap"), "torch", "fastsafetensors")
_CUTTERS = ("tensafe-plan", "tensafe-slice", "tensafe-slice-pread", *_both("mmap", "pread"))
_SAVERS = ("tensafe", *_both("save"), "torch", "tensorizer")

CELLS: tuple[Cell, ...] = (
    Cell(
        "cold-one",
        group="cold",
        title="One file, cold",
        action="consume",
        finish=_CONSUMED,
        ways=_ALL,
        limits=("direct-read", "fio-read", "dd-read"),
        estimate=6.0,
    ),
    Cell(
        "cold-near",
        group="cold",
        title="One file, cold: who is nearest to the disk, in more rounds",
        action="consume",
        finish="all bytes consumed (T2)",
        ways=("tensafe-stream", "runai"),
        limits=("direct-read", "summed"),
        # What differs by less than a tenth is not told apart by the rounds of the other cells.
        share=4.0,
        estimate=3.5,
    ),
    Cell(
        "cold-read",
        group="cold",
        title="One file, cold, by reads",
        action="consume",
        finish=_CONSUMED,
        ways=_READ,
        limits=("read",),
        share=0.3,
        touched=2.0,
        estimate=9.0,
    ),
    Cell(
        "cold-copied",
        group="cold",
        title="One file, cold, into parameters",
        action="copied",
        finish=_COPIED,
        ways=_SOME,
        share=0.3,
        estimate=6.0,
    ),
    Cell(
        "cold-shards",
        group="shards",
        title="Four shards, cold",
        file="shards",
        action="consume",
        finish=_CONSUMED,
        ways=_SOME,
        share=0.3,
    ),
    Cell(
        "warm-one",
        group="warm",
        title="One file, warm",
        state="warm",
        action="consume",
        finish=_CONSUMED,
        ways=_WARM,
        limits=("memcpy", "read"),
        # What is mapped needs none, and the host may take back what was just let go while the clock runs.
        touched=0.0,
        estimate=1.4,
    ),
    Cell(
        "warm-copied",
        group="warm",
        title="One file, warm, into parameters",
        state="warm",
        action="copied",
        finish=_COPIED,
        ways=_SOME,
        share=0.3,
    ),
    Cell(
        "warm-shards",
        group="shards",
        title="Four shards, warm",
        file="shards",
        state="warm",
        action="consume",
        finish=_CONSUMED,
        ways=_SOME,
        share=0.3,
        estimate=1.4,
    ),
    Cell(
        "owned",
        group="owned",
        title="One file, warm, into memory of the process",
        state="warm",
        action="twice",
        finish=_DICT,
        ways=_OWNED,
        limits=("memcpy",),
        touched=2.25,
        estimate=6.0,
    ),
    Cell(
        "many-torch",
        group="many",
        title="Small tensors, torch, warm",
        file="many",
        state="warm",
        action="twice",
        finish=_DICT,
        ways=_MANY,
        estimate=1.5,
    ),
    Cell(
        "many-numpy",
        group="many",
        title="Small tensors, numpy, warm",
        file="many",
        state="warm",
        action="twice",
        finish=_DICT,
        ways=("tensafe-numpy", *_both("numpy")),
        estimate=0.4,
    ),
    Cell(
        "cut-rows",
        group="cut",
        title="Rank 1 of 4: q, k, v, gate and up by rows, cold",
        action="cut",
        finish=_CUT,
        ways=_CUTTERS,
        select="rows",
        touched=0.5,
        estimate=1.2,
    ),
    Cell(
        "cut-columns",
        group="cut",
        title="Rank 1 of 4: o and down by columns, cold",
        action="cut",
        finish=_CUT,
        ways=_CUTTERS,
        select="columns",
        touched=0.5,
        estimate=1.2,
    ),
    Cell(
        "ranks",
        group="ranks",
        title="Four ranks at once, each its part of every projection, cold",
        action="cut",
        finish=f"{_CUT}, in the slowest of the processes",
        ways=_CUTTERS,
        ranks=4,
        share=0.3,
        estimate=2.5,
    ),
    Cell(
        "save-durable",
        group="save",
        title="Save, until file and directory are on the disk",
        state="memory",
        action="save",
        finish="file and directory flushed",
        ways=_SAVERS,
        limits=("fio-write", "write"),
        durable=True,
        estimate=4.0,
    ),
    Cell(
        "save",
        group="save",
        title="Save, not waiting for the disk",
        state="memory",
        action="save",
        finish="the function returned",
        ways=_SAVERS,
        limits=("write",),
        estimate=4.0,
    ),
    Cell(
        "budget",
        group="budget",
        title="One file within a budget of 256 MiB, cold, tensors dropped one by one",
        action="budget",
        finish="all bytes consumed",
        ways=("tensafe-budget", "runai"),
    ),
)
# Counted by bench/header.py, in instructions: there is no clock and there are no rounds.
HEADER = "header"
GROUPS = (*dict.fromkeys(cell.group for cell in CELLS), HEADER)
BUDGET_BYTES = 256 << 20

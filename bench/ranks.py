"""Ranks beside ``get_slice``: one rank of four alone, and four ranks of one host, cold.

    python bench/ranks.py [--quick] [--rounds 7] [--root DIRECTORY]

The file is the Llama of files.py in one piece, the rules are a ``tp_plan`` for four ranks with vocab-parallel ends. All
loaders end with dense tensors in memory of the rank. Ranks are forked from one process, have loaded a small file before,
and start together; the time is that of the last. All take turns, and who is first changes with each round; memory is touched
before each. Prints a table: medians with the least and the most, bytes that the disk was asked for, and the ratios of
medians. Beside them is one direct read of the file into huge pages that are used again, in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import files
import limits
import measure
import torch
import torch.distributed as dist
from safetensors import safe_open
from tensafe.distributed import Rules, load_sharded

WORLD = 4
LIMIT = limits.LABELS["direct-read"]
STYLES = {
    **{f"model.layers.*.self_attn.{part}": "colwise" for part in ("q_proj", "k_proj", "v_proj")},
    **{f"model.layers.*.mlp.{part}": "colwise" for part in ("gate_proj", "up_proj")},
    "model.layers.*.self_attn.o_proj": "rowwise",
    "model.layers.*.mlp.down_proj": "rowwise",
    "model.embed_tokens": "embedding_rowwise",
    "lm_head": "colwise",
}
RULES = Rules.from_tp_plan(STYLES)
# Name, ranks that load, and how ours does; the reference has one way.
CELLS: list[tuple[str, list[int], dict[str, Any]]] = [
    ("one rank of four, alone", [1], {"rank": 1, "world": WORLD}),
    ("four ranks of one host", list(range(WORLD)), {}),
    # The reference has a copy of the file for each rank: as where ranks do not share a page cache.
    (
        "four ranks, no page cache shared",
        list(range(WORLD)),
        {"io": "direct", "share": "memfd", "copies": True},
    ),
    ("four ranks, page cache", list(range(WORLD)), {"share": "page-cache"}),
]


def ours(path: Path, rank: int, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_sharded(path, RULES, **{name: value for name, value in options.items() if name != "copies"})


def get_slice(
    path: Path, rank: int, options: dict[str, Any], backend: str = "mmap"
) -> dict[str, torch.Tensor]:
    tensors = {}
    own = options.get("copies")
    with safe_open(_copy(path, rank) if own else path, "pt", backend=backend) as file:
        for name in file.keys():
            part = file.get_slice(name)
            shape = part.get_shape()
            cut = RULES.part(name, shape, rank, WORLD)
            assert cut is not None
            index = cut.arguments(shape, name).get("index", slice(None))
            tensors[name] = part[index].clone(memory_format=torch.contiguous_format)
    return tensors


def get_slice_pread(path: Path, rank: int, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    return get_slice(path, rank, options, "pread")


def _copy(path: Path, rank: int) -> Path:
    return path.with_name(f"{rank}-{path.name}")


LOADERS: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "tensafe": ours,
    "get_slice": get_slice,
    "get_slice pread": get_slice_pread,
}


def together(
    loader: str, path: Path, warm: Path, ranks: list[int], options: dict[str, Any]
) -> dict[str, float]:
    """The time of the last rank in seconds, and bytes that all read; the file is cold."""
    copies = [_copy(path, rank) for rank in ranks] if options.get("copies") else []
    measure.make_cold([path, *copies])
    # For the page cache and the tensors; the page cache of four files, where each has its own.
    measure.touch(2 * path.stat().st_size)
    go, ready, ports = os.pipe(), os.pipe(), os.pipe()
    answers, children = os.pipe(), []
    for rank in ranks:
        child = os.fork()
        if child == 0:
            _rank(loader, path, warm, rank, len(ranks), ports[0], options, go[0], ready[1], answers[1])
        children.append(child)
    # After the forks: it has threads, whose locks a fork would take with it.
    store = dist.TCPStore("127.0.0.1", 0, WORLD, is_master=True, wait_for_workers=False)
    os.write(ports[1], f"{store.port:5}".encode() * len(ranks))
    os.close(answers[1])
    os.close(ready[1])
    for _ in ranks:
        assert os.read(ready[0], 1) == b".", "a rank does not start"
    os.write(go[1], b"." * len(ranks))
    with os.fdopen(answers[0]) as lines:
        rows = [json.loads(line) for line in lines]
    for child in children:
        os.waitpid(child, 0)
    for handle in (*go, *ports, ready[0]):
        os.close(handle)
    assert len(rows) == len(ranks), "a rank failed"
    return {
        "seconds": max(row["end"] for row in rows) - min(row["begin"] for row in rows),
        "read": sum(row["read"] for row in rows),
        "sum": sum(row["sum"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
    }


def _rank(
    loader: str,
    path: Path,
    warm: Path,
    rank: int,
    count: int,
    ports: int,
    options: dict[str, Any],
    go: int,
    ready: int,
    answers: int,
) -> None:
    code = 1
    try:
        torch.set_num_threads(1)
        if count > 1:
            store = dist.TCPStore("127.0.0.1", int(os.read(ports, 5)), WORLD, is_master=False)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
        LOADERS[loader](warm, rank, options)
        os.write(ready, b".")
        os.read(go, 1)
        counters, begin = measure.Counters.now(), time.monotonic()
        tensors = LOADERS[loader](path, rank, options)
        end, read = time.monotonic(), counters.since()["read_bytes"]
        total = sum(int(tensor.reshape(-1).view(torch.uint8)[::997].sum()) for tensor in tensors.values())
        size = sum(tensor.nbytes for tensor in tensors.values())
        row = {"begin": begin, "end": end, "read": read, "sum": total, "bytes": size}
        os.write(answers, json.dumps(row).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def rounds(path: Path, warm: Path, number: int) -> Iterator[tuple[str, dict[str, list[dict[str, float]]]]]:
    for name, ranks, options in CELLS:
        names = [*LOADERS, LIMIT] if len(ranks) > 1 else LOADERS
        rows: dict[str, list[dict[str, float]]] = {loader: [] for loader in names}
        for turn in range(number):
            for loader in list(LOADERS)[:: 1 if turn % 2 else -1]:
                rows[loader].append(together(loader, path, warm, ranks, options))
            if len(ranks) > 1:
                found = limits.direct_read(path, 0)
                rows[LIMIT].append({"seconds": found["wall"], "read": found["bytes"], "bytes": 0})
        sums = {row["sum"] for loader in LOADERS for row in rows[loader]}
        assert len(sums) == 1, "the bytes differ"
        yield name, rows


def table(path: Path, warm: Path, number: int) -> Iterator[str]:
    size = path.stat().st_size
    yield f"File of {size / 1e9:.3f} GB, {number} rounds, cold."
    yield ""
    yield "| ranks | loader | time s | get_slice / ours | held MB | read MB | read / file | read / get_slice |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, rows in rounds(path, warm, number):
        middle = {
            loader: {key: statistics.median(row[key] for row in several) for key in ("seconds", "read")}
            for loader, several in rows.items()
        }
        for loader, several in rows.items():
            times = [row["seconds"] for row in several]
            faster = middle["get_slice"]["seconds"] / middle[loader]["seconds"]
            read = middle[loader]["read"]
            less = f"{read / middle['get_slice']['read']:.2f}" if middle["get_slice"]["read"] else "-"
            yield (
                f"| {name} | {loader} | {middle[loader]['seconds']:.3f} ({min(times):.3f} to {max(times):.3f})"
                f" | {faster:.2f} | {several[0]['bytes'] / 1e6:.0f} | {read / 1e6:.0f} | {read / size:.3f} | {less} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small file, one round: shows that it works")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--root", type=Path, help="where the file is made and kept; else a temporary directory"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        shape = files.Shape.quick() if options.quick else files.Shape()
        path, warm = (
            root / ("quick.safetensors" if options.quick else "ranks.safetensors"),
            root / "warm.safetensors",
        )
        for file, sizes in ((path, shape), (warm, files.Shape.quick())):
            for copy in (file, *(_copy(file, rank) for rank in range(WORLD))):
                if not copy.exists():
                    files._write(copy, sizes.llama())
        for line in table(path, warm, 1 if options.quick else options.rounds):
            print(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Loading and saving beside the published package, in one run.

    make bench            or    .venv/main/bin/python bench/python.py [ROUNDS]

Both load the same files, warm in the page cache, in turns; what is shown is the median of each and the
median of the ratios of the rounds, with their spread. Each result is checked before it is timed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import tensafe.numpy
import tensafe.torch
import torch


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - start
    del kept
    return seconds


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> None:
    ours(), theirs()
    pairs = []
    for turn in range(rounds):
        # Who goes first changes, so that neither always finds what the other left behind.
        first, second = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        a, b = timed(first), timed(second)
        pairs.append((a, b) if turn % 2 == 0 else (b, a))
    ratios = sorted(b / a for a, b in pairs)
    medians = [statistics.median(column) * 1e3 for column in zip(*pairs, strict=True)]
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    print(
        f"| {name} | {medians[0]:.1f} | {medians[1]:.1f} | {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |",
        flush=True,
    )


def check(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name])) for name in ours)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    print(f"tensafe {tensafe.__version__}, safetensors {safetensors.__version__}, torch {torch.__version__};")
    print(f"{rounds} rounds, warm page cache; milliseconds; ratio above 1: tensafe is faster\n")
    print("| | tensafe | safetensors | ratio | spread |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        many, large = str(Path(directory) / "many"), str(Path(directory) / "large")
        small = {f"layers.{i // 10}.w{i % 10}": np.full(4, i, np.float32) for i in range(50_000)}
        weights = {f"layers.{i}": np.full((2048, 2048), i, np.float32) for i in range(16)}
        tensafe.numpy.save_file(small, many)
        tensafe.numpy.save_file(weights, large)
        for ours, theirs, name in (
            (tensafe.torch, safetensors.torch, "torch"),
            (tensafe.numpy, safetensors.numpy, "numpy"),
        ):
            for path, what in ((many, "50,000 small tensors"), (large, "16 tensors of 16.8 MB")):
                check(ours.load_file(path), theirs.load_file(path))
                cell = f"{what}, {name}, dict returned"
                compare(cell, partial(ours.load_file, path), partial(theirs.load_file, path), rounds)
        data = Path(large).read_bytes()
        compare(
            "268 MB from bytes, torch",
            lambda: tensafe.torch.load(data),
            lambda: safetensors.torch.load(data),
            rounds,
        )
        compare(
            "268 MB by reads, torch",
            lambda: tensafe.torch.load_file(large, backend="pread"),
            lambda: safetensors.torch.load_file(large, backend="pread"),
            rounds,
        )
        tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
        out = str(Path(directory) / "out")
        compare(
            "save 268 MB, torch, not durable",
            lambda: tensafe.torch.save_file(tensors, out, durable=False),
            lambda: safetensors.torch.save_file(tensors, out),
            rounds,
        )


if __name__ == "__main__":
    main()

"""Fleets of small files: what Ray costs for each beyond the threads of one process.

    .venv/ray/bin/python bench/fleet.py [--files 20000] [--rounds 5]

Ray is started before the clock and its workers have scanned one file each, as on a cluster that is there;
what starting takes is told apart. The files are in the page cache. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
from tensafe import fleet
from tensafe.numpy import save

PER_DIRECTORY = 1000


def write(directory: Path, files: int) -> None:
    for number in range(files):
        path = directory / f"d{number // PER_DIRECTORY:03}" / f"f{number:06}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(save({"weight": np.full(64, number, np.float32)}))


def seconds(directory: Path, engine: str, files: int, threads: int) -> float:
    begin = time.perf_counter()
    statuses = [row.status for row in fleet.run("scan", directory, engine=engine, threads=threads)]
    taken = time.perf_counter() - begin
    assert statuses == ["ok"] * files
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processors", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        write(directory, arguments.files)
        begin = time.perf_counter()
        ray.init(
            address="local",
            num_cpus=arguments.processors,
            object_store_memory=200 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        few = [path for path in sorted(directory.rglob("*.safetensors"))[:16]]
        assert len(list(fleet.run("scan", few, engine="ray"))) == min(16, arguments.files)
        start = time.perf_counter() - begin
        taken: dict[str, list[float]] = {"local": [], "ray": []}
        for _ in range(arguments.rounds):
            # In turns, so that what else the machine does falls on both.
            for engine, times in taken.items():
                times.append(seconds(directory, engine, arguments.files, arguments.processors))
        ray.shutdown()
    over = [1e3 * (b - a) / arguments.files for a, b in zip(taken["local"], taken["ray"], strict=True)]
    print(
        f"{arguments.files} files, {arguments.processors} processors, medians of {arguments.rounds} rounds (least to most)\n"
    )
    print("| engine | seconds | ms a file |\n|---|---|---|")
    for engine, times in taken.items():
        middle = statistics.median(times)
        print(
            f"| {engine} | {middle:.2f} ({min(times):.2f} to {max(times):.2f}) | {1e3 * middle / arguments.files:.3f} |"
        )
    print(
        f"\nRay beyond local: {statistics.median(over):.3f} ms a file ({min(over):.3f} to {max(over):.3f}); needed under 2."
    )
    print(
        f"With a Ray that is started for the run ({start:.1f} s): {statistics.median(over) + 1e3 * start / arguments.files:.3f} ms."
    )


if __name__ == "__main__":
    main()

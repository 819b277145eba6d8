"""torch.distributed.checkpoint: tensafe's reader beside torch's Hugging Face reader.

    python3 bench/dcp.py                       a Llama of 2 GB, in one file and in four, cold and warm
    python3 bench/dcp.py --quick --dir DIR     small files, two rounds: shows that it works

Run it with the Python of an environment that has torch, safetensors and tensafe. What is timed is all of `dcp.load`
in one process, headers and planning included, into tensors whose memory is there already. Each measurement is a
forked process of its own; the ways take turns within a round and change places between rounds. Before each clock
files are dropped from the page cache, or read, memory for the page cache is touched, and every tensor is compared with
the file's bytes in the first round. Beside them, as "limit", is what the machine does without tensors: cold, direct
reads into huge pages that are used again; warm, a copy of as many bytes from memory to memory by as many threads as
there are processors. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import torch
import torch.distributed.checkpoint as dcp
from files import Place, Shape, entries, make, tensors
from limits import direct_read
from measure import make_cold, make_warm, touch
from report import table
from tensafe.integrations.dcp import TensafeStorageReader

ROOT = Path(__file__).resolve().parent.parent
THREADS = os.cpu_count() or 1
PLAIN = "limit"
WAYS: dict[str, Callable[[str], Any]] = {
    "tensafe": TensafeStorageReader,
    "torch": dcp.HuggingFaceStorageReader,
    f"torch, thread_count={THREADS}": lambda path: dcp.HuggingFaceStorageReader(path, thread_count=THREADS),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="rounds of each cell [10, quick: 2]")
    parser.add_argument("--quick", action="store_true", help="small files, two rounds")
    parser.add_argument(
        "--dir", type=Path, default=ROOT / ".cache" / "bench", help="where files are made: 4 GB"
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds or (2 if arguments.quick else 10)
    shape = Shape.quick() if arguments.quick else Shape()
    root: Path = arguments.dir / ("dcp-quick" if arguments.quick else "dcp")
    root.mkdir(parents=True, exist_ok=True)
    make(str(root), asdict(shape), 0, [])
    packages = {name: version(name) for name in ("torch", "safetensors", "tensafe")}
    about = machine.describe(root, {"main": {**packages}}, rounds, sys.argv)
    print("\n".join(f"- {what}: {text}" for what, text in about.items()), end="\n\n", flush=True)
    place, rows = Place(root, 1), []
    for what in ("one", "shards"):
        for cached in (False, True):
            rows += cell(place, what, cached, rounds)
    print(table(["files", "cache", "reader", "seconds", "10..90 %", "GB/s", "torch's over it"], rows))
    return 0


def cell(place: Place, what: str, cached: bool, rounds: int) -> list[list[str]]:
    """The rows of one kind of files, cold or warm."""
    files = [str(path) for path in place.files(what, "safetensors", 0)]
    # A directory of its own for the one file: the reader of torch takes directories alone.
    directory = Path(files[0]).parent
    if what == "one":
        directory = directory / "alone"
        directory.mkdir(exist_ok=True)
        alone = directory / "model.safetensors"
        if not alone.exists():
            os.link(files[0], alone)
        files = [str(alone)]
    ways = [name for name in (*WAYS, PLAIN) if len(files) > 1 or "thread_count" not in name]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways[number % len(ways) :] + ways[: number % len(ways)]:
            seconds[name].append(measured(name, str(directory), files, cached, number == 0))
    size = sum(map(os.path.getsize, files))
    rows = []
    for name in ways:
        times = seconds[name]
        ratios = [theirs / ours for theirs, ours in zip(seconds["torch"], times, strict=True)]
        median = statistics.median(times)
        rows.append(
            [
                f"{len(files)}, {size / 1e9:.2f} GB",
                "warm" if cached else "cold",
                name,
                f"{median:.3f}",
                "{:.3f}..{:.3f}".format(*spread(times)),
                f"{size / median / 1e9:.2f}",
                "{:.2f} ({:.2f}..{:.2f})".format(statistics.median(ratios), *spread(ratios)),
            ]
        )
    return rows


def spread(figures: list[float]) -> tuple[float, float]:
    """The tenth and the ninetieth part."""
    if len(figures) < 2:
        return figures[0], figures[0]
    tenths = statistics.quantiles(figures, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def measured(name: str, directory: str, files: list[str], cached: bool, check: bool) -> float:
    """Seconds of one load, in a process that ends with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = {"seconds": load(name, directory, files, cached, check)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = json.loads(pipe.read() or b'{"error": "the process died"}')
    os.waitpid(child, 0)
    if "error" in said:
        sys.exit(f"{name}: {said['error']}")
    return float(said["seconds"])


def load(name: str, directory: str, files: list[str], cached: bool, check: bool) -> float:
    warnings.simplefilter("ignore")
    dtypes = {"BF16": torch.bfloat16, "F32": torch.float32}
    here = entries(files)
    # Written to, so that the memory is there before the clock.
    into = {key: torch.ones(entry.shape, dtype=dtypes[entry.dtype]) for key, entry in here.items()}
    (make_warm if cached else make_cold)(Path(file) for file in files)
    if name == PLAIN:
        return copied(into) if cached else sum(direct_read(Path(file), 0)["wall"] for file in files)
    if not cached:
        # For the page cache, of readers that go through it.
        touch(2 * sum(map(os.path.getsize, files)))
    begin = time.perf_counter()
    dcp.load(into, storage_reader=WAYS[name](directory), no_dist=True)
    seconds = time.perf_counter() - begin
    if check:
        for key, whole in tensors(here).items():
            if not torch.equal(into[key].view(torch.int16), whole.view(torch.int16)):
                raise AssertionError(f"{key} is not what the file holds")
    return seconds


def copied(into: dict[str, torch.Tensor]) -> float:
    """Seconds that a copy of all tensors takes, from other memory that was written to."""
    torch.set_num_threads(THREADS)
    others = [torch.ones_like(tensor) for tensor in into.values()]
    begin = time.perf_counter()
    for tensor, other in zip(into.values(), others, strict=True):
        tensor.copy_(other)
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())

"""Converting and scanning beside what people use today, in one run.

    .venv/main/bin/python bench/pickles.py [ROUNDS] [--directory DIR]

- Converting a torch zip of 2 GB: ``tensafe.convert`` beside ``torch.load`` with
  ``safetensors.torch.save_file`` (made durable as ours is: file and directory flushed), and beside a copy
  of the file that is flushed, as ``cp`` does it. The input is warm in the page cache, which is checked.
- The peak of anonymous memory of the program ``tensafe`` while it converts, read 200 times a second.
- Scanning: 2,000 small pickles beside picklescan, each in its own interpreter with imports left out of the
  time, and the torch zip of 2 GB.

Who goes first changes from round to round; medians, and ratios of the rounds with their spread. The results
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import tensafe
import torch

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).parent / "tensafe"
PICKLES = 2000


def flush(path: Path) -> None:
    for target, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(target, flags)
        os.fsync(handle)
        os.close(handle)


def make_checkpoint(path: Path) -> int:
    """A state dict of 2 GB, shaped as a Llama of 18 layers."""
    wide, inner, words = 2048, 5632, 32000
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randint(0, 1 << 15, shape, dtype=torch.int16, generator=generator).view(torch.bfloat16)

    state = {"model.embed_tokens.weight": tensor(words, wide), "lm_head.weight": tensor(words, wide)}
    for layer in range(18):
        prefix = f"model.layers.{layer}"
        for name in "qkvo":
            state[f"{prefix}.self_attn.{name}_proj.weight"] = tensor(wide, wide)
        for name, shape in (("gate", (inner, wide)), ("up", (inner, wide)), ("down", (wide, inner))):
            state[f"{prefix}.mlp.{name}_proj.weight"] = tensor(*shape)
        state[f"{prefix}.input_layernorm.weight"] = tensor(wide)
    torch.save(state, path)
    return path.stat().st_size


def make_pickles(directory: Path) -> None:
    """Small state dicts and configurations, as hubs have them: half torch files, half plain pickles."""
    directory.mkdir()
    for number in range(PICKLES):
        if number % 2:
            value = {
                "config": {"lr": 0.1, "layers": list(range(20))},
                "names": [f"layer.{i}" for i in range(30)],
            }
            (directory / f"{number}.pkl").write_bytes(pickle.dumps(value, protocol=2 + number % 4))
        else:
            state = {f"layer.{i}.weight": torch.zeros(4, 4) for i in range(8)}
            torch.save(state, directory / f"{number}.pt")


def in_turns(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(ways[name]())
    return times


def ratios(ours: list[float], theirs: list[float]) -> str:
    each = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def convert_rows(directory: Path, rounds: int) -> None:
    source, out = directory / "pytorch_model.bin", directory / "out" / "model.safetensors"
    out.parent.mkdir()
    size = make_checkpoint(source)

    def timed(way: Callable[[], None]) -> Callable[[], float]:
        def run() -> float:
            out.unlink(missing_ok=True)
            flush(source)
            warm(source)
            start = time.perf_counter()
            way()
            return time.perf_counter() - start

        return run

    def ours() -> None:
        tensafe.convert(source, out)

    def theirs() -> None:
        safetensors.torch.save_file(torch.load(source, weights_only=True), out, {"format": "pt"})
        flush(out)

    def copy() -> None:
        subprocess.run(["cp", "--", str(source), str(out)], check=True)
        flush(out)

    ours()
    first = safetensors.torch.load_file(out)
    expected = torch.load(source, weights_only=True)
    assert first.keys() == expected.keys() and all(
        torch.equal(first[k].view(torch.int16), expected[k].view(torch.int16)) for k in expected
    )
    del first, expected
    times = in_turns(rounds, {"ours": timed(ours), "theirs": timed(theirs), "copy": timed(copy)})
    median = {name: statistics.median(column) for name, column in times.items()}
    print(f"| convert {size / 1e9:.2f} GB torch zip, warm, durable | {median['ours']:.2f} s | |")
    print(
        f"| torch.load + save_file + fsync | {median['theirs']:.2f} s | {ratios(times['ours'], times['theirs'])} |"
    )
    print(f"| cp + fsync | {median['copy']:.2f} s | {ratios(times['ours'], times['copy'])} |")
    out.unlink(missing_ok=True)
    print(f"| peak RssAnon of `tensafe convert` | {peak(source, out) / 2**20:.1f} MiB | |", flush=True)


def warm(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def peak(source: Path, out: Path) -> int:
    """The most anonymous memory that the program had, in bytes."""
    process = subprocess.Popen([str(PROGRAM), "convert", str(source), str(out)], stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                most = max(most, int(line.split()[1]) * 1024)
        time.sleep(0.005)
    assert process.wait() == 0
    return most


PICKLESCAN = """
import contextlib, io, json, logging, sys, time
from picklescan.scanner import scan_directory_path
logging.disable(logging.CRITICAL)
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    result = scan_directory_path(sys.argv[1])
print(json.dumps([time.perf_counter() - start, result.scanned_files, result.infected_files]))
"""
OURS = """
import json, sys, time
import tensafe
start = time.perf_counter()
report = tensafe.scan(sys.argv[1])
print(json.dumps([time.perf_counter() - start, len(report.files), sum(f.verdict != "clean" for f in report.files)]))
"""


def scan_rows(directory: Path, rounds: int) -> None:
    small = directory / "pickles"
    make_pickles(small)
    subprocess.run([sys.executable, str(ROOT / "tools" / "env.py"), "bench"], check=True)
    theirs = ROOT / ".venv" / "bench" / "bin" / "python"

    def run(python: Path | str, script: str, path: Path, files: int) -> Callable[[], float]:
        def once() -> float:
            done = subprocess.run(
                [str(python), "-c", script, str(path)], check=True, capture_output=True, text=True
            )
            seconds, scanned, found = json.loads(done.stdout.splitlines()[-1])
            assert scanned >= files and found == 0, (scanned, found)
            return float(seconds)

        return once

    ways = {
        "ours": run(sys.executable, OURS, small, PICKLES),
        "theirs": run(theirs, PICKLESCAN, small, PICKLES // 2),
    }
    for way in ways.values():
        way()
    times = in_turns(rounds, ways)
    median = {name: statistics.median(column) for name, column in times.items()}
    print(f"| scan {PICKLES:,} small pickles | {median['ours'] * 1e3:.0f} ms | |")
    print(
        f"| picklescan 1.0.5 | {median['theirs'] * 1e3:.0f} ms | {ratios(times['ours'], times['theirs'])} |"
    )
    big = [run(sys.executable, OURS, directory / "pytorch_model.bin", 1)() for _ in range(rounds)]
    print(
        f"| scan the torch zip of 2 GB | {statistics.median(big) * 1e3:.1f} ms (most {max(big) * 1e3:.1f}) | |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=int, default=7)
    parser.add_argument(
        "--directory", type=Path, help="where the files are made: 7 GB [default: a temporary one]"
    )
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        versions: dict[str, Any] = {"torch": torch.__version__, "safetensors": "0.8.0"}
        print(f"{os.cpu_count()} processors, {versions}, {arguments.rounds} rounds\n")
        print("| what | median | theirs / ours: median (spread) |\n|---|---|---|", flush=True)
        convert_rows(directory, arguments.rounds)
        scan_rows(directory, arguments.rounds)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

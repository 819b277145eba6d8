"""Loading, cutting and saving beside everyone who runs on a CPU, and beside what the machine can do.

    make bench                                              everything: bench/RESULTS.md, bench/results.svg
    python3 bench/load.py --cells cold,warm --rounds 5      some of it; --list names the cells
    python3 bench/load.py --quick --dir DIR                 small files, two rounds: shows that it works

Each measurement is a process of its own, forked where torch is imported already. The ways of a cell take
turns within each round, in an order of chance; what is compared are the ratios of a round, shown as
their median with the tenth and the ninetieth part. Pages are dropped, or read, and the page cache is asked
whether it is so, before every clock. Every tensor of every way is compared with the bytes of the file once
in the run; the sums of what was consumed are compared every time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bars
import chart
import machine
import report
from cells import CELLS, GROUPS, HEADER, Cell
from child import ChildError, Server
from files import Place, Shape
from runner import Outcome, Runner

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PACKAGES = [
    "tensafe",
    "torch",
    "numpy",
    "safetensors",
    "fastsafetensors",
    "runai-model-streamer",
    "tensorizer",
]


def main() -> int:
    arguments = parse()
    # The servers end with the driver, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if arguments.list:
        print("\n".join(f"{cell.group:<8} {cell.name:<14} {cell.title}" for cell in CELLS))
        return 0
    # Counting instructions builds a program and takes as long as everything else of a quick run.
    usual = [group for group in GROUPS if group != HEADER or not arguments.quick]
    groups = arguments.cells.split(",") if arguments.cells else usual
    if unknown := set(groups) - set(GROUPS):
        sys.exit(f"no such cells: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    chosen = [cell for cell in CELLS if cell.group in groups]
    root: Path = arguments.dir / ("quick" if arguments.quick else "full")
    root.mkdir(parents=True, exist_ok=True)
    servers, missing = start(arguments)
    try:
        place = make_files(servers["main"], root, arguments)
        installed = {
            name: server.ask({"action": "versions", "packages": PACKAGES}) for name, server in servers.items()
        }
        about = machine.describe(root, installed, arguments.rounds, sys.argv)
        headers = count_headers() if HEADER in groups else None
        outcomes: list[Outcome] = []

        def show() -> Path:
            text = report.render(about, outcomes, bars.check(outcomes, headers), headers)
            return write(arguments, root, text, chart.render(outcomes))

        # Written after each cell too: whoever ends a long run keeps what was measured.
        for outcome in measure(Runner(servers, missing, place, arguments.rounds), chosen, arguments):
            outcomes.append(outcome)
            show()
        say(f"{show()}")
    finally:
        for server in servers.values():
            server.close()
    return failures(outcomes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="rounds of each cell [10, quick: 2]")
    parser.add_argument("--quick", action="store_true", help="small files, two rounds")
    parser.add_argument("--cells", help=f"some of {','.join(GROUPS)}")
    parser.add_argument(
        "--dir", type=Path, default=ROOT / ".cache" / "bench", help="where files are made: 20 GB"
    )
    parser.add_argument("--copies", type=int, default=2, help="copies of each file that take turns [2]")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv/bench/bin/python", help="has the loaders"
    )
    parser.add_argument(
        "--python-rc", type=Path, default=ROOT / ".venv/bench-rc/bin/python", help="has 0.9.0rc1"
    )
    parser.add_argument(
        "--report", type=Path, help="what is rewritten [full: bench/RESULTS.md, else in --dir]"
    )
    parser.add_argument("--list", action="store_true", help="list the cells")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 10)
    return arguments


def start(arguments: argparse.Namespace) -> tuple[dict[str, Server], dict[str, str]]:
    """The servers of the environments, and why one is missing. Without the main one nothing runs."""
    servers: dict[str, Server] = {}
    missing: dict[str, str] = {}
    for name, python in (("main", arguments.python), ("rc", arguments.python_rc)):
        try:
            servers[name] = Server(python)
        except (ChildError, OSError) as error:
            missing[name] = f"no environment: {error}"
    if "main" not in servers:
        sys.exit(f"{arguments.python}: {missing['main']}; `python3 tools/env.py bench` makes it")
    return servers, missing


def make_files(server: Server, root: Path, arguments: argparse.Namespace) -> Place:
    shape = Shape.quick() if arguments.quick else Shape()
    has = server.ask({"action": "versions", "packages": ["tensorizer"]})
    formats = ["safetensors", "pth", *(["tensors"] if has["tensorizer"] else [])]
    for copy in range(arguments.copies):
        begun = time.monotonic()
        task = {"action": "make", "root": str(root), "shape": asdict(shape), "copy": copy, "formats": formats}
        if written := server.ask(task):
            say(f"made {len(written)} files, copy {copy} [{time.monotonic() - begun:.0f} s]")
    return Place(root, arguments.copies)


def measure(runner: Runner, chosen: list[Cell], arguments: argparse.Namespace) -> Iterator[Outcome]:
    seconds = sum(
        cell.rounds(arguments.rounds)
        * len((*cell.ways, *cell.limits))
        * (0.2 if arguments.quick else cell.estimate)
        for cell in chosen
    )
    say(
        f"{len(chosen)} cells, {arguments.rounds} rounds, on a quiet machine about {seconds / 60:.0f} minutes"
    )
    for cell in chosen:
        outcome = runner.run(cell)
        say(
            f"{cell.name:<14} {outcome.seconds:.0f} s, {outcome.timed:.0f} s of it timed {outcome.aborted}".rstrip()
        )
        yield outcome


def count_headers() -> list[dict[str, Any]] | str:
    """What bench/header.py counts, or why it does not."""
    script = BENCH / "header.py"
    if not script.exists():
        return "there is no bench/header.py"
    if not shutil.which("valgrind"):
        return "there is no program `valgrind`"
    done = subprocess.run([sys.executable, str(script), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        return f"bench/header.py: {done.stderr.strip().splitlines()[-1]}"
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def write(arguments: argparse.Namespace, root: Path, text: str, picture: str) -> Path:
    # A part of the cells, or small files, are no results to show.
    whole = not arguments.quick and not arguments.cells
    target: Path = arguments.report or (BENCH if whole else root) / "RESULTS.md"
    before = target.read_text() if target.exists() else "# Results\n"
    target.write_text(report.replace_section(before, text))
    target.with_name("results.svg").write_text(picture)
    return target


def failures(outcomes: list[Outcome]) -> int:
    failed = [
        (one.cell.name, reason)
        for one in outcomes
        for reason in (*one.failed.values(), one.aborted)
        if reason
    ]
    for cell, reason in failed:
        say(f"FAILED {cell}: {reason}")
    return 1 if failed else 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

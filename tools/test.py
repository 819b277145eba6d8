"""Runs everything that is tested, and ends with one line: N passed, N failed, N skipped.

    python3 tools/test.py [--list] [--integrations] [STEP...]

A step is a command; what it prints goes to .cache/test/STEP.log, and is shown where it fails. Steps
that do not wait for each other run side by side.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "test"
MAIN, TF, MLX = (f".venv/{name}/bin/python" for name in ("main", "tf", "mlx"))
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfEs")
LOADING = tuple(
    f"tests/python/test_{name}.py"
    for name in ("loading", "open", "exchange", "properties", "frameworks", "plan", "handover")
)
# The systems that load models, the slowest first: directories of tests/integrations/.
INTEGRATIONS = ("vllm", "deepspeed", "ray", "torch", "hub")


@dataclass
class Step:
    """A command, the steps that come before it, and what it uses that no two may use at once."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    uses: str = ""
    counts: str = "exit"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)


def steps() -> list[Step]:
    """What is tested. cargo has one lock on its directory: its steps follow each other."""

    def python(name: str, interpreter: str, *arguments: str, uses: str = "", io: str = "") -> Step:
        environment = {"TENSAFE_IO": io} if io else {}
        command = (interpreter, *arguments)
        return Step(name, command, ("wheel",), uses=uses, counts="pytest", environment=environment)

    return [
        Step("format", ("cargo", "fmt", "--check")),
        Step("edges", ("python3", "tools/edges.py")),
        Step("spec", ("python3", "tools/spec.py")),
        Step("corpus", ("python3", "tests/corpus/make.py", "--check")),
        Step("pickles-hostile", ("python3", "tests/pickles/make_hostile.py", "--check")),
        Step("pickles-benign", ("python3", "tests/pickles/make_benign.py", "--check")),
        Step(
            "clippy",
            ("cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"),
            uses="cargo",
        ),
        Step(
            "rust",
            ("cargo", "test", "--locked", "--workspace", "--no-fail-fast"),
            uses="cargo",
            counts="cargo",
        ),
        # In a directory of its own: with other flags everything is built anew.
        Step(
            "loom",
            ("cargo", "test", "--locked", "--release", "--package", "tensafe-io", "--lib", "loom"),
            counts="cargo",
            environment={"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": "target/loom"},
        ),
        Step(
            "rustdoc",
            ("cargo", "doc", "--locked", "--workspace", "--no-deps", "--quiet"),
            uses="cargo",
            environment={"RUSTDOCFLAGS": "-D warnings"},
        ),
        Step("environments", ("python3", "tools/env.py", "--tools", "main", "tf", "mlx")),
        Step(
            "wheel",
            ("python3", "tools/env.py", "--wheel", "main", "tf", "mlx"),
            after=("environments",),
            uses="cargo",
        ),
        python("types", MAIN, "-m", "mypy", "--strict", "-p", "tensafe", uses="mypy"),
        python(
            "types-bench", MAIN, "-m", "mypy", "--strict", "bench/load.py", "bench/actions.py", uses="mypy"
        ),
        python("stubs", MAIN, "-m", "mypy.stubtest", "tensafe._tensafe", uses="mypy"),
        python("lint", MAIN, "-m", "ruff", "check", "."),
        python("format-python", MAIN, "-m", "ruff", "format", "--check", "."),
        python("python", MAIN, *PYTEST, "-n", "2", "tests/python"),
        # Once more with each way that bytes reach memory where the caller leaves the choice to us.
        *(
            python(f"python-{io}", MAIN, *PYTEST, "-n", "2", *LOADING, io=io)
            for io in ("mmap", "pread", "direct", "owned")
        ),
        python("python-tensorflow", TF, *PYTEST, "tests/python", "-k", "tensorflow"),
        python("python-paddle", TF, *PYTEST, "tests/python", "-k", "paddle"),
        python("python-mlx", MLX, *PYTEST, "tests/python", "-k", "mlx"),
        python(
            "reference-0.8.0",
            MAIN,
            "tools/reference.py",
            "0.8.0",
            "tests",
            "--ignore=tests/test_tf_comparison.py",
        ),
        python(
            "reference-0.9.0rc1",
            MAIN,
            "tools/reference.py",
            "0.9.0rc1",
            "tests",
            "--ignore=tests/test_tf_comparison.py",
        ),
        *(
            Step(
                f"integrations-{name}",
                ("python3", "tools/integrations.py", name),
                ("wheel",),
                # Each of them has several processes, some of which are given up on when they are slow.
                uses="integrations",
                counts="pytest",
            )
            for name in INTEGRATIONS
        ),
        python("reference-tensorflow", TF, "tools/reference.py", "0.9.0rc1", "tests/test_tf_comparison.py"),
        python("reference-paddle", TF, "tools/reference.py", "0.8.0", "tests/test_paddle_comparison.py"),
    ]


def run(step: Step, log: Path) -> None:
    start = time.monotonic()
    environment = {**os.environ, **step.environment, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        try:
            code = subprocess.run(
                step.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            ).returncode
        except OSError as error:
            # Such as the Python of an environment that was not made: this step fails, the others go on.
            out.write(f"{step.command[0]} could not be started: {error}\n")
            code = 127
    step.seconds = time.monotonic() - start
    count(step, log.read_text(errors="replace"), code)


def count(step: Step, text: str, code: int) -> None:
    """What a step says of its tests; a step that says nothing is one test."""
    if step.counts == "cargo":
        rows = re.findall(r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
        totals = [sum(int(row[column]) for row in rows) for column in range(3)]
        step.passed, step.failed, step.skipped = totals
    elif step.counts == "pytest":
        last = [line for line in text.splitlines() if re.search(r"\d+ (passed|failed|error|skipped)", line)][
            -1:
        ]
        found = {
            what: int(n)
            for line in last
            for n, what in re.findall(r"(\d+) (passed|failed|errors?|skipped|xfailed)", line)
        }
        step.passed = found.get("passed", 0) + found.get("xfailed", 0)
        step.failed = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
        step.skipped = found.get("skipped", 0)
    if code != 0 and step.failed == 0:
        step.failed = 1
    elif step.passed + step.failed + step.skipped == 0:
        step.passed = 1


def report(step: Step, log: Path) -> None:
    mark = "FAILED" if step.failed else "ok"
    skipped = f", {step.skipped} skipped" if step.skipped else ""
    print(
        f"{step.name:<22} {mark:<7} {step.passed} passed, {step.failed} failed{skipped}  [{step.seconds:.0f} s]",
        flush=True,
    )
    for line in re.findall(r"^.* could not be installed: .*$", log.read_text(errors="replace"), re.MULTILINE):
        print(f"    skipped: {line}", flush=True)
    if step.failed:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(f"    {line}" for line in lines[-60:]), flush=True)


def failures(step: Step, log: Path) -> list[str]:
    """The names of the tests of a step that failed, or the step's own where it names none."""
    text = log.read_text(errors="replace")
    named = re.findall(r"^(?:FAILED|ERROR) (\S+)|^test (\S+) \.\.\. FAILED$", text, re.MULTILINE)
    return [pytest or cargo for pytest, cargo in named] or [" ".join(step.command)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="list the steps")
    parser.add_argument("--integrations", action="store_true", help="run those of other systems alone")
    parser.add_argument("names", nargs="*", metavar="STEP", help="run these alone")
    arguments = parser.parse_args()
    wanted = list(arguments.names)
    if arguments.integrations:
        wanted += ["environments", "wheel", *(f"integrations-{name}" for name in INTEGRATIONS)]
    chosen = [step for step in steps() if not wanted or step.name in wanted]
    if arguments.list:
        print("\n".join(f"{step.name:<22} {' '.join(step.command)}" for step in chosen))
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    names = {step.name for step in chosen}
    waiting, done = list(chosen), set()
    running: dict[Future[None], Step] = {}

    def ready(step: Step) -> bool:
        busy = {other.uses for other in running.values() if other.uses}
        return step.uses not in busy and all(before in done or before not in names for before in step.after)

    with ThreadPoolExecutor(3) as pool:
        while waiting or running:
            for step in [step for step in waiting if ready(step)]:
                if len(running) < 3 and ready(step):
                    waiting.remove(step)
                    running[pool.submit(run, step, LOGS / f"{step.name}.log")] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                future.result()
                done.add(step.name)
                report(step, LOGS / f"{step.name}.log")
    totals = [sum(getattr(step, what) for step in chosen) for what in ("passed", "failed", "skipped")]
    # Once more, by name: what a step printed is far above by now, and often all that is kept is the end.
    for step in (step for step in chosen if step.failed):
        for name in failures(step, LOGS / f"{step.name}.log"):
            print(f"FAILED {step.name}: {name}")
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    return 1 if totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())

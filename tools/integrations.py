"""Runs the tests of one system that loads models, in an environment that has it.

    python3 tools/integrations.py NAME       vllm, deepspeed, ray, torch or hub

The tests are those of tests/integrations/NAME. An environment that cannot be installed here is told, in one
line, and its tests count as skipped; a test that fails is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The environment of each system.
SYSTEMS = {"torch": "main", "hub": "main", "vllm": "vllm", "deepspeed": "deepspeed", "ray": "ray"}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in SYSTEMS:
        print(__doc__, file=sys.stderr)
        return 2
    name = sys.argv[1]
    environment = SYSTEMS[name]
    # The environment `main` has the wheel, and may be in use.
    if environment != "main" and (reason := why_not(environment)):
        print(f"{name} could not be installed: {reason}")
        print("1 skipped")
        return 0
    python = ROOT / ".venv" / environment / "bin" / "python"
    pytest = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfEs"]
    # One thread for each of several processes: two processors are shared by all of them.
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    paths = [str(ROOT / "tests" / "integrations" / "gloo"), os.environ.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run([*pytest, f"tests/integrations/{name}"], cwd=ROOT, env=variables).returncode


def why_not(environment: str) -> str:
    """Makes an environment with the package in it; why that failed, or nothing."""
    command = [sys.executable, "tools/env.py", "--built", environment]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode == 0:
        return ""
    print(made.stdout)
    errors = [line.strip() for line in made.stdout.splitlines() if "error" in line.lower()]
    return next(iter(errors), "no reason given")


if __name__ == "__main__":
    sys.exit(main())

"""Runs what a page of docs/integrations/ shows: a page that is wrong fails a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "integrations"
# Seconds after which a block is taken to hang.
PATIENCE = 600.0


def run_page(name: str, directory: Path, environment: dict[str, str] | None = None) -> list[str]:
    """Runs every block ``python`` and ``bash`` of a page, in order, in one directory, and returns what each
    printed. A Python block is a program of its own; commands are those of the environment of the tests.
    Blocks ``text`` are not run: they show what is printed, or another system's file."""
    page = (PAGES / f"{name}.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert blocks, f"{name}.md shows nothing"
    return [_run(name, number, *block, directory, environment or {}) for number, block in enumerate(blocks)]


def _run(
    name: str, number: int, language: str, code: str, directory: Path, environment: dict[str, str]
) -> str:
    if language == "text":
        return ""
    if language == "python":
        file = directory / f"block_{number}.py"
        file.write_text(code)
        command = [sys.executable, str(file)]
    else:
        assert language == "bash", f"{name}.md: block {number} is {language}"
        command = ["bash", "-eu", "-o", "pipefail", "-c", code]
    # The virtual environment's programs, such as `tensafe`, as a user has them after activating it.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment, "PATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{name}.md, block {number}:\n{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout

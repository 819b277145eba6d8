"""vLLM itself: the entry point is found in all of its processes, and the tokens are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from models import llama

PROGRAM = str(Path(__file__).with_name("generate.py"))


def start(directory: Path, load_format: str, ranks: int = 1, extra: str = "{}") -> subprocess.Popen[str]:
    command = [sys.executable, PROGRAM, str(directory), load_format, str(ranks), extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tokens(program: subprocess.Popen[str]) -> list[int]:
    out, err = program.communicate(timeout=400)
    assert program.returncode == 0, err[-5000:]
    found: list[int] = json.loads(next(line for line in out.splitlines() if line.startswith("[")))
    return found


def test_tokens_are_those_of_safetensors_on_one_rank_and_on_two(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", shard_size="300KB")
    both = start(directory, "safetensors"), start(directory, "tensafe")
    wanted, found = map(tokens, both)
    assert len(wanted) == 8 and len(set(wanted)) > 2
    assert found == wanted
    # Sums of two ranks are rounded otherwise, too little to change these tokens.
    assert tokens(start(directory, "tensafe", 2, '{"tp": "on", "budget": "64MiB"}')) == wanted

"""A model whose output layer is its embedding: a configuration of its own, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models import llama

PROGRAM = """
import sys
from pathlib import Path
from engine import differing, load, worker
with worker(Path(sys.argv[1]), Path(sys.argv[2])) as config:
    wanted = load(config, "safetensors")
    for extra in ({}, {"tp": "on", "io": "pread"}):
        model = load(config, "tensafe", extra)
        assert differing(model, wanted) == []
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
"""


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", tie_word_embeddings=True)
    arguments = [sys.executable, "-c", PROGRAM, str(directory), str(tmp_path / "store")]
    done = subprocess.run(arguments, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-5000:]

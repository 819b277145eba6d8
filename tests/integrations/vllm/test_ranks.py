"""Two processes of vLLM's distributed environment load their parts of a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from models import llama

HERE = Path(__file__).parent
# Columns of wide tensors lie too close together to be read apart; rows do not.
SETTINGS = {"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 4096, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("ranks")
    directory = llama(place / "model", num_attention_heads=8, num_key_value_heads=4, **SETTINGS)
    command = [sys.executable, str(HERE / "engine.py")]
    # Names the memory that the ranks share.
    environment = {**os.environ, "VLLM_DIST_IDENT": uuid.uuid4().hex}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2", str(directory), str(place / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = []
    for rank in ranks:
        out, err = rank.communicate(timeout=300)
        assert rank.returncode == 0, err[-5000:]
        found.append(json.loads(out.splitlines()[-1]))
    return found


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("tp", ["on", "off"])
def test_a_rank_has_the_parameters_that_safetensors_gives_it(reports: Any, rank: int, tp: str) -> None:
    assert reports[rank][tp]["differing"] == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_does_not_read_the_rows_that_it_narrows_away(reports: Any, rank: int) -> None:
    wide, inner, words, layers, heads = 512, 1024, 4096, 4, 64
    rows = layers * (2 * wide * inner + wide * heads * (8 + 4 + 4)) + 2 * words * wide
    columns = layers * (inner * wide + 8 * heads * wide)
    # Halves of the rows, and the columns once over, gaps included; headers and a little beside.
    most = 2 * (rows // 2 + columns) + (64 << 10)
    assert reports[rank]["on"]["read"] <= most
    assert reports[rank]["off"]["read"] >= 2 * (rows + columns)

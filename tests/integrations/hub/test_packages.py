"""The packages of the Hub with tensafe as their safetensors: what they load is right, and what they save
is, byte for byte, what they save with the published package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"


def run(*arguments: str | Path) -> str:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
    environment["PYTHONHASHSEED"] = "0"
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def parsed(data: bytes) -> tuple[dict[str, str], list[tuple[str, object]], bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return header.pop("__metadata__", {}), list(header.items()), data[end:]


def assert_same_files(ours: Path, theirs: Path) -> int:
    """Compares two directories, and returns how many safetensors files there are."""
    left, right = files(ours), files(theirs)
    assert left.keys() == right.keys()
    for name in left:
        if name.endswith(".safetensors"):
            # The published package writes two and more metadata in an order of chance.
            if left[name] != right[name]:
                assert parsed(left[name]) == parsed(right[name]), name
                assert len(parsed(left[name])[0]) > 1, name
        # Pickles of torch have a number of chance within.
        elif not name.endswith((".bin", ".pkl", ".pt")):
            assert left[name] == right[name].replace(bytes(theirs), bytes(ours)), name
    return sum(name.endswith(".safetensors") for name in left)


@pytest.mark.parametrize(
    "package, least",
    [("transformers", 10), ("accelerate", 5), ("diffusers", 8), ("peft", 5), ("huggingface_hub", 6)],
)
def test_a_package_loads_and_saves_as_with_the_published_safetensors(package, least, tmp_path):
    pytest.importorskip(package)
    program = PROGRAMS / f"with_{package}.py"
    for which in ("ours", "theirs"):
        (tmp_path / which).mkdir()
    run("-m", "tensafe.compat", program, tmp_path / "ours")
    run(program, tmp_path / "theirs")
    assert assert_same_files(tmp_path / "ours", tmp_path / "theirs") >= least


MODEL = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2)
LlamaForCausalLM(config).save_pretrained(sys.argv[1], max_shard_size="300KB")
"""


def test_two_ranks_of_transformers_take_their_parts_and_save_the_whole(tmp_path):
    pytest.importorskip("transformers")
    theirs = pytest.importorskip("safetensors.torch")
    run("-c", MODEL, tmp_path / "model")
    run(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tensafe.compat"),
        *(PROGRAMS / "tensor_parallel.py", tmp_path / "model", tmp_path),
    )
    # The published package reads the same tensors, and writes the same bytes.
    model, saved = {}, {}
    for path in (tmp_path / "model").glob("*.safetensors"):
        model.update(theirs.load_file(path))
    for path in (tmp_path / "saved").glob("*.safetensors"):
        tensors = theirs.load_file(path)
        saved.update(tensors)
        assert path.read_bytes() == theirs.save(tensors, {"format": "pt"}), path.name
    assert saved.keys() == model.keys() and all(saved[name].equal(model[name]) for name in model)
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    whole = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    for rank in (0, 1):
        taken = json.loads((tmp_path / f"taken_{rank}").read_text())
        assert taken["model.layers.0.self_attn.q_proj.weight"] == [64, 128]
        assert taken["model.layers.0.self_attn.o_proj.weight"] == [128, 64]
        # Half of all matrices, and all of the norms, which are whole on each rank.
        assert 0.49 * whole < taken["bytes"] < 0.52 * whole

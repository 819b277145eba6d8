"""Real runs of two ranks on the CPU: saved, resumed and converted."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed.runtime")
os.environ["DS_ACCELERATOR"] = "cpu"

import safetensors.torch
import tensafe
import tensafe.torch
import torch
from deepspeed.checkpoint import ds_to_universal
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint, to_torch_tensor
from tensafe.integrations.deepspeed import TensafeCheckpointEngine

CASES = [f"{stage}-{dtype}" for stage in (1, 2, 3) for dtype in ("fp32", "bf16")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``train.py`` leaves."""
    directory = tmp_path_factory.mktemp("runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).with_name("train.py")), str(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return directory


def reference(checkpoint: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """What ``zero_to_fp32.py`` makes of a folder."""
    with contextlib.redirect_stdout(io.StringIO()):
        state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), lazy_mode=True)
        return to_torch_tensor(state, dtype=dtype)


def assert_equal(found: dict[str, torch.Tensor], needed: dict[str, torch.Tensor]) -> None:
    assert sorted(found) == sorted(needed)
    for name, tensor in needed.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        same = found[name].reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(*same), name


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumes_as_from_a_pickle(runs: Path, case: str) -> None:
    result = json.loads((runs / "results.json").read_text())[case]
    losses = result["losses"]
    assert losses["tensafe"] == losses["plain"] == losses["went on"]
    assert result["lost"] == {"plain": [], "tensafe": []}


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_safetensors(runs: Path, case: str) -> None:
    plain, ours = (sorted((runs / case / kind).rglob("*.pt")) for kind in ("plain", "tensafe"))
    assert [file.name for file in ours] == [file.name for file in plain]
    for file in ours:
        assert sorted(safetensors.torch.load_file(file)) == sorted(tensafe.torch.load_file(file))
    assert (runs / case / "tensafe" / "latest").read_text() == "global_step2"


@pytest.mark.parametrize("kind", ["plain", "tensafe"])
@pytest.mark.parametrize("case", CASES)
def test_a_folder_becomes_what_zero_to_fp32_makes(runs: Path, case: str, kind: str, tmp_path: Path) -> None:
    needed = reference(runs / case / "plain")
    assert_equal(tensafe.torch.load_pickle(runs / case / kind), needed)
    output = tmp_path / "model.safetensors"
    report = tensafe.convert(runs / case / kind, output, duplicate=True)
    assert_equal(tensafe.torch.load_file(output), needed)
    assert {tensor["dtype"] for tensor in report["tensors"]} == {"F32", "I64"}
    # The folder that `latest` names is one, too.
    tensafe.convert(runs / case / kind / "global_step2", tmp_path / "same.safetensors", duplicate=True)
    assert (tmp_path / "same.safetensors").read_bytes() == output.read_bytes()


@pytest.mark.parametrize("case", ["1-fp32", "2-bf16", "3-bf16"])
def test_a_folder_is_cast_and_cut_into_shards(runs: Path, case: str, tmp_path: Path) -> None:
    report = tensafe.convert(
        runs / case / "plain", f"{tmp_path}/", dtype=torch.bfloat16, max_shard_size=200, duplicate=True
    )
    assert len(report["files"]) > 2
    assert_equal(tensafe.torch.load_file(tmp_path), reference(runs / case / "plain", torch.bfloat16))


def test_a_shared_parameter_is_an_alias(runs: Path, tmp_path: Path) -> None:
    for stage in (1, 2, 3):
        report = tensafe.convert(runs / f"{stage}-fp32" / "plain", tmp_path / f"{stage}.safetensors")
        assert report["aliases"] == {"head.weight": "embed.weight"}


@pytest.mark.parametrize("case", ["2-bf16", "3-fp32"])
def test_a_universal_folder_becomes_the_same(runs: Path, case: str, tmp_path: Path) -> None:
    options = {
        "input_folder": str(runs / case / "plain" / "global_step2"),
        "output_folder": str(tmp_path / "universal"),
        "num_extract_workers": 1,
        "num_merge_workers": 1,
        "keep_temp_folder": False,
        "strict": True,
        "inject_missing_state": True,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        ds_to_universal.main(argparse.Namespace(**options))
    needed = reference(runs / case / "plain")
    assert_equal(tensafe.torch.load_pickle(tmp_path / "universal"), needed)
    # By the name in `latest_universal`.
    assert_equal(tensafe.torch.load_pickle(tmp_path), needed)


def test_a_missing_rank_is_named(runs: Path, tmp_path: Path) -> None:
    folder = runs / "3-fp32" / "plain" / "global_step2"
    for file in folder.glob("*.pt"):
        if "zero_pp_rank_0_mp_rank_00_optim" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(tensafe.FormatError, match="_optim_states.pt of rank 0: found none among 1"):
        tensafe.convert(tmp_path, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_a_pickle_is_not_loaded_by_the_engine(runs: Path) -> None:
    file = next((runs / "2-fp32" / "plain").rglob("*_optim_states.pt"))
    with pytest.raises(tensafe.FormatError, match="DeepSpeed's own engine"):
        TensafeCheckpointEngine().load(str(file))


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    from page import run_page

    run_page("deepspeed", tmp_path, {"OMP_NUM_THREADS": "1"})

"""tensafe.convert and load_pickle as a user calls them; the corpora have a file of their own."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import tensafe

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

import tensafe.numpy  # noqa: E402
import tensafe.torch  # noqa: E402


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training checkpoint: a state dict with a tied weight, an optimizer, and values."""
    weight = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict([("embed.weight", weight), ("head.weight", weight), ("norm.bias", torch.ones(3))])
    path = tmp_path / "model.ckpt"
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3, 4), "step": 7}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"state_dict": state, "optimizer": optimizer, "epoch": 3, "name": "run"}, path)
    return path


def test_names_are_flattened_and_aliases_are_in_the_metadata(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    report = tensafe.convert(checkpoint, out)
    names = ["optimizer.state.0.exp_avg", "state_dict.embed.weight", "state_dict.norm.bias"]
    assert sorted(tensafe.torch.load_file(out)) == names
    with tensafe.safe_open(out, "pt") as file:
        assert file.metadata() == {"format": "pt", "state_dict.head.weight": "state_dict.embed.weight"}
    assert report["schema"] == "tensafe.convert/1"
    assert report["aliases"] == {"state_dict.head.weight": "state_dict.embed.weight"}
    dropped = {tuple(row["path"]): row["value"] for row in report["dropped"]}
    assert dropped[("epoch",)] == 3 and dropped[("optimizer", "state", "0", "step")] == 7
    assert {row["symbol"] for row in report["symbols"]} >= {"torch._utils._rebuild_tensor_v2"}
    assert all(row["known"] for row in report["symbols"])


def test_a_model_loads_what_was_converted_by_the_references_convention(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(4, 4, bias=False)
            self.b = torch.nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    model, other = Tied(), Tied()
    torch.save(model.state_dict(), tmp_path / "tied.pt")
    tensafe.convert(tmp_path / "tied.pt")
    missing, unexpected = tensafe.torch.load_model(other, tmp_path / "tied.safetensors")
    assert not missing and not unexpected
    assert torch.equal(other.b.weight, model.a.weight)


def test_selected_renamed_and_cast(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    tensafe.convert(
        checkpoint,
        out,
        select="state_dict.*",
        rename={r"^state_dict\.": ""},
        dtype=torch.bfloat16,
        duplicate=True,
    )
    loaded = tensafe.torch.load_file(out)
    assert sorted(loaded) == ["embed.weight", "head.weight", "norm.bias"]
    assert {tensor.dtype for tensor in loaded.values()} == {torch.bfloat16}


@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_casts_are_torchs(source: Any, to: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**63), 2**63 - 1, (20_000,), dtype=torch.int64, generator=generator)
    special = torch.tensor(
        [0.0, -0.0, 1.0, 65504.0, 65520.0, 1e-8, 3.4e38, 1e300, float("inf"), float("nan")]
    )
    values = torch.cat([bits.view(torch.float64), special.double(), torch.randn(5000).double()]).to(source)
    torch.save({"x": values}, tmp_path / "x.pt")
    tensafe.convert(tmp_path / "x.pt", tmp_path / "x.safetensors", dtype=to)
    ours, theirs = tensafe.torch.load_file(tmp_path / "x.safetensors")["x"], values.to(to)
    assert torch.equal(ours.isnan(), theirs.isnan())
    same = (ours == theirs) | theirs.isnan()
    if (source, to) in ((torch.float64, torch.bfloat16), (torch.float64, torch.float16)):
        # torch rounds to float32 first, and then again: where that differs, ours is the nearer one.
        differs = ~same
        assert differs.sum() < 20
        exact = values[differs]
        assert ((ours[differs].double() - exact).abs() <= (theirs[differs].double() - exact).abs()).all()
    else:
        assert same.all()


def test_shards_have_the_hubs_names_and_index(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    report = tensafe.convert(checkpoint, f"{out}/", max_shard_size="50B", metadata={"note": "x"})
    assert len(report["files"]) == 3
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 108
    assert index["metadata"]["note"] == "x"
    assert index["metadata"]["state_dict.head.weight"] == "state_dict.embed.weight"
    assert set(index["weight_map"].values()) == {f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)}
    assert len(tensafe.open(out)) == 3


def test_the_old_output_stays_where_nothing_may_or_can_be_written(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    with pytest.raises(OSError):
        tensafe.convert(checkpoint, out)
    with pytest.raises(tensafe.CancelledError):
        tensafe.convert(checkpoint, out, overwrite=True, progress=lambda done, total: False)

    def fail(done: int, total: int) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        tensafe.convert(checkpoint, out, overwrite=True, progress=fail)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "out.safetensors"]


def test_progress_tells_bytes_done_and_in_all(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    tensafe.convert(
        checkpoint, tmp_path / "out.safetensors", progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (108, 108)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_report_and_sidecar_are_written(checkpoint: Path, tmp_path: Path) -> None:
    report, sidecar = tmp_path / "report.json", tmp_path / "values.json"
    told = tensafe.convert(checkpoint, tmp_path / "out.safetensors", report=report, sidecar=sidecar)
    assert json.loads(report.read_text()) == told
    values = json.loads(sidecar.read_text())
    assert values["epoch"] == 3 and values["optimizer"]["param_groups"] == [{"lr": 0.1}]
    other = tmp_path / "other.safetensors"
    with pytest.raises(FileExistsError):
        tensafe.convert(checkpoint, other, report=report)
    with pytest.raises(tensafe.UsageError, match="it is the output"):
        tensafe.convert(checkpoint, other, sidecar=other, overwrite=True)
    assert not other.exists()
    program = [str(Path(sys.executable).parent / "tensafe"), "convert", str(checkpoint), str(other)]
    for options in (["--report", str(report)], ["--sidecar", str(other), "--force"]):
        done = subprocess.run([*program, *options], capture_output=True, text=True)
        assert done.returncode == 2 and not other.exists(), done
    tensafe.convert(
        checkpoint, other, report=tmp_path / "new" / "deep" / "report.json", progress=lambda *_: 0
    )
    assert other.exists() and (tmp_path / "new" / "deep" / "report.json").exists()


def test_load_pickle_takes_paths_bytes_and_file_objects(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    loads = [str(checkpoint), checkpoint, data, bytearray(data), memoryview(data), io.BytesIO(data)]
    first, *others = [tensafe.torch.load_pickle(source) for source in loads]
    with checkpoint.open("rb") as file:
        others.append(tensafe.torch.load_pickle(file))
    for other in others:
        assert other.keys() == first.keys()
        assert all(torch.equal(other[name], first[name]) for name in first)
    # What shares memory there shares it here.
    assert first["state_dict.embed.weight"].data_ptr() == first["state_dict.head.weight"].data_ptr()
    meta = tensafe.torch.load_pickle(checkpoint, "meta")
    assert {tensor.device.type for tensor in meta.values()} == {"meta"}


def test_load_pickle_of_numpy(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array([1, 2], ">i4"), "c": np.array(True)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays))
    for path in (tmp_path / "a.npz", tmp_path / "a.pkl"):
        loaded = tensafe.numpy.load_pickle(path)
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())


class Unknown:
    def __init__(self) -> None:
        self.weight = torch.ones(2)


def test_unknown_classes_are_refused_by_name_and_salvaged_on_request(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(
        {"w": torch.zeros(3), "model": torch.nn.Sequential(torch.nn.Linear(2, 1)), "x": Unknown()}, path
    )
    with pytest.raises(tensafe.UnsupportedError) as caught:
        tensafe.torch.load_pickle(path)
    assert "`torch.nn.modules.container.Sequential`" in str(caught.value) and str(path) in str(caught.value)
    found = tensafe.torch.load_pickle(path, salvage=True)
    assert sorted(found) == ["model.0.bias", "model.0.weight", "w", "x.weight"]
    report = tensafe.convert(path, tmp_path / "out.safetensors", salvage=True)
    assert any(not row["known"] for row in report["symbols"])
    assert any("Sequential" in note for note in report["notes"])


def test_sparse_tensors_are_densified_on_request(tmp_path: Path) -> None:
    dense = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    layouts = {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc()}
    for name, tensor in layouts.items():
        path = tmp_path / f"{name}.pt"
        torch.save({"x": tensor}, path)
        with pytest.raises(tensafe.UnsupportedError, match="sparse"):
            tensafe.torch.load_pickle(path)
        assert torch.equal(tensafe.torch.load_pickle(path, dense=True)["x"], dense)


def test_index_of_shards_and_directories_are_inputs(tmp_path: Path) -> None:
    parts = {"a": torch.ones(2), "b": torch.zeros(3)}
    for number, (name, tensor) in enumerate(parts.items(), 1):
        torch.save({name: tensor}, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for source in (index, tmp_path):
        assert sorted(tensafe.torch.load_pickle(source)) == ["a", "b"]
    tensafe.convert(tmp_path)
    assert sorted(tensafe.torch.load_file(tmp_path / "model.safetensors")) == ["a", "b"]


def test_errors_are_of_the_class_that_a_caller_expects(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(FileNotFoundError):
        tensafe.convert(tmp_path / "missing.pt", tmp_path / "out.safetensors")
    with pytest.raises(KeyError):
        tensafe.convert(path, tmp_path / "out.safetensors", select="nothing*")
    for wrong in ({"dtype": "i8"}, {"max_shard_size": "5 bananas"}, {"select": "[a"}, {"rename": {"(": ""}}):
        with pytest.raises(tensafe.UsageError):
            tensafe.convert(path, tmp_path / "out.safetensors", **wrong)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(tensafe.FormatError):
        tensafe.torch.load_pickle(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pt"]


def test_interrupting_the_program_leaves_nothing(tmp_path: Path) -> None:
    big = tmp_path / "big.pt"
    torch.save({str(i): torch.ones(1 << 22).t() for i in range(24)}, big)
    out = tmp_path / "out"
    program = Path(sys.executable).parent / "tensafe"
    # The signal comes when the temporary file is there: before, there is nothing to leave.
    script = f"""
import os, signal, subprocess, time
p = subprocess.Popen([{str(program)!r}, "convert", {str(big)!r}, {str(out)!r} + "/", "--dtype", "f64"])
while p.poll() is None and not (os.path.isdir({str(out)!r}) and os.listdir({str(out)!r})): time.sleep(0.001)
p.send_signal(signal.SIGINT)
raise SystemExit(p.wait())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    # Either it was done before the signal came, or nothing is left, not even the directory.
    left = sorted(path.name for path in out.iterdir()) if out.exists() else []
    assert (done.returncode, left) in ((2, []), (0, ["model.safetensors"])), (done, left)

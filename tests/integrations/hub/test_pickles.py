"""What `torch.load` does where the compat layer was told so: loads without executing, or refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")
PICKLES = Path(__file__).resolve().parents[2] / "pickles"
PROGRAMS = Path(__file__).resolve().parent / "programs"


def run(program: str | tuple[object, ...], cwd: Path | None = None, code: int = 0) -> str:
    command = ("-c", textwrap.dedent(program)) if isinstance(program, str) else program
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


# What torch makes of files, and what the compat layer makes of them.
SAME = """
import collections, io, json, pathlib, random, sys
import numpy as np, torch, tensafe
from tensafe.compat import uninstall
theirs = torch.load
tensafe.install_as_safetensors(pickles="convert")
assert torch.load is torch.serialization.load is not theirs

def same(ours, other, at="value"):
    assert type(ours) is type(other), (at, type(ours), type(other))
    if isinstance(ours, torch.Tensor):
        for of in ("dtype", "shape", "requires_grad", "device"):
            assert getattr(ours, of) == getattr(other, of), (at, of)
        # Bytes: NaN does not equal itself, and torch does not compare all dtypes.
        ours, other = (t.detach().resolve_conj().resolve_neg().contiguous().reshape(-1) for t in (ours, other))
        assert torch.equal(ours.view(torch.uint8), other.view(torch.uint8)), at
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == other.dtype and np.array_equal(ours, other), at
    elif isinstance(ours, dict):
        assert [*map(repr, ours)] == [*map(repr, other)], at
        [same(ours[key], other[key], f"{at}[{key!r}]") for key in ours]
        if isinstance(ours, collections.OrderedDict):
            same(vars(ours), vars(other), f"{at}.__dict__")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(other), at
        [same(*pair, f"{at}[{i}]") for i, pair in enumerate(zip(ours, other))]
    else:
        assert ours == other or ours != ours, at
"""


def test_what_is_loaded_is_what_torch_loads(tmp_path):
    run(
        SAME
        + f"""
root = pathlib.Path({str(tmp_path)!r})
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
optimizer = torch.optim.AdamW(net.parameters())
net(torch.ones(4, 2)).sum().backward(); optimizer.step()
shared = {{"x": torch.ones(3), "l": [1, 2.5]}}
values = {{
    "state": net.state_dict(),
    "optimizer": optimizer.state_dict(),
    "schedule": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).state_dict(),
    "random": {{"numpy": np.random.get_state(), "python": random.getstate(), "cpu": torch.get_rng_state()}},
    "tensor": torch.arange(6).reshape(2, 3).t(),
    "parameter": torch.nn.Parameter(torch.ones(2), False),
    "no tensor": {{"a": 1}},
    "number": 3,
    "all": {{
        "epoch": 3, "": torch.ones(1), 5: [torch.ones(2), (torch.ones(1), 3)], True: torch.ones(1), -1: torch.ones(1),
        "a.b": torch.ones(1), "set": {{1, 2}}, "frozen": frozenset([3]), "dtype": torch.float16, "none": None,
        "device": torch.device("cuda", 0), "size": torch.Size([2]), "bytes": b"x\\xff", "large": -10**30,
        "nan": float("nan"), "left": shared, "right": shared, "parameter": torch.nn.Parameter(torch.ones(2)),
        "grad": torch.ones(2, requires_grad=True), "empty": torch.empty(0, 3), "bf": torch.ones(2).bfloat16(),
        "scalar": torch.tensor(1.5), "array": np.arange(6).reshape(2, 3).T, (1, "a"): None,
    }},
    "new": {{"f8": torch.ones(2).to(torch.float8_e4m3fn), "u16": torch.ones(2, dtype=torch.uint16)}},
}}
for name, value in values.items():
    for zipped in (True, False):
        if name == "new" and not zipped:
            continue  # torch does not save these so
        path = root / (name + ".pt")
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        expected = theirs(path, weights_only=False)
        for weights_only in (True, False, None):
            same(torch.load(path, weights_only=weights_only), expected)
        same(torch.load(str(path), "cpu", mmap=zipped), expected)
        same(torch.load(path, torch.device("cpu"), encoding="latin1"), expected)
        same(torch.load(path, lambda storage, location: storage), expected)
        same(torch.load(path, {{"cuda:0": "cpu"}}), expected)
        with open(path, "rb") as file:
            same(torch.load(file), expected)
        same(torch.load(io.BytesIO(path.read_bytes()), map_location="cpu"), expected)

for protocol in range(2, 6):
    value = {{"w": torch.ones(2), "bytes": b"", "long": bytes([120, 255]) * 4000, "array": np.arange(6).reshape(2, 3), "text": chr(233)}}
    torch.save(value, root / "of.pt", pickle_protocol=protocol)
    same(torch.load(root / "of.pt"), theirs(root / "of.pt", weights_only=False))

# An index of shards is no file of torch's.
index = root / "pytorch_model.bin.index.json"
names = tensafe.torch.load_pickle(root / "tensor.pt")
index.write_text(json.dumps({{"metadata": {{}}, "weight_map": {{name: "tensor.pt" for name in names}}}}))
try:
    torch.load(index)
except tensafe.UnsupportedError as error:
    assert "no file of torch.save" in str(error), error
else:
    raise AssertionError("an index was loaded")

# Objects that are shared stay shared, and memory of one tensor is one memory.
found = torch.load(root / "all.pt")
assert found["left"] is found["right"]
tied = torch.ones(2, 2)
torch.save({{"a": tied, "b": tied, "c": tied.detach()}}, root / "tied.pt")
found = torch.load(root / "tied.pt")
assert found["a"] is found["b"] and found["a"].data_ptr() == found["c"].data_ptr()

assert torch.load(root / "tensor.pt", map_location="meta").device.type == "meta"
assert torch.load(root / "tensor.pt", map_location={{"cpu": "meta"}}).device.type == "meta"
for bad, error in (("none", FileNotFoundError), (".", IsADirectoryError)):
    try:
        torch.load(root / bad)
    except error:
        pass
    else:
        raise AssertionError(bad)

from safetensors.torch import save_file
save_file({{"a": torch.ones(3)}}, root / "it.safetensors")
same(torch.load(root / "it.safetensors"), {{"a": torch.ones(3)}})
uninstall()
assert torch.load is theirs and torch.serialization.load is theirs
"""
    )


def test_what_would_have_to_be_executed_is_refused_by_name_and_place(tmp_path):
    run(
        f"""
        import argparse, collections, os, pathlib
        import numpy as np, torch, tensafe
        theirs = torch.load
        tensafe.install_as_safetensors(pickles="convert")

        class Runs:
            def __reduce__(self):
                return os.mkdir, ({str(tmp_path / "made")!r},)

        path = pathlib.Path({str(tmp_path)!r}) / "bad.pt"
        attributes = collections.OrderedDict(a=1)
        attributes.kept = 1
        weight = torch.ones(2)
        cases = [
            ("posix.mkdir", Runs()),
            ("torch.nn.modules.linear.Linear", torch.nn.Linear(1, 1)),
            ("argparse.Namespace", argparse.Namespace(a=1)),
            ("numpy._core.multiarray.scalar", np.float64(3)),
            ("big-endian", np.arange(3, dtype=">i4")),
            ("collections.defaultdict", collections.defaultdict(list)),
            ("an attribute of OrderedDict", attributes),
            ("sparse_coo", torch.eye(2).to_sparse()),
            ("neither a tensor nor a plain value", torch.ones(2).untyped_storage()),
        ]
        for text, value in cases:
            for zipped in (True, False):
                torch.save({{"weight": weight, "value": value}}, path, _use_new_zipfile_serialization=zipped)
                for source in (path, open(path, "rb")):
                    try:
                        torch.load(source, map_location="cpu", weights_only=False)
                    except tensafe.SafetensorError as error:
                        told = str(error)
                        assert isinstance(error, NotImplementedError), error
                    else:
                        raise AssertionError(text)
                    assert text in told and "bad.pt" in told, told
                    if "." in text:
                        assert " byte " in told, told
        assert not os.path.exists({str(tmp_path / "made")!r})
        """
    )


def test_files_of_all_versions_of_torch_load_whole_or_not_at_all():
    out = run(
        SAME
        + f"""
import json
def tensors(value):
    if isinstance(value, (dict, list, tuple)):
        return [t for part in (value.values() if isinstance(value, dict) else value) for t in tensors(part)]
    return [value] if isinstance(value, (torch.Tensor, np.ndarray)) else []

root = pathlib.Path({str(PICKLES)!r})
counts = {{"loaded": 0, "refused": 0}}
for name, row in json.loads((root / "benign.json").read_text())["files"].items():
    if name.startswith("torch"):
        try:
            value = torch.load(root / "benign" / name, map_location="cpu")
            counts["loaded"] += 1
        except tensafe.SafetensorError:
            counts["refused"] += 1
            continue
        # A subclass of torch 1.6 was pickled as a tensor, which its own loader showed as none.
        assert len(tensors(value)) == len(row["tensors"]) or name.endswith("tensor_subclass.pt"), name
        if name.startswith("torch-2.15.0") and not row["refused"]:
            same(value, theirs(root / "benign" / name, map_location="cpu", weights_only=False))
print(json.dumps(counts))
"""
    )
    counts = json.loads(out.splitlines()[-1])
    assert counts["loaded"] > 300 and counts["loaded"] > 2 * counts["refused"]


def test_hostile_files_are_refused_or_harmless(tmp_path):
    run(
        f"""
        import io, pathlib, random, torch, tensafe
        tensafe.install_as_safetensors(pickles="convert")
        random.seed(0)
        outcomes = {{"loaded": 0, "refused": 0}}
        for path in sorted(pathlib.Path({str(PICKLES / "hostile")!r}).iterdir()):
            try:
                torch.load(path, weights_only=False)
                outcomes["loaded"] += 1
            except tensafe.SafetensorError:
                outcomes["refused"] += 1
        assert outcomes["refused"] > 20 * outcomes["loaded"], outcomes
        # Bytes that were changed.
        torch.save({{"a": torch.ones(2), "b": [1, "x", {{2: (3, None)}}]}}, "whole.pt", _use_new_zipfile_serialization=False)
        whole = pathlib.Path("whole.pt").read_bytes()
        for _ in range(3000):
            data = bytearray(whole)
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] = random.randrange(256)
            try:
                torch.load(io.BytesIO(bytes(data)))
            except tensafe.SafetensorError:
                pass
        """,
        tmp_path,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["whole.pt"]


def test_refusing_says_how_to_convert_and_is_taken_back(tmp_path):
    run(
        f"""
        import io, os, torch, tensafe
        from tensafe.compat import uninstall
        theirs = torch.load
        os.chdir({str(tmp_path)!r})
        torch.save({{"a": torch.ones(2)}}, "model.bin")
        tensafe.install_as_safetensors(pickles="refuse")
        tensafe.install_as_safetensors()
        for source, label in (("model.bin", "model.bin"), (open("model.bin", "rb"), "model.bin"), (io.BytesIO(), "a BytesIO")):
            try:
                torch.load(source)
            except tensafe.SafetensorError as error:
                assert f"`tensafe convert {{label}}`" in str(error) or label != "model.bin", error
                assert label in str(error)
            else:
                raise AssertionError(label)
        tensafe.install_as_safetensors(pickles="convert")
        assert torch.load("model.bin")["a"].sum() == 2
        # What others put in our place stays.
        torch.load = "theirs"
        uninstall()
        assert torch.load == "theirs" and torch.serialization.load is theirs
        try:
            tensafe.install_as_safetensors(pickles="maybe")
        except ValueError as error:
            assert "leave, convert, refuse" in str(error)
        else:
            raise AssertionError("taken")
        """
    )


def test_programs_run_with_it(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys, torch\ntorch.save([1], 'x.pt')\nprint(torch.load.__module__, sys.argv, torch.load('x.pt'))\n"
    )
    compat = ("-m", "tensafe.compat")
    out = run((*compat, "--pickles=convert", "program.py", "--pickles=x"), tmp_path)
    assert out == "torch.serialization ['program.py', '--pickles=x'] [1]\n"
    out = run((*compat, "--pickles=convert", "-m", "program"), tmp_path)
    assert out.endswith("program.py'] [1]\n")
    assert "tensafe convert x.pt" in run((*compat, "--pickles=refuse", "program.py"), tmp_path, code=1)
    for wrong in (("--pickles=maybe", "program.py"), ("--pickles", "program.py"), ("--pickles=refuse",)):
        assert run((*compat, *wrong), tmp_path, code=2).startswith("usage: ")


# Every package finds pickles alone, and what executes them is watched.
PACKAGES = """
import sys, warnings; warnings.simplefilter("ignore")
from pathlib import Path
import torch, tensafe
from accelerate import load_checkpoint_in_model
from diffusers import AutoencoderKL
from huggingface_hub import PyTorchModelHubMixin, load_torch_model
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

root = Path(sys.argv[1])
config = LlamaConfig(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                     num_attention_heads=2)
class Net(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
torch.manual_seed(0)
llama, net = LlamaForCausalLM(config), Net()
lora = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, init_lora_weights=False))
vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=2, layers_per_block=1)
for name in ("llama", "net"):
    (root / name).mkdir()
config.save_pretrained(root / "llama")
torch.save(llama.state_dict(), root / "llama" / "pytorch_model.bin")
vae.save_pretrained(root / "vae", safe_serialization=False)
lora.save_pretrained(root / "lora", safe_serialization=False)
torch.save(net.state_dict(), root / "net" / "pytorch_model.bin")
assert not list(root.rglob("*.safetensors"))

def same(left, right):
    assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)

def refused(load):
    try:
        load()
    except Exception as error:
        while error is not None and "tensafe convert" not in str(error):
            error = error.__cause__ or error.__context__
        assert error is not None, "the refusal is told"
    else:
        raise AssertionError("loaded")

def transformers():
    same(llama.state_dict(), LlamaForCausalLM.from_pretrained(root / "llama").state_dict())

def accelerate():
    other = LlamaForCausalLM(config)
    load_checkpoint_in_model(other, root / "llama")
    same(llama.state_dict(), other.state_dict())

def diffusers():
    same(vae.state_dict(), AutoencoderKL.from_pretrained(root / "vae", use_safetensors=False).state_dict())

def peft():
    base = LlamaForCausalLM(config)
    same(get_peft_model_state_dict(lora), get_peft_model_state_dict(PeftModel.from_pretrained(base, root / "lora")))

def huggingface_hub():
    other = Net()
    load_torch_model(other, root / "net" / "pytorch_model.bin", safe=False)
    same(net.state_dict(), other.state_dict())

LOADS = (transformers, accelerate, diffusers, peft, huggingface_hub)
theirs, executed = torch.load, []
torch.load = torch.serialization.load = lambda *args, **options: executed.append(args) or theirs(*args, **options)
for load in LOADS:
    load()
    assert executed, load
    executed.clear()
tensafe.install_as_safetensors(pickles="convert")
for load in LOADS:
    load()
tensafe.install_as_safetensors(pickles="refuse")
for load in LOADS:
    refused(load)
assert not executed
"""


def test_every_package_loads_its_pickles_by_conversion_or_is_refused(tmp_path):
    for package in ("accelerate", "diffusers", "huggingface_hub", "peft", "transformers"):
        pytest.importorskip(package)
    (tmp_path / "program.py").write_text(PACKAGES)
    run(("-m", "tensafe.compat", tmp_path / "program.py", tmp_path))


def test_a_trainer_resumes_from_its_pickles_without_executing_them(tmp_path):
    pytest.importorskip("transformers")
    run((PROGRAMS / "trains.py", tmp_path, "theirs"))
    run(("-m", "tensafe.compat", "--pickles=convert", PROGRAMS / "trains.py", tmp_path, "ours"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()

"""`import safetensors` means tensafe: in a process of its own, as it changes what imports mean."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")


def run(program: str, *arguments: str, cwd=None) -> str:
    command = [sys.executable, *(arguments or ("-c", textwrap.dedent(program)))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_that_others_import_is_ours(tmp_path):
    run(
        """
        import tensafe
        tensafe.install_as_safetensors(); tensafe.install_as_safetensors()
        import safetensors, safetensors.torch, safetensors.numpy, safetensors.flax
        from safetensors import (PrefetchLoader, PySafeSlice, SafetensorError, TensorMeta, TensorSpec, __version__,
            deserialize, safe_open, _safe_open_handle, serialize, serialize_file)
        from safetensors._safetensors_rust import safe_open as lowest, SafetensorError as error
        from safetensors.torch import (load, load_file, load_model, save, save_file, save_model, safe_open as of_torch,
            storage_ptr, storage_size, _TYPES, _SIZE, _getdtype, _to_ndarray, _view2torch, _flatten_as_ptr,
            _find_shared_tensors, _is_complete, _remove_duplicate_names, _end_ptr, _evaluate_tensors_for_save,
            _filter_shared_not_shared)
        from safetensors.numpy import _getdtype as n, _view2np, _is_little_endian, _flatten, _TYPES as t
        import tensafe.torch
        assert safetensors.torch is tensafe.torch and lowest is safe_open and error is tensafe.SafetensorError
        assert issubclass(safe_open, tensafe.safe_open) and __version__ == "0.9.0rc1"
        assert tensafe.torch.__spec__.name == "tensafe.torch" and safetensors.__spec__.name == "safetensors"
        import importlib
        importlib.reload
        assert importlib.import_module("safetensors.torch") is tensafe.torch
        """
    )


def test_what_was_imported_before_is_told_and_its_errors_are_caught(tmp_path):
    run(
        """
        import warnings, safetensors.torch as before
        from safetensors import SafetensorError
        import tensafe
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tensafe.install_as_safetensors()
        assert "imported before" in str(caught[0].message)
        import safetensors.torch
        assert safetensors.torch is not before
        try:
            safetensors.torch.load(b"")
        except SafetensorError as error:
            assert "S-01" in str(error)
        else:
            raise AssertionError("no error")
        from tensafe.compat import uninstall
        uninstall(); uninstall()
        import safetensors.torch
        assert safetensors.torch is before
        """
    )


def test_programs_and_modules_run_with_it(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys, safetensors, safetensors.numpy\nprint(safetensors.numpy.__name__, sys.argv, __name__)\n"
    )
    out = run("", "-m", "tensafe.compat", "program.py", "--its", "arguments", cwd=tmp_path)
    assert out == "tensafe.numpy ['program.py', '--its', 'arguments'] __main__\n"
    out = run("", "-m", "tensafe.compat", "-m", "program", "x", cwd=tmp_path)
    assert out.startswith("tensafe.numpy ['") and out.endswith("program.py', 'x'] __main__\n")
    for arguments in ((), ("-m",)):
        done = subprocess.run(
            [sys.executable, "-m", "tensafe.compat", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.startswith("usage: ")


def test_a_script_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "sibling.py").write_text("import safetensors.numpy as found\n")
    (tmp_path / "scripts" / "program.py").write_text("import sibling; print(sibling.found.__name__)\n")
    out = run("", "-m", "tensafe.compat", "scripts/program.py", cwd=tmp_path)
    assert out == "tensafe.numpy\n"


def test_a_script_ends_with_its_own_exit_code(tmp_path):
    (tmp_path / "program.py").write_text("import sys; sys.exit(3)\n")
    command = [sys.executable, "-m", "tensafe.compat", "program.py"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 3


def test_modules_of_the_package_are_found_as_in_the_published_one():
    run(
        """
        import importlib.metadata, importlib.util, pickle
        import tensafe
        tensafe.install_as_safetensors()
        import safetensors, safetensors.flax
        assert safetensors.numpy.save is tensafe.numpy.save and safetensors.flax.save is tensafe.flax.save
        assert importlib.util.find_spec("safetensors").name == "safetensors"
        assert importlib.util.find_spec("safetensors.torch").name == "safetensors.torch"
        assert importlib.metadata.version("safetensors")
        try:
            import safetensors.nothing
        except ModuleNotFoundError as error:
            assert error.name == "safetensors.nothing"
        else:
            raise AssertionError("no error")
        error = safetensors.SafetensorError("text")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is tensafe.SafetensorError and str(again) == "text"
        """
    )


def test_a_child_that_is_forked_has_it_too(tmp_path):
    (tmp_path / "program.py").write_text(
        "import multiprocessing, safetensors.numpy\n"
        "def child(queue):\n"
        "    import safetensors.numpy\n"
        "    queue.put(safetensors.numpy.__name__)\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.Queue()\n"
        "process = context.Process(target=child, args=(queue,))\n"
        "process.start(); print(queue.get(timeout=60)); process.join()\n"
    )
    assert run("", "-m", "tensafe.compat", "program.py", cwd=tmp_path) == "tensafe.numpy\n"


@pytest.mark.parametrize(
    "stand_in", ["import types; module = types.ModuleType('safetensors')", "module = None"]
)
def test_tensafe_is_imported_whatever_stands_in_for_the_published_package(stand_in):
    run(
        f"""
        import sys
        {stand_in}
        sys.modules["safetensors"] = module
        import tensafe, tensafe.numpy
        try:
            tensafe.open(b"")
        except tensafe.SafetensorError:
            pass
        """
    )


def test_prefetch_to_the_cpu_is_refused_as_callers_expect_and_ours_is_not(tmp_path):
    run(
        f"""
        import tensafe, torch
        tensafe.install_as_safetensors()
        from safetensors import safe_open
        from safetensors.torch import save_file
        save_file({{"a": torch.ones(3)}}, {str(tmp_path / "f")!r})
        try:
            safe_open({str(tmp_path / "f")!r}, "pt").prefetch()
        except Exception as error:
            assert "cuda devices, not cpu" in str(error)
        else:
            raise AssertionError("no error")
        assert dict(tensafe.safe_open({str(tmp_path / "f")!r}, "pt").prefetch())["a"].sum() == 3
        """
    )


def test_a_handle_of_a_file_object_opens(tmp_path):
    import io

    import numpy as np
    import tensafe
    import tensafe.numpy

    tensafe.numpy.save_file({"a": np.arange(3)}, tmp_path / "f")
    with open(tmp_path / "f") as text, open(tmp_path / "f", "rb") as binary:
        for handle in (text, binary, io.BytesIO((tmp_path / "f").read_bytes())):
            with tensafe._safe_open_handle(handle, framework="np", device="cpu") as file:
                assert file.get_tensor("a").tolist() == [0, 1, 2]


LLAMA = """
import warnings, sys; warnings.simplefilter("ignore")
if sys.argv[1] == "ours":
    import tensafe
    tensafe.install_as_safetensors()
import torch, safetensors
from transformers import LlamaConfig, LlamaForCausalLM
assert ("tensafe" in sys.modules) == (sys.argv[1] == "ours")
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, tie_word_embeddings=sys.argv[2] == "tied")
model = LlamaForCausalLM(config)
directory = sys.argv[3]
model.save_pretrained(directory, max_shard_size=sys.argv[4])
again = LlamaForCausalLM.from_pretrained(directory)
left, right = model.state_dict(), again.state_dict()
assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
prompt = torch.arange(8)[None]
assert torch.equal(model.eval()(prompt).logits, again.eval()(prompt).logits)
"""


@pytest.mark.parametrize("tied", ["tied", "untied"])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_transformers_saves_and_loads_the_same_bytes(tied, shard, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "program.py").write_text(LLAMA)
    for which in ("ours", "theirs"):
        run("", str(tmp_path / "program.py"), which, tied, str(tmp_path / which), shard)
    files = sorted(p.name for p in (tmp_path / "ours").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "theirs").iterdir())
    assert ("model.safetensors.index.json" in files) == (shard == "20KB")
    for name in files:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_the_other_packages_of_the_field_work(tmp_path):
    for package in ("accelerate", "huggingface_hub", "diffusers", "peft", "transformers"):
        pytest.importorskip(package)
    run(
        f"""
        import warnings; warnings.simplefilter("ignore")
        import tensafe
        tensafe.install_as_safetensors()
        import torch
        root = {str(tmp_path)!r}
        same = lambda a, b: a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        net = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))

        import os
        from huggingface_hub import save_torch_model, load_torch_model
        model, other = net(), net()
        os.mkdir(root + "/hub")
        save_torch_model(model, root + "/hub", max_shard_size=200)
        load_torch_model(other, root + "/hub")
        assert same(model.state_dict(), other.state_dict())
        assert len([f for f in os.listdir(root + "/hub") if f.endswith(".safetensors")]) > 1

        from accelerate import Accelerator, load_checkpoint_in_model
        other = net()
        load_checkpoint_in_model(other, root + "/hub")
        assert same(model.state_dict(), other.state_dict())
        Accelerator(cpu=True).save_model(model, root + "/accelerate")
        assert tensafe.open(root + "/accelerate")["0.weight"].shape == (8, 4)

        from diffusers import AutoencoderKL
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=2, layers_per_block=1)
        vae.save_pretrained(root + "/vae")
        assert same(vae.state_dict(), AutoencoderKL.from_pretrained(root + "/vae").state_dict())

        from transformers import LlamaConfig, LlamaForCausalLM
        from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
        config = LlamaConfig(vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                             num_attention_heads=2)
        lora = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, init_lora_weights=False))
        lora.save_pretrained(root + "/lora")
        again = PeftModel.from_pretrained(LlamaForCausalLM(config), root + "/lora")
        assert same(get_peft_model_state_dict(lora), get_peft_model_state_dict(again))
        """
    )

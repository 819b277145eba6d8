"""vLLM's default loader beside ours, in one process: the same parameters, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensafe
import tensafe.torch
import torch
from engine import differing, load, worker
from models import llama
from tensafe.integrations import vllm as plugin


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    plugin.register()
    # Every process of vLLM calls it, some more than once.
    plugin.register()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture(scope="module")
def config(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with worker(directory, tmp_path_factory.mktemp("store") / "store") as config:
        yield config


class Elsewhere:
    """The configuration of one model for another directory: of the same shape."""

    def __init__(self, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._config, self._monkeypatch = config, monkeypatch

    def __call__(self, directory: Path) -> Any:
        self._monkeypatch.setattr(self._config.model_config, "model", str(directory))
        return self._config


@pytest.fixture
def at(config: Any, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    return Elsewhere(config, monkeypatch)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"tp": "on"},
        {"io": "mmap"},
        {"io": "mmap", "tp": "on"},
        {"io": "direct", "budget": "4MiB"},
        {"io": "pread", "budget": 1 << 22, "tp": "on"},
        {"cache": "drop", "lenient": True, "enable_weights_track": True},
    ],
    ids=json.dumps,
)
def test_parameters_are_those_of_safetensors(config: Any, extra: dict[str, Any]) -> None:
    assert differing(load(config, "tensafe", extra), load(config, "safetensors")) == []


def test_files_are_those_of_the_index(at: Elsewhere, tmp_path: Path) -> None:
    shards = llama(tmp_path / "model", shard_size="300KB", seed=1)
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 2
    # A second copy of the weights, as some models have it, with other values: it must not be read.
    tensors = {name: torch.zeros_like(tensor) for name, tensor in tensafe.open(shards).to_torch().items()}
    tensafe.torch.save_file(tensors, shards / "consolidated.safetensors")
    config = at(shards)
    wanted = load(config, "safetensors")
    assert any(parameter.any() for parameter in wanted.parameters())
    assert differing(load(config, "tensafe"), wanted) == []
    assert differing(load(config, "tensafe", {"tp": "on"}), wanted) == []
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=files[0].name):
        load(config, "tensafe")


def test_files_without_an_index_are_all_read(at: Elsewhere, tmp_path: Path) -> None:
    shards = llama(tmp_path / "model", shard_size="300KB", seed=2)
    (shards / "model.safetensors.index.json").unlink()
    config = at(shards)
    assert differing(load(config, "tensafe"), load(config, "safetensors")) == []


def test_tensors_of_another_dtype_are_converted(at: Elsewhere, directory: Path, tmp_path: Path) -> None:
    wide = shutil.copytree(directory, tmp_path / "model")
    tensors = {name: tensor.float() for name, tensor in tensafe.open(directory).to_torch().items()}
    tensafe.torch.save_file(tensors, wide / "model.safetensors")
    config = at(wide)
    wanted = load(config, "safetensors")
    assert differing(load(config, "tensafe"), wanted) == []
    assert differing(load(config, "tensafe", {"tp": "on"}), wanted) == []


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"budgt": "1GiB"}, 'key "budgt" is unknown to load format tensafe .*budget, io, cache, lenient, tp'),
        ({"io": "uring"}, "io 'uring' is invalid .*'mmap', 'pread', 'direct'"),
        ({"cache": True}, "cache True is invalid"),
        ({"tp": 2}, "tp 2 is invalid .*'auto', 'on', 'off'"),
        ({"lenient": "yes"}, "lenient 'yes' is invalid"),
        ({"budget": True}, "budget True is no number of bytes"),
        ({"budget": "much"}, "much"),
        ({"budget": "1KiB", "io": "pread"}, "budget"),
        ({"io": "mmap", "cache": "drop"}, 'cache="drop"'),
        ({"enable_multithread_load": True}, "enable_multithread_load"),
    ],
    ids=str,
)
def test_extra_config_is_checked(config: Any, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(tensafe.SafetensorError, match=message):
        load(config, "tensafe", extra)


def test_strategies_of_safetensors_are_refused(config: Any) -> None:
    with pytest.raises(tensafe.SafetensorError, match='safetensors_load_strategy "eager"'):
        load(config, "tensafe", safetensors_load_strategy="eager")
    assert load(config, "tensafe", safetensors_load_strategy="lazy") is not None


def test_pickled_weights_are_refused(at: Elsewhere, directory: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(directory, tmp_path / "model")
    (pickled / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(2)}, pickled / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"`tensafe convert .*pytorch_model\.bin`"):
        load(at(pickled), "tensafe")


def test_a_model_that_asks_for_pickles_is_refused(
    config: Any, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models.llama import LlamaForCausalLM

    (directory / "other.pt").touch()
    monkeypatch.setattr(LlamaForCausalLM, "allow_patterns_overrides", ["*.pt"], raising=False)
    with pytest.raises(NotImplementedError, match=r"other\.pt.*tensafe convert"):
        load(config, "tensafe")


def test_a_directory_without_weights_is_named(at: Elsewhere, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors file found"):
        load(at(tmp_path), "tensafe")


def test_a_broken_file_is_refused(at: Elsewhere, directory: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(directory, tmp_path / "model")
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(tensafe.FormatError, match=r"model\.safetensors"):
        load(at(broken), "tensafe")


def test_an_unknown_load_format_is_refused(config: Any) -> None:
    with pytest.raises(ValueError, match="`tensave` is not supported"):
        load(config, "tensave")


def test_a_vllm_without_the_seam_says_so(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    monkeypatch.delattr(DefaultModelLoader, "_get_weights_iterator")
    with pytest.raises(tensafe.UnsupportedError, match=r"has no DefaultModelLoader\._get_weights_iterator"):
        load(config, "tensafe")
    assert load(config, "dummy") is not None


def test_warm_files_are_mapped_and_read_by_no_call(config: Any) -> None:
    from engine import bytes_read

    load(config, "tensafe")
    before = bytes_read()
    model = load(config, "tensafe")
    assert bytes_read() - before < sum(parameter.nbytes for parameter in model.parameters()) // 4


def test_the_means_suit_where_the_bytes_are(tmp_path: Path) -> None:
    from tensafe.integrations._vllm_loader import Options, _open

    path = tmp_path / "x.safetensors"
    tensafe.torch.save_file({"x": torch.ones(4 << 20, dtype=torch.bfloat16)}, path, durable=True)

    def opened(several: bool, alone: bool, **options: Any) -> tuple[bool, str]:
        checkpoint, lazy = _open(str(path), Options(**options), several, alone)
        (one,) = {range_.method for range_ in checkpoint.plan().add("x").explain().ranges}
        return lazy, one

    path.read_bytes()
    assert opened(False, True) == (False, "view")
    assert opened(True, False) == (False, "view")
    assert opened(True, False, tp="on") == (True, "buffered")
    assert opened(False, True, io="pread") == (False, "buffered")
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if opened(False, True) == (False, "view"):
        pytest.skip("the pages of the file stay in memory here")
    assert opened(False, True) == (False, "direct")
    # Replicas, and ranks: what one reads is there for the next.
    assert opened(False, False) == (False, "buffered")
    assert opened(True, False) == (True, "buffered")
    assert opened(True, False, io="direct") == (True, "direct")

"""What README shows in Python runs, on a model of the shape that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_first_example_runs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    import tensafe.torch

    monkeypatch.chdir(tmp_path)
    tensors = {"embeddings.word_embeddings.weight": torch.rand(100, 384)}
    tensafe.torch.save_file(tensors, "model.safetensors")
    (tmp_path / "path/to/model").mkdir(parents=True)
    tensafe.torch.save_file(tensors, "path/to/model/model.safetensors")
    (example, *_) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (tmp_path / "copy.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert repr(names["model"]["embeddings.word_embeddings.weight"]).endswith("F32 [100, 384], 153.6 kB>")

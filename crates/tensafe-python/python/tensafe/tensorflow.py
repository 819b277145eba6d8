"""safetensors for TensorFlow."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

from . import numpy as _numpy
from ._safe_open import safe_open
from ._tensafe import Checkpoint

__all__ = ["load", "load_file", "save", "save_file"]


def save(tensors: dict[str, tf.Tensor], metadata: dict[str, str] | None = None, *, align: int = 8) -> bytes:
    """The bytes of a file that holds these tensors."""
    return _numpy.save(_tf2np(tensors), metadata, align=align)


def save_file(
    tensors: dict[str, tf.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these tensors, atomically; see ``tensafe.numpy.save_file``."""
    _numpy.save_file(_tf2np(tensors), filename, metadata, durable=durable, align=align)


def load(data: Any, *, lenient: bool | None = None) -> dict[str, tf.Tensor]:
    """The tensors of a file's bytes: any object with a buffer."""
    return _np2tf(_numpy.load(data, lenient=lenient))


def load_file(
    filename: str | os.PathLike[str],
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
) -> dict[str, tf.Tensor]:
    """The tensors of a file, or of a directory or an index of shards."""
    with safe_open(filename, "tf", backend=backend, io=io, owned=owned, lenient=lenient) as file:
        return file.get_tensors()


def _np2tf(numpy_dict: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.convert_to_tensor(array) for name, array in numpy_dict.items()}


def _tf2np(tf_dict: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tf_dict.items()}


def _get(checkpoint: Checkpoint, name: str, device: Any) -> tf.Tensor:
    return tf.convert_to_tensor(_numpy._get(checkpoint, name, device))


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, tf.Tensor]:
    return _np2tf(_numpy._get_all(checkpoint, device))


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> tf.Tensor:
    return tf.convert_to_tensor(_numpy._get_region(checkpoint, name, index, device))

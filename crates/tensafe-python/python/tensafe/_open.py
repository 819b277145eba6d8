"""From what a caller names to an open checkpoint."""

from __future__ import annotations

import os
from typing import Any

from . import _options, _tensafe
from ._tensafe import Checkpoint


def checkpoint_of_path(path: Any, access: _options.Access, lenient: bool | None) -> Checkpoint:
    """Opens a file, a directory or an index of shards."""
    lenient = _options.lenient(lenient)
    return Checkpoint.open(os.fspath(path), io=access.io, lenient=lenient, keep_cached=access.keep_cached)


def checkpoint_of_buffer(data: Any, lenient: bool | None, copy: bool = True) -> Checkpoint:
    """Takes the bytes of a whole file from any object with a buffer."""
    return Checkpoint.from_buffer(data, lenient=_options.lenient(lenient), copy=copy)


def checkpoint_of_handle(handle: Any, access: _options.Access, lenient: bool | None) -> Checkpoint:
    """Takes an open file object: by its path where it is still the file that the path names, which
    can be mapped and read in parallel; else by its ``seek`` and ``read``."""
    name = getattr(handle, "name", None)
    try:
        here, there = os.fstat(handle.fileno()), os.stat(name)  # type: ignore[arg-type]
        same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    except (AttributeError, OSError, TypeError, ValueError):
        same = False
    # A file without a path, such as a temporary one, has a number for a name.
    if same and not isinstance(name, int):
        return checkpoint_of_path(os.fsdecode(name), access, lenient)  # type: ignore[arg-type]
    return Checkpoint.from_reader(handle, lenient=_options.lenient(lenient))


def deserialize(bytes: Any) -> list[tuple[str, dict[str, Any]]]:
    """The tensors of a file's bytes as ``(name, {"shape", "dtype", "data"})``, the data as a bytearray."""
    return _tensafe.deserialize(bytes, lenient=_options.lenient(None))

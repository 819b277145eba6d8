"""A file written tensor by tensor, by one process or by several."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._errors import UsageError, UsageTypeError
from ._tensafe import DTYPES
from ._tensafe import Writer as _Writer

__all__ = ["Writer"]

# Every name of a dtype, and the name that the header has for it.
_CODES: dict[str, str] = {
    known: name for name, _, *others in DTYPES for known in (name, *others) if known is not None
}
# torch counts the bytes of this one, which hold two elements; the header counts elements.
_PAIRS = "float4_e2m1fn_x2"

# Bytes of a device's tensor that are fetched at once.
_FETCH_BYTES = 16 << 20


class Writer:
    """Writes a file whose tensors come one by one, in any order, whole or in parts, from many threads.

    ``specs`` maps each name to ``(dtype, shape)``: the dtype as the header (``"BF16"``), numpy or torch
    call it, or a dtype of theirs. Nothing is visible before :meth:`close`, which refuses while bytes are
    missing. As a context manager it closes, or, after an exception, drops the file::

        with tensafe.Writer("model.safetensors", {"weight": ("BF16", (1024, 1024))}) as writer:
            writer["weight"] = tensor

    Several processes write one file with a token ``shared`` that they agree on and no other save uses.
    One is the leader: it makes its writer first; the others make theirs with ``leader=False``, write, and
    :meth:`flush`. The leader takes what their :meth:`written` returned with :meth:`absorb`, and closes.
    The caller sees to the order, and brings the lists to the leader.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        specs: Mapping[str, tuple[Any, Sequence[int]]],
        metadata: dict[str, str] | None = None,
        *,
        durable: bool = True,
        align: int = 8,
        shared: str | None = None,
        leader: bool = True,
    ) -> None:
        if shared is None and not leader:
            raise UsageError("a writer that is not the leader needs the token of the others: shared=...")
        self._specs = {name: _spec(name, spec) for name, spec in specs.items()}
        tensors = [(name, dtype, shape) for name, (dtype, shape) in self._specs.items()]
        group = None if shared is None else (shared, leader)
        self._writer = _Writer(path, tensors, metadata, durable=durable, align=align, shared=group)

    def __setitem__(self, name: str, tensor: Any) -> None:
        self.write(name, tensor)

    def write(self, name: str, tensor: Any, offset_bytes: int | None = None) -> None:
        """Writes a tensor, or from its byte ``offset_bytes`` on a part of it.

        ``tensor`` is a tensor of torch, an array of numpy, or an object with a contiguous buffer of
        little-endian bytes. Its dtype, and the shape of a whole tensor, are those of the specs.
        """
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(tensor, torch.Tensor):
            self._write_torch(name, tensor, offset_bytes)
            return
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(tensor, (numpy.ndarray, numpy.generic)):
            from . import numpy as adapter

            ((_, dtype, shape, tensor),) = adapter._entries({name: tensor})
            self._check(name, dtype, shape, offset_bytes)
        self._writer.write(name, tensor, offset_bytes)

    def _write_torch(self, name: str, tensor: Any, offset_bytes: int | None) -> None:
        from . import torch as adapter

        ((_, dtype, shape, data),) = adapter._entries({name: tensor})
        self._check(name, dtype, shape, offset_bytes)
        if not callable(data):
            self._writer.write(name, data, offset_bytes)
            return
        size = tensor.nelement() * adapter._size_of(tensor)
        for start in range(0, size, _FETCH_BYTES):
            part = data(start, min(start + _FETCH_BYTES, size))
            self._writer.write(name, part, (offset_bytes or 0) + start)

    def _check(self, name: str, dtype: str, shape: Sequence[int], offset_bytes: int | None) -> None:
        if name not in self._specs:
            # The core has the words for it.
            return
        needed, whole = self._specs[name]
        found = _CODES[dtype]
        if found != needed:
            raise UsageError(f"tensor `{name}`: found {found}, the specs have {needed}")
        if offset_bytes is None and list(shape) != whole:
            raise UsageError(f"tensor `{name}`: found the shape {list(shape)}, the specs have {whole}")

    def written(self) -> list[tuple[int, int]]:
        """The bytes of the file that this writer has written: half-open ranges, as few as there can be."""
        return self._writer.written()

    def absorb(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Takes for written what :meth:`written` returned in another process."""
        self._writer.absorb([(start, stop) for start, stop in ranges])

    def flush(self) -> None:
        """Waits until what this process wrote so far is on the disk. Where that fails, so does ``close``."""
        self._writer.flush()

    def close(self) -> None:
        """Puts the file in its place. In a process that is not the leader, ends its part.

        Where bytes are missing, an error, and the file is dropped. A file that was there stays then.
        """
        self._writer.finish()

    def abort(self) -> None:
        """Drops the file, if it is not closed. In a process that is not the leader, leaves it."""
        self._writer.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort()


def _spec(name: str, spec: tuple[Any, Sequence[int]]) -> tuple[str, list[int]]:
    """The dtype as the header calls it, and the shape in its elements."""
    try:
        dtype, shape = spec
        sizes = [int(size) for size in shape]
    except (TypeError, ValueError):
        raise UsageTypeError(f"tensor `{name}`: a spec is (dtype, shape), got {spec!r}") from None
    known = _dtype_name(dtype)
    if known not in _CODES:
        raise UsageError(f"tensor `{name}`: no dtype of safetensors is {dtype!r}")
    if known == _PAIRS:
        if not sizes:
            raise UsageError(f"tensor `{name}`: {_PAIRS} needs a dimension")
        sizes[-1] *= 2
    return _CODES[known], sizes


def _dtype_name(dtype: Any) -> str:
    if isinstance(dtype, str):
        return dtype
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, torch.dtype):
        return str(dtype).removeprefix("torch.")
    try:
        import numpy

        return str(numpy.dtype(dtype).name)
    except (ImportError, TypeError):
        return str(dtype)

"""``tensafe.open``: a model as a mapping from names to tensors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from . import _options
from ._errors import SafetensorError, TensorNotFoundError, UsageError
from ._open import checkpoint_of_buffer, checkpoint_of_handle, checkpoint_of_path
from ._plan import Plan
from ._tensafe import DTYPES
from ._tensafe import Checkpoint as _Checkpoint

_BITS = {name: bits for name, bits, _, _ in DTYPES}


class Tensor:
    """One tensor of an open model. Nothing is read before it is asked for."""

    __slots__ = ("_checkpoint", "_index", "_stored", "dtype", "name")

    name: str
    dtype: str
    """The name of the dtype in the header, such as ``"BF16"``."""

    def __init__(self, checkpoint: _Checkpoint, name: str, index: Any = None) -> None:
        self._checkpoint = checkpoint
        self._index = index
        self.name = name
        self.dtype, shape, _, _ = checkpoint.info(name)
        self._stored = tuple(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, row-major, in elements: of the tensor, or of the part that was chosen."""
        if self._index is None:
            return self._stored
        return tuple(self._checkpoint.region_shape(self.name, self._index))

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, or of the part that was chosen."""
        elements = 1
        for dimension in self.shape:
            elements *= dimension
        return elements * _BITS[self.dtype] // 8

    def __getitem__(self, index: Any) -> Tensor:
        """A part, chosen as numpy chooses: integers, slices of positive step, one ellipsis.

        Bounds beyond the end are refused. Only the bytes of the part are read, when it is read.
        """
        if self._index is not None:
            raise UsageError(f"tensor {self.name}: a part cannot be cut again; give one index")
        # The index is checked here, where it was written, not where it is used.
        self._checkpoint.region_shape(self.name, index)
        return Tensor(self._checkpoint, self.name, index)

    def _make(self, framework: str, device: Any) -> Any:
        adapter = importlib.import_module(f"tensafe.{framework}")
        if self._index is None:
            return adapter._get(self._checkpoint, self.name, device)
        return adapter._get_region(self._checkpoint, self.name, self._index, device)

    def to_numpy(self) -> Any:
        """The tensor as a numpy array; a view of the mapping where there is one."""
        return self._make("numpy", "cpu")

    def to_torch(self, device: Any = "cpu") -> Any:
        """The tensor as a torch tensor; on the CPU a view of the mapping where there is one."""
        return self._make("torch", _options.device(device))

    def to_jax(self) -> Any:
        """The tensor as a JAX array on the default device."""
        return self._make("flax", "cpu")

    def bytes(self) -> memoryview:
        """The elements in row-major order, little-endian, as the file holds them."""
        memory: Any
        if self._index is None:
            memory = self._checkpoint.memory(self.name)
        else:
            _, memory = self._checkpoint.region(self.name, self._index)
        return memoryview(memory)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule on the CPU, as the array API has it: any ``from_dlpack`` takes the tensor.

        It may be written. Bytes that are not to be written, those of ``tensafe.open(bytes)``, are
        copied; ``copy=False`` shows them as they are and marks them as read-only, which not every
        framework heeds.
        """
        if stream is not None:
            raise BufferError(f"stream {stream}: tensors on the CPU have none")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"device {tuple(dl_device)}: the tensor is on the CPU, (1, 0)")
        if sys.byteorder == "big" and _BITS[self.dtype] > 8:
            raise BufferError("DLPack has no word for bytes in little-endian order; use to_numpy()")
        versioned = max_version is not None and max_version[0] >= 1
        if self._index is None:
            return self._checkpoint.dlpack(self.name, versioned=versioned, copy=copy)
        return self._checkpoint.dlpack_region(self.name, self._index, versioned=versioned, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU, in the numbers of DLPack."""
        return 1, 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.to_numpy()
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    # Else `in` would compare its operand with rows, of which it is none.
    __contains__ = None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of no dimensions has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.dtype} {list(self.shape)}, {_size(self.nbytes)}>"


class Checkpoint(Mapping[str, Tensor]):
    """An open model: a mapping from names to :class:`Tensor`, over all of its files."""

    def __init__(self, checkpoint: _Checkpoint) -> None:
        self._opened: _Checkpoint | None = checkpoint

    def _checkpoint(self) -> _Checkpoint:
        if self._opened is None:
            raise SafetensorError("File is closed")
        return self._opened

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._checkpoint():
            error = TensorNotFoundError(f"tensor `{name}` not found")
            error.tensor = name
            raise error
        return Tensor(self._checkpoint(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint().names())

    def __len__(self) -> int:
        return len(self._checkpoint())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._checkpoint()

    # Tensors have no values to compare before they are read: a model equals itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def metadata(self) -> dict[str, str]:
        """The free-form strings of the headers; the first file's where two have a key."""
        return self._checkpoint().metadata() or {}

    @property
    def files(self) -> list[str | None]:
        """The paths of the files; ``None`` for bytes that have none."""
        return [None if path is None else str(path) for path in self._checkpoint().files()]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(end - begin for *_, begin, end in self._checkpoint().infos())

    def to_torch(self, device: Any = "cpu") -> dict[str, Any]:
        """All tensors as torch tensors."""
        adapter = importlib.import_module("tensafe.torch")
        tensors: dict[str, Any] = adapter._get_all(self._checkpoint(), _options.device(device))
        return tensors

    def to_numpy(self) -> dict[str, Any]:
        """All tensors as numpy arrays."""
        arrays: dict[str, Any] = importlib.import_module("tensafe.numpy")._get_all(self._checkpoint(), "cpu")
        return arrays

    def plan(self, *, budget: int | str | None = None, order: str = "file", local_ranks: int = 1) -> Plan:
        """An empty plan over this model: add tensors to it, or parts of them, then carry it out.

        ``budget`` bounds the memory that is taken at a time, in bytes or as text such as ``"2GiB"``: of
        tensors that were read and not yet handed out, and of requests. Reading waits for the caller
        rather than exceed it. ``order`` is that of reading and of handing out: ``"file"``, that of the
        files and of the bytes in them, or ``"plan"``, that of adding. ``local_ranks`` is how many processes
        of this host carry out such a plan at the same time: of a local disk each asks for less at once.
        """
        return Plan(self._checkpoint(), budget, order, local_ranks)

    def close(self) -> None:
        """Forgets the files. Tensors that were made live on."""
        self._opened = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, _exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._opened is None:
            return "<tensafe.Checkpoint: closed>"
        shown = 12
        rows = [(name, code, shape, end - begin) for name, code, shape, _, begin, end in self._opened.infos()]
        where = [path for path in self.files if path is not None]
        place = where[0] if len(where) == 1 else f"{len(self.files)} files" if where else "memory"
        lines = [f"<tensafe.Checkpoint: {len(rows)} tensors, {_size(self.nbytes)}, in {place}>"]
        width = max((len(name) for name, *_ in rows[:shown]), default=0)
        for name, code, shape, size in rows[:shown]:
            lines.append(f"  {name:<{width}}  {code:<6} {list(shape)!s:<20} {_size(size)}")
        if len(rows) > shown:
            lines.append(f"  … and {len(rows) - shown} more")
        return "\n".join(lines)


def open(
    source: Any,
    *,
    io: str = "auto",
    owned: bool = False,
    lenient: bool | None = None,
    cache: str = "keep",
) -> Checkpoint:
    """Opens a model: the path of a file, a directory or an index of shards; the bytes of a file, as
    any object with a buffer; or a file object.

    Only headers are read. ``io`` is ``"mmap"``, ``"pread"``, ``"direct"``, past the page cache where the file
    system can, or ``"auto"``, a mapping on local disks and reads elsewhere; a mapped file must not be cut
    short or changed in place meanwhile. ``owned=True`` reads each tensor into memory of its own; without
    it, tensors of bytes are views of these. ``cache="drop"`` leaves nothing in the page cache that was not
    there. ``lenient=True`` reads what the reference reads beyond the published format.
    """
    access = _options.access("mmap", io, owned, cache)
    if isinstance(source, (str, os.PathLike)):
        return Checkpoint(checkpoint_of_path(source, access, lenient))
    if hasattr(source, "seek") and hasattr(source, "read"):
        return Checkpoint(checkpoint_of_handle(source, access, lenient))
    if io == "mmap":
        raise UsageError(
            'io="mmap" maps a file, and bytes are none: leave io= away, tensors are views of them'
        )
    return Checkpoint(checkpoint_of_buffer(source, lenient, copy=owned))


def _size(count: int) -> str:
    """Bytes as a person says them, in decimal units."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    for larger in units:
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"

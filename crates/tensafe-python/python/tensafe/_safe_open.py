"""``safe_open``: one file (or a model of several), tensors as asked, in the framework asked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from . import _options
from ._errors import SafetensorError, TensorNotFoundError
from ._open import checkpoint_of_handle, checkpoint_of_path
from ._prefetch import PrefetchLoader
from ._tensafe import Checkpoint

_FRAMEWORKS = {
    **dict.fromkeys(("pt", "torch", "pytorch"), "torch"),
    **dict.fromkeys(("np", "numpy"), "numpy"),
    **dict.fromkeys(("tf", "tensorflow"), "tensorflow"),
    **dict.fromkeys(("jax", "flax"), "flax"),
    "mlx": "mlx",
    "paddle": "paddle",
}


class TensorMeta:
    """A tensor's entry in the header. No data is read to make it."""

    __slots__ = ("data_offsets", "dtype", "shape")

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]

    def __init__(self, dtype: str, shape: list[int], data_offsets: tuple[int, int]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.data_offsets = data_offsets

    def __repr__(self) -> str:
        return f"TensorMeta(dtype={self.dtype!r}, shape={self.shape}, data_offsets={self.data_offsets})"


class PySafeSlice:
    """One tensor of a file, read as far as it is indexed, also when the file was closed meanwhile."""

    __slots__ = ("_checkpoint", "_file", "_name")

    def __init__(self, file: safe_open, name: str) -> None:
        self._file = file
        self._checkpoint = file._checkpoint()
        self._name = name

    def get_shape(self) -> list[int]:
        """The shape, row-major, in elements."""
        return self._checkpoint.info(self._name)[1]

    def get_dtype(self) -> str:
        """The name of the dtype in the header, such as ``"F32"``."""
        return self._checkpoint.info(self._name)[0]

    def __getitem__(self, index: Any) -> Any:
        file = self._file
        return file._adapter._get_region(self._checkpoint, self._name, index, file._device)

    def __repr__(self) -> str:
        return f"PySafeSlice({self._name!r}, {self.get_dtype()}, {self.get_shape()})"


class safe_open:
    """An open safetensors file that hands out tensors as they are asked for.

    ``filename`` is a path; a directory or an index of shards opens as one. ``framework`` is ``pt``,
    ``np``, ``tf``, ``flax``, ``mlx``, ``paddle`` or one of their other names. ``device`` is a string, a
    number or a ``torch.device``; ``"meta"`` makes tensors of torch without data.

    ``backend="mmap"`` maps local files and reads those of network file systems; ``"pread"`` reads
    always. ``io`` chooses by itself: ``"auto"``, ``"mmap"``, ``"pread"``, or ``"direct"``, past the page
    cache where the file system can. A mapped file must not be cut short or changed in place while it is
    open or tensors of it live. ``owned=True`` reads into memory of the process: through the page cache
    what is there, directly what is not. ``cache="drop"`` leaves nothing in the page cache that was not
    there. ``lenient=True`` reads what the reference reads beyond the published format.

    Use it with ``with``, or without: tensors live on by themselves.
    """

    def __init__(
        self,
        filename: Any,
        framework: str,
        device: Any = "cpu",
        *,
        backend: str = "mmap",
        io: str | None = None,
        owned: bool = False,
        lenient: bool | None = None,
        cache: str = "keep",
    ) -> None:
        self._set_up(framework, device)
        access = _options.access(backend, io, owned, cache)
        self._opened: Checkpoint | None = checkpoint_of_path(filename, access, lenient)

    def _set_up(self, framework: str, device: Any) -> None:
        module = _FRAMEWORKS.get(framework)
        if module is None:
            raise SafetensorError(f"framework {framework} is invalid")
        self._framework = module
        self._device = _options.device(device)
        if self._device != "cpu" and module not in ("torch", "paddle"):
            raise SafetensorError(f"Device {self._device} is not supported for framework {framework}")
        self._loaded: ModuleType | None = None

    @property
    def _adapter(self) -> Any:
        # Imported when the first tensor is asked for: names and shapes need no framework.
        if self._loaded is None:
            self._loaded = importlib.import_module(f"tensafe.{self._framework}")
        return self._loaded

    def _checkpoint(self) -> Checkpoint:
        if self._opened is None:
            raise SafetensorError("File is closed")
        return self._opened

    def __enter__(self) -> safe_open:
        self._checkpoint()
        return self

    def __exit__(self, _exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        self._opened = None

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return self._checkpoint().names()

    def offset_keys(self) -> list[str]:
        """The names of the tensors in the order of their bytes."""
        return self._checkpoint().offset_names()

    def metadata(self) -> dict[str, str] | None:
        """The free-form strings of the header, ``None`` where it has none."""
        return self._checkpoint().metadata()

    def get_tensor(self, name: str) -> Any:
        """The tensor called ``name``."""
        checkpoint = self._checkpoint()
        self._require(name)
        return self._adapter._get(checkpoint, name, self._device)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, in the order of their bytes."""
        tensors: dict[str, Any] = self._adapter._get_all(self._checkpoint(), self._device)
        return tensors

    def get_slice(self, name: str) -> PySafeSlice:
        """The tensor called ``name``, to be indexed: only the bytes that an index selects are read."""
        self._require(name)
        return PySafeSlice(self, name)

    def get_tensor_meta(self, name: str) -> TensorMeta:
        """What the header says of the tensor called ``name``."""
        self._require(name)
        dtype, shape, begin, end = self._checkpoint().info(name)
        return TensorMeta(dtype, shape, (begin, end))

    def prefetch(
        self,
        plan: Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        threads: int = 8,
        budget: int | str | None = None,
    ) -> PrefetchLoader:
        """Starts loading tensors in the background; see :class:`PrefetchLoader`.

        ``plan`` maps names to ``None`` for a whole tensor, to a slice along its first dimension, or to a
        tuple of slices, integers and an ellipsis with at least one slice, such as ``np.s_[:, 8:16]``; steps
        are 1 and bounds are within the tensor. Without a plan every tensor is loaded, of all files where
        there are several. ``device`` defaults to the file's. ``threads`` bounds how many parts of the plan are read
        at once; each is read by as many threads as its disk likes. ``budget`` bounds the memory, in bytes or as text such
        as ``"2GiB"``, of tensors that are loading, or loaded and not taken.
        """
        target = self._device if device is None else _options.device(device)
        return PrefetchLoader(self, plan, target, threads, budget)

    def _require(self, name: str) -> None:
        if name not in self._checkpoint():
            error = TensorNotFoundError(f"File does not contain tensor {name}")
            error.tensor = name
            raise error

    def __repr__(self) -> str:
        if self._opened is None:
            return "<safe_open: closed>"
        paths = [path for path in self._opened.files() if path is not None]
        where = paths[0] if len(paths) == 1 else f"{len(paths)} files"
        return f"<safe_open: {len(self._opened)} tensors in {where}>"


class _safe_open_handle(safe_open):
    """``safe_open`` for an open file object."""

    def __init__(
        self,
        f: Any,
        framework: str,
        device: Any = "cpu",
        *,
        backend: str = "mmap",
        io: str | None = None,
        owned: bool = False,
        lenient: bool | None = None,
        cache: str = "keep",
    ) -> None:
        self._set_up(framework, device)
        self._opened = checkpoint_of_handle(f, _options.access(backend, io, owned, cache), lenient)

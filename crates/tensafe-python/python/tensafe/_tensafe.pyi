"""The extension module: the Rust core as the Python files of this package see it."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, final

__all__ = [
    "DTYPES",
    "Checkpoint",
    "Execution",
    "Memory",
    "Plan",
    "SaveControl",
    "Structure",
    "TensorSpec",
    "Writer",
    "__version__",
    "can_stage",
    "cli",
    "convert",
    "deserialize",
    "limit_memory",
    "load_pickle_dlpack",
    "load_pickle_numpy",
    "load_pickle_structure",
    "scan",
    "serialize",
    "serialize_file",
    "snapshot",
    "trim_memory",
    "write",
]

__version__: str

DTYPES: list[tuple[str, int, str, str | None]]
"""Name in the header, bits, name in numpy, name in torch: ascending by alignment."""

@final
class Memory:
    """Bytes of the core: an object with a writable buffer."""

    mapped: bool
    def __len__(self) -> int: ...
    def dlpack(
        self, dtype: str, shape: Sequence[int], *, raw: bool = False, versioned: bool = False
    ) -> Any: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class SaveControl:
    """How far a call of ``write`` is, and its end, for other threads."""

    def __new__(cls) -> SaveControl: ...
    def cancel(self) -> None: ...
    def progress(self) -> tuple[int, int]: ...

@final
class Structure:
    """What stands around the tensors of a file of ``torch.save``."""

    def make(self, leaf: Callable[[str, str, str, bool], Any], named: Callable[[str, Any], Any]) -> Any: ...

@final
class Writer:
    """A file that is written tensor by tensor."""

    def __new__(
        cls,
        path: str | os.PathLike[str],
        tensors: Sequence[tuple[str, str, Sequence[int]]],
        metadata: dict[str, str] | None = None,
        *,
        durable: bool = True,
        align: int = 8,
        shared: tuple[str, bool] | None = None,
    ) -> Writer: ...
    def write(self, name: str, data: Any, offset: int | None = None) -> None: ...
    def written(self) -> list[tuple[int, int]]: ...
    def absorb(self, ranges: Sequence[tuple[int, int]]) -> None: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...

@final
class Checkpoint:
    """Files seen as one map of names."""

    @staticmethod
    def open(
        path: str | os.PathLike[str], *, io: str = "auto", lenient: bool = False, keep_cached: bool = True
    ) -> Checkpoint: ...
    @staticmethod
    def from_buffer(data: Any, *, lenient: bool = False, copy: bool = True) -> Checkpoint: ...
    @staticmethod
    def from_reader(reader: Any, *, lenient: bool = False) -> Checkpoint: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: str, /) -> bool: ...
    def names(self) -> list[str]: ...
    def offset_names(self) -> list[str]: ...
    def metadata(self) -> dict[str, str] | None: ...
    def files(self) -> list[os.PathLike[str] | None]: ...
    def info(self, name: str) -> tuple[str, list[int], int, int]: ...
    def infos(self) -> list[tuple[str, str, list[int], int, int, int]]: ...
    def memory(self, name: str) -> Memory: ...
    def region(self, name: str, expression: Any, *, clamp: bool = False) -> tuple[list[int], Memory]: ...
    def region_shape(self, name: str, expression: Any, *, clamp: bool = False) -> list[int]: ...
    def dlpack(
        self, name: str, *, raw: bool = False, versioned: bool = False, copy: bool | None = None
    ) -> Any: ...
    def dlpack_region(
        self,
        name: str,
        expression: Any,
        *,
        raw: bool = False,
        clamp: bool = False,
        versioned: bool = False,
        copy: bool | None = None,
    ) -> Any: ...
    def load_dlpack(
        self,
        convert: Callable[[Any], Any],
        known: dict[str, Any],
        *,
        empty: Callable[[list[int], str], Any] | None = None,
        versioned: bool = False,
    ) -> dict[str, Any]: ...
    def load_numpy(
        self, dtype: Callable[[str], Any], unpack: Callable[[Any, str, list[int]], Any]
    ) -> dict[str, Any]: ...

@final
class TensorSpec:
    """One tensor to be written: dtype, shape, and the address of its bytes.

    Whoever makes one keeps the memory alive and unchanged until the call that takes it returns.
    """

    def __new__(cls, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> TensorSpec: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def data_ptr(self) -> int: ...
    @property
    def data_len(self) -> int: ...

def serialize(tensor_dict: dict[str, TensorSpec], metadata: dict[str, str] | None = None) -> bytes: ...
def serialize_file(
    tensor_dict: dict[str, TensorSpec],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None: ...
def deserialize(bytes: Any, *, lenient: bool = False) -> list[tuple[str, dict[str, Any]]]: ...
def write(
    path: str | os.PathLike[str] | None,
    tensors: Sequence[tuple[str, str, Sequence[int], Any]],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
    control: SaveControl | None = None,
) -> bytes | None: ...
def snapshot(buffers: Sequence[Any]) -> list[Memory]: ...
def cli(arguments: Sequence[str]) -> int: ...
def convert(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: dict[str, Any],
    progress: Callable[[int, int], object] | None = None,
) -> tuple[str, str]: ...
def load_pickle_dlpack(
    source: Any,
    options: dict[str, Any],
    convert: Callable[[Any], Any],
    known: dict[str, Any],
    *,
    versioned: bool = False,
) -> dict[str, Any]: ...
def load_pickle_numpy(
    source: Any,
    options: dict[str, Any],
    dtype: Callable[[str], Any],
    unpack: Callable[[Any, str, list[int]], Any],
) -> dict[str, Any]: ...
def load_pickle_structure(
    source: Any,
    convert: Callable[[Any], Any],
    known: dict[str, Any],
    *,
    versioned: bool = False,
) -> tuple[dict[str, Any], Structure | None]: ...
def scan(
    paths: Sequence[str | os.PathLike[str]],
    data: Any,
    policy: str | None,
    crc: bool,
    threads: int,
    format: str,
) -> str: ...

@final
class Plan:
    """What to load of a model."""

    def __new__(
        cls,
        checkpoint: Checkpoint,
        *,
        budget: int | str | None = None,
        in_order: bool = False,
        local_ranks: int = 1,
    ) -> Plan: ...
    def add(
        self,
        name: str,
        *,
        expression: Any = None,
        clamp: bool = False,
        shard: tuple[int, int, int] | None = None,
        intervals: tuple[int, list[tuple[int, int]]] | None = None,
    ) -> list[int]: ...
    def lend(self, name: str, out: Any) -> None: ...
    def keep(self, names: set[str]) -> None: ...
    def rows(self) -> list[tuple[str, str, list[int], int]]: ...
    def __len__(self) -> int: ...
    def fingerprint(self) -> int: ...
    def explain(self, *, staged: bool = False) -> dict[str, Any]: ...
    def execute(self, *, device: int | None = None) -> Execution: ...

@final
class Execution:
    """A plan under way."""

    def next(self) -> tuple[str, str, list[int], Memory | None] | None: ...
    def load_dlpack(
        self,
        convert: Callable[[Any], Any],
        known: dict[str, Any],
        *,
        empty: Callable[[list[int], str], Any] | None = None,
        versioned: bool = False,
    ) -> dict[str, Any]: ...
    def order(self) -> list[tuple[str, str, list[int], int]]: ...
    def lacks(self) -> int: ...
    def give(self, place: int, out: Any) -> None: ...
    def check(self, known: dict[str, Any]) -> None: ...
    def progress(self) -> tuple[int, int]: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...

def can_stage(device: int) -> bool: ...
def trim_memory(keep: int = 0) -> int: ...
def limit_memory(bytes: int) -> None: ...

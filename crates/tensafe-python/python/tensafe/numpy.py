"""safetensors for numpy.

Loading is zero-copy: arrays are views of the file's mapping, or of memory that the file was read into,
which a large array has for itself and small ones share. They are writable; what is written to a mapping
stays in this process. The dtypes that numpy lacks come from ``ml_dtypes``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ._convert import load_options
from ._errors import UnsupportedError, UsageTypeError
from ._open import checkpoint_of_buffer
from ._safe_open import safe_open
from ._save import SaveHandle, start_save, write_file
from ._tensafe import DTYPES, Checkpoint, Execution, load_pickle_numpy, write
from ._tensafe import TensorSpec as TensorSpec

__all__ = ["load", "load_file", "load_pickle", "save", "save_file", "save_file_async"]

_NAMES = {name: numpy_name for name, _, numpy_name, _ in DTYPES}
_CODES = {numpy_name: name for name, _, numpy_name, _ in DTYPES}
_BITS = {name: bits for name, bits, _, _ in DTYPES}
# The names of floating-point dtypes, those that numpy takes for opaque bytes too.
_FLOATS = frozenset(numpy_name for name, _, numpy_name, _ in DTYPES if name.startswith(("F", "BF")))

_TYPES: dict[str, Any] = {
    name: bool if numpy_name == "bool" else getattr(np, numpy_name)
    for name, numpy_name in _NAMES.items()
    if hasattr(np, numpy_name)
}
_DTYPES: dict[str, np.dtype[Any]] = {}


def save(
    tensor_dict: dict[str, np.ndarray], metadata: dict[str, str] | None = None, *, align: int = 8
) -> bytes:
    """The bytes of a file that holds these arrays.

    Arrays of any layout and byte order are written in row-major, little-endian order. ``align`` puts
    the data on a multiple of that many bytes.
    """
    written = write(None, _entries(tensor_dict), metadata, align=align)
    assert written is not None
    return written


def save_file(
    tensor_dict: dict[str, np.ndarray],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these arrays, atomically: a failed save leaves the old file as it was.

    ``durable=False`` does not wait for the disk. ``align`` puts the data on a multiple of that many
    bytes.
    """
    write_file(filename, _entries(tensor_dict), metadata, durable=durable, align=align)


def save_file_async(
    tensor_dict: dict[str, np.ndarray],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    snapshot: bool = True,
    durable: bool = True,
    align: int = 8,
) -> SaveHandle:
    """As :func:`save_file`, in the background: returns when the arrays may be changed again.

    ``snapshot=True`` copies them first, which takes as much memory as they have. ``snapshot=False``
    returns at once: the arrays must not be changed until the handle is done. What cannot be saved is
    refused here; what fails later, by ``result()`` of the handle.
    """
    return start_save(
        _entries(tensor_dict), filename, metadata, snapshot=snapshot, durable=durable, align=align
    )


def load(data: Any, *, lenient: bool | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file's bytes: any object with a buffer. Each array's bytes are copied once."""
    return _get_all(checkpoint_of_buffer(data, lenient), "cpu")


def load_file(
    filename: str | os.PathLike[str],
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
    cache: str = "keep",
) -> dict[str, np.ndarray]:
    """The arrays of a file, or of a directory or an index of shards.

    ``io`` is ``"auto"``, ``"mmap"``, ``"pread"`` or ``"direct"``; ``owned=True`` reads into memory of the
    process; ``cache="drop"`` leaves nothing in the page cache that was not there.
    """
    with safe_open(filename, "np", backend=backend, io=io, owned=owned, lenient=lenient, cache=cache) as file:
        return file.get_tensors()


def load_pickle(
    source: Any,
    *,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    dense: bool = False,
    salvage: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of a pickle checkpoint by flattened name, without importing or calling what it names.

    ``source`` is a path (a file, an index of shards or a directory), the file's bytes, or a file object:
    ``.npy``, ``.npz``, joblib, torch's files, plain pickles of arrays. See
    :func:`tensafe.torch.load_pickle`.
    """
    options = load_options(select, exclude, dense, salvage)
    return load_pickle_numpy(source, options, _dtype, _unpacked)


def _entries(tensor_dict: dict[str, np.ndarray]) -> list[tuple[str, str, tuple[int, ...], Any]]:
    if not isinstance(tensor_dict, dict):
        raise ValueError(f"Expected a dict of [str, np.ndarray] but received {type(tensor_dict)}")
    entries = []
    for name, value in tensor_dict.items():
        if not isinstance(value, (np.ndarray, np.generic)):
            raise ValueError(f"Key `{name}` is invalid, expected np.ndarray but received {type(value)}")
        if isinstance(value, np.ma.MaskedArray):
            raise UsageTypeError(
                f"tensor `{name}`: a masked array would lose its mask; save .filled(...) of it, or its .data"
                " and its .mask as tensors of their own"
            )
        array = np.asarray(value)
        code = _CODES.get(array.dtype.name)
        if code is None:
            raise UnsupportedError(
                f"tensor `{name}`: numpy {array.dtype} has no safetensors dtype; "
                f"convert it first, for example with .astype(...) or .view(np.uint8)"
            )
        entries.append((name, array.dtype.name, array.shape, _bytes_of(array, code)))
    return entries


def _bytes_of(array: np.ndarray, code: str) -> np.ndarray:
    """The elements in row-major order, little-endian, packed: as bytes of a contiguous array."""
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.byteswap()
    packed = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return packed if _BITS[code] >= 8 else _pack(packed, _BITS[code])


def _pack(elements: np.ndarray, bits: int) -> np.ndarray:
    """One element to a byte becomes the format's packing: least significant bits first (S-20)."""
    spread = np.unpackbits(elements.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(spread.reshape(-1), bitorder="little")


def _unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    spread = np.unpackbits(packed, bitorder="little").reshape(-1, bits)
    return np.packbits(spread, axis=1, bitorder="little").reshape(-1)


def _dtype(code: str) -> np.dtype[Any]:
    """The dtype that the header calls ``code``; registers those of ``ml_dtypes`` where needed."""
    known = _DTYPES.get(code)
    if known is None:
        name = _NAMES[code]
        try:
            known = np.dtype(name)
        except TypeError:
            try:
                import ml_dtypes
            except ImportError:
                raise UnsupportedError(
                    f"numpy alone has no {code}; install ml_dtypes: pip install tensafe[numpy]"
                ) from None
            found = getattr(ml_dtypes, name, None)
            if found is None:
                raise UnsupportedError(f"this version of ml_dtypes has no {name}; upgrade it") from None
            known = np.dtype(found)
        # Bytes of a file are little-endian.
        if sys.byteorder == "big" and known.itemsize > 1:
            known = known.newbyteorder("<")
        _DTYPES[code] = known
    return known


def _unpacked(packed: np.ndarray, code: str, shape: Any) -> np.ndarray:
    """The array of elements that are parts of bytes, from all of these bytes."""
    return _unpack(packed, _BITS[code]).view(_dtype(code)).reshape(shape)


def _array(code: str, shape: Any, memory: Any) -> np.ndarray:
    if _BITS[code] < 8:
        packed = np.frombuffer(memory, np.uint8) if len(memory) else np.empty(0, np.uint8)
        return _unpacked(packed, code, shape)
    try:
        return np.ndarray(shape, _dtype(code), memory)
    except ValueError as error:
        # More dimensions, or larger ones, than numpy has.
        raise UnsupportedError(f"numpy cannot hold a tensor of shape {list(shape)}: {error}") from None


def _get(checkpoint: Checkpoint, name: str, device: Any) -> np.ndarray:
    code, shape, _, _ = checkpoint.info(name)
    return _array(code, shape, checkpoint.memory(name))


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, np.ndarray]:
    return checkpoint.load_numpy(_dtype, _unpacked)


def _of_memory(memory: Any, code: str, shape: Any, name: str) -> np.ndarray:
    return _array(code, shape, memory)


def _run_all(running: Execution) -> dict[str, np.ndarray]:
    rows = iter(running.next, None)
    return {name: _array(code, shape, memory) for name, code, shape, memory in rows if memory is not None}


def _lendable(out: Any, code: str) -> Any:
    """``out`` as memory that the file's bytes can be read into, ``None`` where they differ from its."""
    if not isinstance(out, np.ndarray) or _BITS[code] < 8 or sys.byteorder == "big":
        return None
    if out.dtype != _dtype(code) or any(stride < 0 for stride in out.strides):
        return None
    # Dtypes of other packages are no buffers; unsigned integers of their size are.
    return out.view(f"u{out.itemsize}")


def _is_dtype(dtype: Any) -> bool:
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True


def _cast(array: np.ndarray, dtype: Any) -> np.ndarray:
    floating = array.dtype.kind == "f" or array.dtype.name in _FLOATS
    return array.astype(dtype) if floating else array


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape, array.dtype)
    whole[tuple(slice(size) for size in array.shape)] = array
    return whole


def _copy(out: np.ndarray, array: np.ndarray) -> None:
    out[...] = array


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> np.ndarray:
    code = checkpoint.info(name)[0]
    shape, memory = checkpoint.region(name, index)
    return _array(code, shape, memory)


def _getdtype(dtype_str: str) -> Any:
    return _TYPES[dtype_str]


def _view2np(safeview: Any) -> dict[str, np.ndarray]:
    return {name: _array(row["dtype"], row["shape"], row["data"]) for name, row in safeview}


def _is_little_endian(tensor: np.ndarray) -> bool:
    order = tensor.dtype.byteorder
    if order == "=":
        return sys.byteorder == "little"
    if order in "|<":
        return True
    if order == ">":
        return False
    raise ValueError(f"Unexpected byte order {order}")


def _flatten(tensor_dict: dict[str, np.ndarray], keep_alive_buffer: list[Any]) -> dict[str, TensorSpec]:
    """Arrays as the arguments of ``serialize``; ``keep_alive_buffer`` takes what their addresses point to."""
    flattened = {}
    for name, dtype, shape, data in _entries(tensor_dict):
        keep_alive_buffer.append(data)
        flattened[name] = TensorSpec(
            dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    return flattened

"""safetensors for PaddlePaddle."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import paddle
from paddle.utils.dlpack import from_dlpack

from ._errors import UnsupportedError
from ._open import checkpoint_of_buffer
from ._safe_open import safe_open
from ._save import write_file
from ._tensafe import DTYPES, Checkpoint, write

__all__ = ["load", "load_file", "save", "save_file"]

# Paddle names its dtypes as torch does.
_TYPES: dict[str, Any] = {
    name: getattr(paddle, torch_name)
    for name, _, _, torch_name in DTYPES
    if torch_name is not None and hasattr(paddle, torch_name)
}
_NAMES = {_TYPES[name]: torch_name for name, _, _, torch_name in DTYPES if name in _TYPES}
_SIZE = {_TYPES[name]: max(bits // 8, 1) for name, bits, _, _ in DTYPES if name in _TYPES}
# What paddle's DLPack does not know crosses as bytes, and is viewed as its dtype on this side.
_RAW = {
    name: _TYPES[name] for name, bits, _, _ in DTYPES if bits == 8 and name.startswith("F") and name in _TYPES
}
_CROSSINGS: dict[str, Any] = {name: _RAW.get(name) for name in _TYPES}


def save(
    tensors: dict[str, paddle.Tensor], metadata: dict[str, str] | None = None, *, align: int = 8
) -> bytes:
    """The bytes of a file that holds these tensors, which are dense and contiguous."""
    written = write(None, _entries(tensors), metadata, align=align)
    assert written is not None
    return written


def save_file(
    tensors: dict[str, paddle.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these tensors, atomically; see ``tensafe.torch.save_file``."""
    write_file(filename, _entries(tensors), metadata, durable=durable, align=align)


def load(data: Any, device: Any = "cpu", *, lenient: bool | None = None) -> dict[str, paddle.Tensor]:
    """The tensors of a file's bytes: any object with a buffer. The bytes are copied once."""
    return _get_all(checkpoint_of_buffer(data, lenient), device)


def load_file(
    filename: str | os.PathLike[str],
    device: Any = "cpu",
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
) -> dict[str, paddle.Tensor]:
    """The tensors of a file, or of a directory or an index of shards."""
    with safe_open(filename, "paddle", device, backend=backend, io=io, owned=owned, lenient=lenient) as file:
        return file.get_tensors()


def _entries(tensors: dict[str, paddle.Tensor]) -> list[tuple[str, str, list[int], Any]]:
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, paddle.Tensor] but received {type(tensors)}")
    entries = []
    for name, tensor in tensors.items():
        if not isinstance(tensor, paddle.Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected paddle.Tensor but received {type(tensor)}")
        if not tensor.is_contiguous():
            raise ValueError(
                f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. Call"
                " `.contiguous()` on it to pack it; if it is a part of another tensor, save that one and"
                " slice it when it is loaded."
            )
        dtype = _NAMES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedError(
                f"tensor `{name}`: {tensor.dtype} has no safetensors dtype; convert it first"
            )
        on_host = tensor.place.is_cpu_place()
        data = _host_bytes(tensor) if on_host else functools.partial(_fetch, tensor)
        entries.append((name, dtype, list(tensor.shape), data))
    return entries


def _host_bytes(tensor: paddle.Tensor) -> Any:
    if 0 in tensor.shape:
        return b""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (paddle.bfloat16, *_RAW.values()):
        # numpy has no such dtype: the bits as integers of the same width.
        tensor = tensor.view(paddle.int16 if _SIZE[tensor.dtype] == 2 else paddle.uint8)
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)


def _fetch(tensor: paddle.Tensor, start: int, stop: int) -> Any:
    """The bytes ``start:stop`` of a contiguous tensor, on the host; both are multiples of an element."""
    size = _SIZE[tensor.dtype]
    return _host_bytes(tensor.detach().reshape([-1])[start // size : stop // size])


def _getdtype(dtype_str: str) -> Any:
    return _TYPES[dtype_str]


def _np2paddle(numpy_dict: dict[str, np.ndarray], device: Any = "cpu") -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(array, place=_place(device)) for name, array in numpy_dict.items()}


def _paddle2np(paddle_dict: dict[str, paddle.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in paddle_dict.items()}


def _view2paddle(safeview: Any, device: Any) -> dict[str, paddle.Tensor]:
    """The result of ``deserialize`` as tensors."""
    result = {}
    for name, row in safeview:
        _known(row["dtype"], name)
        dtype, shape = _TYPES[row["dtype"]], list(row["shape"])
        if 0 in shape:
            result[name] = paddle.empty(shape, dtype=dtype)
            continue
        flat = paddle.to_tensor(np.frombuffer(row["data"], np.uint8), place=_place(device))
        result[name] = flat.view(dtype).reshape(shape)
    return result


def _known(code: str, name: str) -> None:
    if code not in _TYPES:
        raise UnsupportedError(
            f"Dtype not understood: {code}, of tensor `{name}`: paddle has none for it;"
            f" tensafe.open(...)[{name!r}].bytes() gives its bytes"
        )


def _place(device: Any) -> Any:
    if isinstance(device, int):
        return f"gpu:{device}"
    return device.replace("cuda", "gpu") if isinstance(device, str) else device


def _finish(capsule: Any, code: str, shape: list[int], device: Any) -> paddle.Tensor:
    if 0 in shape:
        tensor = _empty(shape, code)
    else:
        tensor = from_dlpack(capsule)
        if code in _RAW:
            tensor = tensor.view(_RAW[code])
    return _placed(tensor, device)


def _empty(shape: list[int], code: str) -> paddle.Tensor:
    return paddle.empty(shape, dtype=_TYPES[code])


def _placed(tensor: paddle.Tensor, device: Any) -> paddle.Tensor:
    return tensor if device == "cpu" else tensor.to(_place(device))


def _get(checkpoint: Checkpoint, name: str, device: Any) -> paddle.Tensor:
    code, shape, _, _ = checkpoint.info(name)
    _known(code, name)
    return _finish(checkpoint.dlpack(name, raw=code in _RAW), code, shape, device)


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, paddle.Tensor]:
    tensors = checkpoint.load_dlpack(from_dlpack, _CROSSINGS, empty=_empty)
    for name, tensor in tensors.items():
        tensors[name] = _placed(tensor, device)
    return tensors


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> paddle.Tensor:
    code = checkpoint.info(name)[0]
    _known(code, name)
    shape = checkpoint.region_shape(name, index)
    if 0 in shape:
        return _empty(shape, code)
    capsule = checkpoint.dlpack_region(name, index, raw=code in _RAW)
    return _finish(capsule, code, shape, device)

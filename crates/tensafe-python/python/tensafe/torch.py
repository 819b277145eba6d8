"""safetensors for PyTorch.

Loading is zero-copy on the CPU: all tensors of a file come out of one call, as views of the file's
mapping, or of memory that the file was read into, which a large tensor has for itself and small ones
share. They are writable; what is written to a mapping stays in this process.
Saving refuses tensors that share memory, as the format has no way to say so: ``save_model`` keeps
one name of each.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from ._convert import load_options
from ._errors import UnsupportedError
from ._open import checkpoint_of_buffer
from ._plan import Plan, Running
from ._safe_open import safe_open
from ._save import SaveHandle, start_save, write_file
from ._sharing import SHARED_DOC, _find_shared_tensors, _remove_duplicate_names
from ._sharing import _end_ptr as _end_ptr
from ._sharing import _filter_shared_not_shared as _filter_shared_not_shared
from ._sharing import _is_complete as _is_complete
from ._sharing import _size_of as _size_of
from ._sharing import storage_ptr as storage_ptr
from ._sharing import storage_size as storage_size
from ._tensafe import (
    DTYPES,
    Checkpoint,
    Execution,
    Structure,
    can_stage,
    load_pickle_dlpack,
    load_pickle_structure,
    write,
)
from ._tensafe import TensorSpec as TensorSpec

__all__ = [
    "load",
    "load_file",
    "load_model",
    "load_pickle",
    "save",
    "save_file",
    "save_file_async",
    "save_model",
]

# The dtypes of the format that this version of torch has.
_TYPES: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name)
    for name, _, _, torch_name in DTYPES
    if torch_name is not None and hasattr(torch, torch_name)
}
# Bytes of an element as torch counts them: packed dtypes are bytes there.
_SIZE: dict[torch.dtype, int] = {
    _TYPES[name]: max(bits // 8, 1) for name, bits, _, _ in DTYPES if name in _TYPES
}
_NAMES: dict[torch.dtype, str] = {
    _TYPES[name]: torch_name for name, _, _, torch_name in DTYPES if name in _TYPES and torch_name is not None
}
# What takes a capsule: torch's own function where there is one, without the questions that precede it.
_from_capsule: Callable[[Any], torch.Tensor] = getattr(torch._C, "_from_dlpack", from_dlpack)
# The versions of torch that give capsules of DLPack 1 take them.
_VERSIONED = hasattr(torch._C, "_to_dlpack_versioned")


def _crosses(dtype: torch.dtype) -> bool:
    """Whether this version of torch takes the dtype by DLPack."""
    try:
        return _from_capsule(torch.empty(1, dtype=dtype, device="cpu").__dlpack__()).dtype == dtype
    except (BufferError, RuntimeError, TypeError, ValueError):
        return False


# What torch's DLPack does not know crosses as bytes, and is viewed as its dtype on this side. Packed
# elements do so always: torch counts bytes of them.
_RAW: dict[str, torch.dtype] = {
    name: _TYPES[name]
    for name, bits, _, _ in DTYPES
    if name.startswith("F") and name in _TYPES and (bits < 8 or (bits == 8 and not _crosses(_TYPES[name])))
}
# Bytes of the host that tensors on their way to a device take, where torch copies them, beside the largest.
_HOST_BYTES = 256 << 20
_CROSSINGS: dict[str, torch.dtype | None] = {name: _RAW.get(name) for name in _TYPES}
_PACKED = frozenset(_TYPES[name] for name, bits, _, _ in DTYPES if bits < 8 and name in _TYPES)


def save(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, *, align: int = 8
) -> bytes:
    """The bytes of a file that holds these tensors, which are dense and contiguous.

    ``align`` puts the data on a multiple of that many bytes.
    """
    written = write(None, _entries(tensors), metadata, align=align)
    assert written is not None
    return written


def save_file(
    tensors: dict[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes a file that holds these tensors, which are dense and contiguous.

    The file is there as a whole or not at all: a failed save leaves the old one as it was. Tensors of
    a device are fetched in parts, two of which are in memory. ``durable=False`` does not wait for the disk. ``align`` puts the
    data on a multiple of that many bytes. Tensors must not be changed while they are written.
    """
    write_file(filename, _entries(tensors), metadata, durable=durable, align=align)


def save_file_async(
    tensors: dict[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    snapshot: bool = True,
    durable: bool = True,
    align: int = 8,
) -> SaveHandle:
    """As :func:`save_file`, in the background: returns when the tensors may be changed again.

    ``snapshot=True`` copies them first, which takes as much memory as they have; those of a device are
    fetched. ``snapshot=False`` returns at once: the tensors must not be changed until the handle is
    done. What cannot be saved is refused here; what fails later, by ``result()`` of the handle.
    """
    return start_save(_entries(tensors), filename, metadata, snapshot=snapshot, durable=durable, align=align)


def load(data: Any, *, lenient: bool | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file's bytes: any object with a buffer. Each tensor's bytes are copied once."""
    return _get_all(checkpoint_of_buffer(data, lenient), "cpu")


def load_file(
    filename: str | os.PathLike[str],
    device: str | int | torch.device | None = "cpu",
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
    cache: str = "keep",
) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of a directory or an index of shards.

    ``device="meta"`` loads shapes and dtypes alone. ``io`` is ``"auto"``, ``"mmap"``,
    ``"pread"`` or ``"direct"``; ``owned=True`` reads into memory of the process; ``cache="drop"`` leaves
    nothing in the page cache that was not there.
    """
    with safe_open(
        filename, "pt", device, backend=backend, io=io, owned=owned, lenient=lenient, cache=cache
    ) as file:
        return file.get_tensors()


def load_pickle(
    source: Any,
    device: str | int | torch.device = "cpu",
    *,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    dense: bool = False,
    salvage: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors of a pickle checkpoint by flattened name: a ``torch.load`` that imports nothing.

    ``source`` is a path (a file, an index of shards or a directory), the file's bytes, or a file object.
    torch's files of all versions are read, and ``.npy``, ``.npz``, joblib and plain pickles of arrays,
    compressed or in archives. Keys are joined by dots; what is no tensor is left out; names that
    share a tensor share its memory. What is not on the closed list of what checkpoints are made of is
    refused, unless ``salvage``: see :func:`tensafe.convert`, also for ``select``, ``exclude`` and
    ``dense``.
    """
    options = load_options(select, exclude, dense, salvage)
    tensors = load_pickle_dlpack(source, options, _from_capsule, _CROSSINGS, versioned=_VERSIONED)
    return _placed(tensors, device)


def _load_structure(source: Any) -> tuple[dict[str, torch.Tensor], Structure | None]:
    """What :func:`load_pickle` gives, and what stands around the tensors of a file of ``torch.save``."""
    return load_pickle_structure(source, _from_capsule, _CROSSINGS, versioned=_VERSIONED)


def save_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    durable: bool = True,
    align: int = 8,
) -> None:
    """Writes the tensors of a model, each of those that share memory once.

    The names that were left out are in the metadata, with the name that was kept; values of the
    caller are not overridden. ``force_contiguous=False`` refuses tensors of another layout instead of
    packing them.
    """
    tensors = model.state_dict()
    metadata = None if metadata is None else dict(metadata)
    for kept, dropped in _remove_duplicate_names(tensors).items():
        for name in dropped:
            metadata = {} if metadata is None else metadata
            metadata.setdefault(name, kept)
            del tensors[name]
    if force_contiguous:
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(tensors, filename, metadata, durable=durable, align=align)
    except ValueError as error:
        if not _is_layout_error(error):
            raise
        advice = " Or use save_model(..., force_contiguous=True), read the docs for potential caveats."
        raise ValueError(str(error) + advice) from None


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: str | int | torch.device | None = "cpu",
    *,
    backend: str = "mmap",
    io: str | None = None,
    owned: bool = False,
    lenient: bool | None = None,
) -> tuple[set[str], list[str]]:
    """Loads a file into a model; returns the names that are missing and those that were not expected.

    A name that shares memory with one of the file is not missing. ``strict=True`` raises
    ``RuntimeError`` where anything is missing or unexpected.
    """
    tensors = load_file(filename, device, backend=backend, io=io, owned=owned, lenient=lenient)
    duplicates = _remove_duplicate_names(model.state_dict(), preferred_names=list(tensors))
    missing_keys, unexpected = model.load_state_dict(tensors, strict=False)
    missing = set(missing_keys)
    for name in (name for group in duplicates.values() for name in group):
        if name in missing:
            missing.remove(name)
        else:
            unexpected.append(name)
    if strict and (missing or unexpected):
        lines = [f"Error(s) in loading state_dict for {type(model).__name__}:"]
        for what, names in (("Missing", missing), ("Unexpected", unexpected)):
            if names:
                quoted = ", ".join(f'"{name}"' for name in sorted(names))
                lines.append(f"    {what} key(s) in state_dict: {quoted}")
        raise RuntimeError("\n".join(lines))
    return missing, unexpected


# What the other projects of the field import, beside the above.


def _evaluate_tensors_for_save(tensors: dict[str, torch.Tensor]) -> None:
    """Raises where ``tensors`` cannot be saved as they are."""
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}")
    sparse = [name for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        # Callers compare this text.
        raise ValueError(
            f"You are trying to save a sparse tensors: `{sparse}` which this library does not support."
            " You can make it a dense tensor before saving with `.to_dense()` but be aware this might"
            " make a much larger file than needed."
        )
    shared = [names for names in _find_shared_tensors(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(
            f"Some tensors share memory, which the format cannot say: {shared}. They would be stored several"
            " times and be apart after loading. Use `save_model`, which keeps one name of each, or clone"
            f" them. See {SHARED_DOC}"
        )


def _entries(
    tensors: dict[str, torch.Tensor], *, fetch_all: bool = False
) -> list[tuple[str, str, list[int], Any]]:
    """Tensors as the writer takes them: those of a device, or all, as a function that fetches parts."""
    _evaluate_tensors_for_save(tensors)
    entries = []
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. Call"
                " `.contiguous()` on it to pack it; if it is a part of another tensor, save that one and"
                " slice it when it is loaded."
            )
        dtype = _NAMES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedError(
                f"tensor `{name}`: {tensor.dtype} has no safetensors dtype; {_advice(tensor)}"
            )
        shape = list(tensor.shape)
        if tensor.dtype in _PACKED:
            if not shape:
                raise UnsupportedError(f"tensor `{name}`: a packed {tensor.dtype} needs a dimension")
            # The header counts elements, torch counts the bytes that hold two.
            shape[-1] *= 2
        fetch = fetch_all or tensor.device.type != "cpu"
        data = functools.partial(_fetch, tensor) if fetch else _host_bytes(tensor)
        entries.append((name, dtype, shape, data))
    return entries


def _is_layout_error(error: ValueError) -> bool:
    return "non contiguous" in str(error)


def _advice(tensor: torch.Tensor) -> str:
    if tensor.dtype.is_complex:
        return "save torch.view_as_real(t) and view it as complex after loading, or convert with .to(torch.complex64)"
    if tensor.is_quantized:
        return "save t.int_repr(), t.q_scale() and t.q_zero_point() as tensors of their own"
    return "convert it first, for example with .to(torch.int32), or save its bytes with .view(torch.uint8)"


def _host_bytes(tensor: torch.Tensor) -> Any:
    """The elements' bytes, little-endian, as a contiguous array on the host; a view where it can be."""
    tensor = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    if tensor.nelement() == 0:
        return b""
    flat = _flat(tensor).numpy()
    if sys.byteorder == "big" and (size := _component_bytes(tensor.dtype)) > 1:
        flat = flat.reshape(-1, size)[:, ::-1].copy().reshape(-1)
    return flat


def _fetch(tensor: torch.Tensor, start: int, stop: int | None = None) -> Any:
    """The bytes ``start:stop`` of a contiguous tensor, on the host; both are multiples of an element."""
    size = _SIZE[tensor.dtype]
    return _host_bytes(tensor.detach().reshape(-1)[start // size : None if stop is None else stop // size])


def _component_bytes(dtype: torch.dtype) -> int:
    """Bytes that change places between byte orders: each half of a complex number by itself."""
    return _SIZE[dtype] // 2 if dtype.is_complex else _SIZE[dtype]


def _to_ndarray(tensor: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """The bytes of a tensor as an array of ``uint8``, and the tensor on the host that they belong to."""
    import numpy as np

    tensor = tensor.to("cpu")
    data = _host_bytes(tensor)
    return (np.empty(0, np.uint8) if isinstance(data, bytes) else data), tensor


def _flatten_as_ptr(tensors: dict[str, torch.Tensor], keep_alive_buffer: list[Any]) -> dict[str, TensorSpec]:
    """Tensors as the arguments of ``serialize``; ``keep_alive_buffer`` takes what their addresses point to."""
    _entries(tensors)
    flattened = {}
    for name, tensor in tensors.items():
        array, owner = _to_ndarray(tensor)
        keep_alive_buffer.append((array, owner))
        flattened[name] = TensorSpec(
            dtype=_NAMES[tensor.dtype],
            shape=list(tensor.shape),
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
    return flattened


def _getdtype(dtype_str: str) -> torch.dtype:
    return _TYPES[dtype_str]


def _view2torch(safeview: Any) -> dict[str, torch.Tensor]:
    """The result of ``deserialize`` as tensors that share its memory."""
    result = {}
    for name, row in safeview:
        dtype, shape = _known(row["dtype"], name), list(row["shape"])
        if dtype in _PACKED:
            shape = _packed_shape(shape, name)
        data = row["data"]
        tensor = (
            torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype, device="cpu")
        )
        result[name] = _native(tensor.reshape(shape))
    return result


def _packed_shape(shape: list[int], name: str) -> list[int]:
    if not shape or shape[-1] % 2:
        raise UnsupportedError(
            f"tensor `{name}`: torch needs an even last dimension of F4, the file has {shape}"
        )
    return [*shape[:-1], shape[-1] // 2]


def _known(code: str, name: str) -> torch.dtype:
    dtype = _TYPES.get(code)
    if dtype is None:
        raise UnsupportedError(
            f"Dtype not understood: {code}, of tensor `{name}`: this version of torch has none for it;"
            f" tensafe.open(...)[{name!r}].bytes() gives its bytes"
        )
    return dtype


def _native(tensor: torch.Tensor) -> torch.Tensor:
    if sys.byteorder == "little" or _component_bytes(tensor.dtype) == 1:
        return tensor
    flat = tensor.reshape(-1).view(torch.uint8).reshape(-1, _component_bytes(tensor.dtype))
    return flat.flip(1).contiguous().view(-1).view(tensor.dtype).reshape(tensor.shape)


# How safe_open makes tensors of this framework.


def _finish(capsule: Any, code: str, device: Any) -> torch.Tensor:
    tensor = _from_capsule(capsule)
    if code in _RAW:
        tensor = tensor.view(_RAW[code])
    tensor = _native(tensor)
    return tensor if device == "cpu" else tensor.to(device)


def _placed(tensors: dict[str, torch.Tensor], device: Any = "cpu") -> dict[str, torch.Tensor]:
    """The tensors in the byte order of the host and on ``device``, each given back as it is replaced."""
    if device != "cpu" or sys.byteorder == "big":
        for name, tensor in tensors.items():
            tensors[name] = _native(tensor).to(device)
    return tensors


def _meta(code: str, shape: list[int], name: str) -> torch.Tensor:
    dtype = _known(code, name)
    return torch.empty(_packed_shape(shape, name) if dtype in _PACKED else shape, dtype=dtype, device="meta")


def _get(checkpoint: Checkpoint, name: str, device: Any) -> torch.Tensor:
    code, shape, _, _ = checkpoint.info(name)
    if device == "meta":
        return _meta(code, shape, name)
    _known(code, name)
    return _finish(checkpoint.dlpack(name, raw=code in _RAW, versioned=_VERSIONED), code, device)


def _get_all(checkpoint: Checkpoint, device: Any) -> dict[str, torch.Tensor]:
    if device == "meta":
        return {name: _meta(code, shape, name) for name, code, shape, *_ in checkpoint.infos()}
    if device != "cpu":
        return _get_all_onto(checkpoint, device, _stage_of(device))
    return _placed(checkpoint.load_dlpack(_from_capsule, _CROSSINGS, versioned=_VERSIONED))


def _get_all_onto(checkpoint: Checkpoint, device: Any, stage: int | None) -> dict[str, torch.Tensor]:
    """All tensors on a device. Where torch copies them, the host holds a few at a time."""
    budget = None
    if stage is None:
        largest = max((end - begin for *_, begin, end in checkpoint.infos()), default=0)
        budget = 2 * largest + _HOST_BYTES
    plan = Plan(checkpoint, budget, "file")
    for name in checkpoint.offset_names():
        plan.add(name)
    with Running(plan, "torch", device, None, stage=stage) as running:
        return dict(running)


# How a plan makes tensors of this framework.


def _of_memory(memory: Any, code: str, shape: list[int], name: str) -> torch.Tensor:
    _known(code, name)
    return _finish(memory.dlpack(code, shape, raw=code in _RAW, versioned=_VERSIONED), code, "cpu")


def _run_all(running: Execution) -> dict[str, torch.Tensor]:
    running.check(_CROSSINGS)
    return _placed(running.load_dlpack(_from_capsule, _CROSSINGS, versioned=_VERSIONED))


def _lendable(out: Any, code: str) -> Any:
    """``out`` as memory that the file's bytes can be read into, ``None`` where they differ from its."""
    if not isinstance(out, torch.Tensor) or out.layout != torch.strided or out.device.type != "cpu":
        return None
    if out.dtype != _TYPES.get(code) or out.dtype in _PACKED or sys.byteorder == "big":
        return None
    if out.is_conj() or out.is_neg():
        return None
    alias = out.detach()
    return alias.view(torch.uint8) if code in _RAW or out.dtype == torch.bool else alias


def _is_dtype(dtype: Any) -> bool:
    return isinstance(dtype, torch.dtype)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _padded(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    shape = (*shape[:-1], shape[-1] // 2) if tensor.dtype in _PACKED else shape
    whole = torch.zeros(
        shape, dtype=torch.uint8 if tensor.dtype in _RAW.values() else tensor.dtype, device=tensor.device
    )
    whole = whole.view(tensor.dtype)
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


def _copy(out: torch.Tensor, tensor: torch.Tensor) -> None:
    with torch.no_grad():
        out.copy_(tensor)


def _get_region(checkpoint: Checkpoint, name: str, index: Any, device: Any) -> torch.Tensor:
    code, shape, _, _ = checkpoint.info(name)
    if device == "meta":
        return _meta(code, shape, name)[index]
    _known(code, name)
    if not _is_basic(index):
        # Masks, lists and new axes: torch knows what they mean.
        return _get(checkpoint, name, "cpu")[index].to(device)
    raw = code in _RAW
    capsule = checkpoint.dlpack_region(name, index, raw=raw, clamp=True, versioned=_VERSIONED)
    return _finish(capsule, code, device)


def _is_basic(index: Any) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return all(
        item is Ellipsis or isinstance(item, slice) or (isinstance(item, int) and not isinstance(item, bool))
        for item in items
    )


# How a plan reads onto a device of this framework.


def _stage_of(device: Any) -> int | None:
    """The number of the device whose runtime copies to it from pinned memory, ``None`` where torch does."""
    if sys.byteorder == "big" or not (torch.version.cuda or torch.version.hip):
        return None
    place = torch.device(device)
    if place.type != "cuda" or not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device() if place.index is None else place.index
    return index if can_stage(index) else None


def _check(codes: Iterable[str]) -> None:
    for code in codes:
        _known(code, "")


def _allocate(code: str, shape: list[int], name: str, device: Any) -> torch.Tensor:
    dtype = _known(code, name)
    return torch.empty(_packed_shape(shape, name) if dtype in _PACKED else shape, dtype=dtype, device=device)


def _takes(out: torch.Tensor, code: str, device: Any) -> bool:
    """Whether the file's bytes can be copied into ``out`` as they are, on ``device``."""
    place = torch.device(device)
    same = out.device.type == place.type and place.index in (None, out.device.index)
    return (
        same and out.is_contiguous() and out.dtype == _TYPES.get(code) and not (out.is_conj() or out.is_neg())
    )


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor."""
    # A single element is contiguous by any stride, and viewed as bytes by a stride of 1 alone.
    return tensor.detach().as_strided((tensor.nelement(),), (1,)).view(torch.uint8)


def _settle(tensor: torch.Tensor) -> None:
    """Waits for what runs on the tensor's device: its memory may have been another's, which is in use."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()

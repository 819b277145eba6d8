"""What ``torch.load`` does in a process of the compat layer: see :func:`tensafe.install_as_safetensors`."""

from __future__ import annotations

import collections
import functools
import io
import os
from collections.abc import Callable
from typing import Any

from . import _scan
from ._errors import FormatError, SafetensorError, UnsupportedError, UsageError
from ._structure import Leaf, structure

POLICIES = ("leave", "convert", "refuse")

# How many names an error lists.
_MOST_NAMES = 3

# torch's own function, and what stands in its place.
_REPLACED: list[Callable[..., Any]] = []


def apply(policy: str) -> None:
    """Has ``torch.load`` follow ``policy`` from here on; ``"leave"`` changes nothing."""
    if policy not in POLICIES:
        raise UsageError(f"pickles={policy!r} is not known; needed {', '.join(POLICIES)}")
    if policy == "leave":
        return
    restore()
    import torch

    original = torch.load
    loader = functools.wraps(original)(_convert if policy == "convert" else _refuse)
    _REPLACED[:] = [original, loader]
    _put(original, loader)


def restore() -> None:
    """Takes :func:`apply` back. What somebody else has put in our place stays."""
    if _REPLACED:
        original, loader = _REPLACED
        _REPLACED.clear()
        _put(loader, original)


def _put(before: Callable[..., Any], after: Callable[..., Any]) -> None:
    import torch

    for module in (torch, torch.serialization):
        if vars(module)["load"] is before:
            vars(module)["load"] = after


def _refuse(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    if _is_safetensors(f):
        return _load_safetensors(f, map_location)
    label = _label(f)
    raise UnsupportedError(
        f"{label}: torch.load would load a pickle, and this process refuses them;"
        f" `tensafe convert {label}` writes its tensors as safetensors"
    )


def _convert(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    if _is_safetensors(f):
        return _load_safetensors(f, map_location)
    label = _label(f)
    if isinstance(f, (str, os.PathLike)):
        # Opened first: `load_pickle` also takes directories and indexes, `torch.load` does not.
        with open(f, "rb") as file:
            tensors = _tensors(f, label)
            value = structure(file, label)
    else:
        # As torch does, from where the object stands.
        data = f.read()
        tensors = _tensors(data, label)
        value = structure(io.BytesIO(data), label)
    return _Joined(tensors, map_location, label).whole(value)


def _is_safetensors(f: Any) -> bool:
    return isinstance(f, (str, os.PathLike)) and os.fsdecode(f).endswith(".safetensors")


def _load_safetensors(path: Any, map_location: Any) -> Any:
    from . import torch as of_torch

    if callable(map_location) or isinstance(map_location, dict):
        # Of this class in torch.
        raise RuntimeError(f"{_label(path)}: map_location is a device or its name for a safetensors file")
    return of_torch.load_file(path, "cpu" if map_location is None else map_location)


def _label(f: Any) -> str:
    name = f if isinstance(f, (str, os.PathLike)) else getattr(f, "name", None)
    return os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else f"a {type(f).__name__}"


def _tensors(source: Any, label: str) -> dict[str, Any]:
    from . import torch as of_torch

    try:
        return of_torch.load_pickle(source)
    except SafetensorError as error:
        text = str(error) if label in str(error) else f"{label}: {error}"
        places = _places(source)
        told = type(error)(f"{text}; found {'; '.join(places)}" if places else text)
        told.__dict__.update(error.__dict__)
        raise told from None


def _places(source: Any) -> list[str]:
    """What the scanner finds among the names of a pickle, and where."""
    findings = [found for found in _scan.scan(source).findings if found.symbol is not None]
    places = [
        f"`{found.symbol}` at byte {found.offset}" + (f" of {found.member}" if found.member else "")
        for found in findings[:_MOST_NAMES]
    ]
    return places + ([f"{len(findings) - len(places)} more"] if len(findings) > len(places) else [])


class _Joined:
    """A structure and its tensors, put together: each name is used, and each leaf has a tensor."""

    def __init__(self, tensors: dict[str, Any], map_location: Any, label: str) -> None:
        self.tensors = tensors
        self.unused = set(tensors)
        self.map_location = map_location
        self.label = label
        self.made: dict[int, Any] = {}

    def whole(self, value: Any) -> Any:
        result = self.join(value, ())
        if self.unused:
            raise UnsupportedError(
                f"{self.label}: `{min(self.unused)}` has no place in the structure of the pickle"
            )
        return result

    def join(self, value: Any, path: tuple[str, ...]) -> Any:
        """The value with its tensors. What is shared is walked again, as it has other names there, and is
        the same object."""
        import torch

        if isinstance(value, Leaf):
            return self.leaf(value, path)
        if type(value) is tuple:
            parts = tuple(self.join(item, (*path, str(at))) for at, item in enumerate(value))
            return self.made.setdefault(id(value), parts)
        if type(value) is list:
            items = self.made.setdefault(id(value), [])
            items[:] = [self.join(item, (*path, str(at))) for at, item in enumerate(value)]
            return items
        if type(value) in (dict, collections.OrderedDict):
            table = self.made.setdefault(id(value), type(value)())
            for key, item in value.items():
                table[key] = self.join(item, (*path, _part(key)))
            for key, item in vars(value).items() if hasattr(value, "__dict__") else ():
                vars(table)[key] = self.join(item, (*path, "_attributes", key))
            return table
        plain = (
            str,
            int,
            float,
            bool,
            bytes,
            type(None),
            set,
            frozenset,
            torch.Size,
            torch.device,
            torch.dtype,
        )
        if type(value) in plain:
            return value
        raise UnsupportedError(
            f"{self.label}: {'.'.join(path) or 'the value'}: it is neither a tensor nor a plain value, and is"
            " not made without executing the pickle"
        )

    def leaf(self, leaf: Leaf, path: tuple[str, ...]) -> Any:
        import torch

        name = ".".join(path) if path else "tensor"
        if name not in self.tensors:
            raise FormatError(f"{self.label}: tensor `{name}`: `load_pickle` has none of this name")
        self.unused.discard(name)
        if id(leaf) in self.made:
            return self.made[id(leaf)]
        tensor = self.tensors[name]
        if leaf.kind == "array":
            tensor = tensor.numpy()
        else:
            tensor = self.placed(tensor, leaf.location, name)
            if leaf.kind == "parameter":
                tensor = torch.nn.Parameter(tensor, requires_grad=leaf.requires_grad)
            elif leaf.requires_grad:
                tensor.requires_grad_()
        self.made[id(leaf)] = tensor
        return tensor

    def placed(self, tensor: Any, location: str, name: str) -> Any:
        """The tensor where ``map_location`` has it, by the rules of ``torch.load``."""
        target = self.map_location
        if isinstance(target, dict):
            target = target.get(location, location)
        elif callable(target):
            storage = target(tensor.untyped_storage(), location)
            target = None if storage is None else storage.device
        try:
            return tensor.to(location if target is None else target)
        # torch raises both where it has no such device.
        except (AssertionError, RuntimeError) as error:
            raise UnsupportedError(
                f"{self.label}: tensor `{name}` was saved on {location}: {error};"
                " map_location='cpu' loads it to memory"
            ) from error


def _part(key: Any) -> str:
    """A key as a part of a name: see `Names` in docs/convert.md."""
    return str(int(key)) if isinstance(key, bool) else str(key)

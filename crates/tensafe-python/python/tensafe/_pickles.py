"""What ``torch.load`` does in a process of the compat layer: see :func:`tensafe.install_as_safetensors`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from . import _scan
from ._errors import FormatError, SafetensorError, UnsupportedError, UsageError

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
        # A directory or an index of shards is none of what `torch.load` takes.
        with open(f, "rb"):
            source = f
    else:
        # As torch does, from where the object stands.
        source = f.read()
    return _whole(source, map_location, label)


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


def _whole(source: Any, map_location: Any, label: str) -> Any:
    from . import torch as of_torch

    try:
        tensors, structure = of_torch._load_structure(source)
    except SafetensorError as error:
        text = str(error) if label in str(error) else f"{label}: {error}"
        places = _places(source)
        told = type(error)(f"{text}; found {'; '.join(places)}" if places else text)
        told.__dict__.update(error.__dict__)
        raise told from None
    if structure is None:
        raise UnsupportedError(
            f"{label}: it is no file of torch.save since 0.1.10; `tensafe convert` may read it"
        )
    leaves = _Leaves(tensors, map_location, label)
    return structure.make(leaves.leaf, leaves.named)


def _places(source: Any) -> list[str]:
    """What the scanner finds among the names of a pickle, and where."""
    findings = [found for found in _scan.scan(source).findings if found.symbol is not None]
    places = [
        f"`{found.symbol}` at byte {found.offset}" + (f" of {found.member}" if found.member else "")
        for found in findings[:_MOST_NAMES]
    ]
    return places + ([f"{len(findings) - len(places)} more"] if len(findings) > len(places) else [])


class _Leaves:
    """The tensors of a file, each as what the pickle makes of it and where ``map_location`` has it."""

    def __init__(self, tensors: dict[str, Any], map_location: Any, label: str) -> None:
        self.tensors = tensors
        self.map_location = map_location
        self.label = label

    def leaf(self, name: str, kind: str, location: str, requires_grad: bool) -> Any:
        import torch

        if name not in self.tensors:
            raise FormatError(f"{self.label}: tensor `{name}`: `load_pickle` has none of this name")
        tensor = self.tensors[name]
        if kind == "array":
            return tensor.numpy()
        tensor = self.placed(tensor, location, name)
        if kind == "parameter":
            return torch.nn.Parameter(tensor, requires_grad=requires_grad)
        return tensor.requires_grad_() if requires_grad else tensor

    def named(self, kind: str, arguments: Any) -> Any:
        """A dtype, a device or a shape of torch."""
        import torch

        if kind == "dtype":
            found = getattr(torch, arguments, None)
            if not isinstance(found, torch.dtype):
                raise UnsupportedError(f"{self.label}: this version of torch has no dtype {arguments}")
            return found
        try:
            return torch.Size(arguments) if kind == "size" else torch.device(*arguments)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self.label}: the pickle makes no sense: torch.{kind} of {arguments!r}: {error}"
            ) from error

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

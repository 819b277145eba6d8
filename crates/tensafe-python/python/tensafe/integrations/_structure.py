"""Trees of plain values and tensors as strict JSON and a dict of tensors, by a closed table.

A list, ``None``, truth values, text, integers and finite floats are JSON's own. Anything else is an object
``{"is": KIND, "of": CONTENT}``; the kinds are below. What is of no kind is refused by its path: nothing is
pickled, and nothing that a file names is imported beyond the classes of the table.
"""

from __future__ import annotations

import argparse
import base64
import collections
import importlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch

from .._errors import FormatError, UnsupportedError, UsageError

# Containers within containers: more than any state has, and what parsers of JSON take: a dict is three
# levels of it.
_LEVELS = 32

# Classes whose attributes are all that they are: the class, and where it is, by the name in the file.
_RECORDS = {
    "Namespace": ("argparse", "Namespace"),
    "LossScaler": ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    "DynamicLossScaler": ("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler"),
    "fragment_address": ("deepspeed.utils.tensor_fragment", "fragment_address"),
    "SubparamShape": ("deepspeed.checkpoint.universal_checkpoint", "SubparamShape"),
}
_ENUMS = {"ZeroStageEnum": ("deepspeed.runtime.zero.config", "ZeroStageEnum")}
_NAMES = {place: name for table in (_RECORDS, _ENUMS) for name, place in table.items()}

_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "size": torch.Size,
    "set": set,
    "frozenset": frozenset,
}
_MAPPINGS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "ordered": collections.OrderedDict}
_KINDS_OF: dict[type[Any], str] = {tuple: "tuple", torch.Size: "size", set: "set", frozenset: "frozenset"}


def encode(state: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The structure as JSON, and the tensors by the names that it gives them: keys and positions, joined
    by dots. Tensors that are one, by memory, shape and strides, have one name.

    Raises :class:`UsageError` where a value is of no kind, with its path.
    """
    encoder = _Encoder()
    text = json.dumps(encoder.value(state, (), 0), allow_nan=False, separators=(",", ":"))
    return text, encoder.tensors


def decode(text: str, tensors: dict[str, torch.Tensor], path: str) -> Any:
    """The state again; ``path`` is the file that an error names.

    Raises :class:`FormatError` where the text is none that :func:`encode` makes, or names a tensor that is
    not there.
    """
    try:
        return _Decoder(tensors).value(json.loads(text, parse_constant=_refuse_constant), 0)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: the structure cannot be read: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"found {name}, which is no JSON")


def _class(place: tuple[str, str]) -> Any:
    module, name = place
    return getattr(importlib.import_module(module), name)


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def value(self, value: Any, path: tuple[str, ...], level: int) -> Any:
        if level > _LEVELS:
            raise UsageError(f"`{_join(path[:4])}`: containers within containers beyond {_LEVELS} levels")
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else _object("float", _spelled(value))
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if kind is list:
            return self._items(value, path, level)
        if kind in _KINDS_OF:
            return _object(_KINDS_OF[kind], self._items(value, path, level))
        if kind is dict:
            return _object("dict", self._pairs(value, path, level))
        if kind is collections.OrderedDict:
            encoded = _object("ordered", self._pairs(value, path, level))
            # What torch keeps beside a state dict: the versions of its modules.
            if attributes := vars(value):
                if set(attributes) != {"_metadata"}:
                    raise UsageError(
                        f"`{_join(path)}`: attributes {sorted(attributes)} of a dict are not kept"
                    )
                encoded["metadata"] = self.value(attributes["_metadata"], (*path, "_metadata"), level + 1)
            return encoded
        return self._other(value, path, level)

    def _other(self, value: Any, path: tuple[str, ...], level: int) -> Any:
        kind = type(value)
        place = (kind.__module__, kind.__qualname__)
        if place in _ENUMS.values():
            return _object("enum", value.value, name=_NAMES[place])
        if place in _RECORDS.values():
            return _object("record", self._pairs(vars(value), path, level), name=_NAMES[place])
        if kind is bytes:
            return _object("bytes", base64.b64encode(value).decode("ascii"))
        if kind is complex:
            return _object("complex", [str(value.real), str(value.imag)])
        if kind in (torch.dtype, torch.device):
            return _object("dtype" if kind is torch.dtype else "device", str(value))
        if kind.__module__ == "numpy":
            return self._numpy(value, path)
        raise UsageError(
            f"`{_join(path)}`: found an object of `{place[0]}.{place[1]}`, needed a tensor or a plain value;"
            " save its attributes as a dict"
        )

    def _numpy(self, value: Any, path: tuple[str, ...]) -> Any:
        import numpy as np

        scalar = isinstance(value, np.generic)
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(value).reshape(np.shape(value)).copy())
        except (TypeError, ValueError) as error:
            raise UsageError(f"`{_join(path)}`: numpy's {np.asarray(value).dtype}: {error}") from None
        return _object("scalar" if scalar else "array", self._tensor(tensor, path))

    def _items(self, items: Iterable[Any], path: tuple[str, ...], level: int) -> list[Any]:
        return [self.value(item, (*path, str(place)), level + 1) for place, item in enumerate(items)]

    def _pairs(self, items: dict[Any, Any], path: tuple[str, ...], level: int) -> list[Any]:
        return [
            [self.value(key, (*path, "key"), level + 1), self.value(item, (*path, str(key)), level + 1)]
            for key, item in items.items()
        ]

    def _tensor(self, tensor: torch.Tensor, path: tuple[str, ...]) -> Any:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise UsageError(
                f"`{_join(path)}`: found a tensor of `{type(tensor).__qualname__}`, needed a plain one"
            )
        if tensor.layout != torch.strided or tensor.is_meta:
            found = "a tensor without data" if tensor.is_meta else f"a tensor of {tensor.layout}"
            raise UnsupportedError(f"`{_join(path)}`: found {found}, needed a dense one")
        identity = (
            tensor.device,
            tensor.data_ptr(),
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
            tensor.is_conj(),
            tensor.is_neg(),
        )
        # Nothing is shared where there are no bytes.
        name = self._known.get(identity) if tensor.numel() else None
        if name is None:
            name = _join(path)
            while name in self.tensors or name == "__metadata__":
                name += "~"
            self.tensors[name] = tensor.detach().contiguous()
            self._known[identity] = name
        encoded = _object("tensor", name)
        if tensor.requires_grad:
            encoded["requires_grad"] = True
        if type(tensor) is torch.nn.Parameter:
            encoded["parameter"] = True
        return encoded


class _Decoder:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors
        # One object for each tensor and way to have it, as it was saved.
        self._made: dict[tuple[str, bool, bool], torch.Tensor] = {}

    def value(self, value: Any, level: int) -> Any:
        if level > _LEVELS:
            raise ValueError(f"containers within containers beyond {_LEVELS} levels")
        if isinstance(value, list):
            return [self.value(item, level + 1) for item in value]
        if not isinstance(value, dict):
            return value
        kind, content = value["is"], value["of"]
        if kind == "tensor":
            return self._tensor(value)
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.value(content, level + 1))
        if kind in _MAPPINGS:
            made = _MAPPINGS[kind](self._pairs(content, level))
            if "metadata" in value:
                cast(Any, made)._metadata = self.value(value["metadata"], level + 1)
            return made
        if kind == "record":
            return self._record(value["name"], dict(self._pairs(content, level)))
        if kind == "enum":
            return _class(_ENUMS[value["name"]])(content)
        if kind in ("array", "scalar"):
            array = self.value(content, level + 1).numpy()
            return array if kind == "array" else array[()]
        return _plain(kind, content)

    def _pairs(self, pairs: list[Any], level: int) -> list[tuple[Any, Any]]:
        return [(self.value(key, level + 1), self.value(item, level + 1)) for key, item in pairs]

    def _record(self, name: str, attributes: dict[str, Any]) -> Any:
        place = _RECORDS[name]
        cls = argparse.Namespace if name == "Namespace" else _class(place)
        made = cls.__new__(cls)
        vars(made).update(attributes)
        return made

    def _tensor(self, value: dict[str, Any]) -> torch.Tensor:
        key = (value["of"], bool(value.get("requires_grad")), bool(value.get("parameter")))
        if key not in self._made:
            name, requires_grad, parameter = key
            tensor = self._tensors[name]
            if parameter:
                tensor = torch.nn.Parameter(tensor, requires_grad=requires_grad)
            elif requires_grad:
                tensor = tensor.detach().requires_grad_()
            self._made[key] = tensor
        return self._made[key]


def _plain(kind: str, content: Any) -> Any:
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content, validate=True)
    if kind == "complex":
        return complex(float(content[0]), float(content[1]))
    if kind == "device":
        return torch.device(content)
    if kind == "dtype" and isinstance(
        found := getattr(torch, content.removeprefix("torch."), None), torch.dtype
    ):
        return found
    raise ValueError(f"found the kind {kind!r} of {content!r}, which is not in the table")


def _spelled(value: float) -> str:
    """What JSON has no word for."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _object(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"is": kind, "of": content, **more}


def _join(path: tuple[str, ...]) -> str:
    return ".".join(path) or "tensor"

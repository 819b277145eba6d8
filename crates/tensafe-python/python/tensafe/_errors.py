"""The exceptions of tensafe: one base, and one class for each kind of blame.

Each is also the standard exception that a caller would expect, so that ``except OSError`` and
``except KeyError`` work as well as ``except SafetensorError``.
"""

from __future__ import annotations

import errno as _errno
import importlib.util
from typing import Any


def _reference_error() -> type[Exception]:
    """The class of the published package where it is installed: what catches its errors catches ours."""
    try:
        if importlib.util.find_spec("safetensors") is None:
            return Exception
        from safetensors import SafetensorError as base
    except (ImportError, ValueError):
        # A directory of that name, or a module that somebody put in its place.
        return Exception
    return base


class SafetensorError(_reference_error()):  # type: ignore[misc]
    """Anything that goes wrong with a safetensors file. The base of all exceptions of tensafe.

    ``tensor``, ``path`` and ``rule`` name what the error is about, where that is known: the rule is a
    number of the specification, such as ``S-14``.
    """

    tensor: str | None = None
    path: str | None = None
    rule: str | None = None


class FormatError(SafetensorError, ValueError):
    """The bytes break a rule of the format: refuse the file."""


class LimitError(SafetensorError, ValueError):
    """The file asks for more than the limits allow."""


class UsageError(SafetensorError, ValueError):
    """The request makes no sense: correct the call."""


class UsageTypeError(UsageError, TypeError):
    """The request holds something of a type that makes no sense."""


class UsageIndexError(UsageError, IndexError):
    """The request is for a part that is none of the tensor."""


class UnsupportedError(SafetensorError, NotImplementedError):
    """The framework or the platform cannot do it; the text says what to do instead."""


class CancelledError(SafetensorError):
    """The caller asked for an end before it was done; what was there before is still there."""


class TensorNotFoundError(SafetensorError, KeyError):
    """No tensor has this name."""

    def __str__(self) -> str:
        # KeyError would show the repr of the text.
        return str(self.args[0]) if self.args else ""


class IoError(SafetensorError, OSError):
    """The operating system refused, or the file changed or ended early. ``errno`` is set where known."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError keeps these two beside its attributes, and drops them when it is pickled.
        return type(self), self.args, {**self.__dict__, "errno": self.errno, "filename": self.filename}


class MissingFileError(IoError, FileNotFoundError):
    """No such file."""


_CLASSES: dict[str, type[SafetensorError]] = {
    "format": FormatError,
    "limit": LimitError,
    "usage": UsageError,
    "unsupported": UnsupportedError,
    "cancelled": CancelledError,
    "tensor": TensorNotFoundError,
    "io": IoError,
    "file": MissingFileError,
}


def make(
    kind: str, text: str, errno: int | None, path: object, tensor: str | None, rule: str | None
) -> SafetensorError:
    """The exception for an error of the core. Called by the extension."""
    error = _CLASSES[kind](text)
    error.tensor = tensor
    error.rule = rule
    error.path = None if path is None else str(path)
    if isinstance(error, OSError):
        error.errno = errno if errno is not None else (_errno.ENOENT if kind == "file" else None)
        error.filename = error.path
    return error

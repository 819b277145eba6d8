"""What callers say of reading, resolved: mapping or reads, strict or lenient, which device."""

from __future__ import annotations

import os
import re
from typing import Any

from ._errors import SafetensorError, UsageError

_BACKENDS = ("mmap", "pread")
_DEVICE = re.compile(r"(cpu|meta|cuda|musa|npu|xpu|xla|mlu|hpu|privateuseone|mps)(?::(\d+))?\Z")


def lenient(asked: bool | None) -> bool:
    """Whether to read what the reference reads: as asked, else as ``TENSAFE_LENIENT`` says."""
    if asked is not None:
        return asked
    return os.environ.get("TENSAFE_LENIENT", "") not in ("", "0")


def access(backend: str, io: str | None, owned: bool) -> str:
    """How bytes reach memory: ``auto``, ``mmap`` or ``pread``.

    The reference's default backend lets us choose: a mapping on local disks, reads elsewhere.
    """
    if backend not in _BACKENDS:
        raise SafetensorError(f'backend "{backend}" is invalid (expected one of: "mmap", "pread")')
    if io is not None and io not in ("auto", *_BACKENDS):
        raise UsageError(f'io "{io}" is invalid (expected one of: "auto", "mmap", "pread")')
    if owned:
        if io == "mmap":
            raise UsageError('owned=True needs memory of its own, io="mmap" does not give it')
        return "pread"
    if io is not None:
        return io
    return "auto" if backend == "mmap" else "pread"


def device(asked: Any) -> str | int:
    """A device as frameworks spell it: a string, or the bare number of an accelerator."""
    if isinstance(asked, int) and not isinstance(asked, bool):
        if asked < 0:
            raise SafetensorError(f"device {asked} is invalid")
        return asked
    # torch.device objects print as the string that names them.
    name = str(asked)
    match = _DEVICE.match(name)
    if match is None:
        raise SafetensorError(f"device {name} is invalid")
    if match[1] == "mps" and match[2] not in (None, "0"):
        raise SafetensorError(f"device {name} is invalid: only mps or mps:0 is supported")
    return name

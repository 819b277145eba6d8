"""What callers say of reading, resolved: mapping or reads, strict or lenient, which device."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ._errors import SafetensorError, UsageError

_BACKENDS = ("mmap", "pread")
_IO = ("auto", "mmap", "pread", "direct")
_DEVICE = re.compile(r"(cpu|meta|cuda|musa|npu|xpu|xla|mlu|hpu|privateuseone|mps)(?::(\d+))?\Z")


def lenient(asked: bool | None) -> bool:
    """Whether to read what the reference reads: as asked, else as ``TENSAFE_LENIENT`` says."""
    if asked is not None:
        return asked
    return os.environ.get("TENSAFE_LENIENT", "") not in ("", "0")


class Access(NamedTuple):
    """How bytes reach memory: ``auto``, ``mmap``, ``pread``, ``direct`` or ``owned``; and whether the
    page cache keeps what was read."""

    io: str
    keep_cached: bool = True


def access(backend: str, io: str | None, owned: bool, cache: str = "keep") -> Access:
    """What callers say of reading, in one word.

    The reference's default backend lets us choose: a mapping on local disks, reads elsewhere.
    """
    if backend not in _BACKENDS:
        raise SafetensorError(f'backend "{backend}" is invalid (expected one of: "mmap", "pread")')
    if io is not None and io not in _IO:
        expected = ", ".join(f'"{name}"' for name in _IO)
        raise UsageError(f'io "{io}" is invalid (expected one of: {expected})')
    if cache not in ("keep", "drop"):
        raise UsageError(f'cache "{cache}" is invalid (expected one of: "keep", "drop")')
    if io == "mmap" and (owned or cache == "drop"):
        asked = "owned=True needs memory" if owned else 'cache="drop" needs memory'
        raise UsageError(f'{asked} of its own, io="mmap" does not give it')
    if io is None or io == "auto":
        # Memory of the process is read by what is resident, unless reads were asked for.
        chosen = "owned" if owned else "auto" if backend == "mmap" or io else "pread"
    else:
        chosen = io
    return Access(chosen, cache == "keep")


def device(asked: Any) -> str | int:
    """A device as frameworks spell it: a string, or the bare number of an accelerator; ``None`` is the CPU."""
    if asked is None:
        return "cpu"
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

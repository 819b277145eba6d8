"""What the tests share: files made by hand, and every way to open one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Keywords of the loading functions: each way that bytes reach memory.
ACCESSES: dict[str, dict[str, Any]] = {
    "default": {},
    "mmap": {"io": "mmap"},
    "pread": {"backend": "pread"},
    "owned": {"owned": True},
}


@pytest.fixture(params=ACCESSES.values(), ids=ACCESSES.keys())
def access(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def file_bytes(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A file with a header as it is given, without padding."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file made by hand and returns its path."""

    def write(header: dict[str, Any] | bytes, data: bytes = b"", name: str = "made.safetensors") -> Path:
        path = tmp_path / name
        path.write_bytes(file_bytes(header, data))
        return path

    return write

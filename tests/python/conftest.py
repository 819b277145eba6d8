"""What the tests share: files made by hand, and every way to open one."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensafe import _options

# Keywords of the loading functions: each way that bytes reach memory.
ACCESSES: dict[str, dict[str, Any]] = {
    "default": {},
    "mmap": {"io": "mmap"},
    "pread": {"backend": "pread"},
    "owned": {"owned": True},
}


# Of the tests alone, for the step of tools/test.py that runs them once for each: what every call takes
# that leaves the choice to us. What a test runs in another process chooses for itself.
FORCED_IO = os.environ.get("TENSAFE_IO")

# Tests that make no sense where the choice is made for them, each with the choices.
NOT_FORCED = {
    # What is mapped cannot leave the page cache.
    "test_dropping_the_cache_leaves_nothing_there": {"mmap"},
    # Five gigabytes of memory, for what it does by the other accesses too.
    "test_offsets_beyond_four_gigabytes_are_read_right[default]": {"pread", "direct", "owned"},
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gone = [item for item in items if FORCED_IO in NOT_FORCED.get(item.name, ())]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session", autouse=FORCED_IO is not None)
def forced_io() -> Iterator[None]:
    original = _options.access

    def access(backend: str, io: str | None, owned: bool, cache: str = "keep") -> _options.Access:
        found = original(backend, io, owned, cache)
        return found._replace(io=FORCED_IO) if found.io == "auto" else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_options, "access", access)
        yield


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

"""What the machine can do: reads and writes that make no tensors, timed as if they were loaders.

``fio`` and ``dd`` time themselves, so that their start is not counted. ``direct_read`` is what the disk gives to
requests of a loader: fio's memory is on small pages, of which one takes a few hundred at a time. The others are actions
of a child.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from child import ChildError
from measure import flush, slabs

Row = dict[str, Any]

# Of `direct_read`: bytes of a request, and how many are under way.
_BLOCK, _THREADS = 8 << 20, 4

LABELS = {
    "direct-read": "limit: direct reads, 4 of 8 MiB at once, into huge pages used again",
    "summed": "limit: direct reads, 4 of 8 MiB at once, each summed",
    "fio-read": "limit: fio, io_uring, direct, 16 reads of 8 MiB",
    "dd-read": "limit: dd, direct, 8 MiB",
    "read": "limit: buffered reads as of cp, 8 MiB",
    "memcpy": "limit: memcpy, one thread, memory touched before",
    "fio-write": "limit: fio, io_uring, direct, 16 writes of 8 MiB, flushed",
    "write": "limit: buffered writes, 8 MiB",
}


def direct_read(path: Path, _size: int) -> Row:
    """Reads a file past the page cache, whole requests into the same memory again and again."""
    size = path.stat().st_size
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        raise ChildError(str(error), unavailable=True) from None
    memory = slabs(_THREADS, _BLOCK)

    def read(first: int) -> int:
        offsets = range(first * _BLOCK, size, _THREADS * _BLOCK)
        return sum(os.preadv(handle, [memory[first]], offset) for offset in offsets)

    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            start = time.perf_counter()
            done = sum(pool.map(read, range(_THREADS)))
            return {"wall": time.perf_counter() - start, "bytes": done}
    finally:
        os.close(handle)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ChildError(f"there is no program `{name}`", unavailable=True)
    return found


def _fio(path: Path, size: int, *options: str) -> Row:
    # A block is no larger than the file, which is small in a quick run.
    block = min(8 << 20, size & ~4095)
    common = ("--name=limit", f"--bs={block}", "--iodepth=16", "--ioengine=io_uring", "--direct=1")
    command = [_program("fio"), *common, f"--filename={path}", f"--size={size}", *options]
    done = subprocess.run([*command, "--output-format=json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ChildError((done.stderr or done.stdout).strip().splitlines()[-1])
    # Notes stand before the JSON.
    (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    side = job["read"] if job["read"]["io_bytes"] else job["write"]
    return {"wall": max(side["runtime"], 1) / 1e3, "bytes": side["io_bytes"]}


def fio_read(path: Path, _size: int) -> Row:
    # A direct read is of whole blocks; fio leaves out what stands after the last of them.
    size = path.stat().st_size & ~4095
    return _fio(path, size, "--rw=read", "--readonly")


def fio_write(path: Path, size: int) -> Row:
    try:
        row = _fio(path, size & ~4095, "--rw=write", "--fallocate=posix")
        start = time.perf_counter()
        flush(path)
        row["wall"] += time.perf_counter() - start
        return row
    finally:
        path.unlink(missing_ok=True)


def dd_read(path: Path, _size: int) -> Row:
    command = [_program("dd"), f"if={path}", "of=/dev/null", "bs=8M", "iflag=direct"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    found = re.search(r"^(\d+) bytes.* copied, ([0-9.e-]+) s", done.stderr, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise ChildError(done.stderr.strip().splitlines()[-1])
    return {"wall": float(found[2]), "bytes": int(found[1])}


# The limits that run beside the children; the others are names of actions.
PROGRAMS: dict[str, Callable[[Path, int], Row]] = {
    "direct-read": direct_read,
    "fio-read": fio_read,
    "dd-read": dd_read,
    "fio-write": fio_write,
}

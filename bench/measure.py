"""What the clock is surrounded by: the page cache of files, the counters of a process, its peak of memory.

Only the standard library and Linux. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_LIBC = ctypes.CDLL(None, use_errno=True)
_CACHESTAT = 451
_POPULATE_WRITE = 23
# A cold file may keep this part of its pages: a page or two that the kernel holds for a moment.
COLD = 0.001


class CacheError(Exception):
    """A file that could not be brought into the state that a cell needs."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")
    )


def residency(path: Path) -> float:
    """The part of a file's pages that is in the page cache, 0 to 1: ``cachestat``, or else ``mincore``."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    if pages == 0:
        return 0.0
    handle = os.open(path, os.O_RDONLY)
    try:
        counts = _Counts()
        whole = _Range(0, 0)
        if _LIBC.syscall(_CACHESTAT, handle, ctypes.byref(whole), ctypes.byref(counts), 0) == 0:
            return int(counts.cache) / pages
        return _resident_by_mincore(handle, size) / pages
    finally:
        os.close(handle)


def _resident_by_mincore(handle: int, size: int) -> int:
    vector = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    # Private and writable, for ctypes asks for a writable buffer; no page is touched.
    with mmap.mmap(handle, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        anchor = ctypes.c_char.from_buffer(mapped)
        failed = _LIBC.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), vector)
        del anchor
    if failed:
        raise CacheError(f"mincore: {os.strerror(ctypes.get_errno())}")
    return sum(byte & 1 for byte in vector)


def make_cold(paths: Iterable[Path]) -> None:
    """Drops the pages of files, and proves it; raises :class:`CacheError` where some stay."""
    for path in paths:
        left = 1.0
        for attempt in range(20):
            handle = os.open(path, os.O_RDONLY)
            try:
                # Dirty pages are not dropped, and mapped ones neither: nobody maps the file here.
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
            left = residency(path)
            if left < COLD:
                break
            time.sleep(0.05 * (attempt + 1))
        else:
            raise CacheError(f"{path.name}: {left:.1%} of its pages stay in the page cache")


def make_warm(paths: Iterable[Path]) -> None:
    """Reads files into the page cache, and proves it; raises :class:`CacheError` where some is missing."""
    buffer = bytearray(8 << 20)
    for path in paths:
        found = residency(path)
        for _ in range(3):
            if found == 1.0:
                break
            handle = os.open(path, os.O_RDONLY)
            try:
                offset = 0
                while count := os.preadv(handle, [buffer], offset):
                    offset += count
            finally:
                os.close(handle)
            found = residency(path)
        else:
            if found < 1.0:
                raise CacheError(f"{path.name}: only {found:.1%} of its pages stay in the page cache")


def touch(count: int) -> None:
    """Takes so many bytes of memory, writes to them and lets them go: who takes memory next gets these.

    The host of a virtual machine may take free memory away. Whoever touches it next then waits until
    the host has found some: up to milliseconds for 2 MiB, which no loader can do anything about.
    """
    # Private: shared memory is of small pages, which leave the large ones that a page cache takes untouched.
    with mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        try:
            memory.madvise(_POPULATE_WRITE)
        except OSError:
            # Kernels before 5.14: the tables differ more from round to round.
            return


def slabs(count: int, size: int) -> list[mmap.mmap]:
    """Pieces of memory of a size, written to, on huge pages where the system has them."""
    made = [mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(count)]
    for slab in made:
        with contextlib.suppress(OSError):
            slab.madvise(mmap.MADV_HUGEPAGE)
        slab.write(bytes(size))
    return made


def flush(path: Path) -> None:
    """Waits until a file and the entry of its directory are on the disk."""
    for target, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        handle = os.open(target, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Removes what was saved, once it is on the disk: else the next one pays for its pages."""
    if path.exists():
        flush(path)
        path.unlink()


def status(field: str, process: int | str = "self") -> int:
    """A field of ``/proc/PROCESS/status`` that is counted in kB, in bytes."""
    with open(f"/proc/{process}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(field)


def clear_peak() -> None:
    """Sets ``VmHWM`` of this process back to what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Counters:
    """What the kernel has counted for this process."""

    user: float
    system: float
    read_bytes: int
    rchar: int
    minor_faults: int
    major_faults: int

    @classmethod
    def now(cls) -> Counters:
        used = resource.getrusage(resource.RUSAGE_SELF)
        rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return cls(
            used.ru_utime,
            used.ru_stime,
            int(rows["read_bytes"]),
            int(rows["rchar"]),
            used.ru_minflt,
            used.ru_majflt,
        )

    def since(self) -> dict[str, float]:
        """What was counted after these were taken, by name."""
        now = Counters.now()
        return {name: getattr(now, name) - value for name, value in vars(self).items()}


class Sampler:
    """The growth of a process's anonymous memory, read every 2 ms by a thread.

    The driver runs it beside the child that it times, so that the child's interpreter is left alone.
    ``held`` says how many bytes the consumer holds at this moment; they are not counted.
    """

    def __init__(self, process: int | str = "self", held: Callable[[], int] = lambda: 0) -> None:
        self._process = process
        self._held = held
        self._base = status("RssAnon", process)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = 0

    def _run(self) -> None:
        while not self._done.wait(0.002):
            self._sample()

    def _sample(self) -> None:
        # What is held is asked before: a tensor that arrives in between counts against the loader.
        held = self._held()
        try:
            self.peak = max(self.peak, status("RssAnon", self._process) - self._base - held)
        except (OSError, KeyError):
            # The process has ended, or lets go of its memory.
            return

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

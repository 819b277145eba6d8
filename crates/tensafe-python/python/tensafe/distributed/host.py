"""Ranks of one host that read together: who they are, and memory that they fill by pieces.

Ranks find each other by the store of their group, once; no collective is called. What two of them need of a file
is read into a memfd at the offsets of the file, block by block: who reads a block holds a lock on its number, which
the kernel takes from a process that dies, so that another reads it. Nothing here waits longer than it was told to.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .._errors import IoError

PAGE = 4096
BLOCK = 8 << 20
# Bytes of a read on the way to shared memory.
_SLAB = 4 << 20
_HUGE = 2 << 20
# Threads of a rank that fill blocks, beside those of its own plan.
_FILLERS = 2
# Seconds between two looks at what others do.
_LOOK = 0.002
# Every how many looks the locks of blocks are tried.
_LOOKS = 25
# Seconds without a new block after which those that only others need are not waited for.
_PATIENCE = 0.1
_F_OFD_SETLK = getattr(fcntl, "F_OFD_SETLK", 37)
_F_SEAL = getattr(fcntl, "F_SEAL_SHRINK", 2) | getattr(fcntl, "F_SEAL_GROW", 4)
_F_SEAL_WRITE = getattr(fcntl, "F_SEAL_WRITE", 8)
_F_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)

Ranges = list[tuple[int, int]]
# The roster of each store of a group, which does not change.
_met: dict[int, tuple[Any, dict[int, dict[str, Any]], int]] = {}


class Host:
    """This rank and its peers: the live ranks of the group on this host, itself included, ascending."""

    def __init__(self, store: Any, rank: int, peers: dict[int, dict[str, Any]], call: int) -> None:
        self.store = store
        self.rank = rank
        self.peers = sorted(peers)
        self.index = self.peers.index(rank)
        self._rows = peers
        self._call = call
        # A peer stood still for too long: nothing is read together any more.
        self.gave_up = False
        # Memory that blocks are read by, once nobody does.
        self.slabs: list[memoryview] = []

    @classmethod
    def meet(cls, group: Any, rank: int, world: int, timeout: float) -> Host | None:
        """The ranks of this host, after all ranks of the group have come, or ``timeout`` seconds. ``None``
        where there is no store, or nobody else."""
        from torch.distributed import distributed_c10d

        try:
            group = group or distributed_c10d._get_default_group()
            store = distributed_c10d._get_process_group_store(group)
            known, roster, calls = _met.get(id(store), (None, {}, 0))
            if known is not store:
                store.set(f"tensafe/rank/{rank}", json.dumps(_who()))
                roster, calls = _roster(store, world, timeout), 0
            _met[id(store)] = (store, roster, calls + 1)
            own = _who()
            live = [
                number
                for number, row in roster.items()
                if row["host"] == own["host"] and (number == rank or _alive(row))
            ]
            # The first to come says who they are: those that saw one die, and those that did not, would wait for
            # each other.
            where = f"tensafe/{calls}/{own['host']}/peers"
            agreed = json.loads(store.compare_set(where, "", json.dumps(live)))
            peers = {number: roster[number] for number in agreed}
        except (RuntimeError, ValueError, KeyError):
            return None
        if rank not in peers:
            return None
        peers[rank] = own
        return cls(store, rank, peers, calls) if len(peers) > 1 else None

    def agree(self, key: str, offer: str) -> str:
        """What the first rank of this host offered under ``key`` in this call."""
        try:
            found: bytes = self.store.compare_set(self._where(key), "", offer)
        except RuntimeError as error:
            # The store went away with the process that had it.
            raise IoError(f"the store of the group does not answer: {error}") from None
        return found.decode()

    def decline(self, key: str) -> None:
        """Tells the others that this rank will not come for what was agreed on."""
        with contextlib.suppress(RuntimeError):
            self.store.set(f"{self._where(key)}/{self.rank}", "no")

    def expects(self, key: str, rank: int) -> bool:
        """Whether a peer may still come: its process runs, and it has not declined."""
        try:
            if self.store.check([f"{self._where(key)}/{rank}"]):
                return False
        except RuntimeError:
            return False
        return _alive(self._rows[rank])

    def _where(self, key: str) -> str:
        # Ranks that see other peers do not meet: what is read together follows from who they are.
        return f"tensafe/{self._call}/{self._rows[self.rank]['host']}/{','.join(map(str, self.peers))}/{key}"


def _roster(store: Any, world: int, timeout: float) -> dict[int, dict[str, Any]]:
    roster: dict[int, dict[str, Any]] = {}
    deadline = time.monotonic() + timeout
    while True:
        for rank in range(world):
            if rank not in roster and store.check([f"tensafe/rank/{rank}"]):
                roster[rank] = json.loads(store.get(f"tensafe/rank/{rank}"))
        if len(roster) == world or time.monotonic() > deadline:
            return roster
        time.sleep(0.005)


def _who() -> dict[str, Any]:
    """This process, and the host that its number is of: numbers mean something within a namespace."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    host = f"{boot}/{os.readlink('/proc/self/ns/pid')}/{os.geteuid()}"
    return {"host": host, "pid": os.getpid(), "start": _start(os.getpid())}


def _start(pid: int) -> str | None:
    """When a process began; ``None`` where it has ended, also if nobody has asked how."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(row: dict[str, Any]) -> bool:
    return bool(_start(row["pid"]) == row["start"])


class Shared:
    """A part of a file in memory of the host, which the ranks that need it fill together.

    ``ranges`` are what any of the peers shares of the file, in bytes, half-open; ``mine`` what this rank needs of
    them. The memory has the file's size and its header: it can be opened as the file. It is there for as long as
    a rank has it.
    """

    def __init__(
        self, host: Host, key: str, path: str, memory: tuple[int, int], ranges: Ranges, mine: Ranges
    ) -> None:
        self._host = host
        self._key = key
        self._path = path
        self._data, self._flags = memory
        self._blocks = _blocks(ranges)
        self._needed = [number for number, pieces in enumerate(self._blocks) if _touch(pieces, mine)]
        self._threads: list[threading.Thread] = []
        self._failed = False
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._stop = False
        os.pwrite(self._flags, b"\1", len(self._blocks) + host.index)

    @classmethod
    def join(
        cls, host: Host, path: str, header: int, ranges: Ranges, mine: Ranges, *, wanted: bool
    ) -> Shared | None:
        """The memory of a file that the first rank of the host to come here makes; ``None`` where that one has
        no memory or no want of it, as the file is in the page cache, or has gone."""
        facts = os.stat(path)
        key = f"{facts.st_dev}/{facts.st_ino}/{facts.st_size}/{facts.st_mtime_ns}/{hash(tuple(ranges))}"
        if host.gave_up:
            host.decline(key)
            return None
        made: tuple[int, int] | None = None
        if wanted and _room() > sum(end - start for start, end in ranges):
            made = _make(path, facts.st_size, header, len(_blocks(ranges)) + len(host.peers))
        offer = f"{os.getpid()}/{made[0]}/{made[1]}" if made else "none"
        try:
            answer = host.agree(key, offer)
        except IoError:
            _close(made)
            return None
        if answer != offer:
            _close(made)
            made = None if answer == "none" else _open(answer, facts.st_size)
        if made is None:
            host.decline(key)
            return None
        return cls(host, key, path, made, ranges, mine)

    @property
    def path(self) -> str:
        """The memory as a file of this process."""
        return f"/proc/self/fd/{self._data}"

    def fill(self) -> None:
        """Starts to read blocks that nobody reads, in threads."""
        # Each rank begins somewhere else, so that they rarely want the same block.
        turn = len(self._needed) * self._host.index // len(self._host.peers)
        todo = iter(self._needed[turn:] + self._needed[:turn])
        for _ in range(_FILLERS):
            self._threads.append(threading.Thread(target=self._fill, args=(todo,), daemon=True))
            self._threads[-1].start()

    def _fill(self, todo: Iterator[int]) -> None:
        try:
            with _Reader(self._path, self._host.slabs) as reader:
                while not (self._failed or self._stop):
                    with self._lock:
                        block = next(todo, None)
                    if block is None:
                        return
                    self._take(block, reader)
        except BaseException:
            self._failed = True

    def _take(self, block: int, reader: _Reader) -> bool:
        """Sees to one block; ``False`` where another rank, or a thread of this one, is at it."""
        with self._lock:
            # Threads of a process do not lock each other out of a file.
            if block in self._busy:
                return False
            self._busy.add(block)
        try:
            if self._done(block):
                return True
            if not _lock(self._flags, block, fcntl.F_WRLCK):
                return False
            try:
                if not self._done(block):
                    for start, end in self._blocks[block]:
                        reader.read(self._data, start, end)
                    os.pwrite(self._flags, b"\1", block)
            finally:
                _lock(self._flags, block, fcntl.F_UNLCK)
            return True
        finally:
            self._busy.discard(block)

    def _done(self, block: int) -> bool:
        return os.pread(self._flags, 1, block) == b"\1"

    def wait(self, timeout: float) -> bool:
        """Waits until what this rank needs is there, and reads what a rank that died was to read. ``False`` where
        nothing came for ``timeout`` seconds, or reading failed: the caller reads by itself then."""
        looks, before, since = 0, -1, time.monotonic()
        try:
            with _Reader(self._path, self._host.slabs) as reader:
                while not self._failed:
                    flags = os.pread(self._flags, len(self._blocks), 0)
                    left = [block for block in self._needed if not flags[block]]
                    if sum(flags) > before:
                        before, since = sum(flags), time.monotonic()
                    idle = time.monotonic() - since
                    # A file that is read may not change: what others need beside is waited for, but not for long.
                    if not left and (all(flags) or idle > _PATIENCE):
                        self._seal(flags)
                        return True
                    if idle > timeout:
                        self._host.gave_up = True
                        return False
                    looks += 1
                    if looks % _LOOKS == 0:
                        # Who holds the lock of a block is at it: it is free where that one has died.
                        for block in left:
                            self._take(block, reader)
                    time.sleep(_LOOK)
        except OSError:
            pass
        return False

    def _seal(self, flags: bytes) -> None:
        """Makes the memory unchangeable, once all of it is there."""
        if all(flags):
            # Refused while somebody else has pages of it pinned.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._data, _F_ADD_SEALS, _F_SEAL_WRITE)

    def leave(self, timeout: float) -> None:
        """Gives the memory up, once every live peer has it too: else a late one would read all by itself."""
        deadline = time.monotonic() + timeout
        while not self._host.gave_up:
            joined = os.pread(self._flags, len(self._host.peers), len(self._blocks))
            late = [rank for rank, flag in zip(self._host.peers, joined, strict=True) if not flag]
            if not any(self._host.expects(self._key, rank) for rank in late):
                break
            self._host.gave_up = time.monotonic() > deadline
            time.sleep(0.005)
        self.close()

    def close(self) -> None:
        """Gives the memory up at once."""
        self._stop = True
        for thread in self._threads:
            thread.join()
        if self._data >= 0:
            _close((self._data, self._flags))
            self._data = self._flags = -1


class _Reader:
    """Reads ranges of a file into a memfd, past the page cache where the file system can.

    By way of memory of its own on huge pages: a memfd is on small ones, of which a disk takes few at a time.
    """

    def __init__(self, path: str, slabs: list[memoryview]) -> None:
        self._plain = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            self._direct = self._plain
        self._slabs = slabs

    def read(self, memory: int, start: int, end: int) -> None:
        """Reads from ``start``, a page's border, to ``end``, one too or the end of the file."""
        try:
            slab = self._slabs.pop()
        except IndexError:
            slab = _slab()
        while start < end:
            wanted = min(end - start, len(slab))
            # Direct reads are of whole pages, also of the last one of the file.
            found = min(self._read(slab[: -(-wanted // PAGE) * PAGE], start), wanted)
            if found == 0:
                raise IoError("the file ended early")
            start += os.pwrite(memory, slab[:found], start)
            if start < end and start % PAGE:
                self._stop_direct()
        self._slabs.append(slab)

    def _read(self, out: memoryview, start: int) -> int:
        try:
            return os.preadv(self._direct, [out], start)
        except OSError as error:
            if error.errno != errno.EINVAL or self._direct == self._plain:
                raise
            self._stop_direct()
            return os.preadv(self._plain, [out], start)

    def _stop_direct(self) -> None:
        if self._direct != self._plain:
            os.close(self._direct)
            self._direct = self._plain

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_direct()
        os.close(self._plain)


def _slab() -> memoryview:
    """Memory from a huge page's border on."""
    memory = mmap.mmap(-1, _SLAB + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    before = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % _HUGE
    return memoryview(memory)[before : before + _SLAB]


def _exactly(handle: int, size: int, offset: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.pread(handle, size - len(data), offset + len(data))
        if not more:
            raise IoError("the file ended early")
        data += more
    return data


def _make(path: str, size: int, header: int, flags: int) -> tuple[int, int] | None:
    """Memory for a file, with its header, and one for the flags of blocks and peers."""
    made: list[int] = []
    try:
        for name, length in (("tensafe", size), ("tensafe-flags", flags)):
            made.append(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(made[-1], length)
            fcntl.fcntl(made[-1], _F_ADD_SEALS, _F_SEAL)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pwrite(made[0], _exactly(source, header, 0), 0)
        finally:
            os.close(source)
    except OSError:
        _close(made)
        return None
    return made[0], made[1]


def _open(where: str, size: int) -> tuple[int, int] | None:
    """The memory that another rank made. Its own opening of it, so that locks are this rank's."""
    pid, *handles = where.split("/")
    made: list[int] = []
    try:
        for handle in handles:
            made.append(os.open(f"/proc/{pid}/fd/{handle}", os.O_RDWR | os.O_CLOEXEC))
        if os.fstat(made[0]).st_size != size:
            raise OSError
    except OSError:
        _close(made)
        return None
    return made[0], made[1]


def _close(handles: Sequence[int] | None) -> None:
    for handle in handles or ():
        os.close(handle)


def _lock(handle: int, block: int, kind: int) -> bool:
    """Takes or gives back the lock of a block, which belongs to this opening of the file; never waits."""
    try:
        fcntl.fcntl(handle, _F_OFD_SETLK, struct.pack("@hhqqi4x", kind, os.SEEK_SET, block, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _blocks(ranges: Ranges) -> list[Ranges]:
    """Ranges cut at every multiple of a block: the pieces of each block that has some."""
    blocks: dict[int, Ranges] = {}
    for start, end in ranges:
        for number in range(start // BLOCK, -(-end // BLOCK)):
            piece = max(start, number * BLOCK), min(end, (number + 1) * BLOCK)
            blocks.setdefault(number, []).append(piece)
    return [blocks[number] for number in sorted(blocks)]


def _touch(pieces: Ranges, mine: Ranges) -> bool:
    return any(a < end and start < b for a, b in pieces for start, end in mine)


def _room() -> int:
    """Bytes of memory that can be taken: half of what is free, of the host and of the control group."""
    with open("/proc/meminfo") as file:
        rows = dict(line.split(":") for line in file)
    free = int(rows["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/memory.max") as file:
            most = int(file.read())
        with open("/sys/fs/cgroup/memory.current") as file:
            free = min(free, most - int(file.read()))
    return free // 2

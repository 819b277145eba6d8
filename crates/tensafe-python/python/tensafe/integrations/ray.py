"""Ray: fleets of files on a cluster, and a model in memory once for each of its machines.

``tensafe.fleet.run(..., engine="ray")`` and ``tensafe scan|verify|convert --engine ray`` work through
:class:`RayEngine`. :func:`load_once_per_host` is for workers that serve a model: one actor on each node reads
its files, once, into memory that every worker on the node maps. Ray itself is not made to hold tensors: its
object store copies them, has a size of its own, and spills to disk.

Every node needs tensafe, of one version, and sees files by the same paths.
"""

from __future__ import annotations

import concurrent.futures
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .._checkpoint import open as open_checkpoint
from .._errors import IoError, UnsupportedError, UsageError
from .._tensafe import __version__
from ..fleet import Item, Operation, Row, WorkerLost, run
from ..fleet._operations import perform

__all__ = ["HostModel", "RayEngine", "convert", "load_once_per_host", "scan", "verify"]

# Of a Ray that is started for a run alone: rows are small.
_STORE_BYTES = 200 << 20
# Seconds for which the number of processors is believed; nodes come and go.
_COUNTED = 5.0
# What a model's files are read by, at once.
_BLOCK = 8 << 20
_READERS = 4


def scan(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Any) -> Iterator[Row]:
    """:func:`tensafe.fleet.run` of ``"scan"`` on Ray."""
    return run("scan", paths, engine="ray", **options)


def verify(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Any) -> Iterator[Row]:
    """:func:`tensafe.fleet.run` of ``"verify"`` on Ray."""
    return run("verify", paths, engine="ray", **options)


def convert(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Any
) -> Iterator[Row]:
    """:func:`tensafe.fleet.run` of ``"convert"`` on Ray."""
    return run("convert", paths, engine="ray", **options)


class RayEngine:
    """Tasks of one processor each, two for each processor of the cluster.

    Ray that runs in this process is used and left as it is. Else ``address`` says where: ``auto`` and
    ``HOST:PORT`` are a cluster, ``local`` starts one in this machine with ``threads`` processors and ends it
    when the run ends. Without it, the variable ``RAY_ADDRESS`` says so, else it is ``local``.

    A task is not retried by Ray, which would not know the file that kills its workers: the run halves
    what was lost until that file is alone. Raises :class:`UsageError` where a worker has another tensafe.
    """

    def __init__(self, address: str | None = None, *, threads: int = 0) -> None:
        self._owns = not ray.is_initialized()
        if self._owns:
            address = address or os.environ.get("RAY_ADDRESS") or "local"
            only_local: dict[str, Any] = {}
            if address == "local":
                only_local = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
                if threads:
                    only_local["num_cpus"] = threads
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **only_local)
        self._task = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._under_way: dict[Any, Sequence[Item]] = {}
        self._processors = 0
        self._counted = 0.0

    def room(self) -> int:
        if time.monotonic() - self._counted > _COUNTED or not self._counted:
            self._processors = int(ray.cluster_resources().get("CPU", 0))
            self._counted = time.monotonic()
        return max(2, 2 * self._processors) - len(self._under_way)

    def submit(self, operation: Operation, items: Sequence[Item]) -> None:
        self._under_way[self._task.remote(__version__, operation, items)] = items

    def wait(self, timeout: float | None) -> list[tuple[Sequence[Item], list[tuple[Row, bool]] | WorkerLost]]:
        if not self._under_way:
            return []
        waiting = list(self._under_way)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready:
            # And whatever else is there.
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [(self._under_way.pop(reference), _outcome(reference)) for reference in ready]

    def close(self) -> None:
        for reference in self._under_way:
            ray.cancel(reference, force=True)
        self._under_way.clear()
        if self._owns:
            ray.shutdown()


def _outcome(reference: Any) -> list[tuple[Row, bool]] | WorkerLost:
    try:
        results: list[tuple[Row, bool]] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Files have rows for what goes wrong with them: this is how the workers are set up.
        raise _cause(error) from None
    except (ray.exceptions.LocalRayletDiedError, ray.exceptions.RuntimeEnvSetupError):
        raise
    except ray.exceptions.RayError as error:
        return WorkerLost(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return results


def _work(version: str, operation: Operation, items: Sequence[Item]) -> list[tuple[Row, bool]]:
    node = ray.get_runtime_context().get_node_id()
    host = f"{socket.gethostname()}/{node[:12]}"
    if version != __version__:
        raise UsageError(f"node {host} has tensafe {__version__}; needed {version}, as where the run began")
    return perform(operation, items, host)


def load_once_per_host(path: str | os.PathLike[str]) -> HostModel:
    """A model whose files are in memory once on each node that asks for it.

    ``path`` is a file, an index of shards or a directory, seen by every node. The nodes that are there
    begin to read at once; one that comes later does when a worker on it first asks. The result can be
    given to tasks and actors, and the memory is there for as long as a :class:`HostModel` of the process
    that called, or a view anywhere, is. Raises what ``tensafe.open`` raises, and :class:`UnsupportedError`
    where nodes are not of Linux.
    """
    if sys.platform != "linux":
        raise UnsupportedError("load_once_per_host needs Linux: its files of memory can be sealed")
    absolute = os.path.abspath(os.fspath(path))
    # What is wrong with it is told at once, and not by each node.
    open_checkpoint(absolute)
    here = ray.get_runtime_context().get_node_id()
    group = ray.remote(num_cpus=0, max_concurrency=16)(_Group)
    handle = group.options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)).remote(
        absolute
    )
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    for waiting in [handle.files.remote(node) for node in nodes]:
        _get(waiting)
    return HostModel(absolute, handle)


class HostModel:
    """A model that lies in memory once for each node; made by :func:`load_once_per_host`."""

    def __init__(self, path: str, group: Any) -> None:
        self.path = path
        self._group = group

    def __repr__(self) -> str:
        return f"HostModel({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return HostModel, (self.path, self._group)

    def views(self, framework: str = "torch") -> dict[str, Any]:
        """The tensors of the model over the memory of this node: ``"torch"`` or ``"numpy"``.

        Nothing is copied: the memory is mapped, privately. Who writes into a tensor gets a copy of the
        pages that it wrote to, and nobody else sees it. Views outlive the actor that read the model.
        Waits for the node to have read it.
        """
        if framework == "torch":
            from ..torch import load_file
        elif framework == "numpy":
            from ..numpy import load_file  # type: ignore[assignment]
        else:
            raise UsageError(f"framework `{framework}` is not known; needed torch or numpy")
        tensors: dict[str, Any] = {}
        for path in _get(self._group.files.remote(ray.get_runtime_context().get_node_id())):
            with open(path, "rb", buffering=0) as file:
                _check_sealed(file.fileno(), path)
                # By our own descriptor: the holder of the other one may be gone by now.
                tensors.update(load_file(f"/proc/self/fd/{file.fileno()}", io="mmap"))
        return tensors


class _Group:
    """Makes an actor on each node that asks. Where it is, the process that made it is too."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._holders: dict[str, Any] = {}
        self._lock = threading.Lock()

    def files(self, node: str) -> list[str]:
        with self._lock:
            if node not in self._holders:
                strategy = NodeAffinitySchedulingStrategy(node, soft=False)
                made = ray.remote(num_cpus=0)(_Holder).options(scheduling_strategy=strategy)
                self._holders[node] = made.remote(self._path)
            holder = self._holders[node]
        try:
            files: list[str] = ray.get(holder.files.remote())
        except ray.exceptions.RayActorError:
            # It died, or could not read: the next who asks has it tried again.
            with self._lock:
                if self._holders.get(node) is holder:
                    del self._holders[node]
            raise
        return files


class _Holder:
    """Has the files of a model in memory, on its node."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: list[int] | None = None

    def files(self) -> list[str]:
        if self._held is None:
            held: list[int] = []
            try:
                for file in open_checkpoint(self._path).files:
                    held.append(_hold(str(file)))
            except BaseException:
                for descriptor in held:
                    os.close(descriptor)
                raise
            self._held = held
        return [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in self._held]


def _hold(path: str) -> int:
    """A sealed file of memory with the bytes of a file, whose descriptor is returned."""
    import fcntl

    with open(path, "rb", buffering=0) as file:
        source, size = file.fileno(), os.fstat(file.fileno()).st_size

        def copy(begin: int) -> None:
            done, end = begin, min(begin + _BLOCK, size)
            while done < end:
                block = os.pread(source, end - done, done)
                if not block:
                    raise IoError(f"{path}: ends at byte {done}, it had {size} bytes when it was opened")
                done += os.pwrite(held, block, done)

        held = os.memfd_create(os.path.basename(path)[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # So that too little memory is an error before it is filled.
            os.posix_fallocate(held, 0, size)
            with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
                for _ in pool.map(copy, range(0, size, _BLOCK)):
                    pass
            fcntl.fcntl(held, fcntl.F_ADD_SEALS, _seals())
        except BaseException:
            os.close(held)
            raise
    return held


def _seals() -> int:
    """With which a file of memory can be neither changed nor cut short under who maps it."""
    import fcntl

    return fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def _check_sealed(descriptor: int, path: str) -> None:
    import fcntl

    try:
        found = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        found = 0
    if found & _seals() != _seals():
        raise IoError(f"{path}: no sealed memory; the actor that held the model is gone")


def _get(reference: Any) -> list[str]:
    """What an actor returns. Its exception is raised as it is there, not as Ray wraps it."""
    try:
        files: list[str] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from None
    return files


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    return error

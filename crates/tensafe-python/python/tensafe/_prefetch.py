"""Tensors of one file, loading in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from operator import index
from typing import TYPE_CHECKING, Any

from ._errors import SafetensorError, UnsupportedError, UsageError, UsageTypeError
from ._tensafe import DTYPES

if TYPE_CHECKING:
    from ._safe_open import safe_open

_TORCH_NAMES = {name: torch_name for name, _, _, torch_name in DTYPES}


class PrefetchLoader:
    """The tensors of a plan, loading in the background; returned by ``safe_open.prefetch``.

    Each tensor is handed out once, by :meth:`take` or by iterating, and owns its memory: it lives on
    after the loader and the file are closed. Iterating yields ``(name, tensor)`` as they become ready.
    """

    def __init__(
        self, file: safe_open, plan: dict[str, slice | None] | None, device: Any, threads: int
    ) -> None:
        checkpoint = file._checkpoint()
        if file._framework != "torch":
            raise UsageError('prefetch requires framework="pt"')
        threads = _count(threads)
        if threads < 1:
            raise UsageError(f"prefetch needs at least 1 thread, got {threads}")
        rows = _rows(file, plan)
        self._names = [name for name in checkpoint.offset_names() if name in rows]
        self._adapter = file._adapter
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(
            min(threads, max(len(rows), 1)), thread_name_prefix="tensafe-prefetch"
        )
        self._pending: dict[str, Future[Any]] = {}
        load = self._adapter._get_owned
        for name in self._names:
            self._pending[name] = self._pool.submit(load, checkpoint, name, rows[name], device)
        # The threads end when the queue is empty; nobody has to close the loader for that.
        self._pool.shutdown(wait=False)

    def names(self) -> list[str]:
        """The names of the plan, in the order of their bytes."""
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def take(self, name: str) -> Any:
        """Waits for the tensor called ``name`` and hands it out. Each can be taken once."""
        with self._lock:
            self._check_open()
            future = self._pending.pop(name, None)
        if future is None:
            known = name in self._names
            raise SafetensorError(
                f"tensor {name} " + ("was already delivered" if known else "is not in the prefetch plan")
            )
        return self._result(future)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        while True:
            with self._lock:
                self._check_open()
                waiting = {future: name for name, future in self._pending.items()}
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                with self._lock:
                    self._check_open()
                    mine = self._pending.pop(waiting[future], None)
                # Another thread may have taken it meanwhile.
                if mine is not None:
                    yield waiting[future], self._result(mine)

    def close(self) -> None:
        """Stops the loading and drops every tensor that was not taken."""
        with self._lock:
            self._closed = True
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.cancel()

    def __enter__(self) -> PrefetchLoader:
        return self

    def __exit__(self, _exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SafetensorError("the prefetch loader is closed")

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except CancelledError:
            raise SafetensorError("the prefetch loader is closed") from None


def _count(threads: Any) -> int:
    try:
        return index(threads)
    except TypeError:
        raise UsageTypeError(f"prefetch takes a whole number of threads, got {threads!r}") from None


def _rows(file: safe_open, plan: dict[str, slice | None] | None) -> dict[str, slice | None]:
    """The plan with its slices in range, or an error that names the entry."""
    checkpoint = file._checkpoint()
    if plan is None:
        plan = dict.fromkeys(checkpoint.offset_names())
    elif not isinstance(plan, Mapping):
        raise UsageTypeError(f"a prefetch plan maps names to None or to slices, got {plan!r}")
    elif not plan:
        raise UsageError("the prefetch plan selects no tensors")
    rows: dict[str, slice | None] = {}
    for name, part in plan.items():
        if not isinstance(name, str):
            raise UsageTypeError(f"a prefetch plan names tensors by strings, got {name!r}")
        file._require(name)
        dtype, shape, _, _ = checkpoint.info(name)
        if _TORCH_NAMES[dtype] is None:
            raise UnsupportedError(f"tensor {name}: torch has no dtype for {dtype}")
        rows[name] = None if part is None else _row_slice(name, part, shape)
    return rows


def _row_slice(name: str, part: Any, shape: list[int]) -> slice:
    if not isinstance(part, slice):
        raise UsageTypeError(f"tensor {name}: a plan's value is None or a slice, got {part!r}")
    if not shape:
        raise UsageError(f"tensor {name}: a 0-d tensor cannot be sliced in a plan")
    size = shape[0]
    try:
        step = 1 if part.step is None else index(part.step)
        bounds = [d if bound is None else index(bound) for bound, d in ((part.start, 0), (part.stop, size))]
    except TypeError:
        raise UsageTypeError(f"tensor {name}: the bounds of {part} are not integers") from None
    if step == 0:
        raise UsageError(f"tensor {name}: invalid prefetch plan slice {part}")
    if step != 1:
        raise UsageError(f"tensor {name}: a plan's slice has step 1, got {part.step}")
    start, stop = (bound + size if bound < 0 else bound for bound in bounds)
    if not 0 <= start <= size or not 0 <= stop <= size:
        raise UsageError(f"tensor {name}: rows {part.start}:{part.stop} are out of range, it has {size}")
    return slice(start, max(start, stop))

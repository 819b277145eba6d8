"""Tensors of an open model, loading in the background.

The plan is cut into parts that are read one after the other, in the order of the files: a large tensor by
itself, small ones together. A part is begun when the budget has room for it. Nothing waits for room but the
caller who asks for a tensor, and that one is then loaded at once: no order of asking can lock up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from operator import index
from typing import TYPE_CHECKING, Any

from ._errors import LimitError, SafetensorError, UnsupportedError, UsageError, UsageTypeError
from ._plan import Plan, Running
from ._tensafe import DTYPES

if TYPE_CHECKING:
    from ._safe_open import safe_open

_TORCH_NAMES = {name: torch_name for name, _, _, torch_name in DTYPES}

# Bytes of small tensors that are one part.
_PART_BYTES = 4 << 20

# Parts that are read at once, at most: one is handed over while another is read.
_AT_ONCE = 4


class _Part:
    """Tensors that are read together."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.future: Future[dict[str, Any]] | None = None

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def _cost(size: int) -> int:
    """Bytes that reading ``size`` bytes takes: requests take a quarter of a plan's budget."""
    return size + size // 3 + (256 << 10)


class PrefetchLoader:
    """The tensors of a plan, loading in the background; returned by ``safe_open.prefetch``.

    Each tensor is handed out once, by :meth:`take` or by iterating, and owns its memory: it lives on
    after the loader and the file are closed. Iterating yields ``(name, tensor)`` as they become ready.

    With a budget, reading in the background goes as far as tensors that are loading, or loaded and not
    taken, fit it. :meth:`take` may ask in any order: a tensor that reading has not come to is loaded at once,
    out of order and beside the budget.
    """

    def __init__(
        self,
        file: safe_open,
        plan: Mapping[str, Any] | None,
        device: Any,
        threads: int,
        budget: int | str | None = None,
    ) -> None:
        self._checkpoint = file._checkpoint()
        if file._framework != "torch":
            raise UsageError('prefetch requires framework="pt"')
        threads = _count(threads)
        if threads < 1:
            raise UsageError(f"prefetch needs at least 1 thread, got {threads}")
        self._rows = _rows(file, plan)
        self._device = device
        self._staged = device not in ("cpu", "meta") and file._adapter._stage_of(device) is not None
        self._budget = Plan(self._checkpoint, budget, "file")._budget_bytes()
        self._lock = threading.RLock()
        self._closed = False
        self._held = 0
        self._parts = self._cut()
        self._waiting = deque(self._parts)
        self._left = {name: part for part in self._parts for name in part.sizes}
        self._names = list(self._left)
        most = min(threads, _AT_ONCE, max(len(self._parts), 1))
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="tensafe-prefetch")
        with self._lock:
            self._begin()

    def _cut(self) -> list[_Part]:
        parts: list[_Part] = []
        together = _PART_BYTES if self._budget is None else min(_PART_BYTES, self._budget // 8)
        for name, _, _, size in self._planned(list(self._rows), None)._reading_order():
            if self._budget is not None and _cost(size) > self._budget:
                raise LimitError(
                    f"tensor `{name}` needs {_cost(size)} bytes to be prefetched, the budget is"
                    f" {self._budget}; raise budget="
                )
            if not parts or parts[-1].bytes + size > together:
                parts.append(_Part())
            parts[-1].sizes[name] = size
        return parts

    def _planned(self, names: list[str], budget: int | None) -> Plan:
        plan = Plan(self._checkpoint, budget, "file")
        for name in names:
            plan.add(name, index=self._rows[name])
        return plan

    def _load(self, names: list[str], size: int | None) -> dict[str, Any]:
        budget = None if size is None or self._budget is None else _cost(size)
        if size is not None and budget is not None and self._staged:
            # Of the host's memory, which the budget of a plan is of, the slabs alone.
            budget -= size
        plan = self._planned(names, budget)
        with Running(plan, "torch", self._device, None, own=True) as running:
            return dict(running)

    def _read(self, part: _Part, names: list[str], size: int) -> dict[str, Any]:
        try:
            return self._load(names, size)
        finally:
            with self._lock:
                # Of what it cost, what it loaded is held until that is taken.
                self._held += size - _cost(size)

    def _begin(self) -> None:
        """Begins the parts that there is room for; with the lock."""
        while self._waiting and not self._closed:
            part = self._waiting[0]
            cost = _cost(part.bytes)
            if part.sizes:
                if self._budget is not None and self._held > 0 and self._held + cost > self._budget:
                    return
                try:
                    part.future = self._pool.submit(self._read, part, list(part.sizes), part.bytes)
                except RuntimeError:
                    # The program ends: who still asks for a tensor loads it by itself.
                    self._waiting.clear()
                    return
                self._held += cost
                # Parts that waited for it in vain are looked at again.
                part.future.add_done_callback(lambda _: self._begin_more())
            self._waiting.popleft()
        if not self._waiting:
            # The threads end when the queue is empty; nobody has to close the loader for that.
            self._pool.shutdown(wait=False)

    def _begin_more(self) -> None:
        with self._lock:
            self._begin()

    def names(self) -> list[str]:
        """The names of the plan, in the order of their bytes."""
        return list(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def take(self, name: str) -> Any:
        """Waits for the tensor called ``name`` and hands it out. Each can be taken once."""
        with self._lock:
            self._check_open()
            part = self._left.pop(name, None)
            future = None if part is None else self._claim(name, part)
        if part is None:
            known = name in self._names
            raise SafetensorError(
                f"tensor {name} " + ("was already delivered" if known else "is not in the prefetch plan")
            )
        return self._taken(name, part, future)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        while True:
            with self._lock:
                self._check_open()
                names = list(self._left)
                begun = {part.future for part in self._left.values() if part.future is not None}
            if not names:
                return
            done = wait(begun, return_when=FIRST_COMPLETED).done if begun else set()
            for name in names:
                with self._lock:
                    self._check_open()
                    part = self._left.get(name)
                    # Another thread may have taken it meanwhile.
                    if part is None or (done and part.future not in done):
                        continue
                    del self._left[name]
                    future = self._claim(name, part)
                yield name, self._taken(name, part, future)

    def close(self) -> None:
        """Stops the loading and drops every tensor that was not taken."""
        with self._lock:
            self._closed = True
            self._left.clear()
            self._waiting.clear()
            futures = [part.future for part in self._parts if part.future is not None]
            self._parts.clear()
        for future in futures:
            future.cancel()
        self._pool.shutdown(wait=False)

    def __enter__(self) -> PrefetchLoader:
        return self

    def __exit__(self, _exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SafetensorError("the prefetch loader is closed")

    def _claim(self, name: str, part: _Part) -> Future[dict[str, Any]] | None:
        """What will have read the tensor, ``None`` where it is to be loaded by itself; with the lock."""
        if part.future is None:
            # Reading has not come to it, and passes it over.
            del part.sizes[name]
        return part.future

    def _taken(self, name: str, part: _Part, future: Future[dict[str, Any]] | None) -> Any:
        """A tensor that is nobody else's to take: from its part, or by itself."""
        if future is None:
            return self._load([name], None)[name]
        try:
            tensor = future.result().pop(name)
        except CancelledError:
            raise SafetensorError("the prefetch loader is closed") from None
        except Exception:
            if len(part.sizes) == 1:
                raise
            # What is wrong with another tensor of the part is not told of this one.
            tensor = self._load([name], None)[name]
        finally:
            with self._lock:
                self._held -= part.sizes[name]
                self._begin()
        return tensor


def _count(threads: Any) -> int:
    try:
        return index(threads)
    except TypeError:
        raise UsageTypeError(f"prefetch takes a whole number of threads, got {threads!r}") from None


def _rows(file: safe_open, plan: Mapping[str, Any] | None, *, rows_only: bool = False) -> dict[str, Any]:
    """The plan with its slices in range, or an error that names the entry. ``rows_only`` allows what the
    reference does."""
    checkpoint = file._checkpoint()
    if plan is None:
        plan = dict.fromkeys(checkpoint.offset_names())
    elif not isinstance(plan, Mapping):
        raise UsageTypeError(f"a prefetch plan maps names to None or to slices, got {plan!r}")
    elif not plan:
        raise UsageError("the prefetch plan selects no tensors")
    rows: dict[str, Any] = {}
    for name, part in plan.items():
        if not isinstance(name, str):
            raise UsageTypeError(f"a prefetch plan names tensors by strings, got {name!r}")
        file._require(name)
        dtype, shape, _, _ = checkpoint.info(name)
        if _TORCH_NAMES[dtype] is None:
            raise UnsupportedError(f"tensor {name}: torch has no dtype for {dtype}")
        if isinstance(part, tuple) and not rows_only and any(not _is_place(item) for item in part):
            rows[name] = _region(file, name, part)
        else:
            rows[name] = None if part is None else _row_slice(name, part, shape)
    return rows


def _is_place(item: Any) -> bool:
    return hasattr(item, "__index__")


def _region(file: safe_open, name: str, part: tuple[Any, ...]) -> tuple[Any, ...]:
    for item in part:
        if isinstance(item, slice) and item.step not in (None, 1):
            raise UsageError(f"tensor {name}: a plan's slice has step 1, got {item.step}")
    # The core refuses what is out of range, or no index.
    file._checkpoint().region_shape(name, part)
    return part


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

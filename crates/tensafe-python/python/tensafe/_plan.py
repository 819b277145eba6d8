"""``Checkpoint.plan``: what to load, said before anything is read."""

from __future__ import annotations

import copy
import importlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _options
from ._errors import UsageError
from ._tensafe import Execution as _Execution
from ._tensafe import Plan as _Plan

if TYPE_CHECKING:
    from ._tensafe import Checkpoint

# Bytes of tensors of a device that have memory before they are asked for, where there is no budget.
_AHEAD = 1 << 30

_ADAPTERS = {
    **dict.fromkeys(("pt", "torch", "pytorch"), "torch"),
    **dict.fromkeys(("np", "numpy"), "numpy"),
}


@dataclass(frozen=True)
class ExplainedRange:
    """A range of a file that is read by one means for one reason; bytes, half-open."""

    file: str | None
    start: int
    end: int
    method: str
    """``"view"`` of a mapping, ``"copy"`` out of one, ``"buffered"`` or ``"direct"`` reads."""
    why: str
    needed: int
    read: int
    requests: int


@dataclass(frozen=True)
class Explanation:
    """What carrying a plan out costs. Its text, by ``str()``, is for people."""

    tensors: int
    bytes_needed: int
    bytes_read: int
    """Gaps between runs, and the rest of pages, included."""
    amplification: float
    """Bytes read over bytes needed."""
    requests: int
    workers: int
    """Requests under way at once, at most."""
    peak_memory: int
    """Bytes of memory of the host taken at a time, at most, beside the tensors that were handed out."""
    budget: int | None
    ranges: list[ExplainedRange] = field(repr=False)
    text: str = field(repr=False)
    device_copies: str | None = None
    """Who copies to the device: ``"staged"``, while the next bytes are read, or ``"by torch"``; ``None``
    on the CPU."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Progress:
    """How far a plan is."""

    bytes_done: int
    bytes_total: int
    tensors_done: int
    tensors_total: int


class Plan:
    """Which tensors of a model to load, which part of each, and into what memory.

    Nothing is read before :meth:`execute` or :meth:`load`. The methods that add return the plan, so
    that they can be chained. Equal plans, made by the same calls over the same files, are equal and
    hash alike in every process; :meth:`fingerprint` is what ranks compare.
    """

    def __init__(
        self, checkpoint: Checkpoint, budget: int | str | None, order: str, local_ranks: int = 1
    ) -> None:
        if order not in ("file", "plan"):
            raise UsageError(f'order "{order}" is invalid (expected one of: "file", "plan")')
        if local_ranks < 1:
            raise UsageError(f"local_ranks {local_ranks} is invalid (expected 1 or more)")
        in_order = order == "plan"
        self._plan = _Plan(checkpoint, budget=budget, in_order=in_order, local_ranks=local_ranks)
        self._checkpoint = checkpoint
        self._budget = budget
        self._in_order = in_order
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._out: dict[str, Any] = {}
        self._casts: dict[str, Any] = {}
        self._copied: set[str] = set()
        self._padded: dict[str, tuple[int, ...]] = {}

    def add(
        self,
        name: str,
        *,
        index: Any = None,
        shard: tuple[int, int, int] | None = None,
        intervals: list[tuple[int, int]] | None = None,
        dim: int = 0,
    ) -> Plan:
        """Adds a tensor, or a part of it.

        - ``index``: integers, slices of positive step and one ellipsis, as numpy has them, such as
          ``np.s_[:, 8:16]``. Bounds beyond the end are refused.
        - ``shard=(dim, rank, world)``: the part of one rank, ``ceil(size / world)`` positions of the
          dimension; the last ranks may get fewer, or none, as with ``torch.chunk``.
        - ``intervals=[(a, b), …]``: half-open ranges of positions of the dimension ``dim``, ascending,
          one behind the other: the parts of a fused or interleaved weight.

        Elements of less than a byte are cut on byte borders only; the error names the nearest cut.
        """
        if name in self._shapes:
            raise UsageError(f"tensor `{name}` is in the plan already")
        if sum(part is not None for part in (index, shard, intervals)) > 1:
            raise UsageError(f"tensor `{name}`: give one of index=, shard= and intervals=")
        parts = None if intervals is None else (dim, [(int(a), int(b)) for a, b in intervals])
        shape = self._plan.add(name, expression=index, shard=shard, intervals=parts)
        self._shapes[name] = tuple(shape)
        return self

    def filter(self, keep: Callable[[str], bool]) -> Plan:
        """Keeps the tensors for whose names ``keep`` says yes."""
        self._shapes = {name: shape for name, shape in self._shapes.items() if keep(name)}
        # A tensor that is added again is as new.
        self._out = {name: out for name, out in self._out.items() if name in self._shapes}
        self._casts = {name: dtype for name, dtype in self._casts.items() if name in self._shapes}
        self._copied = self._copied & self._shapes.keys()
        self._padded = {name: shape for name, shape in self._padded.items() if name in self._shapes}
        self._plan.keep(set(self._shapes))
        return self

    def into(self, name: str, out: Any) -> Plan:
        """Reads a tensor of the plan into ``out``, a tensor of torch or an array of numpy of its shape.

        Memory on the host with elements of the same dtype is read into directly, contiguous or strided;
        anything else, such as memory of a device or another dtype, is read beside it and copied, and so
        are intervals to strided memory.
        ``out`` must not be used by anything else until the plan was carried out.
        """
        if name not in self._shapes:
            raise UsageError(f"tensor `{name}` is not in the plan")
        if name in self._out:
            raise UsageError(f"tensor `{name}` is read into memory of the caller already")
        if name in self._padded:
            raise UsageError(f"tensor `{name}` is padded, it is not read into memory of the caller")
        if tuple(out.shape) != self._shapes[name]:
            raise UsageError(
                f"tensor `{name}`: shape {list(out.shape)} to read into, needed {list(self._shapes[name])}"
            )
        adapter = _adapter_of(out)
        lendable = adapter._lendable(out, self._dtype(name))
        if lendable is None or not self._lend(name, lendable):
            self._copied.add(name)
        self._out[name] = out
        return self

    def _as_it_is(self) -> Plan:
        """What is done to the tensors, apart from later changes; what is read is the same object's."""
        plan = copy.copy(self)
        plan._shapes, plan._out, plan._casts = dict(self._shapes), dict(self._out), dict(self._casts)
        plan._copied, plan._padded = set(self._copied), dict(self._padded)
        return plan

    def _lend(self, name: str, memory: Any) -> bool:
        """Whether ``memory`` can be read into directly; an error where it cannot hold the tensor."""
        try:
            self._plan.lend(name, memory)
        except UsageError as error:
            # Intervals are read into dense memory alone, and copied to what would do for a slice.
            sliced = _Plan(self._checkpoint)
            try:
                sliced.add(name, expression=tuple(slice(size) for size in self._shapes[name]))
                sliced.lend(name, memory)
            except UsageError:
                raise error from None
            return False
        return True

    def cast(self, dtype: Any, names: Callable[[str], bool] | None = None) -> Plan:
        """Converts the tensors of floating-point dtypes to ``dtype``, a dtype of the framework, as each
        is handed out: all that are in the plan by now, or those for which ``names`` says yes."""
        for name in self._shapes:
            if names is None or names(name):
                self._casts[name] = dtype
        return self

    def pad(self, name: str, shape: Sequence[int]) -> Plan:
        """Hands ``name`` out in ``shape``, no dimension of which is smaller than that of the part that is read:
        zeros behind it. Costs a copy of the tensor."""
        if name not in self._shapes:
            raise UsageError(f"tensor `{name}` is not in the plan")
        if name in self._out:
            raise UsageError(f"tensor `{name}` is read into memory of the caller, which is not padded")
        found, needed = self._shapes[name], tuple(shape)
        if len(found) != len(needed) or any(a > b for a, b in zip(found, needed, strict=True)):
            raise UsageError(f"tensor `{name}`: shape {list(found)} cannot be padded to {list(needed)}")
        self._padded[name] = needed
        return self

    def _dtype(self, name: str) -> str:
        return self._checkpoint.info(name)[0]

    @property
    def names(self) -> list[str]:
        """The names, in the order in which they were added."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the part of ``name`` that will be loaded, row-major, in elements; as it is padded."""
        return self._padded.get(name, self._shapes[name])

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(size for *_, size in self._plan.rows())

    def fingerprint(self) -> int:
        """A number that equal plans have in common, in every process of the same build."""
        return self._plan.fingerprint()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.fingerprint() == other.fingerprint() and self._plan.rows() == other._plan.rows()

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __len__(self) -> int:
        return len(self._shapes)

    def __repr__(self) -> str:
        return f"<tensafe.Plan: {len(self)} tensors, {self.nbytes} bytes>"

    def explain(self, device: Any = "cpu") -> Explanation:
        """Which bytes would be read now, by what means, and why; and who would copy them to ``device``.
        Reads nothing."""
        device = _options.device(device)
        stage, copies = None, None
        if device not in ("cpu", "meta"):
            stage = importlib.import_module("tensafe.torch")._stage_of(device)
            copies = "by torch" if stage is None else "staged"
        return self._explanation(stage is not None, copies)

    def _explanation(self, staged: bool, copies: str | None) -> Explanation:
        row = self._plan.explain(staged=staged)
        ranges = [ExplainedRange(*range_) for range_ in row.pop("ranges")]
        if copies is not None:
            row["text"] += f"\ndevice copies: {copies}"
        return Explanation(ranges=ranges, device_copies=copies, **row)

    def _reading_order(self) -> list[tuple[str, str, list[int], int]]:
        rows = self._plan.rows()
        if not self._in_order:
            place = {name: at for at, name in enumerate(self._checkpoint.offset_names())}
            rows.sort(key=lambda row: place[row[0]])
        return rows

    def _budget_bytes(self) -> int | None:
        if self._budget is None or isinstance(self._budget, int):
            return self._budget
        bytes_: int = _Plan(self._checkpoint, budget=self._budget).explain()["budget"]
        return bytes_

    def execute(
        self,
        framework: str = "torch",
        device: Any = "cpu",
        *,
        progress: Callable[[Progress], None] | None = None,
    ) -> Running:
        """Carries the plan out: an iterator over ``(name, tensor)`` in the order of reading.

        Tensors own their memory and live on by themselves. Reading goes on ahead of the caller, in threads
        of its own, as far as the budget lets it. ``progress`` is called before each tensor is handed
        out. The first error ends it; a ``KeyboardInterrupt`` or the end of a ``with`` does too.

        ``device`` is for torch. To devices of CUDA and of ROCm the bytes are copied from pinned memory
        while the next are read, straight into the tensors: the budget then bounds what is taken of the
        host's memory, and as many bytes again of tensors that have memory of the device and were not handed
        out, one at least (without a budget 1 GiB). No GPU has run this yet. To every other device, or where the runtime is not found,
        torch copies each tensor when it is handed out. ``"meta"`` reads nothing.
        """
        return Running(self, framework, _options.device(device), progress)

    def load(self, framework: str = "torch", device: Any = "cpu") -> dict[str, Any]:
        """All tensors of the plan by name, in the order of reading."""
        running = self.execute(framework, device)
        with running:
            if running._plain:
                tensors: dict[str, Any] = running._adapter._run_all(running._running)
                if not self._out:
                    return tensors
                tensors |= self._out
                return {name: tensors[name] for name, *_ in running._running.order()}
            return dict(running)


class Running:
    """A plan that is being carried out: iterate over it, once."""

    def __init__(
        self,
        plan: Plan,
        framework: str,
        device: Any,
        progress: Callable[[Progress], None] | None,
        *,
        stage: int | None = None,
        own: bool = False,
    ) -> None:
        module = _ADAPTERS.get(framework)
        if module is None:
            raise UsageError(f'framework "{framework}" is invalid (expected one of: "torch", "numpy")')
        if module == "numpy" and device != "cpu":
            raise UsageError(f"device {device}: arrays of numpy are on the CPU")
        # The plan may be changed meanwhile.
        self._plan = plan = plan._as_it_is()
        self._adapter = importlib.import_module(f"tensafe.{module}")
        for name, dtype in plan._casts.items():
            if not self._adapter._is_dtype(dtype):
                raise UsageError(f"tensor `{name}`: {dtype!r} to cast to is no dtype of {module}")
        for name, out in plan._out.items():
            converted = name in plan._copied or name in plan._casts
            if converted and _adapter_of(out) is not self._adapter:
                kind = type(out).__name__
                raise UsageError(f"tensor `{name}` is read into a {kind}, to which {module} does not convert")
        self._device = device
        self._report = progress
        self._done = 0
        self._own = own
        self._meta = deque(plan._reading_order()) if device == "meta" else None
        if stage is None and device not in ("cpu", "meta"):
            stage = self._adapter._stage_of(device)
        # What has no data is not read.
        source = plan._plan if self._meta is None else _Plan(plan._checkpoint)
        self._running: _Execution = source.execute(device=stage)
        self._feed = None if stage is None else _Feed(self._running, plan, self._adapter, device)
        # Nothing is done to a tensor but to make it.
        plain = device == "cpu" and progress is None and not (plan._casts or plan._copied or plan._padded)
        self._plain = plain and stage is None and not own

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self

    def __next__(self) -> tuple[str, Any]:
        name, tensor = self._next()
        plan = self._plan
        if name in plan._padded:
            tensor = self._adapter._padded(tensor, plan._padded[name])
        if name in plan._casts:
            tensor = self._adapter._cast(tensor, plan._casts[name])
        if name in plan._copied and tensor is not plan._out[name]:
            self._adapter._copy(plan._out[name], tensor)
            tensor = plan._out[name]
        self._done += 1
        if self._report is not None:
            self._report(self.progress())
        return name, tensor

    def _next(self) -> tuple[str, Any]:
        if self._meta is not None:
            if not self._meta:
                raise StopIteration
            name, code, shape, _ = self._meta.popleft()
            return name, self._adapter._meta(code, shape, name)
        if self._feed is not None:
            self._feed.fill()
        row = self._running.next()
        if row is None:
            raise StopIteration
        name, code, shape, memory = row
        if self._feed is not None and memory is None:
            return name, self._feed.taken(name)
        if memory is None:
            return name, self._plan._out[name]
        tensor = self._adapter._of_memory(memory, code, shape, name)
        if self._device != "cpu":
            tensor = tensor.to(self._device)
        elif self._own and memory.mapped:
            tensor = tensor.clone() if hasattr(tensor, "clone") else tensor.copy()
        return name, tensor

    def progress(self) -> Progress:
        """How far it is; from any thread."""
        done, total = self._running.progress()
        return Progress(done, total, self._done, len(self._plan))

    def cancel(self) -> None:
        """Ends it, from any thread: who waits for the next tensor gets a ``CancelledError``."""
        self._running.cancel()

    def close(self) -> None:
        """Ends it and waits for the requests under way."""
        self._running.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, _exc_type: Any, _exc_value: Any, _traceback: Any) -> None:
        self.close()


class _Feed:
    """Memory of a device for the tensors of an execution: made when their turn comes, some bytes ahead of
    the caller."""

    def __init__(self, running: _Execution, plan: Plan, adapter: Any, device: Any) -> None:
        self._running = running
        self._plan = plan
        self._adapter = adapter
        self._device = device
        self._ahead = plan._budget_bytes() or _AHEAD
        self._rows = running.order()
        adapter._check(code for _, code, _, _ in self._rows)
        self._next = 0
        self._made: dict[str, tuple[Any, int]] = {}
        self._bytes = 0

    def fill(self) -> None:
        """Makes memory for what the next tensor is read together with, and for more as far as it goes."""
        lacking = self._running.lacks()
        fresh = []
        while self._next < len(self._rows):
            name, code, shape, size = self._rows[self._next]
            if lacking == 0 and self._bytes + size > self._ahead:
                break
            place, self._next = self._next, self._next + 1
            out = self._plan._out.get(name)
            if out is not None and name not in self._plan._copied:
                # The caller's memory on the host.
                continue
            if out is None or not self._adapter._takes(out, code, self._device):
                out = self._adapter._allocate(code, shape, name, self._device)
            self._made[name] = (out, size)
            self._bytes += size
            if size > 0:
                fresh.append((place, out))
                lacking = max(lacking - 1, 0)
        if fresh:
            # Memory that is used again may still be in use by what runs on the device.
            self._adapter._settle(fresh[0][1])
        for place, tensor in fresh:
            self._running.give(place, self._adapter._flat(tensor))

    def taken(self, name: str) -> Any:
        """The tensor called ``name``, which was read."""
        if name not in self._made:
            return self._plan._out[name]
        tensor, size = self._made.pop(name)
        self._bytes -= size
        return tensor


def _adapter_of(out: Any) -> Any:
    kind = type(out).__module__.partition(".")[0]
    module = "numpy" if kind in ("numpy", "ml_dtypes") else "torch"
    return importlib.import_module(f"tensafe.{module}")

"""Tensors of torch that are read when something needs their elements, and then as far as they are needed.

A :class:`LazyTensor` is made of a tensor of a model. Views of it, such as ``narrow``, slices,
``chunk`` and ``t``, are lazy too and read nothing. Copying one into memory reads its part straight
to that place. Whatever else is done to it is done to a tensor that was read: of its part, or of the
whole where the part is no box of the tensor's positions. Nothing has to be understood to be right.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_flatten, tree_map

from .._checkpoint import _BITS, Checkpoint
from .._errors import UnsupportedError
from .._plan import Plan, Running
from ..torch import _TYPES

# What is answered from the geometry alone, and what torch takes apart into views and copies, which
# arrive at `__torch_dispatch__`. Anything else may look at memory.
_PROPERTIES = (
    *("shape", "dtype", "device", "layout", "ndim", "nbytes", "itemsize", "is_cuda", "is_cpu", "is_meta"),
    *("is_sparse", "is_quantized", "is_nested", "requires_grad", "grad", "data", "is_leaf"),
)
_METHODS = (
    *("size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "storage_offset"),
    *("is_contiguous", "is_floating_point", "is_complex", "get_device", "__len__", "__hash__"),
    *("narrow", "select", "chunk", "split", "unbind", "__getitem__", "detach", "t", "transpose", "permute"),
    *("unsqueeze", "squeeze", "view", "reshape", "flatten", "contiguous", "to", "copy_"),
)
_FUNCTIONS = (
    "narrow",
    "select",
    "chunk",
    "split",
    "unbind",
    "t",
    "transpose",
    "permute",
    "unsqueeze",
    "squeeze",
)
_PASSES = (
    {getattr(torch.Tensor, name).__get__ for name in _PROPERTIES}
    | {getattr(torch.Tensor, name) for name in _METHODS}
    | {getattr(torch, name) for name in _FUNCTIONS}
)
_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]

Box = tuple[tuple[int, int], ...]
"""A half-open range of positions for each dimension."""


class Ahead:
    """Reads tensors of a model for those who take them one after the other, some before they are asked for.

    Which part of a tensor will be wanted is guessed from the last one whose name differs in numbers
    alone and whose shape is the same: the layers of a model are alike. A wrong guess costs a read and
    is not made again.
    """

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str], budget: int | str | None) -> None:
        self._checkpoint = checkpoint
        self._names = list(names)
        self._budget = budget
        self._place = {name: place for place, name in enumerate(self._names)}
        self._kinds = [self._kind(name) for name in self._names]
        self._learned: dict[Any, Box] = {}
        self._mistaken: set[Any] = set()
        self._running: Running | None = None
        # What is under way, by name, in order; and how far the caller has come.
        self._guessed: OrderedDict[str, Box] = OrderedDict()
        self._at = 0

    def _kind(self, name: str) -> Any:
        tensor = self._checkpoint[name]
        return re.sub(r"\d+", "#", name), tensor.dtype, tensor.shape

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors by name, in order, lazy. What is read ahead ends with the iterator."""
        try:
            for place, name in enumerate(self._names):
                self._pass(place)
                tensor = self._checkpoint[name]
                yield name, LazyTensor.of(self, name, tensor.dtype, tensor.shape)
        finally:
            self._stop()

    def _pass(self, place: int) -> None:
        """The caller is at ``place``: what it left behind was guessed for nothing."""
        self._at = place
        first = next(iter(self._guessed), None)
        if first is not None and self._place[first] < place:
            self._mistake(first)
        if not self._guessed and self._kinds[place] in self._learned:
            self._start()

    def _start(self) -> None:
        self._stop()
        plan = self._checkpoint.plan(budget=self._budget, order="plan")
        for name, kind in zip(self._names[self._at :], self._kinds[self._at :], strict=True):
            box = self._learned.get(kind)
            if box is None:
                if kind in self._mistaken:
                    continue
                break
            plan.add(name, index=_index(box))
            self._guessed[name] = box
        # One alone is read as well when it is asked for, straight to its place.
        if len(self._guessed) < 2:
            self._guessed = OrderedDict()
            return
        self._running = plan.execute("torch")

    def _stop(self) -> None:
        self._guessed = OrderedDict()
        if self._running is not None:
            self._running.close()
            self._running = None

    def _mistake(self, name: str) -> None:
        kind = self._kinds[self._place[name]]
        self._learned.pop(kind, None)
        self._mistaken.add(kind)
        self._stop()

    def take(self, name: str, box: Box) -> torch.Tensor | None:
        """The part ``box`` of a tensor where it was read ahead; and remembers what was wanted."""
        kind = self._kinds[self._place[name]]
        if name not in self._guessed:
            if self._place[name] == self._at and kind not in self._mistaken:
                self._learned[kind] = box
            return None
        if self._guessed[name] != box:
            self._mistake(name)
            return None
        assert self._running is not None
        while True:
            other, tensor = next(self._running)
            del self._guessed[other]
            if other == name:
                found: torch.Tensor = tensor
                return found

    def read(self, name: str, box: Box) -> torch.Tensor:
        """The part ``box`` of a tensor, in memory of its own."""
        tensor = self.take(name, box)
        if tensor is None:
            tensor = self._plan(name, box).load()[name]
        return tensor

    def read_into(self, name: str, box: Box, out: torch.Tensor) -> None:
        """Reads the part ``box`` of a tensor to ``out``, of its shape, on the CPU."""
        tensor = self.take(name, box)
        if tensor is None:
            self._plan(name, box).into(name, out).load()
        else:
            out.copy_(tensor)

    def _plan(self, name: str, box: Box) -> Plan:
        return self._checkpoint.plan().add(name, index=_index(box))


class _Stored(NamedTuple):
    """The tensor that views are views of."""

    ahead: Ahead
    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    whole: list[torch.Tensor]
    """Its elements, once they were read as a whole."""


class LazyTensor(torch.Tensor):
    """A tensor, or a view of one, that is read when it is needed. See the module."""

    _stored: _Stored
    _read: torch.Tensor | None

    @classmethod
    def of(cls, ahead: Ahead, name: str, code: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor ``name``, unread; or read, where torch counts its elements otherwise."""
        dtype = _TYPES.get(code)
        whole = tuple((0, size) for size in shape)
        if dtype is None or dtype.is_complex or dtype.itemsize * 8 != _BITS[code] or not math.prod(shape):
            return ahead.read(name, whole)
        strides = tuple(torch.empty(shape, device="meta").stride())
        return cls._make(_Stored(ahead, name, tuple(shape), strides, []), shape, strides, 0, dtype)

    @classmethod
    def _make(cls, stored: _Stored, size: Any, stride: Any, offset: int, dtype: torch.dtype) -> LazyTensor:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls, size, strides=stride, storage_offset=offset, dtype=dtype, device=torch.device("cpu")
        )
        lazy: LazyTensor = made
        lazy._stored = stored
        lazy._read = None
        return lazy

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _PASSES and not _changes(func):
            args, kwargs = _elements((args, kwargs))
        if func == _SET_DATA:
            raise UnsupportedError("`data` of a tensor that was not read cannot be set")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.copy_.default and not isinstance(args[0], LazyTensor):
            return args[1]._copy_to(func, *args, **kwargs)
        if _is_view(func) and isinstance(args[0], LazyTensor):
            view = args[0]._view(func, args, kwargs)
            if view is not None:
                return view
        written = [
            value
            for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        if any(isinstance(value, LazyTensor) for value in written):
            if torch.Tag.inplace_view in func.tags:
                raise UnsupportedError(
                    f"tensor `{args[0]._stored.name}`: {func} of a tensor that was not read"
                )
            # What shares its memory has to see the change.
            _elements(written, whole=True)
        args, kwargs = _elements((args, kwargs))
        return func(*args, **kwargs)

    def _geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        with torch._C.DisableTorchFunctionSubclass():
            return tuple(self.size()), tuple(self.stride()), int(self.storage_offset())

    def _view(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What a view makes of this one, read or not; ``None`` where it is not of the same elements."""
        if self._read is not None or self._stored.whole:
            return None
        size, stride, offset = self._geometry()
        dtype = self.dtype
        base = torch.empty(self._stored.shape, dtype=dtype, device="meta").as_strided(size, stride, offset)
        made = func(base, *args[1:], **kwargs)
        if any(not isinstance(view, torch.Tensor) or view.dtype != dtype for view in tree_flatten(made)[0]):
            return None
        return tree_map(
            lambda view: self._make(self._stored, view.size(), view.stride(), view.storage_offset(), dtype),
            made,
        )

    def _box(self) -> tuple[Box, tuple[int, ...], list[int | None]] | None:
        """The box of positions that the view has elements of, the strides of the view in it, and the
        dimension of the tensor that each dimension of the view runs along; ``None`` where it crosses
        the box's borders."""
        size, stride, offset = self._geometry()
        shape, strides = self._stored.shape, self._stored.strides
        starts = []
        for step in strides:
            starts.append(offset // step)
            offset %= step
        ends = [start + 1 for start in starts]
        along: list[tuple[int, int] | None] = []
        for count, step in zip(size, stride, strict=True):
            if count == 1 or step == 0:
                along.append(None)
                continue
            # The outermost dimension whose rows the step is a multiple of: of those of one position
            # the strides are alike.
            fits = [d for d, s in enumerate(strides) if step % s == 0 and shape[d] > 1]
            if not fits or step // strides[fits[0]] * (count - 1) + ends[fits[0]] > shape[fits[0]]:
                return None
            ends[fits[0]] += step // strides[fits[0]] * (count - 1)
            along.append((fits[0], step // strides[fits[0]]))
        box = tuple(zip(starts, ends, strict=True))
        inner = torch.empty([end - start for start, end in box], device="meta").stride()
        steps = tuple(
            step if place is None else inner[place[0]] * place[1]
            for step, place in zip(stride, along, strict=True)
        )
        plain = [None if place is None or place[1] != 1 else place[0] for place in along]
        return box, steps, plain

    def _elements(self, *, whole: bool = False) -> torch.Tensor:
        """This tensor, read. ``whole``: as a view of the whole tensor, which may then be changed."""
        stored = self._stored
        if self._read is not None:
            return self._read
        size, stride, offset = self._geometry()
        found = None if whole or stored.whole or 0 in size else self._box()
        if 0 in size:
            self._read = torch.empty_strided(size, stride, dtype=self.dtype)
        elif found is not None:
            box, steps, _ = found
            self._read = stored.ahead.read(stored.name, box).as_strided(size, steps, 0)
        else:
            if not stored.whole:
                box = tuple((0, end) for end in stored.shape)
                stored.whole.append(stored.ahead.read(stored.name, box))
            self._read = stored.whole[0].as_strided(size, stride, offset)
        return self._read

    def _copy_to(self, func: Any, out: torch.Tensor, _source: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        size, _, _ = self._geometry()
        if out.is_meta and tuple(out.shape) == size:
            return out
        target = self._target(out, size) if self._read is None and not self._stored.whole else None
        if target is None:
            copied: torch.Tensor = func(out, self._elements(), *args, **kwargs)
            return copied
        self._stored.ahead.read_into(self._stored.name, *target)
        return out

    def _target(self, out: torch.Tensor, size: tuple[int, ...]) -> tuple[Box, torch.Tensor] | None:
        """``out`` in the shape of the box, where that can be read to it."""
        if out.device.type != "cpu" or out.layout != torch.strided or is_traceable_wrapper_subclass(out):
            return None
        found = self._box() if tuple(out.shape) == size and 0 not in size else None
        if found is None:
            return None
        box, _, along = found
        wanted = [place for place, (start, end) in enumerate(box) if end - start > 1]
        if [place for place in along if place is not None] != wanted:
            return None
        flat = out.detach()
        for dimension in reversed([at for at, place in enumerate(along) if place is None]):
            if size[dimension] != 1:
                return None
            flat = flat.squeeze(dimension)
        for place, (start, end) in enumerate(box):
            if end - start == 1:
                flat = flat.unsqueeze(place)
        return box, flat


def _changes(func: Any) -> bool:
    """Whether it is one of torch's functions that change a tensor: they arrive at `__torch_dispatch__`."""
    name = func.__name__
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or name == "__setitem__"


def _elements(values: Any, *, whole: bool = False) -> Any:
    return tree_map(
        lambda value: value._elements(whole=whole) if isinstance(value, LazyTensor) else value, values
    )


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _index(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)

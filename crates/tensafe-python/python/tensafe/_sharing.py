"""Which tensors of torch share memory: the format cannot say so, and a save keeps one name of each."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

SHARED_DOC = "https://huggingface.co/docs/safetensors/torch_shared_tensors"


def storage_ptr(tensor: torch.Tensor) -> int:
    """The address of the memory that ``tensor`` is a part of; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        # Tensors without storage, such as fake ones.
        return 0


def storage_size(tensor: torch.Tensor) -> int:
    """Bytes of the memory that ``tensor`` is a part of."""
    try:
        return tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return tensor.nelement() * _size_of(tensor)


def _size_of(tensor: torch.Tensor) -> int:
    return tensor.element_size()


def _end_ptr(tensor: torch.Tensor) -> int:
    """The address after the last byte of the last element."""
    if tensor.nelement() == 0:
        return tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * _size_of(tensor)


def _is_complete(tensor: torch.Tensor) -> bool:
    """Whether a tensor is all of its storage, from the first byte to the last."""
    whole = tensor.nelement() * _size_of(tensor) == storage_size(tensor)
    return whole and tensor.data_ptr() == storage_ptr(tensor)


def _find_shared_tensors(state_dict: dict[str, torch.Tensor]) -> list[set[str]]:
    """The names in groups: those of a group share bytes, by one storage or by overlap within it."""
    by_storage: dict[Any, set[str]] = defaultdict(set)
    for name, tensor in state_dict.items():
        if tensor.device.type == "meta":
            continue
        address, size = storage_ptr(tensor), storage_size(tensor)
        if address and size:
            by_storage[tensor.device, address, size].add(name)
    return _filter_shared_not_shared(list(by_storage.values()), state_dict)


def _filter_shared_not_shared(tensors: list[set[str]], state_dict: dict[str, torch.Tensor]) -> list[set[str]]:
    """Splits the groups of one storage into those whose bytes really overlap."""
    groups = []
    for names in tensors:
        if len(names) == 1:
            groups.append(names)
            continue
        areas = sorted((state_dict[n].data_ptr(), _end_ptr(state_dict[n]), n) for n in names)
        reached = -1
        for start, stop, name in areas:
            if start >= reached:
                groups.append({name})
            else:
                groups[-1].add(name)
            reached = max(reached, stop)
    return groups


def _remove_duplicate_names(
    state_dict: dict[str, torch.Tensor],
    *,
    preferred_names: list[str] | None = None,
    discard_names: list[str] | None = None,
) -> dict[str, list[str]]:
    """For each group that shares memory: the name to keep, and those to leave out.

    Kept is a name whose tensor is the whole storage: one of ``preferred_names`` if there is, else one
    that is not in ``discard_names``, else any; the first in order.
    """
    preferred, discarded = set(preferred_names or ()), set(discard_names or ())
    removed = {}
    for names in _find_shared_tensors(state_dict):
        complete = {name for name in names if _is_complete(state_dict[name])}
        if not complete:
            raise RuntimeError(
                f"tensors {sorted(names)} are parts of one storage and none of them is all of it: saving"
                " one would lose the others' bytes, saving each would store more than was asked for."
                f" Clone them first, or see {SHARED_DOC}"
            )
        keep = min(complete & preferred or complete - discarded or complete)
        dropped = sorted(names - {keep})
        if dropped:
            removed[keep] = dropped
    return removed

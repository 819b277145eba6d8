"""DeepSpeed's checkpoints without pickle: a ``CheckpointEngine`` that writes safetensors.

:func:`install` gives it to an engine of DeepSpeed. Every file that DeepSpeed saves then is one safetensors
file under the name that DeepSpeed chose (``*_model_states.pt``, ``*_optim_states.pt``): its patterns find
them. Tensors have the names of the keys that lead to them, joined by dots; what is around them is strict
JSON in the metadata, under ``tensafe.structure``.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
from deepspeed import comm
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine

from .. import torch as _torch
from .._errors import FormatError, LimitError
from .._safe_open import safe_open
from .._save import write_file
from ._structure import decode, encode

__all__ = ["STRUCTURE", "TensafeCheckpointEngine", "install"]

# The key of the metadata that says what a state is beside its tensors.
STRUCTURE = "tensafe.structure"

_Engine = TypeVar("_Engine")


class TensafeCheckpointEngine(CheckpointEngine):  # type: ignore[misc]
    """Saves and loads a state as one safetensors file; nothing is pickled.

    A state holds tensors, and values of a closed table: ``None``, truth values, numbers, text, bytes,
    lists, tuples, sets, dicts with any such keys, ``torch.Size``, dtypes, devices, arrays and numbers of
    numpy, ``argparse.Namespace``, and the classes that DeepSpeed saves by itself. Anything else raises
    :class:`~tensafe.UsageError` with its path, before anything is written.
    """

    def __init__(self, config_params: Any = None, *, durable: bool = True) -> None:
        super().__init__(config_params)
        self.name = "TensafeCheckpointEngine"
        self._durable = durable

    def create(self, info: CheckpointCommitInfo) -> None:
        """Called before the files of a checkpoint are saved; nothing has to be done."""

    def save(self, state_dict: Any, path: str | os.PathLike[str]) -> None:
        """Writes a state: when it returns, the file is there as a whole, and on the disk if durable. Before,
        and where it fails, what was there stays.

        Cost: a copy of those tensors that are not contiguous; tensors of a device are fetched in parts.
        """
        text, tensors = encode(state_dict)
        # One by one: what shares memory in part is written apart.
        entries = [entry for name, tensor in tensors.items() for entry in _torch._entries({name: tensor})]
        write_file(path, entries, {"format": "pt", STRUCTURE: text}, durable=self._durable)

    def load(self, path: str | os.PathLike[str], map_location: Any = None) -> Any:
        """The state of a file, equal to what was saved: also tuples, the types of keys, the order of dicts,
        and which tensors are one. Tensors are in memory of the process.

        ``map_location`` is a device or its name; anything else, such as a function or ``None``, means
        ``cpu``. Raises :class:`~tensafe.FormatError` where the file is none that :meth:`save` wrote.
        """
        device = map_location if isinstance(map_location, (str, torch.device)) else "cpu"
        try:
            with safe_open(path, "pt", device, owned=True) as file:
                text = (file.metadata() or {}).get(STRUCTURE)
                tensors = file.get_tensors() if text is not None else {}
        except (FormatError, LimitError) as error:
            raise FormatError(f"{error}; a file of torch.save is read by DeepSpeed's own engine") from error
        if text is None:
            raise FormatError(
                f"{os.fspath(path)}: found no `{STRUCTURE}` in the metadata, needed a saved state"
            )
        return decode(text, tensors, os.fspath(path))

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Waits until the files of all ranks are there: only then does DeepSpeed write ``latest``."""
        if comm.is_initialized():
            comm.barrier()
        return True

    def preserves_storage_sharing(self) -> bool:
        """No: a view is saved alone, so that DeepSpeed need not copy it before."""
        return False


def install(engine: _Engine, *, durable: bool = True) -> _Engine:
    """Makes an engine of ``deepspeed.initialize`` save and load by :class:`TensafeCheckpointEngine`; returns it.

    To be called on every rank, before the first checkpoint is saved or loaded.
    """
    vars(engine)["checkpoint_engine"] = TensafeCheckpointEngine(durable=durable)
    return engine

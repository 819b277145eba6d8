"""Making ``import safetensors`` mean tensafe.

Three ways, from the narrowest to the widest::

    import tensafe.torch as safetensors_torch        # one import

    import tensafe
    tensafe.install_as_safetensors()                 # this process, from here on

    python -m tensafe.compat script.py --its args    # a program that is not yours
    python -m tensafe.compat -m module --its args

Packages that find ``pytorch_model.bin`` give it to ``torch.load``. ``pickles="convert"``, or
``--pickles=convert`` before the script, loads it without executing it, ``"refuse"`` refuses it.

Modules that were imported earlier and hold names of the published package keep them; its exceptions
are still caught, as ours are of its class. The published package may stay installed, and should: its
users look for its distribution.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import tensafe
from tensafe import _options, _pickles, _prefetch, _safe_open

# The version of the published package whose names, signatures and semantics these are.
REFERENCE_VERSION = "0.9.0rc1"

_SUBMODULES = ("torch", "numpy", "flax", "jax", "tensorflow", "paddle", "mlx")


class safe_open(tensafe.safe_open):
    __doc__ = tensafe.safe_open.__doc__

    def prefetch(
        self,
        plan: Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        threads: int = 8,
        budget: int | str | None = None,
    ) -> _prefetch.PrefetchLoader:
        # Callers of the published package take this refusal for "load it the usual way".
        if self._framework == "torch":
            _prefetch._rows(self, plan, rows_only=True)
            target = self._device if device is None else _options.device(device)
            kind = str(target).partition(":")[0]
            if not isinstance(target, int) and kind != "cuda":
                raise tensafe.SafetensorError(f"prefetch loads to cuda devices, not {target}")
        return super().prefetch(plan, device=device, threads=threads, budget=budget)


def _surface() -> ModuleType:
    """The module ``safetensors`` with what the published one exports."""
    module = ModuleType("safetensors", "tensafe in the place of safetensors.")
    module.__path__ = []
    module.__version__ = REFERENCE_VERSION  # type: ignore[attr-defined]
    module.safe_open = safe_open  # type: ignore[attr-defined]
    module._safe_open_handle = _safe_open._safe_open_handle  # type: ignore[attr-defined]
    for name in (
        "PrefetchLoader",
        "PySafeSlice",
        "SafetensorError",
        "TensorMeta",
        "TensorSpec",
        "deserialize",
        "serialize",
        "serialize_file",
    ):
        setattr(module, name, getattr(tensafe, name))
    return module


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``safetensors`` and its modules in tensafe."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        head, _, tail = name.partition(".")
        if head != "safetensors" or (tail and tail not in (*_SUBMODULES, "_safetensors_rust")):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=not tail)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        _, _, tail = spec.name.partition(".")
        if tail in ("flax", "jax", "mlx", "paddle", "tensorflow"):
            # Their counterparts import it: callers find it in the package.
            importlib.import_module("safetensors.numpy")
        if tail in _SUBMODULES:
            return importlib.import_module(f"tensafe.{tail}")
        return sys.modules["safetensors"] if tail else _surface()

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written its own spec over the module's: a module that has two
        # names keeps its first.
        if module.__name__.startswith("tensafe."):
            module.__spec__ = importlib.machinery.PathFinder.find_spec(module.__name__, tensafe.__path__)
        else:
            module.__spec__ = self.find_spec("safetensors", None)


_FINDER = _Finder()


def install_as_safetensors(*, pickles: str = "leave") -> None:
    """From here on, ``import safetensors`` and its modules give tensafe, in this process.

    Warns where modules of the published package were imported already: who holds names of it keeps
    them. Calling it twice does nothing.

    ``pickles`` says what ``torch.load`` does from here on; anything but ``"leave"`` imports torch.

    - ``"leave"``: what it does now.
    - ``"convert"``: it loads files of ``torch.save`` by :func:`tensafe.torch.load_pickle`, and executes
      nothing, whatever ``weights_only`` says. Containers and plain values are made as they were saved,
      tensors with their values, dense and row-major, on the device of ``map_location``. Names of one
      tensor share memory; tensors that share a part of their storage do not. ``mmap`` is ignored: the file is
      read into memory. What is neither tensor, array nor plain value is refused with its name and offset,
      never left out.
    - ``"refuse"``: it raises ``UnsupportedError``; safetensors files are loaded.

    Modules that hold ``torch.load`` by name keep it, and so do processes that are spawned. ``pickle.load``
    and ``torch.jit.load`` are left alone.
    """
    _pickles.apply(pickles)
    if _FINDER in sys.meta_path:
        return
    loaded = [name for name in sys.modules if name.partition(".")[0] == "safetensors"]
    ours_only = {"safetensors", "safetensors._safetensors_rust"}
    if set(loaded) - ours_only:
        warnings.warn(
            "safetensors was imported before tensafe.install_as_safetensors(): modules that hold its functions"
            " go on using them",
            stacklevel=2,
        )
    for name in loaded:
        _REPLACED[name] = sys.modules.pop(name)
    sys.meta_path.insert(0, _FINDER)
    importlib.import_module("safetensors")


def uninstall() -> None:
    """Takes :func:`install_as_safetensors` back."""
    _pickles.restore()
    if _FINDER not in sys.meta_path:
        return
    sys.meta_path.remove(_FINDER)
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        del sys.modules[name]
    sys.modules.update(_REPLACED)
    _REPLACED.clear()


_REPLACED: dict[str, ModuleType] = {}


def _main(arguments: list[str]) -> None:
    usage = (
        "usage: python -m tensafe.compat [--pickles=leave|convert|refuse] (script.py | -m module) [arguments]"
    )
    option, _, pickles = arguments[0].partition("=") if arguments else ("", "", "")
    if option == "--pickles":
        del arguments[0]
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(usage, file=sys.stderr)
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    # The module that runs as __main__ is another than the one that programs import.
    compat = importlib.import_module("tensafe.compat")
    if option != "--pickles":
        pickles = "leave"
    elif pickles not in _pickles.POLICIES:
        print(usage, file=sys.stderr)
        raise SystemExit(2)
    compat.install_as_safetensors(pickles=pickles)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, "")
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        # As `python script.py` has it: the script imports what lies beside it.
        sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _main(sys.argv[1:])

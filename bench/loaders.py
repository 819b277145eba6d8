"""Who loads, cuts and saves: an adapter for each way that each library offers on a CPU.

A :class:`Way` says in which environment and from which format it runs, and has a function that imports
what is needed and returns the function that is timed. What comes back is a dict of tensors, or, where
the library streams, an iterator that is consumed as its documentation asks. The driver reads the tables
and imports none of the libraries.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Tensors = dict[str, Any]
Stream = Iterator[tuple[str, Any]]
# Name of a tensor: the dimension it is cut along, the rank, the number of ranks.
Cuts = dict[str, tuple[int, int, int]]


class UnavailableError(Exception):
    """What an installed version of a library does not have."""


@dataclass(frozen=True)
class Source:
    """What is opened: ``path`` is a file or the directory of the shards, ``paths`` are the files."""

    path: str
    paths: list[str]


Load = Callable[[Source], Tensors | Stream]
Cut = Callable[[Source, Cuts], Tensors | Stream]
Save = Callable[[Tensors, str, bool], None]


@dataclass(frozen=True)
class Way:
    """One row of a table. ``environment`` is ``main`` or ``rc``; ``kind`` is the extension of the files."""

    label: str
    prepare: Callable[[], Any]
    environment: str = "main"
    kind: str = "safetensors"
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.label.startswith("tensafe")


def _require(function: Any, *keywords: str) -> None:
    missing = [name for name in keywords if name not in inspect.signature(function).parameters]
    if missing:
        raise UnavailableError(f"{function.__module__}.{function.__name__} has no `{', '.join(missing)}`")


def _loading(module: str, merge: bool, **options: Any) -> Callable[[], Load]:
    """``load_file`` of a library; ``merge`` where it knows no directories: file by file into one dict."""

    def prepare() -> Load:
        load_file = importlib.import_module(module).load_file
        _require(load_file, *options)
        if not merge:
            return lambda source: load_file(source.path, **options)
        return lambda source: _merged(lambda path: load_file(path, **options), source)

    return prepare


def _merged(load_file: Callable[[str], Tensors], source: Source) -> Tensors:
    tensors = load_file(source.paths[0])
    for path in source.paths[1:]:
        tensors |= load_file(path)
    return tensors


def _bytes_of_safetensors() -> Load:
    from safetensors.torch import load

    def load_file(path: str) -> Tensors:
        with open(path, "rb") as file:
            return load(file.read())

    return lambda source: _merged(load_file, source)


def _plan(path: str, cuts: Cuts | None, io: str = "auto", **options: str) -> Any:
    """A plan over a file or a directory: of every tensor, or of cuts."""
    import tensafe

    checkpoint: Any = tensafe.open(path, io=io)
    if not hasattr(checkpoint, "plan"):
        raise UnavailableError("tensafe.open(...) has no `plan`")
    plan = checkpoint.plan(order="file", **options)
    for name in checkpoint if cuts is None else ():
        plan.add(name)
    for name, shard in (cuts or {}).items():
        plan.add(name, shard=shard)
    return plan


def _planned() -> Load:
    def load(source: Source) -> Tensors:
        tensors: Tensors = _plan(source.path, None).load("torch")
        return tensors

    return load


def _planned_stream(budget: str) -> Callable[[], Load]:
    """Read within a budget: tensors come one after another and are dropped by who takes them."""

    def load(source: Source) -> Stream:
        yield from _plan(source.path, None, io="direct", budget=budget).execute("torch")

    return lambda: load


def _torch(mmap: bool) -> Callable[[], Load]:
    def prepare() -> Load:
        import torch

        return lambda source: _merged(
            lambda path: torch.load(path, mmap=mmap, weights_only=True, map_location="cpu"), source
        )

    return prepare


def _fastsafetensors() -> Load:
    from fastsafetensors import fastsafe_open

    def load(source: Source) -> Tensors:
        # Its tensors share the ownership of the buffers and live on.
        with fastsafe_open({0: source.paths}, framework="pt", device="cpu", nogds=True) as file:
            return {name: file.get_tensor(name) for name in file.keys()}

    return load


def _runai() -> Load:
    from runai_model_streamer import SafetensorsStreamer

    def load(source: Source) -> Stream:
        # A tensor is good until the next one is asked for, in the order in which they arrive.
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(source.paths)
            yield from streamer.get_tensors()

    return load


def _tensorizer() -> Load:
    from tensorizer import TensorDeserializer

    def load(source: Source) -> Tensors:
        deserializer = TensorDeserializer(source.path, device="cpu")
        return dict(deserializer.items())

    return load


def _slicing(module: str, **options: Any) -> Callable[[], Cut]:
    """``get_slice`` of a library: the way to read a part that everyone has."""

    def prepare() -> Cut:
        safe_open = importlib.import_module(module).safe_open

        def cut(source: Source, cuts: Cuts) -> Tensors:
            tensors = {}
            with safe_open(source.path, framework="pt", **options) as file:
                for name, (dim, rank, world) in cuts.items():
                    part = file.get_slice(name)
                    length = part.get_shape()[dim] // world
                    rows = slice(rank * length, (rank + 1) * length)
                    tensors[name] = part[rows] if dim == 0 else part[:, rows]
            return tensors

        return cut

    return prepare


class PlannedCut:
    """The cut of a plan. ``planned`` is what it said that it would read when it was about to: its bound.

    What is read depends on what is in the page cache, so it is asked then, while the clock runs.
    """

    planned = 0

    def __call__(self, source: Source, cuts: Cuts) -> Tensors:
        plan = _plan(source.path, cuts)
        self.planned = int(plan.explain().bytes_read)
        tensors: Tensors = plan.load("torch")
        return tensors


def _save_tensafe() -> Save:
    import tensafe.torch

    save_file = tensafe.torch.save_file
    _require(save_file, "durable")
    return lambda tensors, path, durable: save_file(tensors, path, durable=durable)


def _made_durable(save: Callable[[Tensors, str], None]) -> Save:
    """A library's save, then what its user has to do to have the file on the disk."""

    def saved(tensors: Tensors, path: str, durable: bool) -> None:
        save(tensors, path)
        if durable:
            for target in (path, os.path.dirname(path)):
                handle = os.open(target, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)

    return saved


def _save_safetensors() -> Save:
    from safetensors.torch import save_file

    return _made_durable(save_file)


def _save_torch() -> Save:
    import torch

    return _made_durable(torch.save)


def _save_tensorizer() -> Save:
    from tensorizer import TensorSerializer

    def save(tensors: Tensors, path: str) -> None:
        serializer = TensorSerializer(path)
        serializer.write_state_dict(tensors)
        serializer.close()

    return _made_durable(save)


def _of_safetensors(name: str, prepare: Callable[[], Any], how: str) -> dict[str, Way]:
    """A way of the published package, in both of its versions."""
    return {
        f"safetensors-{name}": Way(f"safetensors 0.8.0 {how}".strip(), prepare),
        f"safetensors-rc-{name}": Way(f"safetensors 0.9.0rc1 {how}".strip(), prepare, environment="rc"),
    }


LOADERS: dict[str, Way] = {
    "tensafe": Way("tensafe", _loading("tensafe.torch", merge=False)),
    "tensafe-direct": Way(
        "tensafe direct", _loading("tensafe.torch", merge=False, io="direct", cache="drop")
    ),
    "tensafe-owned": Way("tensafe owned", _loading("tensafe.torch", merge=False, owned=True)),
    "tensafe-pread": Way("tensafe pread", _loading("tensafe.torch", merge=False, backend="pread")),
    "tensafe-plan": Way("tensafe plan", _planned),
    "tensafe-stream": Way("tensafe plan, direct, budget 512 MiB", _planned_stream("512MiB")),
    "tensafe-budget": Way("tensafe plan, direct, budget 256 MiB", _planned_stream("256MiB")),
    **_of_safetensors("mmap", _loading("safetensors.torch", merge=True), "mmap"),
    **_of_safetensors("pread", _loading("safetensors.torch", merge=True, backend="pread"), "pread"),
    **_of_safetensors("bytes", _bytes_of_safetensors, "load(bytes)"),
    "torch-mmap": Way("torch.load mmap", _torch(mmap=True), kind="pth"),
    "torch": Way("torch.load", _torch(mmap=False), kind="pth"),
    "fastsafetensors": Way("fastsafetensors", _fastsafetensors),
    "runai": Way("Run:ai streamer", _runai, variables={"RUNAI_STREAMER_LOG_TO_STDERR": "0"}),
    "tensorizer": Way("tensorizer", _tensorizer, kind="tensors"),
    "tensafe-numpy": Way("tensafe", _loading("tensafe.numpy", merge=False)),
    **_of_safetensors("numpy", _loading("safetensors.numpy", merge=True), "numpy"),
}
CUTTERS: dict[str, Way] = {
    "tensafe-plan": Way("tensafe plan", PlannedCut),
    "tensafe-slice": Way("tensafe get_slice", _slicing("tensafe")),
    "tensafe-slice-pread": Way("tensafe get_slice pread", _slicing("tensafe", backend="pread")),
    **_of_safetensors("mmap", _slicing("safetensors"), "get_slice mmap"),
    **_of_safetensors("pread", _slicing("safetensors", backend="pread"), "get_slice pread"),
}
SAVERS: dict[str, Way] = {
    "tensafe": Way("tensafe", _save_tensafe),
    **_of_safetensors("save", _save_safetensors, ""),
    "torch": Way("torch.save", _save_torch, kind="pth"),
    "tensorizer": Way("tensorizer", _save_tensorizer, kind="tensors"),
}

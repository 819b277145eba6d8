"""A process in which calls fail: what `test_faults.py` asks for, once for each number of a call.

    python drive.py OPERATION DIRECTORY CALL ERRNO COUNT ATTEMPTS

OPERATION with CALL failing from the first, the second, … time on, COUNT times; prints a line of JSON
for each attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensafe
import tensafe.numpy

SHIM = ctypes.CDLL(None)


def arrays(seed: int, mebibytes: int) -> dict[str, np.ndarray]:
    """Three large tensors and small ones, ``mebibytes`` in all."""
    rng = np.random.default_rng(seed)
    columns = {"large0": 256, "large1": 512, "large2": 256}
    large = {name: rng.integers(0, 256, (mebibytes << 10, n), np.uint8) for name, n in columns.items()}
    return large | {f"small{i}": rng.integers(0, 256, 100 + i, np.uint8) for i in range(4)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def load(**keywords: Any) -> Callable[[Path], dict[str, np.ndarray]]:
    return lambda path: tensafe.numpy.load_file(path, **keywords)


def cut(path: Path) -> dict[str, np.ndarray]:
    """Some columns of a tensor, from a plan whose requests are small."""
    plan = tensafe.open(path, io="auto").plan(budget="4MiB")
    return plan.add("large1", index=np.s_[:, 100:200]).load("numpy")


def stream(path: Path) -> dict[str, np.ndarray]:
    plan = tensafe.open(path, io="pread").plan(budget="16MiB")
    for name in tensafe.open(path):
        plan.add(name)
    return dict(plan.execute("numpy"))


LOADS = {
    "pread": load(io="pread"),
    "direct": load(io="direct"),
    "owned": load(owned=True),
    "cut": cut,
    "stream": stream,
}


def drop_cached(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        # The kernel may have been told to refuse it.
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def loads(operation: str, directory: Path, attempt: Callable[..., dict[str, Any]], attempts: int) -> None:
    path = directory / "model.safetensors"
    data = arrays(1, 14)
    tensafe.numpy.save_file(data, path, durable=False)
    expected = {"large1": data["large1"][:, 100:200]} if operation == "cut" else data
    for number in range(1, attempts + 1):
        # Direct reads are of what is not in the page cache.
        drop_cached(path)
        row = attempt(number, lambda: LOADS[operation](path), lambda found: same(found, expected))
        # What failed once is nothing that stays.
        row["after"] = same(LOADS[operation](path), expected)
        print(json.dumps(row))


def converted(arrays: dict[str, np.ndarray], path: Path) -> Callable[[], Any]:
    import torch

    checkpoint = path.with_name("model-checkpoint.pt")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, checkpoint)
    return lambda: tensafe.convert(checkpoint, path, overwrite=True)


def written(arrays: dict[str, np.ndarray], path: Path, durable: bool) -> Callable[[], Any]:
    """By a writer whose first flush may fail: what comes after is refused, or it was no failure."""

    def write() -> None:
        specs = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        with tensafe.Writer(path, specs, durable=durable) as writer:
            for name, array in arrays.items():
                writer.write(name, array)
            with contextlib.suppress(tensafe.IoError):
                writer.flush()

    return write


def saves(operation: str, directory: Path, attempt: Callable[..., dict[str, Any]], attempts: int) -> None:
    path = directory / "model.safetensors"
    old, new = {"old": np.arange(1000)}, arrays(2, 200 if operation == "convert" else 42)
    if operation == "convert":
        save = converted(new, path)
    elif operation.startswith("writer"):
        save = written(new, path, durable=operation == "writer")
    else:
        save = partial(tensafe.numpy.save_file, new, path, durable=operation == "durable")
    tensafe.numpy.save_file(old, path, durable=False)
    kept = os.listdir(directory)
    for number in range(1, attempts + 1):
        row = attempt(number, save, lambda _: same(tensafe.numpy.load_file(path), new))
        row["names"] = [name for name in os.listdir(directory) if name == path.name or name not in kept]
        found = tensafe.numpy.load_file(path)
        row["file"] = "old" if same(found, old) else "new" if same(found, new) else "neither"
        del found
        if row["file"] != "old":
            tensafe.numpy.save_file(old, path, durable=False)
        print(json.dumps(row))


def main() -> None:
    operation, directory, call, error, count, attempts = sys.argv[1:]

    def attempt(number: int, work: Callable[[], Any], check: Callable[[Any], bool]) -> dict[str, Any]:
        SHIM.fault_arm(call.encode(), ctypes.c_long(number), ctypes.c_long(int(count)), int(error))
        row: dict[str, Any] = {"number": number}
        try:
            found = work()
        except Exception as raised:
            row["classes"] = [kind.__name__ for kind in type(raised).__mro__]
            row["errno"], row["text"] = getattr(raised, "errno", None), str(raised)
        else:
            row["right"] = None
        row["fired"] = SHIM.fault_fired()
        SHIM.fault_arm(b"", ctypes.c_long(0), ctypes.c_long(0), 0)
        if "right" in row:
            row["right"] = check(found)
        return row

    run = loads if operation in LOADS else saves
    run(operation, Path(directory), attempt, int(attempts))


if __name__ == "__main__":
    main()

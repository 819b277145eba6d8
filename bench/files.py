"""The files that are loaded: a Llama of 2 GB in one file and in four, and 50,000 small tensors.

What a file holds follows from its :class:`Shape` alone. The bytes are those of a generator of random
numbers, so that nothing on the way can compress them, and they are written here, by none of the
libraries that are measured. The driver uses the names; numpy and torch are only imported to write.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Bytes of an element.
SIZES = {"BF16": 2, "F32": 4}
COLUMN_PARALLEL = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
ROW_PARALLEL = ("o_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes, in elements, and how many small tensors the other file has."""

    hidden: int = 2048
    inner: int = 5632
    heads: int = 2048
    keys: int = 256
    layers: int = 20
    vocabulary: int = 32000
    shards: int = 4
    small: int = 50_000

    @classmethod
    def quick(cls) -> Shape:
        """Sizes of a run that only shows that everything works."""
        return cls(256, 704, 256, 64, 2, 2000, 4, 2000)

    def llama(self) -> dict[str, tuple[str, list[int]]]:
        """Names with dtype and shape, row-major, in the order of the file."""
        hidden, inner, heads, keys = self.hidden, self.inner, self.heads, self.keys
        parts = {
            "input_layernorm": [hidden],
            "mlp.down_proj": [hidden, inner],
            "mlp.gate_proj": [inner, hidden],
            "mlp.up_proj": [inner, hidden],
            "post_attention_layernorm": [hidden],
            "self_attn.k_proj": [keys, hidden],
            "self_attn.o_proj": [hidden, heads],
            "self_attn.q_proj": [heads, hidden],
            "self_attn.v_proj": [keys, hidden],
        }
        shapes = {"lm_head": [self.vocabulary, hidden], "model.embed_tokens": [self.vocabulary, hidden]}
        for layer in range(self.layers):
            shapes |= {f"model.layers.{layer}.{part}": shape for part, shape in parts.items()}
        shapes["model.norm"] = [hidden]
        return {f"{name}.weight": ("BF16", shapes[name]) for name in sorted(shapes)}

    def many(self) -> dict[str, tuple[str, list[int]]]:
        """As :meth:`llama`, of tensors of four numbers."""
        return {f"layers.{i // 10:04}.w{i % 10}": ("F32", [4]) for i in range(self.small)}


def cut_of(name: str, select: str) -> int | None:
    """The dimension along which tensor parallelism cuts a projection: ``rows``, ``columns`` or ``all``."""
    part = name.split(".")[-2]
    if part in COLUMN_PARALLEL and select in ("rows", "all"):
        return 0
    if part in ROW_PARALLEL and select in ("columns", "all"):
        return 1
    return None


def nbytes(dtype: str, shape: Iterable[int]) -> int:
    size = SIZES[dtype]
    for length in shape:
        size *= length
    return size


@dataclass(frozen=True)
class Entry:
    """A tensor of a file on the disk: its bytes are ``begin .. begin + nbytes``, from the file's start."""

    path: str
    dtype: str
    shape: list[int]
    begin: int

    def read(self) -> bytearray:
        """The bytes, by positioned reads."""
        data = bytearray(nbytes(self.dtype, self.shape))
        view, done = memoryview(data), 0
        handle = os.open(self.path, os.O_RDONLY)
        try:
            while done < len(data):
                count = os.preadv(handle, [view[done:]], self.begin + done)
                if count == 0:
                    raise EOFError(self.path)
                done += count
        finally:
            os.close(handle)
        return data


def entries(paths: Iterable[str]) -> dict[str, Entry]:
    """The tensors of safetensors files that were made here, in the order of their bytes."""
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, row in header.items():
            found[name] = Entry(path, row["dtype"], row["shape"], 8 + length + row["data_offsets"][0])
    return found


@dataclass(frozen=True)
class Place:
    """Where the files are. There are copies of each, so that the host's cache is of less help."""

    root: Path
    copies: int

    def files(self, what: str, kind: str, copy: int) -> list[Path]:
        """The files of a name, such as ``one`` or ``shards``, in a format: the extension of its files."""
        directory = self.root / f"copy{copy % self.copies}"
        if what == "shards":
            directory = directory / "shards"
            if kind == "safetensors":
                index = json.loads((directory / "model.safetensors.index.json").read_text())
                return [directory / name for name in sorted(set(index["weight_map"].values()))]
        return [directory / f"{what}.{kind}"]


def make(root: str, shape: dict[str, int], copy: int, formats: list[str]) -> list[str]:
    """Makes what is missing of a copy; the names of the files that were written."""
    sizes = Shape(**shape)
    directory = Path(root) / f"copy{copy}"
    stamp = directory / "made.json"
    # Small ones for what children load before they are timed.
    first = {"few": Shape.quick().llama(), "tiny": Shape.quick().many()}
    tables = {"one": sizes.llama(), "many": sizes.many(), **first}
    wanted = {**asdict(sizes), "formats": sorted(formats), "files": sorted(tables)}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return []
    (directory / "shards").mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    written = []
    for what, table in tables.items():
        path = directory / f"{what}.safetensors"
        _write(path, table)
        written.append(path)
        # tensorizer's writer has no room for the names of as many tensors.
        unfit = ("safetensors", "tensors") if what == "many" else ("safetensors",)
        written += _convert(path, [kind for kind in formats if kind not in unfit])
    written += _write_shards(directory / "shards", sizes)
    stamp.write_text(json.dumps(wanted))
    return [str(path) for path in written]


def _write(path: Path, table: dict[str, tuple[str, list[int]]]) -> None:
    header, end = {}, 0
    for name, (dtype, shape) in table.items():
        size = nbytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for block in _random(end):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _random(size: int, block: int = 16 << 20) -> Iterator[memoryview]:
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(0))
    for begin in range(0, size, block):
        count = min(block, size - begin)
        words = generator.integers(0, 1 << 64, -(-count // 8), dtype=np.uint64)
        yield words.data.cast("B")[:count]


def _write_shards(directory: Path, sizes: Shape) -> list[Path]:
    table = sizes.llama()
    total = sum(nbytes(*row) for row in table.values())
    shards: list[dict[str, tuple[str, list[int]]]] = [{} for _ in range(sizes.shards)]
    weight_map, before = {}, 0
    for name, row in table.items():
        number = before * sizes.shards // total
        before += nbytes(*row)
        shards[number][name] = row
        weight_map[name] = f"model-{number + 1:05}-of-{sizes.shards:05}.safetensors"
    paths = [directory / name for name in sorted(set(weight_map.values()))]
    for path, shard in zip(paths, shards, strict=True):
        _write(path, shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return paths


def _convert(path: Path, formats: list[str]) -> list[Path]:
    """The same tensors in the formats of others, written by those who own them."""
    if not formats:
        return []
    state = tensors(entries([str(path)]))
    written = []
    for kind in formats:
        target = path.with_suffix(f".{kind}")
        if kind == "pth":
            import torch

            torch.save(state, target)
        else:
            from tensorizer import TensorSerializer

            serializer = TensorSerializer(str(target))
            serializer.write_state_dict(state)
            serializer.close()
        written.append(target)
    return written


def tensors(table: dict[str, Entry]) -> dict[str, Any]:
    """The tensors of files made here, for torch, in memory of their own."""
    import torch

    dtypes = {"BF16": torch.bfloat16, "F32": torch.float32}
    return {
        name: torch.frombuffer(entry.read(), dtype=dtypes[entry.dtype]).reshape(entry.shape)
        for name, entry in table.items()
    }

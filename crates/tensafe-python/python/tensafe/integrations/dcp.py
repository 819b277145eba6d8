"""safetensors for ``torch.distributed.checkpoint``.

:class:`TensafeStorageReader`, :class:`TensafeQuantizedStorageReader` and :class:`TensafeStorageWriter` take the
places of torch's ``HuggingFaceStorageReader``, ``QuantizedHuggingFaceStorageReader`` and
``HuggingFaceStorageWriter``, with the same arguments and the same files: each side reads what the other wrote.

What a rank needs is read straight into its tensors, in one go over all files; it asks for nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from .._errors import UnsupportedError, UsageError
from .._tensafe import write
from ..torch import _entries, _lendable
from ._dcp_consolidate import consolidate, consolidate_files, each, file_name, write_index
from ._dcp_files import OFFSETS, SHARDING, Chunk, Files, Part, Stored, broken, copy, read

__all__ = [
    "TensafeQuantizedStorageReader",
    "TensafeStorageReader",
    "TensafeStorageWriter",
    "consolidate",
]


# Bytes of a tensor from which on it is worth to have them read into its own memory, rather than copied.
_SMALL = 1 << 14


@dataclass(frozen=True)
class _StorageInfo:
    """Where a chunk is; the names are those of torch's."""

    relative_path: str
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class _WriteInfo:
    """What a rank wrote; the names are those of torch's."""

    relative_path: str
    offset: int
    length: int


class TensafeStorageReader(HuggingFaceStorageReader):
    """Reads safetensors files for ``torch.distributed.checkpoint.load``, where torch has
    ``HuggingFaceStorageReader``.

    ``path`` is a directory, the path of an index of shards, or one file. Of a directory the files that its index
    names are read, or all ``*.safetensors`` where there is none, such as those that each rank wrote. Where
    several files have parts of a tensor, their headers say which, as torch's writer puts it. ``thread_count``
    is for the sake of torch's signature: how many threads read is for the disk to say.

    Memory on the host of the dtype of the file is read into directly, contiguous or strided; memory of a device
    is copied to while the next bytes are read, see :meth:`tensafe.Plan.execute`. Small tensors, and those of
    another dtype, are read beside it, 1 GiB or two of the largest at a time, and copied. Each rank reads the bytes
    that it needs.

    Errors: :class:`tensafe.FormatError` where a header is broken, a file is cut short, or the parts of a tensor
    do not make it up; :class:`tensafe.UsageError` where a target has another shape than what is read.
    ``torch.distributed.checkpoint.load`` puts those of other ranks into its ``CheckpointException``.
    """

    def __init__(self, path: str | os.PathLike[str], thread_count: int = 1) -> None:
        super().__init__(path=os.fspath(path), thread_count=thread_count)
        self._files = Files()
        self._stored: dict[str, Stored] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Forgets what was opened; ``checkpoint_id`` is another path to read from."""
        super().reset(checkpoint_id)
        self._files = Files()

    def read_metadata(self) -> Metadata:
        """Shapes, dtypes and places of all tensors, from the headers."""
        self._files = Files.at(self.path)
        self._stored = self._files.stored()
        state: dict[str, Any] = {}
        places: dict[MetadataIndex, _StorageInfo] = {}
        for name, stored in self._stored.items():
            state[name], rows = self._described(name, stored)
            places.update(rows)
        return Metadata(
            state_dict_metadata=state, storage_data=places, storage_meta=StorageMeta(load_id=self.load_id)
        )

    def _described(
        self, name: str, stored: Stored
    ) -> tuple[TensorStorageMetadata, dict[MetadataIndex, _StorageInfo]]:
        chunks, places = [], {}
        for chunk in stored.chunks:
            offset, shape = torch.Size(chunk.offset), torch.Size(chunk.shape)
            chunks.append(ChunkStorageMetadata(offsets=offset, sizes=shape))
            places[MetadataIndex(name, offset)] = _StorageInfo(chunk.file, shape, stored.dtype)
        properties = TensorProperties(dtype=stored.dtype)
        return TensorStorageMetadata(properties, torch.Size(stored.shape), chunks), places

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads all items of a plan into the planner's tensors; the future is done when it returns."""
        read(self._files, [self._part(item, planner) for item in plan.items])
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _part(self, item: ReadItem, planner: LoadPlanner) -> Part:
        info: _StorageInfo = self.storage_data[item.storage_index]
        name, target = item.storage_index.fqn, _target(item, planner)

        def done(tensor: torch.Tensor) -> None:
            if tensor is not target:
                copy(target, tensor)
            planner.commit_tensor(item, target)

        out = target if info.dtype == target.dtype and self._is_direct(info, name, target) else None
        return Part(info.relative_path, name, tuple(item.storage_offsets), tuple(item.lengths), out, done)

    def _is_direct(self, info: _StorageInfo, name: str, target: torch.Tensor) -> bool:
        """Whether the plan gets the target's memory: a device's, or memory that bytes can be read into."""
        if type(target) is not torch.Tensor or target.nbytes < _SMALL:
            return False
        code = self._files.open(info.relative_path)._checkpoint().info(name)[0]
        return target.device.type != "cpu" or _lendable(target, code) is not None


def _target(item: ReadItem, planner: LoadPlanner) -> torch.Tensor:
    target = planner.resolve_tensor(item).detach()
    if target.size() != item.lengths:
        found, needed = list(target.size()), list(item.lengths)
        raise UsageError(f"tensor `{item.storage_index.fqn}`: shape {found} to read into, needed {needed}")
    return target


_Dequantize = Callable[[torch.Tensor, torch.Tensor], None]

# Groups of MXFP4 that are dequantized at once.
_ROWS = 1 << 18
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


class TensafeQuantizedStorageReader(TensafeStorageReader):
    """As :class:`TensafeStorageReader`, and dequantizes, where torch has ``QuantizedHuggingFaceStorageReader``.

    - ``NAME.weight`` with ``NAME.weight_scale_inv``: a matrix in blocks of ``block_size`` by ``block_size``, each
      multiplied with its scale in ``float32``.
    - ``NAME_blocks`` with ``NAME_scales``: MXFP4, bytes ``[…, groups, bytes]`` of two numbers each with an exponent
      for each group; asked for as ``[…, groups * bytes * 2]``.

    The numbers are those of torch's reader: they become ``target_dtype`` first, and then the dtype of the
    tensor that they are loaded into. What has no scale is read as it is. An index is not needed. Of a quantized tensor
    the part that is asked for is read, and all of its scale. Neither may be in parts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        thread_count: int = 1,
        target_dtype: torch.dtype = torch.float32,
        block_size: int = 128,
    ) -> None:
        super().__init__(path=path, thread_count=thread_count)
        if block_size < 1:
            raise UsageError(f"block_size {block_size}: a block has one row at least")
        self.target_dtype = target_dtype
        self.block_size = block_size
        self._scales: dict[str, torch.Tensor] = {}

    def _described(
        self, name: str, stored: Stored
    ) -> tuple[TensorStorageMetadata, dict[MetadataIndex, _StorageInfo]]:
        if name.endswith("_blocks") and self._scale_of(name) is not None:
            # The planner sees the numbers, not the bytes.
            _one_part(name, stored)
            if len(stored.shape) < 2 or stored.dtype != torch.uint8:
                found = f"{stored.code} {list(stored.shape)}"
                raise broken(
                    stored.chunks[0].file, f"{found} is no MXFP4, which is U8 [.., groups, bytes]", name
                )
            *before, groups, size = stored.shape
            shape = (*before, groups * size * 2)
            chunk = Chunk(stored.chunks[0].file, (0,) * len(shape), shape)
            stored = Stored(stored.code, shape, [chunk])
        return super()._described(name, stored)

    def _scale_of(self, name: str) -> str | None:
        """The name of a tensor's scale, where it has one."""
        scale = None
        if name.endswith(".weight"):
            scale = f"{name}_scale_inv"
        elif name.endswith("_blocks"):
            scale = f"{name.removesuffix('_blocks')}_scales"
        return scale if scale in self._stored else None

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads all items of a plan: first the scales that they need, then the tensors."""
        scales = {self._scale_of(item.storage_index.fqn): None for item in plan.items}
        parts = [self._scale_part(name) for name in scales if name is not None]
        try:
            read(self._files, parts)
            return super().read_data(plan, planner)
        finally:
            self._scales = {}

    def _scale_part(self, name: str) -> Part:
        stored = self._stored[name]
        chunk = _one_part(name, stored)
        keep = functools.partial(self._scales.__setitem__, name)
        return Part(chunk.file, name, chunk.offset, chunk.shape, None, keep)

    def _part(self, item: ReadItem, planner: LoadPlanner) -> Part:
        name = item.storage_index.fqn
        scale = self._scale_of(name)
        if scale is None:
            return super()._part(item, planner)
        stored = self._stored[name]
        file = _one_part(name, stored).file
        target = _target(item, planner)
        offset, lengths = tuple(item.storage_offsets), tuple(item.lengths)
        if name.endswith("_blocks"):
            dequantize, offset, lengths = self._of_groups(name, scale, stored.shape, offset, lengths)
        elif len(stored.shape) == 2:
            dequantize = self._of_blocks(name, scale, stored.shape, offset)
        else:
            raise UnsupportedError(
                f"tensor `{name}`: shape {list(stored.shape)} with a scale `{scale}`: only matrices have blocks"
            )

        def done(tensor: torch.Tensor) -> None:
            dequantize(tensor, target)
            planner.commit_tensor(item, target)

        return Part(file, name, offset, lengths, None, done)

    def _of_blocks(
        self, name: str, scale: str, shape: tuple[int, ...], offset: tuple[int, ...]
    ) -> _Dequantize:
        size = self.block_size
        factors = self._checked_scale(name, scale, [-(-shape[0] // size), -(-shape[1] // size)])

        def dequantize(tensor: torch.Tensor, out: torch.Tensor) -> None:
            (first, left), (rows, columns) = offset, tensor.shape
            if tensor.numel() == 0:
                return
            along = slice(left // size, (left + columns - 1) // size + 1)
            for row in range(first // size, (first + rows - 1) // size + 1):
                here = slice(max(row * size - first, 0), min((row + 1) * size - first, rows))
                factor = factors[row, along].to(torch.float32).repeat_interleave(size)
                factor = factor[left % size :][:columns]
                copy(out[here], (tensor[here].to(torch.float32) * factor).to(self.target_dtype))

        return dequantize

    def _of_groups(
        self, name: str, scale: str, shape: tuple[int, ...], offset: tuple[int, ...], lengths: tuple[int, ...]
    ) -> tuple[_Dequantize, tuple[int, ...], tuple[int, ...]]:
        """How to dequantize numbers at an offset, and which of the bytes they need."""
        *before, groups, size = shape
        exponents = self._checked_scale(name, scale, [*before, groups])
        start, count = offset[-1], lengths[-1]
        first, last = start // (size * 2), -(-(start + count) // (size * 2))
        ranges = [slice(at, at + length) for at, length in zip(offset[:-1], lengths[:-1], strict=True)]
        exponents = exponents[(*ranges, slice(first, last))].to(torch.int32) - 127
        # Both numbers of each byte, the low half first.
        table = torch.tensor(
            [(_FP4[byte & 15], _FP4[byte >> 4]) for byte in range(256)], dtype=self.target_dtype
        )

        def dequantize(tensor: torch.Tensor, out: torch.Tensor) -> None:
            rows, powers = tensor.reshape(-1, size), exponents.reshape(-1, 1)
            numbers = torch.empty(rows.shape[0], size * 2, dtype=self.target_dtype)
            # Indices take four times the bytes that they are made of.
            for at in range(0, rows.shape[0], _ROWS):
                here = slice(at, at + _ROWS)
                pairs = table.index_select(0, rows[here].reshape(-1).to(torch.int32))
                pairs = pairs.reshape(-1, size * 2)
                torch.ldexp(pairs, powers[here], out=numbers[here])
            skipped = start - first * size * 2
            whole = numbers.reshape(*lengths[:-1], (last - first) * size * 2)
            copy(out, whole[..., skipped : skipped + count])

        bytes_offset, bytes_lengths = (*offset[:-1], first, 0), (*lengths[:-1], last - first, size)
        return dequantize, bytes_offset, bytes_lengths

    def _checked_scale(self, name: str, scale: str, needed: list[int]) -> torch.Tensor:
        factors = self._scales[scale]
        if list(factors.shape) != needed:
            kind = "MXFP4" if name.endswith("_blocks") else f"blocks of {self.block_size}"
            raise UsageError(
                f"tensor `{name}`: its scale `{scale}` has the shape {list(factors.shape)}, {kind} needs {needed}"
            )
        return factors


def _one_part(name: str, stored: Stored) -> Chunk:
    if len(stored.chunks) > 1:
        raise UnsupportedError(
            f"tensor `{name}`: quantized, and in {len(stored.chunks)} parts: consolidate the files first"
        )
    return stored.chunks[0]


class TensafeStorageWriter(HuggingFaceStorageWriter):
    """Writes safetensors files for ``torch.distributed.checkpoint.save`` and ``async_save``, where torch has
    ``HuggingFaceStorageWriter``.

    Files have the names and the metadata that torch's have, and its reader reads them. Each is there as a whole or
    not at all; ``durable=False`` does not wait for the disk. Tensors are written from their own memory, those of a
    device in parts.

    - ``fqn_to_index_mapping``: the number of the file, from 1, of each tensor; all in one without it.
    - ``thread_count``: files of a rank that are written at once.
    - ``save_distributed``: each rank writes what it has, ``shard-RANK-model-…``. Without it one rank has all.
    - ``enable_consolidation``: parts go to ``path/sharded``, and the first rank makes whole tensors of them in
      ``path``, with an index; ``thread_count_consolidation`` files at once. See :func:`consolidate`.

    Errors: :class:`tensafe.UnsupportedError` for what is no tensor and for two parts of one tensor on one rank;
    :class:`tensafe.UsageError` for a tensor that the mapping lacks, and where several ranks would write one
    file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fqn_to_index_mapping: dict[str, int] | None = None,
        thread_count: int = 1,
        save_distributed: bool = False,
        enable_consolidation: bool = False,
        thread_count_consolidation: int = 1,
        *,
        durable: bool = True,
    ) -> None:
        if enable_consolidation and not save_distributed:
            raise UsageError("enable_consolidation=True puts parts together: it needs save_distributed=True")
        super().__init__(
            os.fspath(path),
            fqn_to_index_mapping=fqn_to_index_mapping,
            thread_count=thread_count,
            save_distributed=save_distributed,
            enable_consolidation=enable_consolidation,
            thread_count_consolidation=thread_count_consolidation,
        )
        self.sync_files = durable

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begins another save; ``checkpoint_id`` is another path to write to."""
        super().reset(checkpoint_id)
        if checkpoint_id and self.enable_consolidation:
            self.consolidated_output_path = os.fspath(checkpoint_id)
            self.path = self.fs.concat_path(self.path, "sharded")

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Says which rank writes which file; refuses two that would write one."""
        if not self.use_collectives:
            # One plan, of this rank, which only it knows.
            if self.enable_consolidation:
                raise UsageError(
                    "enable_consolidation=True needs the results of all ranks: use_collectives=True"
                )
            return [self._numbered(plan, (self.rank or 0) + 1) for plan in plans]
        if not self.save_distributed:
            writers: dict[int, int] = {}
            for rank, plan in enumerate(plans):
                for number in self._by_file(plan.items):
                    if writers.setdefault(number, rank) != rank:
                        raise UsageError(
                            f"ranks {writers[number]} and {rank} would both write the file {number}:"
                            " save_distributed=True gives each a file of its own"
                        )
        return [self._numbered(plan, rank) for rank, plan in enumerate(plans, start=1)]

    def _numbered(self, plan: SavePlan, shard: int) -> SavePlan:
        data: dict[str, Any] = {}
        if self.fqn_to_index_mapping is not None:
            data["fqn_to_index_mapping"] = self.fqn_to_index_mapping
        if self.save_distributed:
            data["shard_index"] = shard
        return dataclasses.replace(plan, storage_data=data)

    def _by_file(self, items: Iterable[WriteItem]) -> dict[int, list[WriteItem]]:
        files: dict[int, list[WriteItem]] = {}
        for item in items:
            name = item.index.fqn
            if self.fqn_to_index_mapping is not None and name not in self.fqn_to_index_mapping:
                raise UsageError(f"tensor `{name}` is not in fqn_to_index_mapping")
            number = 1 if self.fqn_to_index_mapping is None else self.fqn_to_index_mapping[name]
            files.setdefault(number, []).append(item)
        return files

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes the files of this rank; the future is done when they are there."""
        shard = plan.storage_data.get("shard_index") if plan.items else None
        last = max((self.fqn_to_index_mapping or {"": 1}).values())
        files = [(file_name(n, last, shard), items) for n, items in self._by_file(plan.items).items()]
        results: list[WriteResult] = []
        for written in each(self.thread_count, lambda file: self._write_file(planner, *file), files):
            results += written
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def _write_file(self, planner: SavePlanner, file: str, items: list[WriteItem]) -> list[WriteResult]:
        entries, results = [], []
        offsets: dict[str, dict[str, list[int]]] = {}
        for item in items:
            name = item.index.fqn
            if item.type == WriteItemType.BYTE_IO or item.tensor_data is None:
                raise UnsupportedError(
                    f"`{name}` is no tensor, and safetensors hold nothing else: make it one, or save it elsewhere"
                )
            offset = list(item.tensor_data.chunk.offsets)
            if name in offsets:
                raise UnsupportedError(
                    f"tensor `{name}`: this rank has parts at {offsets[name][OFFSETS]} and at {offset}, and a"
                    " file holds a name once"
                )
            data = planner.resolve_data(item)
            assert isinstance(data, torch.Tensor)
            tensor = data.detach().contiguous()
            # One by one: names that share memory are written once each, as torch's other writers do.
            entries += _entries({name: tensor})
            offsets[name] = {OFFSETS: offset}
            info = _WriteInfo(file, 0, tensor.nbytes)
            results.append(WriteResult(index=item.index, size_in_bytes=tensor.nbytes, storage_data=info))
        metadata = {SHARDING: json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
        write(os.path.join(self.path, file), entries, metadata, durable=self.sync_files)
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first rank, when all have written: makes whole tensors of parts, or the index."""
        written = [result for of_rank in results for result in of_rank]
        if self.save_distributed and not self.enable_consolidation:
            # An index cannot say that a tensor is in several files.
            return
        if not self.save_distributed:
            places = {result.index.fqn: result.storage_data.relative_path for result in written}
            total = sum(result.storage_data.length for result in written)
            write_index(Path(self.path), places, total, self.sync_files)
            return
        # Those of an earlier save by more ranks may be there too.
        names = {result.storage_data.relative_path for result in written}
        consolidate_files(
            [os.path.join(self.path, name) for name in sorted(names)],
            Path(self.consolidated_output_path or self.path),
            self.fqn_to_index_mapping,
            self.thread_count_consolidation,
            self.sync_files,
        )

"""What each rank of a test of torch.distributed.checkpoint does: ``python dcp_ranks.py JOB DIRECTORY``.

The tests start as many of these as there are ranks; an assertion that fails ends a rank with an error.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tensafe.integrations.dcp import TensafeStorageReader, TensafeStorageWriter
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def tensors() -> dict[str, tuple[torch.Tensor, Any]]:
    """Tensors with how each is cut when it is saved, the same on every rank: shapes that neither 2 nor 3 ranks
    divide, and one that leaves ranks without anything."""
    numbers = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=numbers)

    return {
        "rows": (random(7, 5), Shard(0)),
        "columns": (random(6, 7).to(torch.bfloat16), Shard(1)),
        "middle": (random(3, 5, 4), Shard(1)),
        "bias": (random(11).to(torch.float16), Shard(0)),
        "single": (random(1, 6), Shard(0)),
        "eighth": (random(9, 8).to(torch.float8_e4m3fn), Shard(0)),
        "replicated": (random(3, 3).to(torch.float64), Replicate()),
    }


def others() -> dict[str, tuple[torch.Tensor, Any]]:
    """What torch's consolidation refuses, and the scalar, of which it makes 0."""
    return {
        "scalar": (torch.tensor(2.5), Replicate()),
        "count": (torch.arange(10), Shard(0)),
        "flags": (torch.arange(14).reshape(7, 2) % 3 == 0, Shard(1)),
    }


def cut(whole: torch.Tensor, mesh: DeviceMesh, placement: Any, *, empty: bool = False) -> DTensor:
    """A rank's part of a tensor that all ranks have, or memory for it."""
    shape, offset = compute_local_shape_and_global_offset(whole.shape, mesh, [placement])
    part = whole[tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))]
    local = torch.zeros(part.shape, dtype=whole.dtype) if empty else part.clone()
    return DTensor.from_local(
        local, mesh, [placement], run_check=False, shape=whole.shape, stride=whole.stride()
    )


def state(table: dict[str, tuple[torch.Tensor, Any]], mesh: DeviceMesh) -> dict[str, Any]:
    return {name: cut(whole, mesh, placement) for name, (whole, placement) in table.items()}


def same(found: torch.Tensor, needed: torch.Tensor) -> bool:
    """Whether two tensors have the same bytes."""
    if (found.dtype, found.shape) != (needed.dtype, needed.shape):
        return False
    flat = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found, needed)]
    return torch.equal(*flat)


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(10, 7), nn.LayerNorm(7), nn.Linear(7, 5, bias=False)).to(torch.bfloat16)


def index_of(table: dict[str, Any]) -> dict[str, int]:
    return {name: 1 + number % 2 for number, name in enumerate(table)}


def save(root: Path, mesh: DeviceMesh) -> None:
    table = tensors()
    all_of_it = {**table, **others()}
    dcp.save(
        state(all_of_it, mesh), storage_writer=TensafeStorageWriter(root / "ours", save_distributed=True)
    )
    theirs = dcp.HuggingFaceStorageWriter(str(root / "theirs"), save_distributed=True)
    dcp.save(state(all_of_it, mesh), storage_writer=theirs)
    options: dict[str, Any] = {"save_distributed": True, "enable_consolidation": True}
    ours = TensafeStorageWriter(
        root / "ours-hub", index_of(all_of_it), 2, **options, thread_count_consolidation=2
    )
    dcp.save(state(all_of_it, mesh), storage_writer=ours)
    dcp.save(
        state(table, mesh), storage_writer=dcp.HuggingFaceStorageWriter(str(root / "theirs-hub"), **options)
    )
    saving = dcp.async_save(
        state(all_of_it, mesh), storage_writer=TensafeStorageWriter(root / "async", save_distributed=True)
    )
    saving.result()
    apart = TensafeStorageWriter(root / "apart", save_distributed=True)
    dcp.save(state(all_of_it, mesh), storage_writer=apart, use_collectives=False)
    sharded = fully_shard(model(), mesh=mesh)
    writer = TensafeStorageWriter(root / "fsdp", save_distributed=True)
    dcp.save(get_model_state_dict(sharded), storage_writer=writer)
    # Both ranks have all of it, and write what torch gives them: without save_distributed, into one file.
    try:
        dcp.save({"a": torch.ones(3), "b": torch.ones(5)}, storage_writer=TensafeStorageWriter(root / "one"))
    except BaseException as error:
        assert "save_distributed=True" in str(error), error
    else:
        raise AssertionError("two ranks wrote one file")


def load(root: Path, mesh: DeviceMesh) -> None:
    all_of_it = {**tensors(), **others()}
    turned = {"rows": Shard(1), "columns": Shard(0), "middle": Shard(2), "replicated": Shard(0)}
    for directory in ("ours", "theirs", "ours-hub", "ours-hub/sharded", "theirs-hub", "async", "apart"):
        table = tensors() if directory == "theirs-hub" else all_of_it
        for kind in (TensafeStorageReader, dcp.HuggingFaceStorageReader):
            for changed in ({}, turned):
                reader = kind(str(root / directory))
                cuts = {name: changed.get(name, placement) for name, (_, placement) in table.items()}
                into = {name: cut(table[name][0], mesh, cuts[name], empty=True) for name in table}
                dcp.load(into, storage_reader=reader)
                for name, found in into.items():
                    needed = cut(table[name][0], mesh, cuts[name]).to_local()
                    assert same(found.to_local(), needed), (directory, kind, name, cuts[name])
    sharded = fully_shard(model(), mesh=mesh)
    wanted = {name: value.to_local().clone() for name, value in get_model_state_dict(sharded).items()}
    for parameter in sharded.parameters():
        parameter.data.zero_()
    into = get_model_state_dict(sharded)
    dcp.load(into, storage_reader=TensafeStorageReader(root / "fsdp"))
    for name, value in sharded.state_dict().items():
        assert same(value.to_local(), wanted[name]), name
    part(root, mesh)
    fail(root, mesh)


def part(root: Path, mesh: DeviceMesh) -> None:
    """A rank reads its part of a tensor, not all of it."""
    (rows, columns), third = (6000, 2048), 6000 * 2048 * 4 // 3
    into = {"big": cut(torch.empty(rows, columns, device="meta"), mesh, Shard(0), empty=True)}
    before = read_bytes()
    dcp.load(into, storage_reader=TensafeStorageReader(root / "big"))
    count = read_since(before)
    assert int(into["big"].to_local()[0, 0]) == mesh.get_rank() * 2000
    assert count < third + (4 << 20), count


def read_bytes() -> tuple[int, int]:
    """Bytes that this process has asked the kernel for, and those that came from the disk for it: by direct reads,
    which are in both, or by touching a mapping, which are in the second alone."""
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["rchar"]), int(rows["read_bytes"])


def read_since(before: tuple[int, int]) -> int:
    return max(now - then for now, then in zip(read_bytes(), before, strict=True))


def fail(root: Path, mesh: DeviceMesh) -> None:
    """An error of one rank is one of all."""
    into = {"rows": cut(torch.zeros(7, 5), mesh, Shard(0), empty=True)}
    try:
        dcp.load(into, storage_reader=TensafeStorageReader(root / "broken"))
    except BaseException as error:
        assert "shard-00002-model-00001-of-00001.safetensors" in str(error), error
    else:
        raise AssertionError("a file that is cut short was loaded")


def main() -> None:
    job, root = sys.argv[1], Path(sys.argv[2])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    meeting = f"file://{root}/meeting-{job}-{world}"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(minutes=2)
    )
    mesh = init_device_mesh("cpu", (world,))
    {"save": save, "load": load}[job](root, mesh)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Ranks as processes of their own: ``python ranks_program.py`` reads lines of JSON, each a list of a scenario, the
number of ranks, a directory and options, and answers each with one: what the scenario returned in every rank, ``null``
where that died.

torch is imported once. For each line a process is forked, which forks the ranks, and has the store that they meet at:
a rank that dies leaves the store.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensafe
import tensafe.torch
import torch
import torch.distributed as dist
from tensafe import distributed as td
from tensafe.distributed import host, load


def model() -> dict[str, torch.Tensor]:
    """Tensors of every kind of cut, with some blocks of bytes that ranks have in common; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embed.weight": (1001, 512),
        "layers.0.q.weight": (1024, 1024),
        "layers.0.q.bias": (1024,),
        "layers.0.o.weight": (4096, 2048),
        "layers.0.o.bias": (4096,),
        "layers.0.gate_up.weight": (1024, 512),
        "layers.1.down.weight": (3000, 2048),
        "layers.1.experts.0.w": (64, 64),
        "layers.1.experts.1.w": (64, 64),
        "layers.1.experts.2.w": (64, 64),
        "layers.1.experts.3.w": (64, 64),
        "layers.1.stacked": (4, 64, 96),
        "norm.weight": (512,),
        "scalar": (),
    }
    return {
        name: torch.randn(shape, generator=generator).to(torch.bfloat16 if len(shape) == 2 else torch.float32)
        for name, shape in shapes.items()
    }


RULES = td.Rules(
    [
        ("embed.*", td.Shard(0)),
        ("*.q.*", td.Column()),
        ("*.o.*", td.Row()),
        ("*.gate_up.*", td.Fused(0, 2)),
        ("*.down.*", td.Row()),
        ("*.experts.*", td.Experts(4)),
        ("*.stacked", td.Shard(1)),
        ("norm.*", td.Replicate()),
    ]
)


def expected(whole: dict[str, torch.Tensor], rank: int, world: int) -> dict[str, torch.Tensor]:
    """What ``RULES`` say, in torch's words."""

    def chunk(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        parts = tensor.chunk(world, dim)
        return parts[rank] if rank < len(parts) else tensor.narrow(dim, 0, 0)

    parts = {}
    for name, tensor in whole.items():
        if ".experts." in name:
            if int(name.split(".")[3]) // -(-4 // world) == rank:
                parts[name] = tensor
        elif name.startswith("embed") or ".q." in name:
            parts[name] = chunk(tensor, 0)
        elif name.endswith((".o.weight", ".down.weight")) or name.endswith("stacked"):
            parts[name] = chunk(tensor, 1)
        elif "gate_up" in name:
            parts[name] = torch.cat([chunk(half, 0) for half in tensor.chunk(2, 0)])
        else:
            parts[name] = tensor
    return parts


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """The names of tensors that differ, in bytes, shape or dtype."""
    names = found.keys() ^ wanted.keys()
    for name in found.keys() & wanted.keys():
        a, b = found[name], wanted[name]
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(_bytes(a), _bytes(b)):
            names.add(name)
    return sorted(names)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def read_bytes() -> int:
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["read_bytes"])


def make_cold(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def loads(rank: int, world: int, directory: Path, **options: Any) -> Any:
    """Loads cold, and says what differs and how many bytes the disk was asked for."""
    path = directory / options.pop("file", "model.safetensors")
    # The first load imports modules, which are read from the disk too.
    td.load_sharded(path, RULES, **options)
    dist.barrier()
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        if rank == 0:
            make_cold(file)
    dist.barrier()
    before = read_bytes()
    found = td.load_sharded(path, RULES, **options)
    count = read_bytes() - before
    if options.get("framework") == "numpy":
        arrays = {
            name: (array.view("int16"), True) if array.dtype.itemsize == 2 else (array, False)
            for name, array in found.items()
        }
        found = {
            name: torch.from_numpy(array).view(torch.bfloat16 if half else torch.float32)
            for name, (array, half) in arrays.items()
        }
    for tensor in found.values():
        # Memory of this rank's own: nothing that is written to it reaches another.
        if tensor.numel() and rank == 0:
            tensor.reshape(-1)[:1].add_(0)
    left = Path("/proc/self/maps").read_text().count("memfd:tensafe")
    return {"wrong": same(found, expected(model(), rank, world)), "read": count, "mapped": left}


def plans(rank: int, world: int, directory: Path, **options: Any) -> Any:
    """For how many ranks of this host, at most, the plans of a load are made."""
    asked = []
    plan = tensafe.Checkpoint.plan

    def record(self: Any, **named: Any) -> Any:
        asked.append(named.get("local_ranks", 1))
        return plan(self, **named)

    tensafe.Checkpoint.plan = record  # type: ignore[method-assign]
    found = td.load_sharded(directory / "model.safetensors", RULES, **options)
    return {"wrong": same(found, expected(model(), rank, world)), "ranks": max(asked)}


def dies(rank: int, world: int, directory: Path, phase: str, victim: int = 1, **options: Any) -> Any:
    """As ``loads``, but one rank is killed at a point of its way, and nobody else notices but by the time."""
    dist.barrier()

    def kill(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        # The signal stops another thread first.
        time.sleep(60)

    store = dist.distributed_c10d._get_default_store()
    if rank == victim:
        store.set("victim", str(os.getpid()))
        if phase == "before":
            kill()
        elif phase == "joining":
            host.Shared.join = kill  # type: ignore[method-assign, assignment]
        elif phase == "made":
            real_agree = host.Host.agree

            def agree(self: Any, key: str, offer: str) -> str:
                real_agree(self, key, offer)
                return str(kill())

            host.Host.agree = agree  # type: ignore[method-assign]
        elif phase in ("filling", "stopped"):
            host._Reader.read = kill if phase == "filling" else stop  # type: ignore[method-assign, assignment]
        elif phase == "taking":
            load._Load._take = kill  # type: ignore[method-assign, assignment]
        elif phase == "leaving":
            host.Shared.leave = kill  # type: ignore[method-assign, assignment]
    elif phase == "made":
        # The victim is the one that makes the memory.
        time.sleep(0.5)
    elif phase in ("filling", "stopped"):
        # The victim is the first that takes a block.
        real_fill = host.Shared.fill

        def fill(self: Any) -> None:
            time.sleep(0.3)
            real_fill(self)

        host.Shared.fill = fill  # type: ignore[method-assign]
    began = time.monotonic()
    found = td.load_sharded(directory / "model.safetensors", RULES, share="memfd", **options)
    seconds = time.monotonic() - began
    store.add("done", 1)
    while phase == "stopped" and store.add("done", 0) < world - 1:
        time.sleep(0.01)
    if phase == "stopped":
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(store.get("victim")), signal.SIGKILL)
    return {"wrong": same(found, expected(model(), rank, world)), "seconds": seconds}


def doubts(rank: int, world: int, directory: Path) -> Any:
    """As ``loads``, but the last rank takes the first one for dead when they meet, as where it dies just then."""
    dist.barrier()
    if rank == world - 1:
        real_meet = host.Host.meet.__func__  # type: ignore[attr-defined]

        def meet(cls: Any, *arguments: Any) -> Any:
            real_alive = host._alive
            host._alive = lambda _row: False
            try:
                return real_meet(cls, *arguments)
            finally:
                host._alive = real_alive

        host.Host.meet = classmethod(meet)  # type: ignore[method-assign, assignment]
    began = time.monotonic()
    found = td.load_sharded(directory / "model.safetensors", RULES, share="memfd")
    seconds = time.monotonic() - began
    # Nobody is gone before the others have ended.
    dist.barrier()
    return {"wrong": same(found, expected(model(), rank, world)), "seconds": seconds}


def twice(rank: int, world: int, directory: Path) -> Any:
    """A load, the death of a rank, and another load of those that are left."""
    path = directory / "model.safetensors"
    td.load_sharded(path, RULES, share="memfd")
    if rank == world - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    began = time.monotonic()
    found = td.load_sharded(path, RULES, share="memfd", timeout=30.0)
    return {"wrong": same(found, expected(model(), rank, world)), "seconds": time.monotonic() - began}


def stops_early(rank: int, world: int, directory: Path) -> Any:
    """One rank takes one tensor and goes away; the others have all theirs."""
    tensors = td.iter_sharded(directory / "model.safetensors", RULES, share="memfd")
    if rank == 0:
        next(tensors)
        tensors.close()  # type: ignore[attr-defined]
        return {"wrong": []}
    return {"wrong": same(dict(tensors), expected(model(), rank, world))}


def late(rank: int, world: int, directory: Path) -> Any:
    """One rank comes a second later; still each byte is read once."""
    path = directory / "model.safetensors"
    td.load_sharded(path, RULES)
    dist.barrier()
    if rank == 0:
        make_cold(path)
    dist.barrier()
    if rank == world - 1:
        time.sleep(1.0)
    before = read_bytes()
    found = td.load_sharded(path, RULES, share="memfd")
    return {"wrong": same(found, expected(model(), rank, world)), "read": read_bytes() - before}


def saves(rank: int, world: int, directory: Path, **options: Any) -> Any:
    whole = model()
    parts = expected(whole, rank, world)
    td.save_sharded(parts, directory / "saved", rules=RULES, **options)
    return None


def saves_dtensors(rank: int, world: int, directory: Path) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    tensors = {}
    for name, tensor in model().items():
        cut = (
            [Shard(0), Shard(1)]
            if tensor.ndim == 2
            else [Replicate(), Shard(0)]
            if tensor.ndim
            else [Replicate()] * 2
        )
        tensors[name] = distribute_tensor(tensor, mesh, cut)
    td.save_sharded(tensors, directory / "saved", metadata={"format": "pt"})
    rules = td.Rules.from_placements({name: tensor.placements for name, tensor in tensors.items()}, mesh)
    found = td.load_sharded(directory / "saved", rules)
    return {"wrong": same(found, {name: tensor.to_local() for name, tensor in tensors.items()})}


def save_fails(rank: int, world: int, directory: Path, how: str) -> Any:
    parts = expected(model(), rank, world)
    if rank == world - 1:
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "dies writing":
            tensafe.Writer.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        if how == "raises":

            def write(*_: Any) -> None:
                raise OSError("no room")

            tensafe.Writer.write = write  # type: ignore[method-assign, assignment]
    began = time.monotonic()
    try:
        td.save_sharded(parts, directory / "saved", rules=RULES, timeout=3.0)
    except Exception as error:
        return {"error": str(error), "seconds": time.monotonic() - began}
    return {"error": None}


def placements(rank: int, world: int, directory: Path) -> Any:
    """FSDP2 over tensor parallelism: what ``from_placements`` and ``of_module`` say is what DTensors hold."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(50, 30), torch.nn.Linear(30, 21))
    whole = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    if rank == 0:
        tensafe.torch.save_file(whole, directory / "net.safetensors")
    parallelize_module(net, mesh["tp"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    fully_shard(net, mesh=mesh["dp"])
    dist.barrier()
    state = net.state_dict()
    wanted = {name: tensor.to_local() for name, tensor in state.items()}
    kinds = {str(placement) for tensor in state.values() for placement in tensor.placements}
    cut = {name: tensor.placements for name, tensor in state.items()}
    meshes = {tensor.device_mesh for tensor in state.values()}
    wrong = same(td.load_sharded(directory / "net.safetensors", td.Rules.of_module(net)), wanted)
    if len(meshes) == 1:
        rules = td.Rules.from_placements(cut, meshes.pop())
        wrong += same(td.load_sharded(directory / "net.safetensors", rules), wanted)
    return {"wrong": wrong, "kinds": sorted(kinds)}


def transformers(rank: int, world: int, directory: Path) -> Any:
    """A Llama that transformers cuts by its own plan has the tensors that the plan's rules give."""
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    net = AutoModelForCausalLM.from_pretrained(
        directory / "llama", distributed_config=DistributedConfig(tp_size=world), dtype=torch.float32
    )
    wanted = {
        name: (value.to_local() if hasattr(value, "to_local") else value).detach()
        for name, value in net.state_dict().items()
    }
    found = td.load_sharded(directory / "llama", td.Rules.from_tp_plan(net.tp_plan))
    cut = sum(found[name].numel() < value.numel() for name, value in net.state_dict().items())
    return {"wrong": same(found, wanted), "cut": cut}


def main() -> None:
    for line in sys.stdin:
        scenario, world, directory, options = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps(job(scenario, world, Path(directory), options)), flush=True)
            except BaseException:
                traceback.print_exc()
                print("null", flush=True)
            finally:
                os._exit(0)
        os.waitpid(child, 0)


def job(scenario: str, world: int, directory: Path, options: dict[str, Any]) -> list[Any]:
    signal.alarm(100)
    # What takes seconds to import is imported once.
    heavy = {"placements": "torch.distributed.fsdp", "saves_dtensors": "torch.distributed.tensor"}
    if scenario in heavy:
        importlib.import_module(heavy[scenario])
    children = []
    ports, tell = os.pipe()
    for rank in range(world):
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(out)
            _rank(globals()[scenario], rank, world, ports, directory, options, into)
        os.close(into)
        children.append((child, out))
    # After the forks: it has threads, whose locks a fork would take with it.
    store = dist.TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
    os.write(tell, f"{store.port:5}".encode() * world)
    answers = []
    for child, out in children:
        with os.fdopen(out) as file:
            text = file.read()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or text, f"a rank ended with {status}"
        answers.append(json.loads(text) if text else None)
    return answers


def _rank(
    run: Callable[..., Any],
    rank: int,
    world: int,
    ports: int,
    directory: Path,
    options: dict[str, Any],
    into: int,
) -> None:
    code = 1
    try:
        # Who hangs does not outlive the test.
        signal.alarm(100)
        torch.set_num_threads(1)
        store = dist.TCPStore("127.0.0.1", int(os.read(ports, 5)), world, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        answer = run(rank, world, directory, **options)
        os.write(into, json.dumps(answer).encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

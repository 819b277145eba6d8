"""Rank ``sys.argv[1]`` of ``sys.argv[2]``: loads a model as a worker of vLLM does, by two load formats.

Prints JSON: whether the parameters are the same, and the bytes that ``tensafe`` and ``safetensors`` read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def worker(directory: Path, store: Path, rank: int = 0, world: int = 1) -> Iterator[Any]:
    """What a worker of vLLM has around it when it loads a model."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=64,
        dtype="bfloat16",
        tensor_parallel_size=world,
        distributed_executor_backend="mp" if world > 1 else None,
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config):
        init_distributed_environment(world, rank, f"file://{store}", rank, "gloo")
        initialize_model_parallel(world)
        yield config


def load(config: Any, load_format: str, extra: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A model, made anew, with its weights."""
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.utils.torch_utils import set_default_torch_dtype

    loader = get_model_loader(
        LoadConfig(load_format=load_format, model_loader_extra_config=extra or {}, **settings)
    )
    # Layers of the model before.
    config.compilation_config.static_forward_context.clear()
    with set_default_torch_dtype(torch.bfloat16):
        model = loader.create_model(vllm_config=config, model_config=config.model_config)
        for parameter in model.parameters():
            parameter.data.fill_(7)
        loader.load_weights(model, config.model_config)
    return model


def differing(model: Any, other: Any) -> list[str]:
    """The names of parameters that are not the same bits."""
    found, wanted = dict(model.named_parameters()), dict(other.named_parameters())
    assert found.keys() == wanted.keys()
    return [name for name in found if not torch.equal(found[name], wanted[name])]


def bytes_read() -> int:
    """Bytes that this process was given by read calls so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def main() -> None:
    from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

    rank, world, directory, store = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    with worker(directory, store, rank, world) as config:
        wanted = load(config, "safetensors")
        reports = {}
        for tp in ("on", "off"):
            before = bytes_read()
            model = load(config, "tensafe", {"tp": tp, "io": "pread"})
            reports[tp] = {"read": bytes_read() - before, "differing": differing(model, wanted)}
        bytes_ = sum(parameter.nbytes for parameter in wanted.parameters())
        print(json.dumps({"parameters": bytes_, **reports}), flush=True)
        torch.distributed.barrier()
        destroy_model_parallel()
        destroy_distributed_environment()


if __name__ == "__main__":
    main()

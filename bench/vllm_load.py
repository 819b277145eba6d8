"""Loading the weights of a model into vLLM by ``tensafe``, beside its own ``safetensors``, on a CPU.

    .venv/vllm/bin/python bench/vllm_load.py [ROUNDS] [--megabytes N] [--shards N] [--directory DIR] [--also JSON]...

A random Llama of 1 GB is written once. Each measurement makes the model anew and times what vLLM reports as
"Loading weights": from the first look at the files to the last parameter, cold (no page of the files is in
the page cache, which is checked) and warm. The loaders take turns, and who begins changes from round to
round; medians, and ratios of the rounds with their range. The parameters are compared once before anything
is timed. ``--also`` adds tensafe with a ``model_loader_extra_config``. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# One process, no network, and a log of errors alone: before vLLM looks.
os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")

import torch
from measure import make_cold, make_warm
from transformers import LlamaConfig, LlamaForCausalLM

Way = tuple[str, str, dict[str, Any]]


def make_model(directory: Path, megabytes: int, shards: int) -> None:
    """Layers of 25 MB each, as of a small Llama, and embeddings; bfloat16."""
    wide, inner, words = 1024, 2816, 16000
    layer = 2 * (2 * wide * wide + 2 * wide * wide // 2 + 3 * wide * inner)
    layers = max((megabytes * 1_000_000 - 4 * words * wide) // layer, 1)
    config = LlamaConfig(
        hidden_size=wide,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=words,
        max_position_embeddings=256,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    size = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(directory, max_shard_size=size // shards + layer)


@contextmanager
def engine(directory: Path) -> Iterator[Any]:
    """What a worker of vLLM has around it when it loads a model: one rank of one."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        model=str(directory), skip_tokenizer_init=True, enforce_eager=True, max_model_len=64, dtype="bfloat16"
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config), tempfile.TemporaryDirectory() as place:
        init_distributed_environment(1, 0, f"file://{place}/store", 0, "gloo")
        initialize_model_parallel(1)
        yield config


def load(config: Any, way: Way) -> tuple[float, Any]:
    """Seconds that one loader takes, and the model."""
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.utils.torch_utils import set_default_torch_dtype

    _, load_format, extra = way
    loader = get_model_loader(
        LoadConfig(load_format=load_format, model_loader_extra_config=extra, use_tqdm_on_load=False)
    )
    # Layers of the model before.
    config.compilation_config.static_forward_context.clear()
    with set_default_torch_dtype(torch.bfloat16):
        model = loader.create_model(vllm_config=config, model_config=config.model_config)
        begin = time.perf_counter()
        loader.load_weights(model, config.model_config)
        return time.perf_counter() - begin, model


def compare(config: Any, ways: list[Way]) -> int:
    """Raises where a loader leaves other parameters than the first one; returns their bytes."""
    _, wanted = load(config, ways[0])
    for way in ways[1:]:
        _, model = load(config, way)
        for (name, want), (other, found) in zip(
            wanted.named_parameters(), model.named_parameters(), strict=True
        ):
            if name != other or not torch.equal(want, found):
                raise AssertionError(f"{way[0]}: parameter {name} differs")
    return sum(parameter.nbytes for parameter in wanted.parameters())


def measure(config: Any, ways: list[Way], files: list[Path], rounds: int, prepare: Any) -> list[list[float]]:
    """Seconds by way and round."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds):
        order = [(number + turn) % len(ways) for turn in range(len(ways))]
        for which in order:
            gc.collect()
            prepare(files)
            took, model = load(config, ways[which])
            del model
            seconds[which].append(took)
    return seconds


def table(title: str, ways: list[Way], seconds: list[list[float]], size: int) -> str:
    lines = [f"| {title} | median s | GB/s | times safetensors (range) |", "|---|---:|---:|---:|"]
    for (label, *_), took in zip(ways, seconds, strict=True):
        ratios = [first / own for first, own in zip(seconds[0], took, strict=True)]
        median = statistics.median(took)
        lines.append(
            f"| {label} | {median:.3f} | {size / median / 1e9:.2f} |"
            f" {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="where the model is kept; else a temporary directory")
    parser.add_argument("--also", action="append", type=json.loads, default=[], metavar="JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary) / "model"
        if not (directory / "config.json").exists():
            make_model(directory, arguments.megabytes, arguments.shards)
        files = sorted(directory.glob("*.safetensors"))
        ways: list[Way] = [("safetensors", "safetensors", {}), ("tensafe", "tensafe", {})]
        ways += [(f"tensafe `{json.dumps(extra)}`", "tensafe", extra) for extra in arguments.also]
        with engine(directory) as config:
            import tensafe
            import vllm

            size = compare(config, ways)
            print(
                f"vLLM {vllm.__version__}, tensafe {tensafe.__version__}, torch {torch.__version__},"
                f" {torch.get_num_threads()} threads; {size / 1e9:.2f} GB in {len(files)} files,"
                f" {arguments.rounds} rounds\n"
            )
            for title, prepare in (("cold", make_cold), ("warm", make_warm)):
                print(
                    table(title, ways, measure(config, ways, files, arguments.rounds, prepare), size) + "\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()

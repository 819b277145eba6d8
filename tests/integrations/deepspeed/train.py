"""One rank of a run of DeepSpeed, on the CPU. Started twice by torchrun: ``train.py DIRECTORY``.

For each case, ``STAGE-DTYPE``: two steps, a checkpoint by DeepSpeed's own engine and one by ours, a third
and a fourth step; then two new runs that resume, one from each. Rank 0 writes the losses of these steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import numpy as np
import torch
from tensafe.integrations.deepspeed import install
from torch import nn

# Would be compiled at the start.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

CASES = [(stage, dtype) for stage in (1, 2, 3) for dtype in ("fp32", "bf16")]


class Net(nn.Module):
    """Odd sizes, so that partitions are padded; frozen and shared parameters; buffers of two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 7)
        self.register_buffer("mean", torch.full((7,), 0.1))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.mid = nn.Linear(7, 5)
        self.back = nn.Linear(5, 7, bias=False)
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.head = nn.Linear(7, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        hidden = self.embed(tokens) - self.mean.to(self.embed.weight.dtype)
        return self.head(self.back(torch.tanh(self.mid(self.frozen(hidden)))) * self.scale)


def client_state() -> dict[str, object]:
    """What a user keeps: of every kind that ZeRO's own states do not have."""
    return {
        "epoch": 3,
        "arguments": argparse.Namespace(lr=0.01, name="run"),
        "random": torch.get_rng_state(),
        "numpy": np.random.default_rng(0).integers(0, 9, 4),
        "best": np.float32(0.25),
        "range": (1, float("inf"), None),
        "names": {0: "a", "0": "b"},
    }


def start(stage: int, dtype: str) -> deepspeed.DeepSpeedEngine:
    torch.manual_seed(0)
    model = Net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bf16"},
    }
    return deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups, lr=1e-2), config=config)[0]


def step(engine: deepspeed.DeepSpeedEngine, number: int) -> float:
    generator = torch.Generator().manual_seed(10 * number + torch.distributed.get_rank())
    tokens = torch.randint(0, 11, (4,), generator=generator)
    loss = nn.functional.cross_entropy(engine(tokens).float(), tokens)
    engine.backward(loss)
    engine.step()
    return float(loss)


def same(found: object, needed: object) -> bool:
    if isinstance(needed, (torch.Tensor, np.ndarray, np.generic)):
        return type(found) is type(needed) and found.dtype == needed.dtype and bool((found == needed).all())
    return type(found) is type(needed) and found == needed


def run(directory: Path, stage: int, dtype: str) -> dict[str, object]:
    place = directory / f"{stage}-{dtype}"
    engine = start(stage, dtype)
    for number in range(2):
        step(engine, number)
    state = client_state()
    engine.save_checkpoint(str(place / "plain"), client_state=state)
    install(engine)
    engine.save_checkpoint(str(place / "tensafe"), client_state=state)
    # The loss of the second step shows what the optimizer remembers.
    losses = {"went on": [step(engine, 2), step(engine, 3)]}
    kept = {}
    for name in ("plain", "tensafe"):
        other = start(stage, dtype)
        if name == "tensafe":
            install(other)
        _, loaded = other.load_checkpoint(str(place / name))
        kept[name] = sorted(key for key, value in state.items() if not same(loaded.get(key), value))
        losses[name] = [step(other, 2), step(other, 3)]
    return {"losses": losses, "lost": kept}


def main() -> None:
    directory = Path(sys.argv[1])
    cases = {f"{stage}-{dtype}": run(directory, stage, dtype) for stage, dtype in CASES}
    if torch.distributed.get_rank() == 0:
        (directory / "results.json").write_text(json.dumps(cases))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

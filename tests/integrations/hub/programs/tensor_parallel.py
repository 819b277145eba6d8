"""Two ranks of transformers: `torchrun --nproc-per-node 2 tensor_parallel.py MODEL DIRECTORY`."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tensafe._safe_open import PySafeSlice
from transformers import LlamaForCausalLM

model_path, root = sys.argv[1], Path(sys.argv[2])
rank = int(os.environ["RANK"])
taken = {"bytes": 0}
take = PySafeSlice.__getitem__


def counted(part, index):
    tensor = take(part, index)
    taken["bytes"] += tensor.nbytes
    taken[part._name] = list(tensor.shape)
    return tensor


PySafeSlice.__getitem__ = counted
model = LlamaForCausalLM.from_pretrained(model_path, tp_plan="auto")
PySafeSlice.__getitem__ = take
(root / f"taken_{rank}").write_text(json.dumps(taken))

alone = LlamaForCausalLM.from_pretrained(model_path)
layer, whole = model.model.layers[0], alone.model.layers[0]
column, row = layer.self_attn.q_proj.weight, layer.self_attn.o_proj.weight
assert type(column).__name__ == type(row).__name__ == "DTensor"
assert torch.equal(column.to_local(), whole.self_attn.q_proj.weight.chunk(2, 0)[rank])
assert torch.equal(row.to_local(), whole.self_attn.o_proj.weight.chunk(2, 1)[rank])
prompt = torch.arange(8)[None]
with torch.no_grad():
    # Sums of halves: not bit for bit.
    torch.testing.assert_close(model(prompt).logits, alone(prompt).logits)
model.save_pretrained(root / "saved", max_shard_size="300KB")
dist.destroy_process_group()

"""Goes on from step 2 and keeps the state: `trains.py DIRECTORY FILE`. Trains to step 2 where nobody did."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

root = Path(sys.argv[1])
data = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(8)]
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)


def trainer(steps):
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(root / "run"),
        max_steps=steps,
        save_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(LlamaForCausalLM(config), arguments, train_dataset=data)


if not (root / "run").exists():
    trainer(2).train()
resumed = trainer(4)
resumed.train(resume_from_checkpoint=str(root / "run" / "checkpoint-2"))
assert resumed.state.global_step == 4
state = {f"model.{name}": tensor for name, tensor in resumed.model.state_dict().items()}
for number, moments in resumed.optimizer.state_dict()["state"].items():
    assert float(moments["step"]) == 4
    state |= {f"{number}.{name}": tensor for name, tensor in moments.items()}
save_file(state, root / sys.argv[2])

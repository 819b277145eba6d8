"""Trains two steps, or goes on from there: `trains.py DIRECTORY [resume]`."""

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

root, resume = Path(sys.argv[1]), len(sys.argv) > 2
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)
data = [{"input_ids": torch.arange(8), "labels": torch.arange(8)} for _ in range(8)]
arguments = TrainingArguments(
    output_dir=str(root / "run"),
    max_steps=4 if resume else 2,
    save_steps=2,
    per_device_train_batch_size=2,
    use_cpu=True,
    report_to=[],
    disable_tqdm=True,
)
trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=data)
if not resume:
    trainer.train()
else:
    trainer.train(resume_from_checkpoint=str(root / "run" / "checkpoint-2"))
    assert trainer.state.global_step == 4
    state = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    for number, moments in trainer.optimizer.state_dict()["state"].items():
        assert float(moments["step"]) == 4
        state |= {f"{number}.{name}": tensor for name, tensor in moments.items()}
    from safetensors.torch import save_file

    save_file(state, root / sys.argv[2])

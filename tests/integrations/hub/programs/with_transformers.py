"""What transformers loads and saves: `with_transformers.py DIRECTORY`."""

import sys
import warnings
from pathlib import Path

import torch
from transformers import AutoModel, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, MixtralConfig
from transformers import MixtralForCausalLM as Mixtral

warnings.simplefilter("ignore")
root = Path(sys.argv[1])
prompt = torch.arange(8)[None]


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]), name


torch.manual_seed(0)
llama = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
)
llama.save_pretrained(root / "llama", max_shard_size="20KB")
assert len(list((root / "llama").glob("*.safetensors"))) > 1

on_cpu = LlamaForCausalLM.from_pretrained(root / "llama", device_map="cpu")
same(llama, on_cpu)
assert torch.equal(llama(prompt).logits, on_cpu(prompt).logits)
same(llama, LlamaForCausalLM.from_pretrained(root / "llama", disable_mmap=True))

half = LlamaForCausalLM.from_pretrained(root / "llama", dtype=torch.bfloat16)
same(llama.to(torch.bfloat16), half)
half.save_pretrained(root / "half", variant="fp16", max_shard_size="10KB")
same(half, LlamaForCausalLM.from_pretrained(root / "half", variant="fp16", dtype="auto"))

# A layer stays in the files and is read when it is used.
where = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
where |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
offloaded = LlamaForCausalLM.from_pretrained(
    root / "llama", device_map=where, offload_folder=root / "offload"
)
assert offloaded.lm_head.weight.device.type == "meta"
assert torch.equal(on_cpu(prompt).logits, offloaded(prompt).logits)
offloaded.save_pretrained(root / "offloaded", max_shard_size="20KB")
same(on_cpu, LlamaForCausalLM.from_pretrained(root / "offloaded"))

# Experts are tensors of their own in the file, and one tensor in the model.
mixtral = Mixtral(
    MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
    )
)
mixtral.save_pretrained(root / "mixtral")
same(mixtral, Mixtral.from_pretrained(root / "mixtral"))

bert = BertModel(
    BertConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
)
bert.save_pretrained(root / "bert")
same(bert, AutoModel.from_pretrained(root / "bert", use_safetensors=True))

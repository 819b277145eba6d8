"""What peft loads, merges and saves: `with_peft.py DIRECTORY`."""

import sys
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from transformers import LlamaConfig, LlamaForCausalLM

root = Path(sys.argv[1])
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
)
prompt = torch.arange(8)[None]


def same(left, right):
    assert left.keys() == right.keys()
    assert all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


torch.manual_seed(0)
LlamaForCausalLM(config).save_pretrained(root / "base")


def base(**options):
    return LlamaForCausalLM.from_pretrained(root / "base", **options).eval()


lora = get_peft_model(base(), LoraConfig(r=2, init_lora_weights=False, modules_to_save=["lm_head"])).eval()
lora.save_pretrained(root / "lora")
again = PeftModel.from_pretrained(base(), root / "lora").eval()
same(get_peft_model_state_dict(lora), get_peft_model_state_dict(again))
assert torch.equal(lora(prompt).logits, again(prompt).logits)
again.load_adapter(root / "lora", "second")
weights = load_peft_weights(str(root / "lora"), device="cpu")
set_peft_model_state_dict(again, weights, adapter_name="second")
same(get_peft_model_state_dict(again), get_peft_model_state_dict(again, adapter_name="second"))

merged = again.merge_and_unload()
merged.save_pretrained(root / "merged")
torch.testing.assert_close(lora(prompt).logits, merged(prompt).logits)
same(merged.state_dict(), LlamaForCausalLM.from_pretrained(root / "merged").state_dict())

# With the embeddings, which are tied in no other file, and an adapter of another kind.
get_peft_model(base(), LoraConfig(r=2)).save_pretrained(root / "all", save_embedding_layers=True)
tuned = get_peft_model(base(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
tuned.save_pretrained(root / "prompt")
again = PeftModel.from_pretrained(base(), root / "prompt").eval()
assert torch.equal(tuned(prompt).logits, again(prompt).logits)

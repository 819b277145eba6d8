"""Tiny random models that vLLM runs on a CPU. No network, no tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

PROMPT = [3, 17, 101, 9, 64, 5]


def llama(directory: Path, *, shard_size: str = "50GB", seed: int = 0, **settings: Any) -> Path:
    """Saves a random Llama whose heads are as large as the CPU kernels of vLLM need them."""
    torch.manual_seed(seed)
    chosen = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 512,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        # Weights of this size make the next token differ from place to place.
        "initializer_range": 0.2,
        **settings,
    }
    config = LlamaConfig(**chosen, bos_token_id=1, eos_token_id=2, dtype="bfloat16")
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(directory, max_shard_size=shard_size)
    assert json.loads((directory / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    return directory

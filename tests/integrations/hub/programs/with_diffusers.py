"""What diffusers loads and saves: `with_diffusers.py DIRECTORY`."""

import json
import sys
import warnings
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel

warnings.simplefilter("ignore")
root = Path(sys.argv[1])


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    assert all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


torch.manual_seed(0)
unet = UNet2DModel(
    sample_size=8,
    block_out_channels=(8,),
    layers_per_block=1,
    norm_num_groups=4,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    add_attention=False,
)
unet.eval().save_pretrained(root / "unet")
same(unet, UNet2DModel.from_pretrained(root / "unet"))
for low in (True, False):
    same(unet, UNet2DModel.from_pretrained(root / "unet", low_cpu_mem_usage=low))
same(unet, UNet2DModel.from_pretrained(root / "unet", disable_mmap=True))
same(unet, UNet2DModel.from_pretrained(root / "unet", device_map={"": "cpu"}))

unet.save_pretrained(root / "shards", max_shard_size="10KB")
assert len(list((root / "shards").glob("*.safetensors"))) > 1
for low in (True, False):
    same(unet, UNet2DModel.from_pretrained(root / "shards", low_cpu_mem_usage=low))

half = UNet2DModel.from_pretrained(root / "unet", torch_dtype=torch.float16)
half.save_pretrained(root / "half", variant="fp16", max_shard_size="10KB")
same(half, UNet2DModel.from_pretrained(root / "half", variant="fp16", torch_dtype=torch.float16))

pipeline = DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=4))
pipeline.set_progress_bar_config(disable=True)
pipeline.save_pretrained(root / "pipeline")
again = DDPMPipeline.from_pretrained(root / "pipeline")
again.set_progress_bar_config(disable=True)
made = [
    each(num_inference_steps=2, generator=torch.manual_seed(1), output_type="np").images
    for each in (pipeline, again)
]
same(unet, again.unet)
assert abs(made[0] - made[1]).max() < 1e-6

# A LoRA of a model that takes them, with its metadata.
from peft import LoraConfig  # noqa: E402

conditioned = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8,),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=8,
    attention_head_dim=4,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    mid_block_type=None,
)
conditioned.save_pretrained(root / "conditioned")
conditioned.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]), "made")
conditioned.save_lora_adapter(root / "lora", "made")
other = UNet2DConditionModel.from_pretrained(root / "conditioned")
other.load_lora_adapter(root / "lora", prefix=None, adapter_name="made", use_safetensors=True)
same(conditioned, other)
from safetensors import safe_open  # noqa: E402

with safe_open(root / "lora" / "pytorch_lora_weights.safetensors", "pt") as file:
    assert json.loads(file.metadata()["lora_adapter_metadata"])["r"] == 2

"""What huggingface_hub serialises: `with_huggingface_hub.py DIRECTORY`."""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import (
    PyTorchModelHubMixin,
    export_folder_as_dduf,
    load_state_dict_from_file,
    load_torch_model,
    read_dduf_file,
    save_torch_model,
    save_torch_state_dict,
    split_torch_state_dict_into_shards,
)
from safetensors.torch import load, save

root = Path(sys.argv[1])
for name in ("one", "shards", "model", "dduf"):
    (root / name).mkdir()


def same(left, right):
    assert left.keys() == right.keys()
    assert all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


class Net(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, width: int):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.last = torch.nn.Linear(width, width)
        self.last.weight = self.first.weight


torch.manual_seed(0)
net = Net(width=8)
save_torch_state_dict(net.state_dict(), root / "one", metadata={"by": "test"})
save_torch_state_dict(net.state_dict(), root / "shards", max_shard_size=100)
save_torch_model(net, root / "model", max_shard_size=100, force_contiguous=True)
assert len(list((root / "model").glob("*.safetensors"))) > 1
assert split_torch_state_dict_into_shards(net.state_dict(), max_shard_size=100).is_sharded
for name in ("one", "shards", "model"):
    other = Net(width=8)
    load_torch_model(other, root / name)
    # Each of two names of one tensor is in the file under the other's.
    same(net.state_dict(), other.state_dict())
    keys = load_torch_model(other, root / name, map_location="cpu")
    assert keys.missing_keys == ["last.weight"] and not keys.unexpected_keys
state = load_state_dict_from_file(root / "one" / "model.safetensors")
assert torch.equal(state["first.bias"], net.first.bias)
try:
    load_torch_model(torch.nn.Linear(2, 2), root / "one", strict=True)
except RuntimeError as error:
    assert "first.bias" in str(error)
else:
    raise AssertionError("loaded")

net.save_pretrained(root / "mixin")
again = Net.from_pretrained(root / "mixin", map_location="cpu")
same(net.state_dict(), again.state_dict())

# Files within a DDUF archive are read through a mapping.
(root / "dduf" / "model_index.json").write_text(json.dumps({"net": ["this", "Net"]}))
(root / "dduf" / "net").mkdir()
(root / "dduf" / "net" / "config.json").write_text("{}")
(root / "dduf" / "net" / "model.safetensors").write_bytes(save({"a": torch.arange(3)}))
export_folder_as_dduf(root / "net.dduf", root / "dduf")
entry = read_dduf_file(root / "net.dduf")["net/model.safetensors"]
with entry.as_mmap() as mapped:
    assert load(mapped)["a"].tolist() == [0, 1, 2]

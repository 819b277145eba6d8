"""What accelerate loads, keeps on disk and saves: `with_accelerate.py DIRECTORY`."""

import copy
import sys
from pathlib import Path

import torch
from accelerate import (
    Accelerator,
    cpu_offload,
    disk_offload,
    init_empty_weights,
    load_checkpoint_and_dispatch,
    load_checkpoint_in_model,
)
from accelerate.utils import OffloadedWeightsLoader, load_state_dict, offload_state_dict
from accelerate.utils.modeling import load_offloaded_weights

root = Path(sys.argv[1])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def same(left, right):
    assert left.keys() == right.keys()
    assert all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


torch.manual_seed(0)
net = Net().eval()
x = torch.ones(3, 4)
accelerator = Accelerator(cpu=True)
accelerator.save_model(net, root / "one")
accelerator.save_model(net, root / "shards", max_shard_size=200)
assert len(list((root / "shards").glob("*.safetensors"))) > 1

for kind in ("one", "shards"):
    other = Net().eval()
    load_checkpoint_in_model(other, root / kind)
    same(net.state_dict(), other.state_dict())
    other = Net().eval()
    load_checkpoint_in_model(other, root / kind, device_map={"": "cpu"}, dtype=torch.bfloat16)
    same(copy.deepcopy(net).to(torch.bfloat16).state_dict(), other.state_dict())

    # Two parts on disk: from a file of the checkpoint, or as .dat files that accelerate writes.
    with init_empty_weights():
        empty = Net().eval()
    other = load_checkpoint_and_dispatch(
        empty,
        root / kind,
        device_map={"first": "cpu", "norm": "cpu", "last": "disk"},
        offload_folder=root / f"offload_{kind}",
    )
    assert other.last.weight.device.type == "meta"
    assert torch.equal(net(x), other(x))
    accelerator.save_model(other, root / f"again_{kind}", max_shard_size=200)
    # What lies in .dat files is loaded back.
    other = Net().eval()
    load_checkpoint_in_model(
        other,
        root / kind,
        device_map={"first": "disk", "norm": "cpu", "last": "disk"},
        offload_folder=root / f"dat_{kind}",
    )
    files = list((root / f"dat_{kind}").glob("*.dat")) if (root / f"dat_{kind}").exists() else []
    if files:
        load_offloaded_weights(other, {}, root / f"dat_{kind}")

file = root / "one" / "model.safetensors"
index = {
    name: {"safetensors_file": str(file), "weight_name": name, "dtype": "float32"}
    for name in ("first.weight",)
}
loader = OffloadedWeightsLoader(index=index)
assert list(loader) == ["first.weight"] and torch.equal(loader["first.weight"], net.first.weight)
offload_state_dict(root / "dat", net.state_dict())
same(net.state_dict(), dict(OffloadedWeightsLoader(save_folder=root / "dat").items()))
same(net.state_dict(), load_state_dict(str(file)))
same(net.state_dict(), load_state_dict(str(file), device_map={"first": "cpu", "norm": "cpu", "last": "disk"}))

for kind in ("cpu", "disk"):
    other = copy.deepcopy(net)
    cpu_offload(other) if kind == "cpu" else disk_offload(other, root / "all")
    assert torch.equal(net(x), other(x))

# A step, the whole state, and back.
model, optimizer = accelerator.prepare(Net(), torch.optim.AdamW(net.parameters(), lr=0.1))
accelerator.save_state(root / "state")
kept = copy.deepcopy(accelerator.unwrap_model(model).state_dict())
with torch.no_grad():
    [parameter.zero_() for parameter in model.parameters()]
accelerator.load_state(root / "state")
same(kept, accelerator.unwrap_model(model).state_dict())

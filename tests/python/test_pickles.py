"""The corpora of tests/pickles, through convert and load_pickle.

What real writers left converts to what their own loaders gave; what is refused is refused by name. Of
hostile files nothing is executed, and nothing but inert tensors comes out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import tensafe
import tensafe.numpy
import tensafe.torch

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent / "pickles"
BENIGN: dict[str, Any] = json.loads((ROOT / "benign.json").read_text())["files"]
HOSTILE: dict[str, Any] = json.loads((ROOT / "hostile.json").read_text())
MARKER = "TENSAFE-MARKER-MUST-NOT-EXIST"


def digest(tensor: Any) -> tuple[str, list[int], str]:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
    raw = bytes(data.numpy().tobytes()) if tensor.numel() else b""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape), hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("name", sorted(BENIGN))
def test_what_real_writers_left_is_what_their_loaders_gave(name: str, tmp_path: Path) -> None:
    entry = BENIGN[name]
    try:
        found = tensafe.torch.load_pickle(ROOT / "benign" / name)
    except tensafe.SafetensorError as error:
        assert entry.get("refused"), str(error)
        return
    print({k: digest(v) for k, v in found.items()})
    assert not entry.get("refused"), f"{entry['refused']}: {list(found)}"
    assert {k: digest(v) for k, v in found.items()} == {
        k: (v["dtype"], v["shape"], v["sha256"]) for k, v in entry["tensors"].items()
    }

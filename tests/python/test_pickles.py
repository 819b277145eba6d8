"""The corpora of tests/pickles, through load_pickle and convert.

What real writers left becomes what their own loaders gave. Of hostile files nothing is executed, and
nothing but inert tensors comes out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tensafe
import tensafe.numpy

torch = pytest.importorskip("torch")

import tensafe.torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent / "pickles"
BENIGN: dict[str, Any] = json.loads((ROOT / "benign.json").read_text())["files"]
HOSTILE: dict[str, Any] = json.loads((ROOT / "hostile.json").read_text())
MARKER = "TENSAFE-MARKER-MUST-NOT-EXIST"

# Reasons in the manifest for which tensafe has a way: quantized tensors are values, scale and zero point;
# keys that are tuples are spelled; a storage is a tensor of one dimension; numpy.matrix is an array of two;
# TorchScript's parameters are read and its code is left out; torch 1.6 itself dropped the class.
CONVERTED_ALL_THE_SAME = (
    "quantised tensors",
    "a key that is neither text nor a number",
    "a storage without a tensor",
    "a class that is not on the list: numpy.matrix",
    "TorchScript holds code",
)
WITHOUT_ITS_CLASS = {"torch-1.6.0/tensor_subclass.pt"}


def digest(tensor: Any) -> tuple[str, list[int], str]:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape), hashlib.sha256(raw).hexdigest()


def expected(entry: dict[str, Any], tensors: str = "tensors") -> dict[str, tuple[str, list[int], str]]:
    def sum_of(row: dict[str, Any]) -> str:
        return row["sha256"] if "sha256" in row else hashlib.sha256(bytes.fromhex(row["hex"])).hexdigest()

    return {name: (row["dtype"], row["shape"], sum_of(row)) for name, row in entry[tensors].items()}


def is_refused(name: str) -> bool:
    reason = BENIGN[name]["refused"]
    return bool(reason) and not reason.startswith(CONVERTED_ALL_THE_SAME) and name not in WITHOUT_ITS_CLASS


def unnamed(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The manifest calls the one tensor of a file ``""``; a file of tensors needs a name."""
    return {"": found["tensor"]} if set(wanted) == {""} and set(found) == {"tensor"} else found


@pytest.mark.parametrize("name", [name for name in sorted(BENIGN) if not BENIGN[name]["refused"]])
def test_what_real_writers_left_is_what_their_loaders_gave(name: str) -> None:
    wanted = expected(BENIGN[name])
    found = unnamed(tensafe.torch.load_pickle(ROOT / "benign" / name), wanted)
    assert {key: digest(tensor) for key, tensor in found.items()} == wanted


@pytest.mark.parametrize("name", [name for name in sorted(BENIGN) if is_refused(name)])
def test_what_no_tensor_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    if not name.endswith("name_metadata.pt"):  # a name that a dict may have, and a file may not
        with pytest.raises(tensafe.SafetensorError) as caught:
            tensafe.torch.load_pickle(ROOT / "benign" / name)
        assert str(ROOT) in str(caught.value)
    with pytest.raises(tensafe.SafetensorError):
        tensafe.convert(ROOT / "benign" / name, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in sorted(BENIGN) if BENIGN[name].get("salvage")])
def test_modules_that_were_pickled_whole_are_salvaged(name: str) -> None:
    found = tensafe.torch.load_pickle(ROOT / "benign" / name, salvage=True)
    assert {key: digest(tensor) for key, tensor in found.items()} == expected(BENIGN[name], "salvage")


def test_the_benign_files_convert_as_they_load(tmp_path: Path) -> None:
    converted = 0
    for name in sorted(BENIGN):
        if BENIGN[name]["refused"] or not BENIGN[name]["tensors"]:
            continue
        loaded = tensafe.torch.load_pickle(ROOT / "benign" / name)
        out = tmp_path / "out.safetensors"
        tensafe.convert(
            ROOT / "benign" / name, out, duplicate=converted % 2 == 0, overwrite=True, durable=False
        )
        written = tensafe.torch.load_file(out)
        with tensafe.safe_open(out, "pt") as file:
            aliases = {k: v for k, v in (file.metadata() or {}).items() if k in loaded}
        written.update({alias: written[owner] for alias, owner in aliases.items()})
        assert {k: digest(v) for k, v in written.items()} == {k: digest(v) for k, v in loaded.items()}, name
        converted += 1
    assert converted > 500


# Bad by the manifest, and yet converted: the tensors are what the file says, and nothing else is read.
INERT = {
    "cut_version_missing.pt": "a member that says a version alone is missing",
    "legacy_view_is_its_root.pth": "a view of all of its root is the root",
    "storage_byteorder_big.pt": "the file says so, and nothing tells otherwise",
    "storage_two_types_one_key.pt": "both readings lie within the member",
}


@pytest.mark.parametrize("name", [name for name in sorted(HOSTILE) if HOSTILE[name]["verdict"] == "bad"])
def test_bad_files_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "hostile" / name
    if name in INERT:
        tensafe.torch.load_pickle(path)
        return
    try:
        found = tensafe.torch.load_pickle(path)
    except tensafe.SafetensorError:
        found = {}
    # No tensor at all is an answer, too: then there is nothing to convert.
    assert found == {}
    with pytest.raises(tensafe.SafetensorError):
        tensafe.convert(path, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_hostile_files_are_survived_by_every_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = {"refused": 0, "read": 0}
    for name in sorted(HOSTILE):
        path = ROOT / "hostile" / name
        for salvage in (False, True):
            for load in (tensafe.torch.load_pickle, tensafe.numpy.load_pickle):
                try:
                    load(path, salvage=salvage, dense=True)
                    outcomes["read"] += 1
                except tensafe.SafetensorError:
                    outcomes["refused"] += 1
            try:
                tensafe.torch.load_pickle(path.read_bytes(), salvage=salvage)
            except tensafe.SafetensorError:
                pass
    assert not list(tmp_path.iterdir())
    assert not (ROOT / "hostile" / MARKER).exists()
    assert outcomes["refused"] > outcomes["read"]

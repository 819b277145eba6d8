"""`tensafe.open`: a model as a mapping of names."""

from __future__ import annotations

import io
import json
import mmap

import numpy as np
import pytest
import tensafe
import tensafe.numpy

A = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def path(tmp_path):
    tensafe.numpy.save_file(
        {"a": A, "b.weight": np.arange(5)}, tmp_path / "model.safetensors", {"format": "np"}
    )
    return tmp_path / "model.safetensors"


def sharded(directory, weight_map=None):
    for number, (name, value) in enumerate({"a": A, "b": A + 1}.items(), 1):
        tensafe.numpy.save_file({name: value}, directory / f"m-{number:05}-of-00002.safetensors")
    weight_map = weight_map or {n: f"m-{i:05}-of-00002.safetensors" for i, n in enumerate("ab", 1)}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": weight_map}))
    return index


def test_everything_that_holds_a_file_opens(path):
    data = path.read_bytes()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        sources = [
            path,
            str(path),
            path.parent,
            data,
            bytearray(data),
            memoryview(data),
            mapped,
            io.BytesIO(data),
            file,
        ]
        for source in sources:
            with tensafe.open(source) as model:
                assert np.array_equal(model["a"].to_numpy(), A), type(source)
                assert model.metadata == {"format": "np"}
            del model


def test_a_model_is_a_mapping(path):
    model = tensafe.open(path)
    assert (
        len(model) == 2
        and list(model) == ["a", "b.weight"]
        and "a" in model
        and "c" not in model
        and 3 not in model
    )
    assert (
        [t.shape for t in model.values()] == [(3, 4), (5,)]
        and model.nbytes == 88
        and model.files == [str(path)]
    )
    assert model.get("c") is None
    with pytest.raises(KeyError) as error:
        model["c"]
    assert str(error.value) == "tensor `c` not found"


def test_a_model_and_its_tensors_show_themselves(path):
    model = tensafe.open(path)
    assert repr(model).splitlines() == [
        f"<tensafe.Checkpoint: 2 tensors, 88 B, in {path}>",
        "  b.weight  I64    [5]                  40 B",
        "  a         F32    [3, 4]               48 B",
    ]
    assert repr(model["a"][:, 1:3]) == "<a: F32 [3, 2], 24 B>"
    model.close()
    assert repr(model) == "<tensafe.Checkpoint: closed>"
    with pytest.raises(tensafe.SafetensorError, match="File is closed"):
        model["a"]


def test_a_part_is_read_when_it_is_asked_for(path):
    tensor = tensafe.open(path)["a"]
    part = tensor[1:, ::2]
    assert (tensor.dtype, tensor.shape, tensor.nbytes, len(tensor)) == ("F32", (3, 4), 48, 3)
    assert (part.shape, part.nbytes) == ((2, 2), 16)
    assert np.array_equal(part.to_numpy(), A[1:, ::2]) and np.array_equal(np.asarray(part), A[1:, ::2])
    assert bytes(part.bytes()) == A[1:, ::2].tobytes() and bytes(tensor.bytes()) == A.tobytes()
    for index, text in [
        (np.s_[5], "out of bounds"),
        ("x", "Unsupported slice index"),
        (np.s_[0, 0, 0], "more slicing"),
    ]:
        with pytest.raises(tensafe.UsageError, match=text):
            tensor[index]
    with pytest.raises(tensafe.UsageError, match="cut again"):
        part[0]


def test_all_tensors_come_in_the_framework_that_is_asked(path):
    model = tensafe.open(path)
    assert np.array_equal(model.to_numpy()["a"], A)
    torch = pytest.importorskip("torch")
    assert torch.equal(model.to_torch()["a"], torch.from_numpy(A)) and model.to_torch("meta")["a"].is_meta
    assert torch.equal(model["a"][0].to_torch(), torch.from_numpy(A)[0])
    pytest.importorskip("jax")
    assert np.array_equal(np.asarray(model["a"].to_jax()), A)


def test_shards_are_one_model(tmp_path, access):
    index = sharded(tmp_path)
    for source in (index, tmp_path):
        model = tensafe.open(source, io=access.get("io", "auto"), owned=access.get("owned", False))
        assert len(model.files) == 2 and np.array_equal(model["b"].to_numpy(), A + 1)
        assert {n: v.shape for n, v in model.to_numpy().items()} == {"a": (3, 4), "b": (3, 4)}


@pytest.mark.parametrize(
    "weight_map, rule",
    [
        ({"a": "../m-00001-of-00002.safetensors"}, "S-31"),
        ({"a": "/etc/passwd"}, "S-31"),
        ({"a": "m-00001-of-00002.safetensors", "x": "m-00002-of-00002.safetensors"}, "S-32"),
        ({"a": "m-00002-of-00002.safetensors"}, "S-32"),
        ([], "S-30"),
    ],
)
def test_an_index_that_lies_is_refused(weight_map, rule, tmp_path):
    with pytest.raises(tensafe.FormatError) as error:
        tensafe.open(sharded(tmp_path, weight_map) if weight_map else _broken(tmp_path))
    assert error.value.rule == rule


def _broken(directory):
    path = directory / "model.safetensors.index.json"
    path.write_text('{"weight_map": []}')
    return path


def test_a_missing_shard_and_an_empty_directory_say_what_is_missing(tmp_path):
    with pytest.raises(tensafe.SafetensorError, match="no safetensors file"):
        tensafe.open(tmp_path)
    index = sharded(tmp_path)
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="m-00002-of-00002"):
        tensafe.open(index)


def test_a_file_object_that_fails_is_an_error():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("the line is cut")

    with pytest.raises(OSError, match="cannot read the file object: OSError: the line is cut"):
        tensafe.open(Broken(bytes(100)))

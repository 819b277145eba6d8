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


def test_a_temporary_file_that_has_no_path_opens(path):
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(path.read_bytes())
        file.flush()
        assert np.array_equal(tensafe.open(file)["a"].to_numpy(), A)
        with tensafe._safe_open_handle(file, "np") as opened:
            assert np.array_equal(opened.get_tensor("a"), A)
    with open(bytes(path), "rb") as file:
        assert tensafe.open(file).files == [str(path)]


def test_a_file_object_is_read_from_its_start_in_pieces_of_any_size(path):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7))

    source = Slow(path.read_bytes())
    source.seek(10)
    model = tensafe.open(source)
    assert np.array_equal(model["a"].to_numpy(), A) and model["a"][1:, 2].to_numpy().tolist() == [6, 10]
    source.close()
    with pytest.raises(OSError, match="closed file"):
        model["b.weight"].to_numpy()


def test_a_file_object_that_is_called_as_a_local_file_is_read_itself(path, monkeypatch):
    class Remote:
        def __init__(self, data):
            self.file = io.BytesIO(data)
            self.name, self.seek, self.read, self.tell = (
                path.name,
                self.file.seek,
                self.file.read,
                self.file.tell,
            )

    monkeypatch.chdir(path.parent)
    source = Remote(tensafe.numpy.save({"other": A + 1}))
    model = tensafe.open(source)
    assert list(model) == ["other"] and np.array_equal(model["other"].to_numpy(), A + 1)
    with tensafe._safe_open_handle(source, "np") as file:
        assert file.keys() == ["other"]


def test_a_file_of_a_remote_file_system_opens(path):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.pipe("/tensafe-test", path.read_bytes())
    with system.open("/tensafe-test", "rb") as file:
        assert np.array_equal(tensafe.open(file)["a"].to_numpy(), A)
        with tensafe._safe_open_handle(file, "np") as opened:
            assert np.array_equal(opened.get_slice("a")[1:], A[1:])
    system.rm("/tensafe-test")


def test_a_model_equals_itself_and_can_be_a_key(path):
    model = tensafe.open(path)
    assert model == model and {model: 1}[model] == 1
    assert model != tensafe.open(path)


def test_rows_of_a_tensor_are_iterated(path):
    tensor = tensafe.open(path)["a"]
    assert [row.to_numpy().tolist() for row in tensor] == A.tolist()
    with pytest.raises(TypeError):
        assert 3 in tensor
    assert np.stack([np.asarray(row) for row in tensor]).shape == (3, 4)
    model = tensafe.open(tensafe.numpy.save({"s": np.array(1)}))
    with pytest.raises(TypeError, match="no dimensions"):
        list(model["s"])


def test_what_holds_no_file_is_refused(tmp_path):
    for source in (3, None, [tmp_path]):
        with pytest.raises(TypeError):
            tensafe.open(source)
    (tmp_path / "empty").touch()
    for source in (b"", bytes(8), tmp_path / "empty", io.BytesIO()):
        with pytest.raises(tensafe.FormatError):
            tensafe.open(source)

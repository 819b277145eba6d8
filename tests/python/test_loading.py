"""What loading promises: the same values by every access, no copies, tensors that live by themselves."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
import tensafe
import tensafe.numpy
from conftest import entry, file_bytes

A = np.arange(50, dtype=np.float32).reshape(10, 5)


@pytest.fixture
def path(tmp_path):
    tensafe.numpy.save_file({"a": A, "s": np.array(7), "e": np.zeros((0, 4))}, tmp_path / "f", {"k": "v"})
    return tmp_path / "f"


FRAMEWORKS = pytest.mark.parametrize(
    "framework, to_numpy",
    [
        pytest.param("np", np.asarray, id="numpy"),
        pytest.param("pt", lambda t: t.numpy(), id="torch"),
        pytest.param("flax", np.asarray, id="flax"),
    ],
)


def opened(path, framework, **keywords):
    pytest.importorskip({"np": "numpy", "pt": "torch", "flax": "jax"}[framework])
    return tensafe.safe_open(path, framework, **keywords)


@FRAMEWORKS
def test_every_access_gives_the_same_values(path, framework, to_numpy, access):
    with opened(path, framework, **access) as file:
        assert file.keys() == ["a", "e", "s"] and set(file.offset_keys()) == {"a", "e", "s"}
        assert file.metadata() == {"k": "v"}
        tensors = file.get_tensors()
        for name in file.keys():
            assert np.array_equal(to_numpy(tensors[name]), to_numpy(file.get_tensor(name)))
        assert np.array_equal(to_numpy(tensors["a"]), A)
        assert to_numpy(tensors["e"]).shape == (0, 4) and to_numpy(tensors["s"]).shape == ()
        meta = file.get_tensor_meta("a")
        assert (meta.dtype, meta.shape, meta.data_offsets[1] - meta.data_offsets[0]) == ("F32", [10, 5], 200)


INDICES = [
    np.s_[:],
    np.s_[()],
    np.s_[2:4],
    np.s_[:, 1:3],
    np.s_[-3:],
    np.s_[-100:2],
    np.s_[3],
    np.s_[-1],
    np.s_[..., 2],
    np.s_[1, ...],
    np.s_[::3],
    np.s_[1:9:2, ::2],
    np.s_[5:2],
    np.s_[10:10],
    np.s_[0, 0],
    np.s_[-2, -5:-2],
    np.s_[:-1, -1],
]


@FRAMEWORKS
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_slices_mean_what_they_mean_in_numpy(path, framework, to_numpy, index, access):
    with opened(path, framework, **access) as file:
        part = to_numpy(file.get_slice("a")[index])
    assert part.shape == A[index].shape and np.array_equal(part, A[index])


def test_bounds_beyond_the_end_are_refused_but_for_torch(path, access):
    with opened(path, "np", **access) as file:
        part = file.get_slice("a")
        for index, text in [
            (
                np.s_[:20],
                "Error during slicing [:20] with shape [10, 5]: index 19 out of bounds for tensor dimension #0 of size 10",
            ),
            (
                np.s_[2:, 20],
                "Error during slicing [2:, 20] with shape [10, 5]: index 20 out of bounds for tensor dimension #1 of size 5",
            ),
            (np.s_[2:, -6], "Invalid index -6 for dimension 1 of size 5"),
            ([0, 1], "Non empty lists are not implemented"),
            (np.s_[::-1], "Slice step must be a positive integer, got -1"),
            (None, "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
        ]:
            with pytest.raises(tensafe.SafetensorError) as error:
                part[index]
            assert str(error.value) == text
    with opened(path, "pt", **access) as file:
        part = file.get_slice("a")
        # As torch means them: callers rely on the last shard being shorter.
        assert part[8:20].shape == (2, 5) and part[20:30].shape == (0, 5)
        assert part[None].shape == (1, 10, 5) and part[[1, 2]].shape == (2, 5)


def test_writing_to_a_tensor_does_not_change_the_file(path, access):
    before = path.read_bytes()
    arrays = tensafe.numpy.load_file(path, **access)
    arrays["a"][:] = 0
    assert path.read_bytes() == before and np.array_equal(tensafe.numpy.load_file(path)["a"], A)
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    tensors = tensafe.torch.load_file(path, **access)
    tensors["a"].zero_()
    assert path.read_bytes() == before and tensors["a"].sum() == 0 and torch.is_tensor(tensors["a"])


def test_tensors_outlive_the_file_and_its_handle(path, access):
    pytest.importorskip("torch")
    for framework in ("np", "pt"):
        file = tensafe.safe_open(path, framework, **access)
        kept = [
            file.get_tensor("a"),
            file.get_tensors()["a"],
            file.get_slice("a")[2:5],
            file.get_slice("a")[:, 1],
        ]
        del file
        gc.collect()
        expected = [A, A, A[2:5], A[:, 1]]
        for tensor, values in zip(kept, expected, strict=True):
            assert np.array_equal(np.asarray(tensor), values)
    path.unlink()
    gc.collect()
    assert np.array_equal(np.asarray(kept[0]), A)


def test_loading_copies_nothing(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "large"
    tensafe.numpy.save_file({str(i): np.ones(8 << 20, np.uint8) for i in range(8)}, path, durable=False)
    program = f"""
import torch, numpy, tensafe.torch, tensafe.numpy
def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
before = anonymous()
tensors = tensafe.torch.load_file({str(path)!r})
arrays = tensafe.numpy.load_file({str(path)!r})
assert sum(int(t.sum()) for t in tensors.values()) == 64 << 20
assert sum(int(a.sum()) for a in arrays.values()) == 64 << 20
print(anonymous() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 << 20


def _read_bytes() -> int:
    with open("/proc/self/io") as io:
        return int(next(line for line in io if line.startswith("rchar")).split()[1])


def test_a_slice_reads_only_the_bytes_it_needs(tmp_path):
    path = tmp_path / "large"
    array = np.arange(4096 * 8192, dtype=np.uint16).reshape(4096, 8192)
    tensafe.numpy.save_file({"a": array}, path, durable=False)
    with tensafe.safe_open(path, "np", backend="pread") as file:
        part = file.get_slice("a")
        for index, bound in [(np.s_[100:110], 10 * 16384), (np.s_[:, 7], 4096 * 2), (np.s_[5:9, 3:5], 4 * 4)]:
            before = _read_bytes()
            found = part[index]
            assert _read_bytes() - before <= bound + 4096
            assert np.array_equal(found, array[index])


def test_misaligned_tensors_are_aligned(write_file, access):
    data = bytes([1, 2, 3]) + np.arange(4, dtype="<f4").tobytes()
    path = write_file({"u": entry("U8", [3], 0, 3), "f": entry("F32", [4], 3, 19)}, data)
    loaded = tensafe.numpy.load_file(path, **access)
    assert np.array_equal(loaded["f"], np.arange(4)) and loaded["f"].flags.aligned
    pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    for tensors in (tensafe.torch.load_file(path, **access), tensafe.torch.load(path.read_bytes())):
        assert tensors["f"].tolist() == [0, 1, 2, 3] and tensors["f"].data_ptr() % 4 == 0


def test_packed_and_scale_dtypes_load_from_bytes_and_slice(write_file, access):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    data = bytes(range(16)) + bytes([127, 128])
    path = write_file({"w": entry("F4", [4, 8], 0, 16), "s": entry("F8_E8M0", [2], 16, 18)}, data)
    for tensors in (tensafe.torch.load_file(path, **access), tensafe.torch.load(path.read_bytes())):
        assert tensors["w"].dtype == torch.float4_e2m1fn_x2 and tensors["w"].shape == (4, 4)
        assert tensors["s"].dtype == torch.float8_e8m0fnu and tensors["s"].float().tolist() == [1.0, 2.0]
    with tensafe.safe_open(path, "pt", **access) as file:
        rows = file.get_slice("w")[1:3]
        assert rows.shape == (2, 4) and rows.view(torch.uint8).flatten().tolist() == list(range(4, 12))
        assert file.get_slice("s")[1:].float().tolist() == [2.0]
        assert file.get_slice("w")[:, 2:6].view(torch.uint8).tolist() == [[1, 2], [5, 6], [9, 10], [13, 14]]
        with pytest.raises(tensafe.UsageError, match="byte border, the nearest legal cut is 0..4"):
            file.get_slice("w")[:, 1:3]


def test_devices_are_strings_numbers_and_torch_devices(path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    for device in ("cpu", torch.device("cpu")):
        assert tensafe.torch.load_file(path, device)["a"].device.type == "cpu"
    for device in ("meta", torch.device("meta")):
        meta = tensafe.torch.load_file(path, device)
        assert meta["a"].is_meta and meta["a"].shape == (10, 5) and meta["a"].dtype == torch.float32
        assert tensafe.safe_open(path, "pt", device).get_slice("a")[:2].shape == (2, 5)
    tensafe.safe_open(path, "pt", "cuda:0"), tensafe.safe_open(path, "pt", 0)
    for device in ("gpu", "cuda:x", "mps:1", -1, None):
        with pytest.raises(tensafe.SafetensorError, match="is invalid"):
            tensafe.safe_open(path, "pt", device)
    with pytest.raises(tensafe.SafetensorError, match="not supported for framework"):
        tensafe.safe_open(path, "np", "cuda")


def test_load_takes_any_buffer(path):
    data = path.read_bytes()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for buffer in (data, bytearray(data), memoryview(data), mapped, np.frombuffer(data, np.uint8)):
            loaded = tensafe.numpy.load(buffer)
            assert np.array_equal(loaded["a"], A) and loaded["a"].flags.writeable
            del loaded
    with pytest.raises(ValueError, match="contiguous"):
        tensafe.numpy.load(memoryview(data)[::2])


def test_a_model_of_several_files_loads_as_one(tmp_path):
    for shard, names in (("x-00001-of-00002", "ab"), ("x-00002-of-00002", "cd")):
        tensafe.numpy.save_file({n: np.full(3, ord(n)) for n in names}, tmp_path / f"{shard}.safetensors")
    loaded = tensafe.numpy.load_file(tmp_path)
    assert {n: int(v[0]) for n, v in loaded.items()} == {n: ord(n) for n in "abcd"}


def test_lenient_reading_is_asked_for(write_file, monkeypatch):
    twice = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    extra = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}'
    array = b'{"a":["U8",[1],[0,1]]}'
    for header, rule in ((twice, "S-06"), (extra, "S-08"), (array, "S-08")):
        path = write_file(header, b"\5")
        for attempt in (lambda p: tensafe.numpy.load_file(p), lambda p: tensafe.deserialize(p.read_bytes())):
            with pytest.raises(tensafe.FormatError, match=rule) as error:
                attempt(path)
            assert error.value.rule == rule and "lenient=True reads past it" in str(error.value)
        assert tensafe.numpy.load_file(path, lenient=True)["a"].tolist() == [5]
        assert tensafe.numpy.load(path.read_bytes(), lenient=True)["a"].tolist() == [5]
        monkeypatch.setenv("TENSAFE_LENIENT", "1")
        assert tensafe.numpy.load_file(path)["a"].tolist() == [5]
        assert tensafe.deserialize(path.read_bytes())[0][0] == "a"
        with pytest.raises(tensafe.FormatError):
            tensafe.numpy.load_file(path, lenient=False)
        monkeypatch.delenv("TENSAFE_LENIENT")


def test_dtypes_that_a_framework_lacks_say_what_to_do(write_file):
    path = write_file({"x": entry("F6_E2M3", [4], 0, 3)}, b"\1\2\3")
    assert bytes(tensafe.open(path)["x"].bytes()) == b"\1\2\3"
    pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    for attempt in (tensafe.torch.load_file, lambda p: tensafe.safe_open(p, "pt").get_tensor("x")):
        with pytest.raises(NotImplementedError, match="F6_E2M3, of tensor `x`.*bytes"):
            attempt(path)


def test_threads_share_one_open_file(path, access):
    import concurrent.futures

    with tensafe.safe_open(path, "np", **access) as file, concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = [
            pool.submit(lambda i: (i, file.get_slice("a")[i], file.get_tensor("a")), i % 10)
            for i in range(400)
        ]
        for job in jobs:
            i, row, whole = job.result()
            assert np.array_equal(row, A[i]) and np.array_equal(whole, A)


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_fifty_thousand_tensors_come_in_one_call(framework, tmp_path):
    if framework == "pt":
        pytest.importorskip("torch")
    names = [f"layers.{i}.{w}" for i, w in itertools.product(range(5000), "abcdefghij")]
    tensafe.numpy.save_file(
        {n: np.array([i], np.int32) for i, n in enumerate(names)}, tmp_path / "f", durable=False
    )
    with tensafe.safe_open(tmp_path / "f", framework) as file:
        tensors = file.get_tensors()
    assert len(tensors) == 50_000 and all(int(tensors[n][0]) == i for i, n in enumerate(names))


def test_a_header_that_lies_about_its_length_is_refused(tmp_path):
    path = tmp_path / "lie"
    for length, rule in ((10**9, "S-02"), (99_999_999, "S-03")):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(tensafe.SafetensorError) as error:
            tensafe.open(path)
        assert error.value.rule == rule
    assert file_bytes(b"{}") == b"\2" + bytes(7) + b"{}" and os.path.exists(path)

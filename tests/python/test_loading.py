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


@FRAMEWORKS
def test_an_index_beyond_the_end_is_an_index_error_and_ends_a_loop(path, framework, to_numpy, access):
    with opened(path, framework, **access) as file:
        rows = list(file.get_slice("a"))
        assert len(rows) == 10 and all(np.array_equal(to_numpy(row), A[i]) for i, row in enumerate(rows))
        assert list(file.get_slice("e")) == [] == list(file.get_slice("s"))
        for name, index in [
            ("a", 10),
            ("a", -11),
            ("a", 10**30),
            ("a", np.s_[:, 5]),
            ("a", np.s_[0, 0, 0]),
            ("e", 0),
            ("s", 0),
            ("s", np.s_[:]),
        ]:
            with pytest.raises(tensafe.UsageError) as error:
                file.get_slice(name)[index]
            assert isinstance(error.value, IndexError), index


def test_a_cut_within_a_byte_is_no_end_of_a_loop(write_file):
    path = write_file({"w": entry("F4", [4], 0, 2)}, bytes(2))
    for framework in ("np", "pt"):
        with opened(path, framework) as file, pytest.raises(tensafe.UsageError, match="byte border"):
            list(file.get_slice("w"))


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


@FRAMEWORKS
def test_a_slice_outlives_its_file(path, framework, to_numpy, access):
    with opened(path, framework, **access) as file:
        part = file.get_slice("a")
    del file
    path.unlink()
    assert (part.get_shape(), part.get_dtype()) == ([10, 5], "F32") and "[10, 5]" in repr(part)
    assert np.array_equal(to_numpy(part[:1]), A[:1])


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

    # The published package takes None for the CPU, too.
    for device in ("cpu", torch.device("cpu"), None):
        assert tensafe.torch.load_file(path, device)["a"].device.type == "cpu"
        assert tensafe.safe_open(path, "pt", device).get_slice("a")[:2].device.type == "cpu"
        assert tensafe.safe_open(path, "np", device).get_tensor("a").shape == (10, 5)
    for device in ("meta", torch.device("meta")):
        meta = tensafe.torch.load_file(path, device)
        assert meta["a"].is_meta and meta["a"].shape == (10, 5) and meta["a"].dtype == torch.float32
        assert tensafe.safe_open(path, "pt", device).get_slice("a")[:2].shape == (2, 5)
    tensafe.safe_open(path, "pt", "cuda:0"), tensafe.safe_open(path, "pt", 0)
    for device in ("gpu", "cuda:x", "mps:1", -1):
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


def test_dtypes_that_a_framework_lacks_say_what_to_do(write_file):
    path = write_file({"x": entry("F6_E2M3", [4], 0, 3)}, b"\1\2\3")
    assert bytes(tensafe.open(path)["x"].bytes()) == b"\1\2\3"
    pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    for attempt in (tensafe.torch.load_file, lambda p: tensafe.safe_open(p, "pt").get_tensor("x")):
        with pytest.raises(NotImplementedError, match="F6_E2M3, of tensor `x`.*bytes"):
            attempt(path)


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


@FRAMEWORKS
def test_an_empty_model_loads(write_file, framework, to_numpy, access):
    path = write_file({})
    with opened(path, framework, **access) as file:
        assert file.keys() == [] and file.get_tensors() == {} and file.metadata() is None
    path = write_file({"__metadata__": {}, "a": entry("F32", [0, 3], 0, 0)})
    with opened(path, framework, **access) as file:
        assert to_numpy(file.get_tensor("a")).shape == (0, 3) and file.metadata() == {}
        assert to_numpy(file.get_slice("a")[:, 1:]).shape == (0, 2)


def test_offsets_beyond_four_gigabytes_are_read_right(tmp_path, access):
    in_memory = "owned" in access or "backend" in access
    size = 5 << 30
    path = tmp_path / "sparse"
    header = {"a": entry("U8", [size], 0, size), "b": entry("I32", [4], size, size + 16)}
    data = file_bytes(header)
    with path.open("wb") as file:
        file.write(data)
        file.seek(size - 1, os.SEEK_CUR)
        file.write(b"\7" + np.arange(4, dtype="<i4").tobytes())
    with tensafe.safe_open(path, "np", **access) as file:
        assert file.get_tensor("b").tolist() == [0, 1, 2, 3]
        assert file.get_slice("a")[-3:].tolist() == [0, 0, 7] and int(file.get_slice("a")[size - 1]) == 7
        assert file.get_slice("a")[:: size // 2].tolist() == [0, 0]
        assert in_memory or file.get_tensors()["a"].shape == (size,)


def test_a_tensor_of_more_dimensions_than_numpy_has_is_an_error_of_ours(write_file):
    path = write_file({"a": entry("F32", [1] * 65, 0, 4)}, bytes(4))
    for attempt in (tensafe.numpy.load_file, lambda p: tensafe.numpy.load(p.read_bytes())):
        with pytest.raises(tensafe.UnsupportedError, match="65"):
            attempt(path)
    assert len(tensafe.open(path)["a"].shape) == 65


def test_loading_does_not_ask_which_device_is_the_default(path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    data = path.read_bytes()
    with torch.device("meta"):
        loads = [
            tensafe.torch.load_file(path),
            tensafe.torch.load(data),
            tensafe.torch._view2torch(tensafe.deserialize(data)),
            {"a": tensafe.safe_open(path, "pt").get_slice("a")[1:]},
        ]
        saved = tensafe.torch.save(loads[0])
    assert {t.device.type for tensors in loads for t in tensors.values()} == {"cpu"}
    assert tensafe.numpy.load(saved)["s"] == 7


def test_torch_tensors_are_like_any_others(path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")
    import copy
    import pickle

    tensor = tensafe.torch.load_file(path)["a"]
    assert tensafe.torch.storage_size(tensor) == tensor.nbytes and tensafe.torch._is_complete(tensor)
    expected = torch.from_numpy(A)
    for again in (pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor)):
        assert torch.equal(again, expected)
    assert torch.equal(tensor.share_memory_(), expected) and tensor.is_shared()
    weight = torch.nn.Parameter(tensafe.torch.load_file(path)["a"])
    weight.sum().backward()
    torch.optim.SGD([weight], lr=1.0).step()
    assert torch.equal(weight.detach(), expected - 1) and torch.equal(
        tensafe.torch.load_file(path)["a"], expected
    )


def test_a_model_is_saved_over_the_file_that_it_was_loaded_from(path, access):
    loaded = tensafe.numpy.load_file(path, **access)
    tensafe.numpy.save_file(loaded, path)
    assert np.array_equal(loaded["a"], A) and np.array_equal(tensafe.numpy.load_file(path)["a"], A)


def test_a_child_process_loads_after_its_parent_did(path):
    # Threads of the parent do not exist in the child: what waits for them waits for ever.
    program = f"""
import os, signal, numpy as np, tensafe.numpy as n
large = {str(path.with_name("large"))!r}
n.save_file({{str(i): np.ones(4 << 20, np.uint8) for i in range(8)}}, large, durable=False)
for keywords in ({{}}, {{"owned": True}}):
    n.load_file(large, **keywords)
    child = os.fork()
    if not child:
        signal.alarm(20)
        total = sum(int(a.sum()) for a in n.load_file(large, **keywords).values())
        n.save_file({{"a": np.ones(32 << 20, np.uint8)}}, large + ".child", durable=False)
        os._exit(0 if total == 32 << 20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_of_files_are_any_that_the_system_has(tmp_path):
    for name in ("n" * 255, "é 日本\n", os.fsdecode(b"\xff\xfe")):
        path = tmp_path / name
        tensafe.numpy.save_file({"a": A}, path)
        assert np.array_equal(tensafe.numpy.load_file(path)["a"], A)
        assert tensafe.open(path).files == [str(path)]
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_without_ml_dtypes_the_error_says_what_to_install(write_file):
    path = write_file({"a": entry("BF16", [1], 0, 2)}, b"\x80\x3f")
    program = f"""
import sys
sys.modules["ml_dtypes"] = None
import tensafe, tensafe.numpy
try:
    tensafe.numpy.load_file({str(path)!r})
except NotImplementedError as error:
    assert "install ml_dtypes" in str(error), error
else:
    raise AssertionError("no error")
assert bytes(tensafe.open({str(path)!r})["a"].bytes()) == bytes([0x80, 0x3f])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_header_that_lies_about_its_length_is_refused(tmp_path):
    path = tmp_path / "lie"
    for length, rule in ((10**9, "S-02"), (99_999_999, "S-03")):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(tensafe.SafetensorError) as error:
            tensafe.open(path)
        assert error.value.rule == rule
    assert file_bytes(b"{}") == b"\2" + bytes(7) + b"{}" and os.path.exists(path)

"""How tensors cross to the frameworks: capsules, arrays, and what keeps their memory alive."""

from __future__ import annotations

import functools
import gc
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensafe
import tensafe.numpy
from conftest import entry, file_bytes
from tensafe._tensafe import DTYPES, Checkpoint

torch = pytest.importorskip("torch")
tensafe_torch = pytest.importorskip("tensafe.torch")

KNOWN = dict.fromkeys((name for name, *_ in DTYPES), None)
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the kernel what is mapped")


def small(count: int) -> bytes:
    """A file of `count` tensors of four F32, in an order that is not that of their names."""
    header = {f"w{(i * 7919) % count}": entry("F32", [4], 16 * i, 16 * i + 16) for i in range(count)}
    return file_bytes(header, np.repeat(np.arange(count, dtype="<f4"), 4).tobytes())


def one(shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A file of one tensor, whose data section begins at a multiple of 8 bytes."""
    data = np.arange(np.prod(shape), dtype="<f4").tobytes()
    header = json.dumps({"w": entry("F32", list(shape), 0, len(data))}).encode()
    return file_bytes(header + b" " * (-len(header) % 8), data)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def name_of(capsule: object) -> str:
    return repr(capsule).split('"')[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "one.safetensors"
    path.write_bytes(one())
    return path


@pytest.mark.parametrize("load", [tensafe_torch.load_file, tensafe.numpy.load_file], ids=["torch", "numpy"])
def test_fifty_thousand_tensors_come_in_the_order_of_their_bytes(load, access, tmp_path):
    path = tmp_path / "many.safetensors"
    path.write_bytes(small(50_000))
    tensors = load(path, **access)
    assert list(tensors) == [f"w{(i * 7919) % 50_000}" for i in range(50_000)]
    assert all(float(tensor[3]) == i for i, tensor in enumerate(tensors.values()))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3), (1, 2, 1, 1, 3, 1, 1, 2, 1), (1,) * 20])
def test_every_number_of_dimensions_crosses(shape, access, tmp_path):
    path = tmp_path / "shape.safetensors"
    path.write_bytes(one(shape=shape))
    expected = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for tensor in (tensafe_torch.load_file(path, **access)["w"], tensafe.open(path).to_torch()["w"]):
        assert tensor.shape == shape and tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), expected)
    array = tensafe.numpy.load_file(path, **access)["w"]
    assert array.shape == shape and np.array_equal(array, expected)
    assert array.flags.c_contiguous and array.flags.aligned and array.flags.writeable
    assert not array.flags.owndata


@pytest.mark.parametrize(("code", "bits", "torch_name"), [(c, b, t) for c, b, _, t in DTYPES])
def test_every_dtype_crosses_with_its_bytes(code, bits, torch_name, access, tmp_path):
    # One byte before it puts the tensor where its elements are not aligned.
    for before in (0, 1):
        data = bytes([1] * 16) if code == "BOOL" else bytes(range(1, 17)) * (3 if bits == 6 else 1)
        count = len(data) * 8 // bits
        header = {"w": entry(code, [2, count // 2], before, before + len(data))}
        if before:
            header["a"] = entry("U8", [1], 0, 1)
        path = tmp_path / "dtype.safetensors"
        path.write_bytes(file_bytes(header, bytes(before) + data))
        array = tensafe.numpy.load_file(path, **access)["w"]
        assert array.flags.aligned and array.flags.writeable
        single = tensafe.open(path)["w"].to_numpy()
        assert array.dtype == single.dtype and array.tobytes() == single.tobytes()
        assert bits < 8 or array.tobytes() == data
        if hasattr(torch, torch_name or ""):
            tensor = tensafe_torch.load_file(path, **access)["w"]
            assert tensor.dtype == getattr(torch, torch_name)
            assert bytes(tensor.view(torch.uint8).reshape(-1).tolist()) == data
            assert tensor.data_ptr() % max(bits // 8, 1) == 0 or code == "C64"


def test_dtypes_that_cross_as_bytes_are_viewed(monkeypatch, tmp_path):
    path = tmp_path / "f8.safetensors"
    path.write_bytes(file_bytes({"w": entry("F8_E4M3", [2, 2], 0, 4)}, bytes([1, 2, 3, 4])))
    native = tensafe_torch.load_file(path)["w"]
    monkeypatch.setitem(tensafe_torch._CROSSINGS, "F8_E4M3", torch.float8_e4m3fn)
    monkeypatch.setitem(tensafe_torch._RAW, "F8_E4M3", torch.float8_e4m3fn)
    for viewed in (tensafe_torch.load_file(path)["w"], tensafe.open(path)["w"].to_torch()):
        assert viewed.dtype == native.dtype and viewed.shape == native.shape
        assert torch.equal(viewed.view(torch.uint8), native.view(torch.uint8))


@ON_LINUX
def test_a_tensor_keeps_the_mapping_alive_and_the_last_one_gives_it_back(path):
    for make in (
        lambda ck: ck.to_torch()["w"],
        lambda ck: ck.to_numpy()["w"],
        lambda ck: ck["w"].to_torch(),
        lambda ck: np.from_dlpack(ck["w"]),
        lambda ck: torch.from_dlpack(ck["w"]),
    ):
        with tensafe.open(path, io="mmap") as model:
            tensor = make(model)
        del model
        gc.collect()
        assert is_mapped(path)
        tensor[0, 0] = 7.0
        assert tensor.reshape(-1).tolist() == [7.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        del tensor
        gc.collect()
        assert not is_mapped(path)
    assert path.read_bytes() == one()


@ON_LINUX
@pytest.mark.parametrize(("version", "name"), [(None, "dltensor"), ((1, 0), "dltensor_versioned")])
def test_a_capsule_that_nobody_takes_is_freed(version, name, path):
    capsule = tensafe.open(path, io="mmap")["w"].__dlpack__(max_version=version)
    assert name_of(capsule) == name and is_mapped(path)
    del capsule
    assert not is_mapped(path)


@ON_LINUX
@pytest.mark.parametrize("versioned", [False, True])
def test_a_consumer_takes_a_capsule_once_and_frees_it_once(versioned, path):
    if versioned and not tensafe_torch._VERSIONED:
        pytest.skip("this version of torch takes no versioned capsules")
    capsule = Checkpoint.open(path, io="mmap").dlpack("w", versioned=versioned)
    tensor = torch.utils.dlpack.from_dlpack(capsule)
    assert name_of(capsule) == "used_dltensor" + "_versioned" * versioned
    with pytest.raises(RuntimeError):
        torch.utils.dlpack.from_dlpack(capsule)
    del capsule
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    del tensor
    assert not is_mapped(path)


@pytest.mark.parametrize("versioned", [False, True])
def test_capsules_of_a_whole_file_are_freed_where_the_converter_fails(versioned, path):
    checkpoint = Checkpoint.from_buffer(small(100))
    names = checkpoint.load_dlpack(name_of, KNOWN, versioned=versioned)
    assert set(names.values()) == {"dltensor" + "_versioned" * versioned} and len(names) == 100
    with pytest.raises(ZeroDivisionError):
        checkpoint.load_dlpack(lambda capsule: 1 // 0, KNOWN, versioned=versioned)


def test_a_dtype_that_is_not_known_is_refused_before_anything_is_made():
    data = file_bytes({"a": entry("F32", [1], 0, 4), "b": entry("F8_E8M0", [4], 4, 8)}, bytes(8))
    taken: list[object] = []
    with pytest.raises(tensafe.UnsupportedError, match="F8_E8M0, of tensor `b`"):
        Checkpoint.from_buffer(data).load_dlpack(taken.append, {"F32": None})
    assert taken == []


def test_tensors_without_elements_can_be_made_apart():
    data = file_bytes({"a": entry("F32", [0, 2], 0, 0), "b": entry("F32", [1], 0, 4)}, bytes(4))
    made = Checkpoint.from_buffer(data).load_dlpack(name_of, KNOWN, empty=lambda shape, code: (shape, code))
    assert made == {"a": ([0, 2], "F32"), "b": "dltensor"}


@pytest.mark.parametrize(
    "dtype", [np.dtype("<f8"), np.dtype(object), np.dtype(("u2", (2,))), np.float32, None]
)
def test_a_numpy_dtype_that_does_not_fit_is_refused(dtype):
    checkpoint = Checkpoint.from_buffer(one())
    with pytest.raises(TypeError, match=r"F32 needs a numpy\.dtype of 4 bytes"):
        checkpoint.load_numpy(lambda code: dtype, lambda *_: None)


@pytest.mark.parametrize("on", [True, False])
def test_collections_are_on_or_off_as_before(on, path):
    def fail(capsule: object) -> None:
        assert not gc.isenabled()
        raise ZeroDivisionError

    was_on = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        tensafe_torch.load_file(path)
        assert gc.isenabled() == on
        with pytest.raises(ZeroDivisionError):
            Checkpoint.open(path).load_dlpack(fail, KNOWN)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends a signal")
def test_a_signal_ends_the_hand_over():
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    checkpoint = Checkpoint.from_buffer(small(50_000))
    taken: list[object] = []
    # Inserting at the front becomes slower and slower, and runs no instruction of Python.
    slow = functools.partial(taken.insert, 0)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            checkpoint.load_dlpack(slow, KNOWN)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < len(taken) < 50_000


def test_any_framework_takes_a_tensor_by_the_array_api(path, access):
    for model in (
        tensafe.open(path, **{k: v for k, v in access.items() if k != "backend"}),
        tensafe.open(one()),
    ):
        for from_dlpack in (np.from_dlpack, torch.from_dlpack):
            assert from_dlpack(model["w"]).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
            assert from_dlpack(model["w"][1:, ::2]).tolist() == [[3.0, 5.0]]
            assert from_dlpack(model["w"][1, 1]).tolist() == 4.0
    assert model["w"].__dlpack_device__() == (1, 0)


def test_jax_takes_a_tensor_by_the_array_api(path):
    jax = pytest.importorskip("jax")
    model = tensafe.open(path)
    assert jax.dlpack.from_dlpack(model["w"]).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_bytes_of_the_caller_are_copied_unless_they_are_marked(path):
    data = one()
    model = tensafe.open(data)
    for tensor in (np.from_dlpack(model["w"]), torch.from_dlpack(model["w"]), model["w"].to_torch()):
        tensor[0, 0] = 9.0
    assert data == one()
    shown = np.from_dlpack(model["w"], copy=False)
    assert not shown.flags.writeable and shown.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.raises(BufferError, match="copy=False"):
        model["w"].__dlpack__(copy=False)


def test_a_read_only_capsule_holds_the_callers_buffer():
    data = bytearray(one())
    shown = np.from_dlpack(tensafe.open(data)["w"], copy=False)
    with pytest.raises(BufferError):
        data.append(0)
    del shown
    data.append(0)


def test_a_copy_is_made_where_it_is_asked_for(path):
    model = tensafe.open(path, io="mmap")
    view, copy = np.from_dlpack(model["w"], copy=False), np.from_dlpack(model["w"], copy=True)
    view[0, 0] = 5.0
    assert copy[0, 0] == 0.0 and copy.flags.writeable
    assert np.from_dlpack(model["w"])[0, 0] == 5.0


def test_what_a_consumer_cannot_have_is_a_buffer_error(write_file, path):
    tensor = tensafe.open(path)["w"]
    for arguments in ({"stream": 1}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**arguments)
    assert name_of(tensor.__dlpack__(dl_device=(1, 0), max_version=(1, 3))) == "dltensor_versioned"
    assert name_of(tensor.__dlpack__(max_version=(0, 8))) == "dltensor"
    header = {"a": entry("U8", [1], 0, 1), "w": entry("F32", [1], 1, 5)}
    misaligned = tensafe.open(write_file(header, bytes(5)), io="mmap")["w"]
    with pytest.raises(BufferError, match="aligned"):
        misaligned.__dlpack__(copy=False)
    assert np.from_dlpack(misaligned).flags.aligned


def test_without_numpy_the_package_and_torch_load(path):
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numpy", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import tensafe, tensafe.torch
tensors = tensafe.torch.load_file(sys.argv[1])
assert tensors["w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
try:
    tensafe._tensafe.Checkpoint.open(sys.argv[1]).load_numpy(print, print)
except ModuleNotFoundError as error:
    assert "numpy" in error.name
else:
    raise SystemExit("there is a numpy")
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

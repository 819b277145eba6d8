"""Defects that were found and mended: each has a test that failed before."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensafe
import tensafe.numpy

unix = pytest.mark.skipif(sys.platform == "win32", reason="links and numbers of unix")


@unix
def test_refusals_of_the_system_carry_their_errno(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    for attempt, path, number in [
        (lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p), tmp_path / "empty", errno.EISDIR),
        (lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p), tmp_path / "loop", errno.ELOOP),
        (tensafe.open, tmp_path / "loop", errno.ELOOP),
        (tensafe.open, tmp_path / "empty", errno.ENOENT),
        (tensafe.numpy.load_file, tmp_path / "empty", errno.ENOENT),
    ]:
        with pytest.raises(OSError) as error:
            attempt(path)
        assert isinstance(error.value, tensafe.IoError) and error.value.errno == number, str(error.value)
        assert error.value.filename == str(path)


@unix
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ("pipe", "socket", "/dev/zero"):
            for attempt in (tensafe.open, tensafe.numpy.load_file):
                with pytest.raises(tensafe.UsageError, match="not a regular file") as error:
                    attempt(path)
                assert error.value.path == path


def test_a_path_with_a_nul_byte_is_a_value_error():
    for attempt in (tensafe.open, lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p)):
        with pytest.raises(ValueError, match="NUL"):
            attempt("a\0b")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(
    "load",
    [
        "f.load_file(path, backend='pread')",
        "f.load_file(path, owned=True)",
        "f.load(open(path, 'rb').read())",
        "f.load(bytearray(open(path, 'rb').read()))",
        "getattr(tensafe.open(open(path, 'rb').read(), owned=True), 'to_' + framework)()",
    ],
)
def test_memory_is_given_back_with_each_tensor(tmp_path, framework, load):
    pytest.importorskip(framework)
    size, count = 8 << 20, 12
    tensafe.numpy.save_file(
        {str(i): np.full(size, i, np.uint8) for i in range(count)}, tmp_path / "f", durable=False
    )
    program = f"""
import importlib, tensafe, tensafe.{framework} as f
framework, path = {framework!r}, {str(tmp_path / "f")!r}
def anonymous():
    # What is kept for the next load is not a tensor's any more.
    tensafe.trim_memory()
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
before = anonymous()
tensors = {load}
held = [anonymous() - before]
while len(tensors) > 1:
    tensors.popitem()
    held.append(anonymous() - before)
(last,) = tensors.values()
assert int(last.sum()) == int(last[0]) * {size}
print(held)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held = eval(done.stdout)
    assert held[0] > (count - 1) * size and held[-1] < 3 * size, held
    assert held[count // 2] < (count // 2 + 2) * size, held


@pytest.mark.parametrize("keywords", [{"backend": "pread"}, {"owned": True}], ids=["pread", "owned"])
def test_small_tensors_share_memory_and_large_ones_do_not(tmp_path, keywords):
    arrays = {f"small{i}": np.arange(i, i + 7, dtype=np.int32) for i in range(5000)}
    arrays["large"] = np.arange(1 << 20)
    tensafe.numpy.save_file(arrays, tmp_path / "f", durable=False)
    loaded = tensafe.numpy.load_file(tmp_path / "f", **keywords)
    assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())
    pieces = {id(array.base): len(array.base) for array in loaded.values()}
    assert 2 <= len(pieces) <= 10 and len(loaded["large"].base) == 8 << 20
    assert all(array.flags.aligned and array.flags.writeable for array in loaded.values())


HUGE = (1 << 63, 1 << 64, 10**30)


def test_bounds_of_any_size_mean_what_they_mean_for_lists(tmp_path):
    array = np.arange(50).reshape(10, 5)
    tensafe.numpy.save_file({"a": array}, tmp_path / "f")
    with tensafe.safe_open(tmp_path / "f", "np") as file:
        part = file.get_slice("a")
        for huge in HUGE:
            assert np.array_equal(part[-huge:3], array[-huge:3])
            assert np.array_equal(part[2::huge], array[2::huge])
            assert part[:-huge].shape == (0, 5)
            for index in (np.s_[:huge], np.s_[huge:], np.s_[2, :huge], np.s_[huge], np.s_[..., -huge]):
                with pytest.raises(tensafe.UsageError):
                    part[index]
            with pytest.raises(tensafe.UsageError, match=f"Invalid index {huge} for dimension 1 of size 5"):
                part[0, huge]
            with pytest.raises(tensafe.UsageError, match=f"must be a positive integer, got -{huge}"):
                part[::-huge]
    pytest.importorskip("torch")
    with tensafe.safe_open(tmp_path / "f", "pt") as file:
        part = file.get_slice("a")
        for huge in HUGE:
            for index in (np.s_[:huge], np.s_[8:huge], np.s_[huge:], np.s_[1, -huge:huge], np.s_[::huge]):
                assert np.array_equal(part[index].numpy(), array[index])
            with pytest.raises(tensafe.UsageError, match=f"Invalid index {huge}"):
                part[huge]


class Reading(io.BytesIO):
    """A file object whose `read` returns what `made` makes of the bytes."""

    def __init__(self, data, made):
        super().__init__(data)
        self.made = made

    def read(self, size=-1):
        return self.made(super().read(size))


def test_file_objects_may_return_any_contiguous_buffer():
    array = np.arange(100_000)
    data = tensafe.numpy.save({"a": array})
    for made in (
        bytes,
        bytearray,
        memoryview,
        lambda read: np.frombuffer(read, np.uint8),
        lambda read: memoryview(bytearray(read)).cast("b"),
    ):
        assert np.array_equal(tensafe.open(Reading(data, made))["a"].to_numpy(), array)
    for made, text in (
        (lambda read: read.decode("latin-1"), "str"),
        (lambda read: memoryview(read + read)[::2], "contiguous"),
        (lambda read: None, "NoneType"),
    ):
        with pytest.raises(tensafe.IoError, match=text):
            tensafe.open(Reading(data, made))


def test_a_packed_dimension_that_overflows_is_told_from_one_that_is_missing():
    for shape, text in (
        ([], "needs at least one dimension"),
        ([2, 1 << 63], "more than 2\\^64 - 1 elements"),
    ):
        with pytest.raises(ValueError, match=text):
            tensafe.TensorSpec(dtype="float4_e2m1fn_x2", shape=shape, data_ptr=0, data_len=0)


def test_a_masked_array_does_not_lose_its_mask_silently(tmp_path):
    masked = np.ma.masked_array(np.arange(4), [False, True, False, False])
    for save in (tensafe.numpy.save, lambda arrays: tensafe.numpy.save_file(arrays, tmp_path / "f")):
        for array in (masked, np.ma.masked):
            with pytest.raises(TypeError, match=r"tensor `m`: .*\.filled\(.*\.mask"):
                save({"m": array})
    loaded = tensafe.numpy.load(tensafe.numpy.save({"d": masked.data, "m": masked.mask}))
    assert np.array_equal(np.ma.masked_array(loaded["d"], loaded["m"]), masked)


def test_a_prefetch_of_wrong_types_is_a_type_error(tmp_path):
    pytest.importorskip("torch")
    tensafe.numpy.save_file({"a": np.arange(6)}, tmp_path / "f")
    with tensafe.safe_open(tmp_path / "f", "pt") as file:
        for threads in (1.5, "2", None):
            with pytest.raises(TypeError, match="whole number of threads"):
                file.prefetch(threads=threads)
        for plan in (["a"], "a", {"a"}, 3, {1: None}, {"a": 3}, {"a": "x"}, {"a": slice(0.5, 2)}):
            with pytest.raises(TypeError) as error:
                file.prefetch(plan)
            assert isinstance(error.value, tensafe.UsageError), plan
        with file.prefetch({"a": slice(1, 3)}, threads=np.int64(2)) as loader:
            assert loader.take("a").tolist() == [1, 2]


def test_bytes_cannot_be_mapped():
    data = tensafe.numpy.save({"a": np.arange(6)})
    for source in (data, bytearray(data), memoryview(data)):
        with pytest.raises(tensafe.UsageError, match='io="mmap" maps a file, and bytes are none'):
            tensafe.open(source, io="mmap")
        for io_ in ("auto", "pread"):
            assert tensafe.open(source, io=io_)["a"].to_numpy().sum() == 15


def longest_stop(work):
    """The longest time that another thread stood still while ``work`` ran, as a part of its time."""
    gaps, done = [0.0], threading.Event()

    def tick():
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    done.set()
    ticker.join()
    return max(gaps) / seconds


def test_other_threads_run_while_large_bytes_are_copied():
    arrays = {"a": np.ones(256 << 20, np.uint8)}
    data = tensafe.numpy.save(arrays)
    works = [lambda: tensafe.numpy.save(arrays), lambda: tensafe.deserialize(data)]
    if importlib.util.find_spec("torch"):
        works.append(lambda: tensafe.open(data)["a"].to_torch())
    for work in works:
        # What else the machine does may stop any thread: once is enough.
        stops = []
        while len(stops) < 30 and min(stops, default=1) > 0.3:
            stops.append(longest_stop(work))
        assert min(stops) <= 0.3, stops


def test_every_class_and_function_under_the_published_name_can_be_pickled():
    program = """
import pickle, tensafe
tensafe.install_as_safetensors()
import safetensors
names = [name for name in vars(safetensors) if callable(getattr(safetensors, name))]
assert {"safe_open", "SafetensorError", "serialize"} <= set(names)
for name in names:
    if not name.startswith("__"):
        assert pickle.loads(pickle.dumps(getattr(safetensors, name))) is getattr(safetensors, name), name
error = pickle.loads(pickle.dumps(safetensors.SafetensorError("what went wrong")))
assert type(error) is safetensors.SafetensorError and str(error) == "what went wrong"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_memory_without_dimensions_or_without_elements_is_read_into_and_written_from(tmp_path):
    arrays = {"scalar": np.array(3.5), "empty": np.zeros((3, 0)), "cut": np.arange(6.0).reshape(3, 2)}
    tensafe.numpy.save_file(arrays, tmp_path / "f")
    scalar, empty, cut = np.zeros(()), np.zeros((3, 0)), np.zeros((0, 2))
    plan = tensafe.open(tmp_path / "f").plan().add("scalar").add("empty")
    plan.add("cut", intervals=[(1, 1)])
    plan.into("scalar", scalar).into("empty", empty).into("cut", cut)
    loaded = plan.load("numpy")
    assert scalar == 3.5
    assert loaded["scalar"] is scalar and loaded["empty"] is empty and loaded["cut"] is cut
    with tensafe.Writer(tmp_path / "g", {"scalar": ("F64", [])}) as writer:
        writer.write("scalar", memoryview(arrays["scalar"]))
    assert tensafe.numpy.load_file(tmp_path / "g")["scalar"] == 3.5


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(3), SystemExit),
        (PermissionError(errno.EACCES, "locked"), tensafe.IoError),
        (ValueError("odd"), tensafe.IoError),
    ],
    ids=repr,
)
def test_what_a_file_object_raises_is_the_cause_or_itself(raised, expected):
    class Breaks(io.BytesIO):
        def read(self, size=-1):
            raise raised

    with pytest.raises(expected) as error:
        tensafe.open(Breaks(tensafe.numpy.save({"a": np.zeros(9)})))
    if expected is tensafe.IoError:
        assert error.value.__cause__ is raised and error.value.errno == getattr(raised, "errno", None)
    else:
        assert error.value is raised


def test_halves_of_bytes_that_no_tensor_can_show_are_an_error_of_ours(tmp_path):
    torch = pytest.importorskip("torch")
    import tensafe.torch

    header = b'{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}     '
    header += b" " * (-len(header) % 8)
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no F4")
    with pytest.raises(tensafe.SafetensorError, match="fills whole bytes"):
        tensafe.torch.load_file(tmp_path / "f")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the page cache of Linux")
@pytest.mark.parametrize("io", ["pread", "direct", "auto"])
def test_a_tensor_that_is_read_leaves_the_page_cache_where_that_is_asked_for(tmp_path, io):
    path = tmp_path / "f"
    tensafe.numpy.save_file({"a": np.zeros(8 << 20, np.uint8)}, path)
    if shutil.which("fincore") is None:
        pytest.skip("nobody tells what the page cache holds")

    def cached():
        command = ["fincore", "--bytes", "--noheadings", "--output", "RES", path]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = cached()
    tensor = tensafe.open(path, io=io, cache="drop")["a"]
    assert tensor.to_numpy().nbytes == 8 << 20
    assert cached() <= before + (256 << 10)

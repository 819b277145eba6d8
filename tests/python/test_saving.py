"""What saving promises: right bytes from any layout, the whole file or none, mode and links kept."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensafe
import tensafe.numpy


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3).T,
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.broadcast_to(np.arange(3, dtype=np.int16), (4, 3)),
        np.arange(5, dtype=">i4"),
        np.arange(8, dtype=">f8").reshape(2, 4).T,
        np.float32(2.5),
    ],
    ids=["transposed", "strided", "fortran", "broadcast", "big-endian", "big-endian strided", "scalar"],
)
def test_arrays_of_any_layout_are_saved_as_they_read(array, tmp_path):
    tensafe.numpy.save_file({"a": array}, tmp_path / "f")
    loaded = tensafe.numpy.load_file(tmp_path / "f")["a"]
    assert loaded.shape == array.shape and np.array_equal(loaded, array)
    assert np.array_equal(tensafe.numpy.load(tensafe.numpy.save({"a": array}))["a"], array)


def test_sub_byte_floats_of_numpy_are_packed(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"):
        dtype = np.dtype(getattr(ml_dtypes, name))
        array = np.array([[0, 0.5, 1, 1.5], [2, 3, -1, -0.5]]).astype(dtype)
        tensafe.numpy.save_file({"x": array}, tmp_path / "f")
        assert tensafe.open(tmp_path / "f")["x"].nbytes == 8 * (4 if "4_" in name else 6) // 8
        loaded = tensafe.numpy.load_file(tmp_path / "f")["x"]
        assert loaded.dtype == dtype and np.array_equal(loaded.astype(float), array.astype(float))
    # S-20: the first element stands in the low nibble.
    packed = tensafe.numpy.save({"x": np.array([0.5, 6.0]).astype(ml_dtypes.float4_e2m1fn)})
    assert packed[-1] == 0x71


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_of_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        tensafe.numpy.save_file({"a": np.zeros(2)}, tmp_path / "f")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


def test_a_file_that_is_replaced_keeps_its_mode_and_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    tensafe.numpy.save_file({"a": np.zeros(2)}, target)
    target.chmod(0o640)
    link.symlink_to("target")
    tensafe.numpy.save_file({"b": np.ones(2)}, link)
    assert link.is_symlink() and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tensafe.open(target)) == ["b"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    tensafe.numpy.save_file({"a": np.zeros(2)}, path)
    before = path.read_bytes()

    def raises(start, stop):
        raise RuntimeError("the device is gone")

    good = ("a", "float32", [2], np.zeros(8, np.uint8))
    failures = [
        ([("__metadata__", "float32", [2], np.zeros(8, np.uint8))], tensafe.FormatError, "S-17"),
        ([("a", "float32", [3], np.zeros(8, np.uint8))], tensafe.UsageError, "buffer of 8 bytes, needed 12"),
        ([good, ("b", "int8", [2], raises)], RuntimeError, "the device is gone"),
        (
            [good, ("b", "int8", [2], lambda start, stop: b"123")],
            tensafe.UsageError,
            "buffer of 3 bytes, needed 2",
        ),
        ([good, good], tensafe.FormatError, "S-06"),
    ]
    for tensors, error, text in failures:
        with pytest.raises(error, match=text):
            tensafe._tensafe.write(path, tensors)
        assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(tensafe.FormatError, match="__metadata__"):
        tensafe.numpy.save_file({"__metadata__": np.zeros(2)}, path)


def test_a_pipe_is_written_from_start_to_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    array = np.arange(100_000)
    saver = threading.Thread(target=tensafe.numpy.save_file, args=({"a": array}, path))
    saver.start()
    data = path.read_bytes()
    saver.join()
    assert np.array_equal(tensafe.numpy.load(data)["a"], array)


def test_bytes_do_not_change_from_run_to_run(tmp_path):
    """S-23: compact text, metadata first and its keys sorted."""
    program = (
        "import sys, numpy as np, tensafe.numpy as n;"
        "m = {k: k * 2 for k in 'qwertyuiop'};"
        "sys.stdout.buffer.write(n.save({k: np.zeros(2) for k in 'fdsa'}, m))"
    )
    outputs = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        outputs.add(
            subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, check=True
            ).stdout
        )
    (output,) = outputs
    keys = list(tensafe.open(output).metadata)
    assert keys == sorted(keys) and len(keys) == 10


@pytest.mark.parametrize("align", [8, 64, 4096])
def test_the_data_starts_where_it_is_asked_to(align, tmp_path):
    tensafe.numpy.save_file({"a": np.arange(3)}, tmp_path / "f", align=align, durable=False)
    data = (tmp_path / "f").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % align == 0
    assert data == tensafe.numpy.save({"a": np.arange(3)}, align=align)
    with pytest.raises(tensafe.UsageError, match="power of two"):
        tensafe.numpy.save({"a": np.arange(3)}, align=12)


def test_what_has_no_dtype_is_refused_with_advice():
    with pytest.raises(NotImplementedError, match="complex128.*astype"):
        tensafe.numpy.save({"a": np.zeros(2, np.complex128)})
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    with pytest.raises(NotImplementedError, match="view_as_real"):
        tensafe.torch.save({"a": torch.zeros(2, dtype=torch.complex128)})
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(NotImplementedError, match="int_repr"):
        tensafe.torch.save({"a": quantized})


def test_no_path_is_a_type_error_and_not_a_save_that_is_lost():
    def refused(save, *arguments):
        with pytest.raises(TypeError, match="expected str, bytes or os.PathLike object, not NoneType"):
            save(*arguments)

    refused(tensafe.numpy.save_file, {"a": np.zeros(2)}, None)
    refused(tensafe.numpy.save_file_async, {"a": np.zeros(2)}, None)
    refused(tensafe.Writer, None, {"a": ("F64", [2])})
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    refused(tensafe.torch.save_file, {"a": torch.zeros(2)}, None)
    refused(tensafe.torch.save_model, torch.nn.Linear(2, 2), None)


def test_the_callers_dict_is_not_changed(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    pytest.importorskip("tensafe.flax")

    tensors = {"a": jnp.zeros(2)}
    kept = tensors["a"]
    tensafe.flax.save_file(tensors, tmp_path / "f")
    assert tensors["a"] is kept


def test_torch_views_are_saved_as_they_read():
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    z = torch.tensor([1 + 2j, 3 - 4j])
    saved = tensafe.torch.load(tensafe.torch.save({"conj": z.conj(), "neg": z.conj().imag.contiguous()}))
    assert torch.equal(saved["conj"], z.conj().resolve_conj())
    assert torch.equal(saved["neg"], torch.tensor([-2.0, 4.0]))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_one_element_of_any_stride_is_saved_as_it_reads(shape, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    whole = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    # Contiguous, as one element is, whatever its strides are.
    tensors = {"a": whole.as_strided(shape, (3,) * len(shape), 4)}
    alone = {"a": whole.new_empty(1).as_strided(shape, (3,) * len(shape)).fill_(4)}
    assert tensors["a"].is_contiguous() and alone["a"].stride(0) == 3
    expected = tensafe.torch.save({"a": torch.full(shape, 4, dtype=whole.dtype)})
    assert tensafe.torch.save(tensors) == expected
    path = tmp_path / "f"
    for save in (
        lambda: tensafe.torch.save_file(tensors, path),
        lambda: tensafe.torch.save_file_async(tensors, path).result(),
        lambda: tensafe.torch.save_model(torch.nn.ParameterDict(alone), path),
    ):
        save()
        assert path.read_bytes() == expected
        path.unlink()
    with tensafe.Writer(path, {"a": (whole.dtype, shape)}) as writer:
        writer["a"] = tensors["a"]
    assert torch.equal(tensafe.torch.load_file(path)["a"], tensors["a"])
    kept = []
    spec = tensafe.torch._flatten_as_ptr(tensors, kept)["a"]
    assert tensafe.serialize({"a": spec}, None) == expected
    assert bytes(tensafe.torch._flat(tensors["a"])) == expected[-whole.element_size() :]


def test_saving_takes_little_memory_beyond_the_tensors(tmp_path):
    pytest.importorskip("torch")
    # Resident memory before and at its highest during the save, in a process of its own.
    program = f"""
import torch, tensafe.torch
def field(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
tensors = {{str(i): torch.ones(16 << 20, dtype=torch.uint8) for i in range(16)}}
tensafe.torch.save_file({{"warm": torch.ones(1)}}, {str(tmp_path / "warm")!r})
open("/proc/self/clear_refs", "w").write("5")
before = field("RssAnon")
tensafe.torch.save_file(tensors, {str(tmp_path / "f")!r}, durable=False)
print(field("VmHWM") - field("VmRSS"), field("RssAnon") - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "clear_refs" in done.stderr:
        pytest.skip("this kernel does not reset the high-water mark")
    assert done.returncode == 0, done.stderr
    peak, kept = map(int, done.stdout.split())
    assert peak < 16 << 20 and kept < 16 << 20


def test_links_are_followed_as_far_as_they_go(tmp_path):
    target, first, second, loop = (tmp_path / name for name in ("target", "first", "second", "loop"))
    first.symlink_to("second")
    second.symlink_to("target")
    loop.symlink_to("loop")
    # A link whose target is not there yet makes it; then the target is replaced, not the links.
    for name in ("a", "b"):
        tensafe.numpy.save_file({name: np.zeros(2)}, first)
        assert first.is_symlink() and second.is_symlink() and not target.is_symlink()
        assert list(tensafe.open(target)) == [name]
    with pytest.raises(OSError, match="links"):
        tensafe.numpy.save_file({"a": np.zeros(2)}, loop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "loop", "second", "target"]


def test_a_disk_that_takes_no_more_is_an_error_and_the_old_file_stays(tmp_path):
    resource = pytest.importorskip("resource")
    assert resource
    program = f"""
import os, resource, signal, numpy as np, tensafe.numpy
os.chdir({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tensafe.numpy.save_file({{"a": np.arange(2)}}, "f")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for durable in (True, False):
    try:
        tensafe.numpy.save_file({{"a": np.zeros(1 << 20)}}, "f", durable=durable)
    except OSError as error:
        print(error.errno)
print(os.listdir("."), tensafe.numpy.load_file("f")["a"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == [str(errno.EFBIG), str(errno.EFBIG), "['f'] [0, 1]"], done.stderr


def test_a_disk_that_is_full_midway_is_an_error_and_the_old_file_stays(tmp_path):
    """A file system that cannot reserve room, so that only a write meets the end of the disk."""
    if not all(map(shutil.which, ("mke2fs", "unshare", "mount"))):
        pytest.skip("this system cannot make a small disk")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext2", str(image)], check=True, capture_output=True)
    program = f"""
print("mounted", flush=True)
import os, numpy as np, tensafe, tensafe.numpy
os.chdir({str(disk)!r})
before = sorted(os.listdir("."))
tensafe.numpy.save_file({{"a": np.arange(2)}}, "f")
for durable in (True, False):
    try:
        tensafe.numpy.save_file({{"a": np.ones(60 << 20, np.uint8)}}, "f", durable=durable)
    except OSError as error:
        print(error.errno, "cannot write bytes" in str(error))
print(sorted(os.listdir(".")) == sorted([*before, "f"]), tensafe.numpy.load_file("f")["a"].tolist())
tensafe.numpy.save_file({{"a": np.ones(35 << 20, np.uint8)}}, "f")
print(int(tensafe.numpy.load_file("f")["a"].sum()) == 35 << 20)
"""
    # The mount is of a namespace that ends with the process.
    mount = ["unshare", "--mount", "sh", "-c", 'mount -o loop "$0" "$1" || exit; shift; exec "$@"']
    run = [*mount, str(image), str(disk), sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True)
    if "mounted" not in done.stdout:
        pytest.skip(f"this user cannot mount a disk: {done.stderr.strip()[-200:]}")
    full = f"{errno.ENOSPC} True"
    assert done.stdout.splitlines() == ["mounted", full, full, "True [0, 1]", "True"], done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_devices_are_written_to_and_not_replaced():
    tensafe.numpy.save_file({"a": np.zeros(1000)}, "/dev/null")
    with pytest.raises(OSError) as error:
        tensafe.numpy.save_file({"a": np.zeros(1000)}, "/dev/full")
    assert error.value.errno == errno.ENOSPC
    assert all(stat.S_ISCHR(os.stat(device).st_mode) for device in ("/dev/null", "/dev/full"))


def test_an_interrupted_save_leaves_nothing(tmp_path):
    def interrupted(start, stop):
        raise KeyboardInterrupt

    for provider, kind in [
        (interrupted, KeyboardInterrupt),
        (lambda start, stop: "text", TypeError),
        (lambda start, stop: None, ValueError),
    ]:
        with pytest.raises(kind):
            tensafe._tensafe.write(tmp_path / "f", [("a", "int8", [2], provider)])
        assert list(tmp_path.iterdir()) == []


def test_tensors_of_a_device_are_asked_for_one_at_a_time_in_the_order_of_the_file(tmp_path):
    asked = []

    def provider(name, count):
        def fetch(start, stop):
            assert (start, stop) == (0, count)
            asked.append(name)
            return np.full(count, len(asked), np.uint8)

        return fetch

    tensors = [("c", "uint8", [3], provider("c", 3)), ("b", "float32", [1], np.ones(4, np.uint8))]
    tensors += [("a", "uint8", [2], provider("a", 2)), ("d", "int64", [1], provider("d", 8))]
    tensafe._tensafe.write(tmp_path / "f", tensors)
    assert asked == ["d", "a", "c"]
    with tensafe.safe_open(tmp_path / "f", "np") as file:
        assert file.offset_keys() == ["d", "b", "a", "c"]
        assert file.get_tensor("a").tolist() == [2, 2] and file.get_tensor("c").tolist() == [3, 3, 3]


@pytest.mark.parametrize("durable", [True, False])
def test_a_large_tensor_of_a_device_is_asked_for_in_parts(durable, tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (70 << 20) + 12, np.uint8)
    asked = []

    def fetch(start, stop):
        asked.append((start, stop))
        return data[start:stop].copy()

    tensors = [("a", "float32", [data.size // 4], fetch), ("b", "int8", [3], np.ones(3, np.int8))]
    tensafe._tensafe.write(tmp_path / "f", tensors, durable=durable)
    assert [start for start, _ in asked[1:]] == [stop for _, stop in asked[:-1]]
    assert asked[0][0] == 0 and asked[-1][1] == data.size
    assert all(start % 16 == 0 and 0 < stop - start <= 32 << 20 for start, stop in asked)
    loaded = tensafe.numpy.load_file(tmp_path / "f")
    assert np.array_equal(loaded["a"].view(np.uint8), data) and loaded["b"].tolist() == [1, 1, 1]


def test_a_fetch_that_fails_midway_or_is_short_leaves_the_old_file(tmp_path):
    tensafe.numpy.save_file({"a": np.arange(2)}, tmp_path / "f")
    size = 50 << 20

    def fails(start, stop):
        if start:
            raise RuntimeError("the device is gone")
        return np.zeros(stop - start, np.uint8)

    def short(start, stop):
        return np.zeros(stop - start - (start > 0), np.uint8)

    for fetch, kind, text in [(fails, RuntimeError, "gone"), (short, tensafe.UsageError, "tensor `a`")]:
        with pytest.raises(kind, match=text):
            tensafe._tensafe.write(tmp_path / "f", [("a", "int8", [size], fetch)])
        assert [p.name for p in tmp_path.iterdir()] == ["f"]
        assert tensafe.numpy.load_file(tmp_path / "f")["a"].tolist() == [0, 1]


def test_what_is_fetched_of_torch_is_what_is_saved(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    tensors = {
        "bf16": torch.arange(10_000, dtype=torch.bfloat16).reshape(100, 100),
        "conj": torch.randn(1000, dtype=torch.complex64).conj(),
        "neg": torch.randn(500, dtype=torch.complex64).conj().imag.contiguous(),
        "large": torch.randn(5 << 20, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "bool": torch.tensor([True, False, True]),
    }
    entries = tensafe.torch._entries(tensors, fetch_all=True)
    assert all(callable(data) for *_, data in entries)
    tensafe._tensafe.write(tmp_path / "f", entries)
    assert (tmp_path / "f").read_bytes() == tensafe.torch.save(tensors)
    assert tensafe._tensafe.write(None, entries) == tensafe.torch.save(tensors)


def test_fetching_takes_little_memory(tmp_path):
    pytest.importorskip("torch")
    # The highest anonymous memory while tensors are fetched as those of a device are, one of them of
    # 300 MB: each part is a copy, as it would be of a device.
    program = f"""
import threading, time, torch, tensafe.torch
def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
tensors = {{"a": torch.ones(75_000_000), "b": torch.ones(9_000_000)}}
entries = [
    (name, dtype, shape, lambda start, stop, fetch=fetch: fetch(start, stop).copy())
    for name, dtype, shape, fetch in tensafe.torch._entries(tensors, fetch_all=True)
]
peak, over = 0, False
def watch():
    global peak
    while not over:
        peak = max(peak, anonymous())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
before = anonymous()
tensafe._tensafe.write({str(tmp_path / "f")!r}, entries)
over = True
watcher.join()
print(peak - before)
"""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("this system does not say how much memory a process has")
    # What the C library keeps of memory that was given back is its own business: large pieces are mapped.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 20
    assert (tmp_path / "f").stat().st_size > 336_000_000


@pytest.mark.parametrize("durable", [True, False])
def test_saving_to_a_path_that_cannot_be_is_an_error(durable, tmp_path):
    (tmp_path / "file").touch()
    for path, kind in [
        (tmp_path / "missing" / "f", FileNotFoundError),
        (tmp_path / "file" / "f", OSError),
        (tmp_path, OSError),
        ("", OSError),
        (str(tmp_path / "new") + "/", OSError),
        (str(tmp_path / "a\0b"), (OSError, ValueError)),
    ]:
        with pytest.raises(kind):
            tensafe.numpy.save_file({"a": np.zeros(2)}, path, durable=durable)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_to_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        tensafe.numpy.save_file({"a": np.zeros(2)}, tmp_path / "f")


def test_a_relative_path_is_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensafe.numpy.save_file({"a": np.zeros(2)}, "f")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_specs_whose_memory_has_another_size_are_refused():
    def spec(**keywords):
        return {
            "a": tensafe.TensorSpec(
                **{"dtype": "int8", "shape": [2], "data_ptr": 0, "data_len": 2} | keywords
            )
        }

    for keywords in ({}, {"data_len": 0}, {"shape": [2**62, 2**62]}):
        with pytest.raises(tensafe.SafetensorError):
            tensafe.serialize(spec(**keywords))
    with pytest.raises(ValueError):
        spec(dtype="float4_e2m1fn_x2", shape=[])
    with pytest.raises(OverflowError):
        spec(shape=[-1])
    with pytest.raises(TypeError):
        tensafe.serialize({"a": {"dtype": "int8"}})


def test_sizes_are_compared_before_memory_is_reserved():
    spec = tensafe.TensorSpec(dtype="int8", shape=[2**50], data_ptr=0, data_len=0)
    with pytest.raises(tensafe.SafetensorError, match="buffer of 0 bytes"):
        tensafe.serialize({"a": spec})


def test_tensors_that_cannot_be_saved_are_refused():
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")

    x = torch.arange(12.0).reshape(3, 4)
    for tensors, kind in [
        ({"a": x, "b": x}, RuntimeError),
        ({"a": x[:2], "b": x[1:]}, RuntimeError),
        ({"a": x.T}, ValueError),
        ({"a": x[:, :2]}, ValueError),
        ({"a": x.to_sparse()}, ValueError),
        ({"a": x.to("meta")}, NotImplementedError),
        ({"a": torch.zeros(2, dtype=torch.complex32)}, NotImplementedError),
        ({1: x}, TypeError),
        ({"a": [1.0]}, ValueError),
        ([x], ValueError),
    ]:
        with pytest.raises(kind):
            tensafe.torch.save(tensors)
    # Parts of one storage that do not overlap are stored apart.
    loaded = tensafe.torch.load(tensafe.torch.save({"a": x[:1], "b": x[1:], "p": torch.nn.Parameter(x + 1)}))
    assert (
        torch.equal(loaded["a"], x[:1])
        and torch.equal(loaded["b"], x[1:])
        and torch.equal(loaded["p"], x + 1)
    )
    assert not loaded["p"].requires_grad


@pytest.mark.parametrize("dtype", ["U1", "O", "M8[s]", "V4", "longdouble", "complex128", "f4,i4"])
def test_arrays_that_have_no_dtype_are_refused(dtype):
    with pytest.raises(tensafe.UnsupportedError, match="tensor `a`: numpy .* has no safetensors dtype"):
        tensafe.numpy.save({"a": np.zeros(2, dtype)})


def test_names_that_are_no_text_are_refused():
    with pytest.raises(TypeError):
        tensafe.numpy.save({1: np.zeros(2)})
    with pytest.raises(UnicodeEncodeError):
        tensafe.numpy.save({"\ud800": np.zeros(2)})

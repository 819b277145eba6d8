"""What saving promises: right bytes from any layout, the whole file or none, mode and links kept."""

from __future__ import annotations

import os
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

    def raises():
        raise RuntimeError("the device is gone")

    good = ("a", "float32", [2], np.zeros(8, np.uint8))
    failures = [
        ([("__metadata__", "float32", [2], np.zeros(8, np.uint8))], tensafe.FormatError, "S-17"),
        ([("a", "float32", [3], np.zeros(8, np.uint8))], tensafe.UsageError, "buffer of 8 bytes, needed 12"),
        ([good, ("b", "int8", [2], raises)], RuntimeError, "the device is gone"),
        ([good, ("b", "int8", [2], lambda: b"123")], tensafe.UsageError, "buffer of 3 bytes, needed 2"),
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

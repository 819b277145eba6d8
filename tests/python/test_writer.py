"""What ``tensafe.Writer`` promises: any order, any parts, several processes, and never a hole."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensafe
import tensafe.numpy

SPECS = {"a": ("F32", (300, 1000)), "b": ("uint8", [7]), "none": (np.float16, (0, 4))}
A = np.arange(300_000, dtype=np.float32).reshape(300, 1000)
B = np.arange(7, dtype=np.uint8)


def expected():
    return tensafe.numpy.save({"a": A, "b": B, "none": np.zeros((0, 4), np.float16)}, {"key": "value"})


def test_tensors_in_any_order_are_the_file_that_save_makes(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with tensafe.Writer(path, SPECS, {"key": "value"}) as writer:
        writer["b"] = B
        parts = [(start, A[start : start + 25]) for start in range(0, 300, 25)]
        threads = [
            threading.Thread(target=writer.write, args=("a", rows), kwargs={"offset_bytes": start * 4000})
            for start, rows in parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.written() == [(0, len(expected()))]
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == expected() and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_buffers_arrays_of_any_layout_and_torch_tensors_are_written(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")
    tensors = {
        "bf16": torch.randn(30, 4).bfloat16(),
        "f8": torch.randn(8).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False]),
    }
    specs = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    specs |= {"turned": (np.dtype(">f8"), (3, 2)), "bytes": ("I16", [2]), "named": ("float64", [])}
    with tensafe.Writer(tmp_path / "f", specs, durable=False, align=4096) as writer:
        for name, tensor in tensors.items():
            writer[name] = tensor
        writer["turned"] = np.arange(6, dtype=">f8").reshape(2, 3).T
        writer["bytes"] = b"\1\0\2\0"
        writer["named"] = np.float64(2.5)
    loaded = tensafe.torch.load_file(tmp_path / "f")
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8))
    assert loaded["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["bytes"].tolist() == [1, 2] and loaded["named"].item() == 2.5


def test_a_hole_an_overlap_and_what_does_not_fit_are_refused(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    writer = tensafe.Writer(path, SPECS)
    writer["b"] = B
    for name, data, offset, kind, text in [
        ("b", B, None, tensafe.UsageError, "written already"),
        ("a", A.reshape(-1), None, tensafe.UsageError, "found the shape .300000."),
        ("a", A.astype(np.float64), None, tensafe.UsageError, "found F64, the specs have F32"),
        ("a", A.tobytes()[:-4], None, tensafe.UsageError, "1199996 bytes, needed 1200000"),
        ("a", A[:2], 1_200_000 - 4, tensafe.UsageError, "asked for"),
        ("c", B, None, KeyError, "c"),
    ]:
        with pytest.raises(kind, match=text):
            writer.write(name, data, offset)
    writer.write("a", A[:299], 0)
    with pytest.raises(tensafe.UsageError, match="4000 bytes were not written, .* of tensor `a`"):
        writer.close()
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["f"]
    for use in (writer.close, writer.flush, writer.written, lambda: writer.write("a", A)):
        with pytest.raises(tensafe.UsageError, match="closed"):
            use()


def test_an_exception_or_an_abort_drops_the_file(tmp_path):
    with pytest.raises(RuntimeError, match="no more"), tensafe.Writer(tmp_path / "f", SPECS) as writer:
        writer["b"] = B
        raise RuntimeError("no more")
    writer = tensafe.Writer(tmp_path / "f", SPECS)
    assert len(list(tmp_path.iterdir())) == 1
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []
    del writer
    tensafe.Writer(tmp_path / "f", SPECS)
    assert list(tmp_path.iterdir()) == []


def test_specs_that_make_no_sense_are_refused(tmp_path):
    for spec, kind in [
        (("F33", [1]), tensafe.UsageError),
        ((object(), [1]), tensafe.UsageError),
        (("F32", 3), TypeError),
        ("F32", TypeError),
        (("F32", [-1]), OverflowError),
        (("float4_e2m1fn_x2", []), tensafe.UsageError),
    ]:
        with pytest.raises(kind):
            tensafe.Writer(tmp_path / "f", {"a": spec})
    with pytest.raises(tensafe.UsageError, match="token"):
        tensafe.Writer(tmp_path / "f", SPECS, leader=False)
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_torch_are_counted_as_torch_counts_them(tmp_path):
    with tensafe.Writer(tmp_path / "f", {"a": ("float4_e2m1fn_x2", [2, 3])}) as writer:
        writer["a"] = bytes(range(6))
    assert tensafe.open(tmp_path / "f")["a"].shape == (2, 6)


PARTICIPANT = """
import json, sys, numpy as np, tensafe
path, rank = sys.argv[1], int(sys.argv[2])
specs = {"a": ("F32", (300, 1000)), "b": ("U8", [7]), "none": ("F16", (0, 4))}
writer = tensafe.Writer(path, specs, {"key": "value"}, shared="group-1", leader=False)
rows = np.arange(300_000, dtype=np.float32).reshape(300, 1000)[rank * 100 : rank * 100 + 100]
writer.write("a", rows, rank * 400_000)
writer.flush()
print(json.dumps(writer.written()))
writer.close()
"""


def test_three_processes_write_one_file(tmp_path):
    path = tmp_path / "f"
    leader = tensafe.Writer(path, SPECS, {"key": "value"}, shared="group-1")
    assert [p.name for p in tmp_path.iterdir()] == [".f.group-1.part"]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", PARTICIPANT, str(path), str(rank)], stdout=subprocess.PIPE, text=True
        )
        for rank in (1, 2)
    ]
    leader.write("a", A[:100], 0)
    leader["b"] = B
    for other in others:
        told, _ = other.communicate()
        assert other.returncode == 0
        leader.absorb(json.loads(told))
    with pytest.raises(tensafe.UsageError, match="written already"):
        leader.absorb([(0, 1)])
    leader.close()
    assert path.read_bytes() == expected() and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_participant_that_was_not_absorbed_is_missed(tmp_path):
    leader = tensafe.Writer(tmp_path / "f", SPECS, shared="x")
    with tensafe.Writer(tmp_path / "f", SPECS, shared="x", leader=False) as other:
        other["a"] = A
    leader["b"] = B
    with pytest.raises(tensafe.UsageError, match="1200000 bytes were not written"):
        leader.close()
    with pytest.raises(FileNotFoundError):
        tensafe.Writer(tmp_path / "f", SPECS, shared="x", leader=False)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_names_the_range_and_the_part_can_be_written_again(tmp_path):
    pytest.importorskip("resource")
    program = f"""
import os, resource, signal, numpy as np, tensafe, tensafe.numpy
os.chdir({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tensafe.numpy.save_file({{"a": np.arange(2)}}, "f")
size = 80 << 20
data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
for durable in (True, False):
    writer = tensafe.Writer("f", {{"a": ("U8", [size])}}, durable=durable)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, resource.RLIM_INFINITY))
    try:
        writer["a"] = data
    except OSError as error:
        print(error.errno, "cannot write bytes" in str(error), error.filename)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(len(writer.written()), tensafe.numpy.load_file("f")["a"].tolist())
    writer.abort()
    print(os.listdir("."))
writer = tensafe.Writer("f", {{"a": ("U8", [size])}})
resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, resource.RLIM_INFINITY))
try:
    writer["a"] = data
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer["a"] = data
writer.close()
print(np.array_equal(tensafe.numpy.load_file("f")["a"], data), os.listdir("."))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    failed = [f"{errno.EFBIG} True f", "1 [0, 1]", "['f']"]
    assert done.stdout.splitlines() == [*failed, *failed, "True ['f']"], done.stderr

"""Calls of the system that fail, one after the other: the right result, or an error that says where.

``faults/shim.c`` makes them fail in a process of its own, ``faults/drive.py`` is that process.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "faults"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls of Linux's C library"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]

FOR_EVER = 1 << 30

# The numbers of system calls are those of the architecture.
X86_64 = platform.machine() == "x86_64"
ON_X86_64 = pytest.mark.skipif(not X86_64, reason="numbers of system calls of x86-64")
FALLOCATE, FADVISE, CACHESTAT, MINCORE, STATFS, MADVISE = 285, 221, 451, 27, 138, 28


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", path, HERE / "shim.c", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the compiler has not all that it needs: {done.stderr.splitlines()[:1]}")
    return path


@pytest.fixture
def drive(shim, tmp_path):
    def drive(operation, call, error, *, count=1, attempts=40, refuse=""):
        directory = tmp_path / f"model-{operation}-{call}-{error}"
        directory.mkdir()
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "TENSAFE_FAULT_MATCH": "model-",
            "TENSAFE_FAULT_REFUSE": refuse,
        }
        words = (operation, directory, call, error, count, attempts)
        done = subprocess.run(
            [sys.executable, HERE / "drive.py", *map(str, words)],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode == 77:
            pytest.skip("the kernel takes no filter of system calls")
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        shutil.rmtree(directory)
        return rows

    return drive


def failed(row, error, *words):
    """Whether an attempt raised the right class, with the number, the file and the words in it."""
    text = row.get("text", "")
    return (
        {"IoError", "OSError", "SafetensorError"} <= set(row.get("classes", ()))
        and row["errno"] == error
        and "model.safetensors" in text
        and all(re.search(word, text) for word in words)
    )


LOADS = ["pread", "direct", "owned", "cut", "stream"]


@pytest.mark.parametrize("operation", LOADS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_a_read_that_fails_is_an_error_with_file_and_range(drive, operation, error):
    rows = drive(operation, "pread", error, attempts=16)
    for row in rows:
        if row["fired"]:
            assert failed(row, error, r"cannot read bytes \d+\.\.\d+"), row
        else:
            assert row["right"], row
        assert row["after"], row
    assert rows[0]["fired"] and rows[1]["fired"]


@pytest.mark.parametrize("operation", LOADS)
@pytest.mark.parametrize(
    ("error", "count"), [(0, 1), (0, FOR_EVER), (errno.EINTR, 1), (errno.EINTR, 50)], ids=str
)
def test_short_reads_and_signals_change_nothing(drive, operation, error, count):
    rows = drive(operation, "pread", error, count=count, attempts=4)
    assert all(row.get("right") and row["after"] for row in rows), rows
    assert rows[0]["fired"]


@pytest.mark.parametrize("operation", LOADS)
def test_memory_that_is_refused_is_an_error_or_not_needed(drive, operation):
    rows = drive(operation, "mmap", errno.ENOMEM, attempts=6)
    for row in rows:
        if row.get("right"):
            continue
        assert row["fired"] and "IoError" in row["classes"] and row["errno"] == errno.ENOMEM, row
        assert re.search(r"cannot reserve \d+ bytes of memory", row["text"]), row
    assert all(row["after"] for row in rows)
    assert operation == "cut" or any("text" in row for row in rows), rows


@pytest.mark.parametrize("call", ["open_direct", "pread_direct"])
def test_direct_reads_that_are_refused_become_others_and_the_explanation_says_so(call, shim, tmp_path):
    program = f"""
import ctypes, errno, os, numpy as np, tensafe, tensafe.numpy
shim = ctypes.CDLL(None)
path = "model-x.safetensors"
array = np.random.default_rng(0).integers(0, 256, 9 << 20, np.uint8)
tensafe.numpy.save_file({{"w": array}}, path)
model = tensafe.open(path, io="direct")
plan = model.plan().add("w")
before = {{(r.method, r.why) for r in plan.explain().ranges}}
shim.fault_arm({call.encode()}, ctypes.c_long(1), ctypes.c_long(1 << 30), errno.EINVAL)
assert np.array_equal(plan.load("numpy")["w"], array)
fired = shim.fault_fired()
print(before, fired > 0, {{(r.method, r.why) for r in plan.explain().ranges}})
assert np.array_equal(plan.load("numpy")["w"], array)
print(shim.fault_fired() == fired)
"""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "TENSAFE_FAULT_MATCH": "model-"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    if "('direct'" not in done.stdout:
        pytest.skip("the file system has no direct reads")
    assert done.stdout.splitlines() == [
        "{('direct', 'as asked')} True {('buffered', 'no direct reads there')}",
        "True",
    ]


SAVES = ["durable", "quick"]


def kind_of(path):
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True).stdout.strip()


def maps_saves(path):
    """Whether files there that are not durable are written through a mapping: two processors, ext4 or XFS."""
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text().split() if limit.exists() else ("max", "1")
    processors = len(os.sched_getaffinity(0)) if quota == "max" else int(quota) // int(period)
    return processors > 1 and kind_of(path) in ("ext2/ext3", "xfs")


def unharmed(row):
    """The old file, and nothing else."""
    return row["file"] == "old" and row["names"] == ["model.safetensors"]


@pytest.mark.parametrize("operation", SAVES)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_leaves_the_old_file_alone(drive, operation, error):
    # Without such advice nothing goes through a mapping, whichever thread comes first.
    refuse = f"{MADVISE}:{errno.EINVAL}" if operation == "quick" and X86_64 else ""
    rows = drive(operation, "pwrite", error, attempts=24, refuse=refuse)
    for row in rows:
        if row["fired"]:
            assert failed(row, error, r"cannot write bytes \d+\.\.\d+") and unharmed(row), row
        else:
            assert row["right"] and row["names"] == ["model.safetensors"], row
    assert rows[0]["fired"] and (rows[1]["fired"] or not X86_64) and not rows[-1]["fired"]


def test_writes_beside_a_mapping_that_fail_leave_the_old_file_alone(drive):
    rows = drive("quick", "pwrite", errno.EIO, attempts=4)
    # Whoever comes first writes.
    assert rows[0]["fired"]
    for row in rows:
        if row["fired"]:
            assert failed(row, errno.EIO, r"cannot write bytes \d+\.\.\d+") and unharmed(row), row
        else:
            assert row["right"] and row["names"] == ["model.safetensors"], row


@pytest.mark.parametrize("operation", SAVES)
@pytest.mark.parametrize(("call", "words"), [("ftruncate", "set the length"), ("rename", "rename to")])
def test_what_else_a_save_needs_leaves_the_old_file_alone(drive, operation, call, words):
    first, second = drive(operation, call, errno.EIO, attempts=2)
    if first["fired"]:
        assert failed(first, errno.EIO, words) and unharmed(first), first
    # The length is set where no room was reserved.
    assert first["fired"] or (call == "ftruncate" and first["right"])
    assert second["right"] and not second["fired"]


def test_a_flush_that_fails_is_an_error(drive):
    content, name, rest = drive("durable", "flush", errno.EIO, attempts=3)
    assert failed(content, errno.EIO, "cannot flush") and unharmed(content), content
    # The file stands there, whole; only whether a power cut leaves it there is unknown.
    assert failed(name, errno.EIO, "cannot flush the name of") and name["file"] == "new", name
    assert name["names"] == ["model.safetensors"]
    assert rest["right"] and not rest["fired"]
    assert [row["right"] for row in drive("quick", "flush", errno.EIO, attempts=1)] == [True]


@pytest.mark.parametrize("operation", ["convert", "writer"])
def test_a_flush_that_failed_before_the_last_one_is_an_error(drive, operation):
    if operation == "convert":
        pytest.importorskip("torch")
    early, last, name, rest = drive(operation, "flush", errno.EIO, attempts=4)
    # The system tells of lost bytes once: the last flush succeeds.
    for row in (early, last):
        assert failed(row, errno.EIO, "cannot flush") and unharmed(row), row
    assert failed(name, errno.EIO, "cannot flush the name of") and name["file"] == "new", name
    assert rest["right"] and not rest["fired"]


def test_a_flush_that_failed_counts_where_the_file_need_not_be_durable(drive):
    asked, rest = drive("writer-quick", "flush", errno.EIO, attempts=2)
    assert failed(asked, errno.EIO, "cannot flush") and unharmed(asked), asked
    assert rest["right"] and not rest["fired"]


def test_writeback_starts_before_a_file_is_replaced(drive, tmp_path):
    (row,) = drive("quick", "writeback", errno.EIO, attempts=1)
    assert row["right"] and bool(row["fired"]) == (maps_saves(tmp_path) and kind_of(tmp_path) != "xfs"), row
    (row,) = drive("durable", "writeback", errno.EIO, attempts=1)
    assert row["right"] and not row["fired"], row


@pytest.mark.parametrize("operation", SAVES)
@pytest.mark.parametrize(
    ("call", "error", "count"),
    [
        ("pwrite", 0, FOR_EVER),
        ("pwrite", errno.EINTR, 20),
        ("open_direct", errno.EINVAL, FOR_EVER),
        ("pwrite_direct", errno.EINVAL, FOR_EVER),
        ("pwrite_direct", errno.EOPNOTSUPP, 1),
        ("mmap", errno.ENOMEM, FOR_EVER),
    ],
)
def test_what_a_save_can_do_without_changes_nothing(drive, operation, call, error, count):
    rows = drive(operation, call, error, count=count, attempts=2)
    assert all(row.get("right") and row["names"] == ["model.safetensors"] for row in rows), rows
    # What is not durable is not written directly.
    assert rows[0]["fired"] or operation == "quick"


@ON_X86_64
@pytest.mark.parametrize("operation", SAVES)
def test_a_full_disk_is_met_before_the_first_byte(drive, operation, tmp_path):
    for error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        (row,) = drive(operation, "none", error, attempts=1, refuse=f"{FALLOCATE}:{error}")
        if operation == "quick" and not maps_saves(tmp_path):
            assert row["right"], row
            continue
        assert failed(row, error, "cannot reserve room") and unharmed(row), row


@ON_X86_64
@pytest.mark.parametrize("operation", [*SAVES, *LOADS])
def test_what_the_kernel_lacks_changes_nothing(drive, operation):
    missing = ",".join(
        f"{number}:{errno.ENOSYS}" for number in (FALLOCATE, FADVISE, CACHESTAT, MINCORE, STATFS)
    )
    rows = drive(operation, "none", 0, attempts=1, refuse=missing)
    assert all(row["right"] for row in rows), rows

"""Memory that is not there, and what is left behind: descriptors, mappings, threads, memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tensafe
import tensafe.numpy

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

LARGE = 16 << 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A file of 256 MiB, and a small one."""
    directory = tmp_path_factory.mktemp("resources")
    arrays = {f"t{i:02}": np.full(LARGE, i, np.uint8) for i in range(16)}
    tensafe.numpy.save_file(arrays, directory / "large", durable=False)
    tensafe.numpy.save_file({"a": np.arange(5)}, directory / "small", durable=False)
    return directory


def run(program, directory, prelude):
    done = subprocess.run(
        [sys.executable, "-c", prelude + program],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=300,
        # Each thread may bring an allocator of its own, which the C library keeps.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    return done.stdout.splitlines()


BOUNDED = """
import re, resource, numpy as np, tensafe, tensafe.numpy as t
held = np.ones(48 << 20, np.uint8)
t.load_file("small"), t.load_file("small", owned=True)
def bounded(mebibytes):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
def refused(work):
    try:
        work()
    except (tensafe.IoError, MemoryError) as error:
        print(type(error).__name__, re.sub("[0-9]+", "N", str(error)).split(":")[0])
    # The process goes on.
    assert t.load_file("small", io="pread")["a"].tolist() == [0, 1, 2, 3, 4]
    assert t.load_file("small", owned=True)["a"].tolist() == [0, 1, 2, 3, 4]
def stream(budget):
    model = tensafe.open("large", io="pread")
    plan = model.plan(budget=budget)
    for name in model:
        plan.add(name)
    return plan.execute("numpy")
"""


@pytest.mark.parametrize("keywords", [{"io": "pread"}, {"io": "direct"}, {"owned": True}], ids=str)
def test_a_load_that_memory_is_too_small_for_is_an_error(directory, keywords):
    program = f"""
bounded(150)
refused(lambda: t.load_file("large", **{keywords}))
"""
    assert run(program, directory, BOUNDED) == ["IoError cannot reserve N bytes of memory"]


def test_a_mapping_that_the_address_space_is_too_small_for_is_an_error(directory):
    (said,) = run('bounded(150)\nrefused(lambda: t.load_file("large", io="mmap"))', directory, BOUNDED)
    assert said == "IoError large"


def test_a_budget_below_what_there_is_loads_more_than_there_is(directory):
    program = """
bounded(200)
count = 0
for name, array in stream("64MiB"):
    assert (array == int(name[1:])).all()
    count += 1
    del array
print(count)
"""
    assert run(program, directory, BOUNDED) == ["16"]


def test_a_plan_that_memory_is_too_small_for_is_an_error(directory):
    program = """
bounded(150)
refused(lambda: dict(stream("1GiB")))
refused(lambda: tensafe.open("large", io="pread").plan().add("t00").add("t01").load("numpy"))
"""
    assert run(program, directory, BOUNDED) == ["IoError cannot reserve N bytes of memory"]


def test_saving_needs_no_memory_that_is_not_there(directory):
    program = """
import os
bounded(12)
for durable in (True, False):
    t.save_file({"a": held}, "saved", durable=durable)
    assert os.path.getsize("saved") > held.nbytes
refused(lambda: t.save({"a": held}))
refused(lambda: t.save_file_async({"a": held}, "saved").result())
assert sorted(os.listdir(".")) == ["large", "saved", "small"]
os.remove("saved")
"""
    said = run(program, directory, BOUNDED)
    assert len(said) == 2 and said[1] == "IoError cannot reserve N bytes of memory", said
    assert said[0].startswith(("MemoryError", "IoError cannot reserve")), said


COUNTED = """
import contextlib, gc, os, threading, time, numpy as np, tensafe, tensafe.numpy as t
small = np.arange(300_000)
names = [f"t{i:02}" for i in range(16)]
def counts():
    gc.collect()
    tensafe.trim_memory()
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            anonymous = int(line.split()[1]) >> 10
    files, maps, threads = os.listdir("/proc/self/fd"), open("/proc/self/maps").readlines(), os.listdir("/proc/self/task")
    return len(files), len(maps), len(threads), anonymous
def settled():
    # A thread that was joined is listed for a moment yet: longer where the machine has much to do.
    for _ in range(2000):
        if len(os.listdir("/proc/self/task")) <= started:
            break
        time.sleep(0.01)
    return counts()
def least_threads():
    least = len(os.listdir("/proc/self/task"))
    for _ in range(50):
        time.sleep(0.01)
        least = min(least, len(os.listdir("/proc/self/task")))
    return least
def plan(io, budget="64MiB"):
    model = tensafe.open("large", io=io)
    made = model.plan(budget=budget)
    for name in names[:5]:
        made.add(name)
    return made
def repeat(times, work):
    # The C library keeps the stacks of threads that have ended, up to a number.
    for i in range(12):
        work(i)
    global started
    started = least_threads()
    before = settled()
    for i in range(times):
        work(i)
    after = settled()
    print(*(b - a for a, b in zip(before, after)))
"""

WORK = {
    "loads": """
def work(i):
    keywords = ({}, {"io": "pread"}, {"io": "direct"}, {"owned": True})[i % 4]
    if i % 10 < 4:
        assert t.load_file("large", **keywords)["t03"][-1] == 3
    with tensafe.safe_open("large", "np", **keywords) as file:
        assert file.get_slice("t07")[100:5000].sum() == 7 * 4900
""",
    "cancelled plans": """
def work(i):
    running = plan(("auto", "pread", "direct")[i % 3]).execute("numpy")
    for _ in range(i % 4):
        next(running)
    if i % 2:
        running.cancel()
        with contextlib.suppress(tensafe.CancelledError):
            next(running)
    else:
        del running
""",
    "failed loads": """
def work(i):
    name = f"fails{i % 3}"
    t.save_file({"a": small}, name, durable=False)
    model = tensafe.open(name, io=("pread", "direct")[i % 2])
    os.truncate(name, 1_000_000)
    for load in (model.to_numpy, model.plan().add("a").load, lambda: t.load_file(name)):
        with contextlib.suppress(tensafe.SafetensorError):
            load()
            raise AssertionError("no error")
    os.remove(name)
""",
    "aborted writers": """
def work(i):
    writer = tensafe.Writer("aborted", {"a": ("I64", [300_000]), "b": ("U8", [40 << 20])}, durable=bool(i % 2))
    writer["a"] = small
    if i % 3:
        writer.abort()
    with contextlib.suppress(tensafe.SafetensorError):
        t.save_file({"a": small}, "missing/f")
    del writer
    assert "aborted" not in "".join(os.listdir("."))
""",
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_nothing_is_left_behind(directory, work):
    (line,) = run(work + "repeat(200, work)", directory, COUNTED)
    files, maps, threads, mebibytes = map(int, line.split())
    # The allocators of the C library and of the interpreter may have grown by a block or two.
    assert (files, threads) == (0, 0) and maps <= 4 and mebibytes <= 6, line

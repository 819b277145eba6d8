"""Many threads: one open file, and saves beside each other."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensafe
import tensafe.numpy

THREADS = 16
ARRAYS = {str(i): np.arange(i, i + 3000, dtype=np.int64).reshape(60, 50) for i in range(8)}


@pytest.fixture
def path(tmp_path):
    tensafe.numpy.save_file(ARRAYS, tmp_path / "f")
    return tmp_path / "f"


# Each way that bytes reach memory, as an open model takes it.
IO = {
    "auto": {},
    "mmap": {"io": "mmap"},
    "pread": {"io": "pread"},
    "direct": {"io": "direct"},
    "owned": {"owned": True},
}


@pytest.fixture(params=IO.values(), ids=IO.keys(), name="io")
def each_io(request):
    return request.param


def work(job, count=400):
    """Runs `job` with each number below `count`; the first exception of any is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(job, range(count)))


def test_threads_share_one_open_file(path, access):
    with tensafe.safe_open(path, "np", **access) as file:

        def job(i):
            name, row = str(i % 8), i % 60
            assert np.array_equal(file.get_tensor(name), ARRAYS[name])
            assert np.array_equal(file.get_slice(name)[row], ARRAYS[name][row])
            assert np.array_equal(file.get_slice(name)[:, i % 50], ARRAYS[name][:, i % 50])

        work(job)


def test_threads_share_one_open_file_of_torch(path, access):
    torch = pytest.importorskip("torch")
    with tensafe.safe_open(path, "pt", **access) as file:

        def job(i):
            name, row = str(i % 8), i % 60
            assert torch.equal(file.get_tensor(name), torch.from_numpy(ARRAYS[name]))
            assert torch.equal(file.get_slice(name)[row:], torch.from_numpy(ARRAYS[name][row:]))
            if i % 20 == 0:
                assert file.get_tensors().keys() == ARRAYS.keys()

        work(job)


def test_threads_plan_over_one_open_model(tmp_path, io):
    # Large enough for workers of its own in each thread.
    rng = np.random.default_rng(0)
    large = {f"t{i}": rng.integers(0, 256, (1500, 2000), np.uint8) for i in range(4)}
    tensafe.numpy.save_file(large | ARRAYS, tmp_path / "f", durable=False)
    model = tensafe.open(tmp_path / "f", **io)

    def job(i):
        name, row, column = f"t{i % 4}", 10 * (i % 60), 20 * (i % 50)
        out = np.zeros((300, 2000), np.uint8)
        plan = model.plan(budget=("16MiB", "64MiB", None)[i % 3], order=("file", "plan")[i % 2])
        plan.add(name).add(str(i % 8), index=np.s_[:, 3:9]).add(f"t{(i + 1) % 4}", shard=(0, i % 5, 5))
        plan.add(f"t{(i + 2) % 4}", index=np.s_[row:, column : column + 100])
        plan.into(f"t{(i + 1) % 4}", out)
        loaded = plan.load("numpy")
        assert np.array_equal(loaded[name], large[name])
        assert np.array_equal(loaded[str(i % 8)], ARRAYS[str(i % 8)][:, 3:9])
        assert np.array_equal(out, large[f"t{(i + 1) % 4}"][i % 5 * 300 : (i % 5 + 1) * 300])
        assert np.array_equal(
            loaded[f"t{(i + 2) % 4}"], large[f"t{(i + 2) % 4}"][row:, column : column + 100]
        )

    work(job, 64)


def test_one_plan_is_carried_out_by_threads_at_once(path, io):
    model = tensafe.open(path, **io)
    plan = model.plan(budget="1MiB")
    for name in ARRAYS:
        plan.add(name)

    def job(i):
        loaded = plan.load("numpy") if i % 2 else dict(plan.execute("numpy"))
        assert all(np.array_equal(loaded[name], ARRAYS[name]) for name in ARRAYS)

    work(job, 100)


def test_one_execution_is_shared_by_threads(path, io):
    plan = tensafe.open(path, **io).plan()
    for name in ARRAYS:
        plan.add(name)
    running = plan.execute("numpy")

    def job(_):
        row = next(running, None)
        return None if row is None else (row[0], np.array_equal(row[1], ARRAYS[row[0]]))

    found = [row for row in work(job, 50) if row is not None]
    assert sorted(found) == [(name, True) for name in sorted(ARRAYS)]


def test_threads_cancel_executions_of_each_other(path, io):
    model = tensafe.open(path, **io)

    def job(i):
        plan = model.plan()
        for name in ARRAYS:
            plan.add(name)
        running = plan.execute("numpy")
        other = threading.Thread(target=running.cancel if i % 2 else running.close)
        loaded = {}
        try:
            for number, (name, array) in enumerate(running):
                loaded[name] = array
                if number == i % 9:
                    other.start()
        except tensafe.CancelledError:
            pass
        if other.ident is not None:
            other.join()
        assert all(np.array_equal(array, ARRAYS[name]) for name, array in loaded.items())

    work(job, 100)


class Slow(io.RawIOBase):
    """A file object of Python: whoever reads it needs the interpreter."""

    def __init__(self, data):
        self.inner = io.BytesIO(data)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.inner.seek(offset, whence)

    def read(self, size=-1):
        time.sleep(0.001)
        return self.inner.read(size)


def test_an_execution_over_a_file_object_may_be_dropped_at_any_time():
    # Whoever drops it has the interpreter, for which the workers wait.
    program = """
import faulthandler, numpy as np, sys, tensafe, tensafe.numpy
faulthandler.dump_traceback_later(60, exit=True)
sys.path.insert(0, sys.argv[1])
from test_threads import Slow
data = tensafe.numpy.save({f"t{i}": np.full(5 << 20, i, np.uint8) for i in range(6)})
for taken in range(7):
    plan = tensafe.open(Slow(data)).plan()
    for i in range(6):
        plan.add(f"t{i}")
    running = plan.execute("numpy")
    for i in range(taken):
        assert (next(running)[1] == i).all()
    del running
"""
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, here], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_share_one_file_object(path):
    model = tensafe.open(io.BytesIO(path.read_bytes()))

    def job(i):
        name = str(i % 8)
        assert np.array_equal(model[name][i % 60].to_numpy(), ARRAYS[name][i % 60])

    work(job)


def test_threads_open_and_close_one_path(path):
    work(lambda i: tensafe.numpy.load_file(path, owned=i % 2 == 0)["3"].sum() == ARRAYS["3"].sum(), 100)


def test_saves_to_files_of_their_own_do_not_meet(tmp_path):
    work(lambda i: tensafe.numpy.save_file({"a": np.full(5000, i)}, tmp_path / str(i), durable=False), 64)
    assert len(list(tmp_path.iterdir())) == 64
    for i in range(64):
        assert (tensafe.numpy.load_file(tmp_path / str(i))["a"] == i).all()


def test_saves_to_one_file_leave_one_of_them_whole_at_every_moment(tmp_path):
    path = tmp_path / "f"
    tensafe.numpy.save_file({"a": np.full(50_000, -1)}, path)

    def job(i):
        if i % 2:
            tensafe.numpy.save_file({"a": np.full(50_000, i)}, path, durable=False)
        else:
            array = tensafe.numpy.load_file(path, owned=i % 4 == 0)["a"]
            assert (array == array[0]).all()

    work(job, 200)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    array = tensafe.numpy.load_file(path)["a"]
    assert array.shape == (50_000,) and (array == array[0]).all() and array[0] % 2 == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_others_load_can_load(tmp_path):
    # As the workers of a DataLoader are. What another thread holds at that moment, nobody lets go of in the child.
    program = """
        import os, threading, numpy, tensafe.numpy
        tensafe.numpy.save_file({str(i): numpy.full(40_000, i) for i in range(8)}, "model.safetensors")
        over = threading.Event()
        def load():
            while not over.is_set():
                tensafe.numpy.load_file("model.safetensors", owned=True)
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(40):
            child = os.fork()
            if child == 0:
                loaded = tensafe.numpy.load_file("model.safetensors", owned=True)
                os._exit(0 if (loaded["7"] == 7).all() else 1)
            assert os.waitpid(child, 0)[1] == 0
        over.set()
        for thread in threads: thread.join()
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr

"""Many threads: one open file, and saves beside each other."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

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

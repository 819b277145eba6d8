"""Files that change while they are loaded: what was opened goes on whole, or an error says so."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensafe
import tensafe.numpy

TENSORS, ROWS = 16, 2048
READS = ["pread", "direct", "owned"]


def arrays(seed):
    rng = np.random.default_rng(seed)
    return {f"t{i:02}": rng.integers(0, 256, (ROWS, 1000), np.uint8) for i in range(TENSORS)}


@pytest.fixture(scope="module")
def old():
    return arrays(0)


@pytest.fixture
def path(tmp_path, old):
    path = tmp_path / "model.safetensors"
    tensafe.numpy.save_file(old, path, durable=False)
    # Long ago: a later change has another time, however coarse the clock is.
    os.utime(path, (1, 1))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def opened(path, io):
    return tensafe.open(path, owned=True) if io == "owned" else tensafe.open(path, io=io)


def stream(model):
    """All tensors; reading is at most a few of them ahead."""
    plan = model.plan(budget="8MiB")
    for name in model:
        plan.add(name)
    return plan.execute("numpy")


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def written_in_place(path):
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))


def grown(path):
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("io", READS)
@pytest.mark.parametrize("change", [cut_short, written_in_place, grown])
def test_a_change_between_opening_and_reading_is_an_error(path, io, change):
    model = opened(path, io)
    change(path)
    for load in (
        model.to_numpy,
        lambda: dict(stream(model)),
        lambda: model["t15"].to_numpy(),
        lambda: model["t15"][:, 3:5].to_numpy(),
    ):
        with pytest.raises(tensafe.IoError, match=r"model\.safetensors: .*(ends early|changed while)"):
            load()


@pytest.mark.parametrize("io", READS)
@pytest.mark.parametrize("change", [cut_short, written_in_place, grown])
@pytest.mark.parametrize("after", [1, 3])
def test_a_change_between_two_tensors_of_a_stream_is_an_error(path, old, io, change, after):
    running = stream(opened(path, io))
    for _, (name, array) in zip(range(after), running, strict=False):
        assert np.array_equal(array, old[name])
    change(path)
    seen = after
    with pytest.raises(tensafe.IoError, match=r"model\.safetensors: .*(ends early|changed while)"):
        for name, array in running:
            # What was read before the change.
            assert np.array_equal(array, old[name])
            seen += 1
    assert seen < TENSORS and list(running) == []


@pytest.mark.parametrize("io", [*READS, "mmap", "auto"])
@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("gone", ["replaced", "removed"])
def test_a_file_that_is_replaced_or_removed_is_loaded_to_its_end(path, old, io, after, gone):
    model = opened(path, io)
    running = stream(model)
    loaded = dict(next(running) for _ in range(after))
    if gone == "replaced":
        tensafe.numpy.save_file(arrays(1), path, durable=False)
    else:
        path.unlink()
    loaded.update(running)
    cut = model.plan(budget="8MiB").add("t09", index=np.s_[:, 5:9]).load("numpy")
    assert np.array_equal(cut["t09"], old["t09"][:, 5:9])
    assert loaded.keys() == old.keys() and all(np.array_equal(loaded[name], old[name]) for name in old)
    if gone == "replaced":
        assert np.array_equal(opened(path, io).to_numpy()["t00"], arrays(1)["t00"])

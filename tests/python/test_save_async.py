"""Saves in the background: what they write, how they end, and that none is lost without a word."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import tensafe
import tensafe.numpy


def test_a_snapshot_is_what_was_there_when_the_call_returned(tmp_path):
    array, small = np.full(30 << 20, 1, np.uint8), np.arange(3)
    handle = tensafe.numpy.save_file_async({"a": array, "s": small}, tmp_path / "f", {"key": "value"})
    array[:] = 2
    small[:] = 7
    handle.result()
    assert handle.done()
    done, total = handle.progress()
    assert done == total == (tmp_path / "f").stat().st_size
    with tensafe.safe_open(tmp_path / "f", "np") as file:
        assert (file.get_tensor("a") == 1).all() and file.get_tensor("s").tolist() == [0, 1, 2]
        assert file.metadata() == {"key": "value"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_bytes_are_those_of_a_save_in_the_foreground(tmp_path):
    tensors = {"a": np.random.default_rng(0).random((100, 70)).T, "b": np.float32(1), "c": np.zeros((0, 2))}
    for snapshot in (True, False):
        for align in (8, 4096):
            handle = tensafe.numpy.save_file_async(
                tensors, tmp_path / "f", snapshot=snapshot, durable=not snapshot, align=align
            )
            handle.result(60)
            assert (tmp_path / "f").read_bytes() == tensafe.numpy.save(tensors, align=align)


def test_without_a_snapshot_the_handle_keeps_the_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")
    tensors = {"a": torch.arange(20 << 20, dtype=torch.uint8)}
    kept = tensors["a"].clone()
    handle = tensafe.torch.save_file_async(tensors, tmp_path / "f", snapshot=False)
    del tensors["a"]
    gc.collect()
    handle.result()
    assert torch.equal(tensafe.torch.load_file(tmp_path / "f")["a"], kept)


def test_torch_tensors_are_snapshotted_too(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensafe.torch")
    tensor = torch.ones(1 << 20, dtype=torch.bfloat16)
    handle = tensafe.torch.save_file_async({"a": tensor}, tmp_path / "f", durable=False)
    tensor.zero_()
    handle.result()
    assert torch.equal(tensafe.torch.load_file(tmp_path / "f")["a"], torch.ones_like(tensor))


def test_what_cannot_be_saved_is_refused_at_once_and_what_fails_later_by_the_result(tmp_path):
    with pytest.raises(tensafe.UnsupportedError, match="complex128"):
        tensafe.numpy.save_file_async({"a": np.zeros(2, np.complex128)}, tmp_path / "f")
    handle = tensafe.numpy.save_file_async({"a": np.zeros(2)}, tmp_path / "missing" / "f")
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="missing"):
            handle.result()
    assert handle.done() and list(tmp_path.iterdir()) == []


def slow(gate, size):
    """The function of a tensor that is not there before the gate opens."""

    def fetch(start, stop):
        gate.wait(60)
        return np.zeros(stop - start, np.uint8)

    return [("a", "uint8", [size], fetch)]


def test_a_cancelled_save_leaves_the_old_file_and_nothing_else(tmp_path):
    from tensafe._save import start_save

    path = tmp_path / "f"
    tensafe.numpy.save_file({"a": np.arange(2)}, path)
    gate = threading.Event()
    handle = start_save(slow(gate, 100 << 20), path, None, snapshot=False, durable=True, align=8)
    with pytest.raises(TimeoutError):
        handle.result(0.05)
    assert not handle.done() and handle.progress()[0] < 100 << 20
    handle.cancel()
    gate.set()
    with pytest.raises(tensafe.CancelledError, match="cancelled before it was written"):
        handle.result(60)
    assert handle.done() and [p.name for p in tmp_path.iterdir()] == ["f"]
    assert tensafe.numpy.load_file(path)["a"].tolist() == [0, 1]
    # A save that is over is not undone.
    handle = tensafe.numpy.save_file_async({"b": np.arange(2)}, path)
    handle.result()
    handle.cancel()
    handle.result()
    assert list(tensafe.open(path)) == ["b"]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("step", range(7))
def test_a_save_cancelled_at_any_tensor_leaves_the_old_file(tmp_path, step, durable):
    from tensafe._save import start_save

    path = tmp_path / "f"
    tensafe.numpy.save_file({"a": np.arange(2)}, path)
    begun = threading.Event()
    handles = []

    def fetch_of(number):
        def fetch(start, stop):
            begun.wait(60)
            if number == step:
                handles[0].cancel()
            return np.full(stop - start, number, np.uint8)

        return fetch

    entries = [(f"t{i}", "uint8", [100_000], fetch_of(i)) for i in range(6)]
    handles.append(start_save(entries, path, None, snapshot=False, durable=durable, align=8))
    begun.set()
    if step == 6:
        handles[0].result(60)
        assert (tensafe.numpy.load_file(path)["t5"] == 5).all()
    else:
        with pytest.raises(tensafe.CancelledError, match="cancelled before it was written"):
            handles[0].result(60)
        assert tensafe.numpy.load_file(path)["a"].tolist() == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_relative_path_is_of_the_directory_of_the_call(tmp_path, monkeypatch):
    from tensafe._save import start_save

    monkeypatch.chdir(tmp_path)
    gate = threading.Event()
    handle = start_save(slow(gate, 10), "f", None, snapshot=False, durable=False, align=8)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    gate.set()
    handle.result()
    assert (tmp_path / "f").exists()


def wait_for(handle):
    """Until it is done, and its thread has let go of it."""
    while not handle.done():
        time.sleep(0.01)
    for thread in threading.enumerate():
        if thread.name.startswith("save "):
            thread.join()


def test_a_failure_that_nobody_asked_for_is_a_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handle = tensafe.numpy.save_file_async({"a": np.zeros(2)}, tmp_path / "missing" / "f")
        wait_for(handle)
        del handle
        gc.collect()
    assert [
        str(w.message) for w in caught if "missing" in str(w.message) and "nobody asked" in str(w.message)
    ]


@pytest.mark.parametrize("asked", [True, False])
def test_a_failure_that_was_told_is_no_warning(tmp_path, asked):
    from tensafe._save import start_save

    gate = threading.Event()

    def fails(start, stop):
        gate.wait(60)
        raise RuntimeError("the device is gone")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        entries = [("a", "uint8", [10], fails)]
        handle = start_save(entries, tmp_path / "f", None, snapshot=False, durable=False, align=8)
        # A wait that ends too early tells nothing.
        with pytest.raises(TimeoutError):
            handle.result(0)
        gate.set()
        if asked:
            with pytest.raises(RuntimeError, match="gone"):
                handle.result(60)
        wait_for(handle)
        del handle
        gc.collect()
    warned = [str(w.message) for w in caught if str(tmp_path) in str(w.message)]
    assert bool(warned) != asked


def test_the_interpreter_waits_for_saves_before_it_exits(tmp_path):
    program = f"""
import sys, threading, time, numpy as np, tensafe.numpy
tensafe.numpy.save_file_async({{"a": np.ones(40 << 20, np.uint8)}}, {str(tmp_path / "f")!r})
tensafe.numpy.save_file_async({{"a": np.ones(1)}}, {str(tmp_path / "missing" / "g")!r})
sys.exit(3)
"""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 3, done.stderr
    assert "nobody asked" in done.stderr
    assert (tensafe.numpy.load_file(tmp_path / "f")["a"] == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]

"""Tensors that load in the background, on the CPU."""

from __future__ import annotations

import gc
import threading

import pytest

torch = pytest.importorskip("torch")
import tensafe  # noqa: E402
import tensafe.torch  # noqa: E402
from conftest import entry  # noqa: E402

TENSORS = {
    "a": torch.arange(12.0).reshape(3, 4),
    "b": torch.arange(8, dtype=torch.bfloat16).reshape(2, 4),
    "s": torch.tensor(7.5),
    "e": torch.empty(0, 5),
}


@pytest.fixture
def path(tmp_path):
    tensafe.torch.save_file(TENSORS, tmp_path / "f")
    return tmp_path / "f"


def same(loaded):
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


def test_everything_is_handed_out_once(path, access):
    with tensafe.safe_open(path, "pt", **access) as file, file.prefetch() as loader:
        assert loader.names() == file.offset_keys() and len(loader) == 4
        first = loader.take("a")
        with pytest.raises(tensafe.SafetensorError, match="already delivered"):
            loader.take("a")
        rest = dict(loader)
        assert "a" not in rest and dict(loader) == {}
        same({"a": first, **rest})


def test_rows_of_a_plan(path):
    with tensafe.safe_open(path, "pt") as file:
        with file.prefetch({"a": slice(1, 3), "b": None, "e": slice(0, 0)}, threads=10_000) as loader:
            assert torch.equal(loader.take("a"), TENSORS["a"][1:3]) and torch.equal(
                loader.take("b"), TENSORS["b"]
            )
            assert loader.take("e").shape == (0, 5)
            with pytest.raises(tensafe.SafetensorError, match="not in the prefetch plan"):
                loader.take("s")
        with file.prefetch({"a": slice(-2, None)}) as loader:
            assert torch.equal(loader.take("a"), TENSORS["a"][1:])


@pytest.mark.parametrize(
    "plan, text",
    [
        ({"nope": None}, "does not contain"),
        ({"a": slice(0, 3, 2)}, "step 1"),
        ({"a": slice(0, 3, 0)}, "invalid prefetch plan slice"),
        ({"s": slice(0, 1)}, "0-d"),
        ({"a": 3}, "None or a slice"),
        ({"a": slice(0, 10)}, "out of range"),
        ({"a": slice(-9, 2)}, "out of range"),
        ({"a": slice(None, 2**70)}, "out of range"),
        ({"a": slice(0.5, 2)}, "not integers"),
        ({"a": slice("x", None)}, "not integers"),
        ({"a": (0, 1)}, "None or a slice"),
        ({}, "selects no tensors"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(path, plan, text):
    with tensafe.safe_open(path, "pt") as file, pytest.raises(tensafe.SafetensorError, match=text):
        file.prefetch(plan)


def test_a_dtype_that_torch_lacks_is_refused_before_anything_is_read(write_file):
    path = write_file({"x": entry("F6_E2M3", [4], 0, 3)}, bytes(3))
    with tensafe.safe_open(path, "pt") as file, pytest.raises(tensafe.SafetensorError, match="F6_E2M3"):
        file.prefetch()


def test_other_frameworks_are_refused(path):
    with (
        tensafe.safe_open(path, "np") as file,
        pytest.raises(tensafe.SafetensorError, match='framework="pt"'),
    ):
        file.prefetch()


def test_a_closed_loader_says_so(path):
    file = tensafe.safe_open(path, "pt")
    loader = file.prefetch()
    stream = iter(loader)
    next(stream)
    loader.close()
    for attempt in (lambda: loader.take("a"), lambda: list(stream), lambda: list(loader)):
        with pytest.raises(tensafe.SafetensorError, match="closed"):
            attempt()
    file.__exit__(None, None, None)
    with pytest.raises(tensafe.SafetensorError, match="closed"):
        file.prefetch()


def test_loaders_outlive_their_file_and_tensors_their_loader(path):
    with tensafe.safe_open(path, "pt") as file:
        first, second = file.prefetch(), file.prefetch({"a": None})
    path.unlink()
    tensors = dict(first)
    assert torch.equal(second.take("a"), TENSORS["a"])
    first.close()
    del first, second, file
    gc.collect()
    same(tensors)


def test_threads_share_a_loader(path):
    taken, lock = {}, threading.Lock()

    def consume(loader):
        for name, tensor in loader:
            with lock:
                assert name not in taken
                taken[name] = tensor

    with tensafe.safe_open(path, "pt") as file, file.prefetch() as loader:
        threads = [threading.Thread(target=consume, args=(loader,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    same(taken)


def test_a_loader_takes_numbers_of_threads_and_devices_that_make_sense(path):
    with tensafe.safe_open(path, "pt", backend="pread") as file:
        for threads in (0, -1):
            with pytest.raises(tensafe.UsageError, match="at least 1 thread"):
                file.prefetch(threads=threads)
        with pytest.raises(tensafe.SafetensorError, match="device foo is invalid"):
            file.prefetch(device="foo")
        same(dict(file.prefetch(device=torch.device("cpu"), threads=1)))
        assert all(tensor.is_meta for _, tensor in file.prefetch(device="meta"))


def test_what_goes_wrong_in_the_background_is_told_to_who_takes_the_tensor(path):
    import os

    with tensafe.safe_open(path, "pt", backend="pread") as file:
        os.truncate(path, 16)
        loader = file.prefetch()
        with pytest.raises(OSError, match="ends early|changed while it was open"):
            loader.take("a")
        with pytest.raises(tensafe.SafetensorError, match="already delivered"):
            loader.take("a")
        with pytest.raises(OSError, match="ends early|changed while it was open"):
            list(loader)


def test_tensors_of_a_loader_own_their_memory(path):
    file = tensafe.safe_open(path, "pt", io="mmap")
    taken = file.prefetch().take("a")
    taken.zero_()
    assert torch.equal(file.get_tensor("a"), TENSORS["a"])


def test_a_program_ends_while_a_loader_has_work(path):
    import subprocess
    import sys

    program = (
        f"import sys, tensafe; l = tensafe.safe_open({str(path)!r}, 'pt').prefetch(threads=1); sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 3


@pytest.fixture
def shards(tmp_path):
    """Eight tensors of 1 MiB and some small ones, in three files."""
    tensors = {f"layer.{i}": torch.full((256, 1024), float(i)) for i in range(8)}
    tensors |= {f"small.{i}": torch.full((3,), float(i)) for i in range(20)}
    names = sorted(tensors)
    for number in range(3):
        part = {name: tensors[name] for name in names[number * 10 : number * 10 + 10]}
        tensafe.torch.save_file(part, tmp_path / f"model-0000{number + 1}-of-00003.safetensors")
    return tmp_path, tensors


def test_parts_of_every_dimension_and_several_files(shards, access):
    directory, tensors = shards
    plan = {
        "layer.1": (slice(None), slice(8, 16)),
        "layer.5": (3, slice(-4, None)),
        "layer.7": (..., slice(0, 2)),
        "small.0": None,
        "small.3": slice(1, 3),
    }
    with tensafe.safe_open(directory, "pt", **access) as file, file.prefetch(plan) as loader:
        assert set(loader.names()) == plan.keys()
        for name in plan:
            whole = tensors[name]
            assert torch.equal(loader.take(name), whole if plan[name] is None else whole[plan[name]])


@pytest.mark.parametrize(
    "index, text",
    [
        ((slice(None), slice(0, 9, 2)), "step 1"),
        ((slice(None), slice(0, 9), slice(0, 1)), "slicing|dimensions|indices"),
        ((slice(0, 1000), slice(0, 1)), "slicing"),
        ((slice(0, 1), 5000), "slicing"),
        ((slice(0, 1), 0.5), "."),
    ],
)
def test_parts_that_are_none_are_refused(shards, index, text):
    with (
        tensafe.safe_open(shards[0], "pt") as file,
        pytest.raises((tensafe.SafetensorError, TypeError), match=text),
    ):
        file.prefetch({"layer.0": index})


def test_a_budget_holds_reading_back_until_tensors_are_taken(shards):
    import time

    directory, tensors = shards
    for budget in (4 << 20, "4MiB"):
        with (
            tensafe.safe_open(directory, "pt", backend="pread") as file,
            file.prefetch(budget=budget) as loader,
        ):
            taken = {}
            for name in loader.names():
                time.sleep(0.02)
                with loader._lock:
                    loaded = [part for part in loader._parts if part.future is not None]
                    held = sum(
                        size for part in loaded for key, size in part.sizes.items() if key not in taken
                    )
                assert held <= 4 << 20 and loader._held <= 4 << 20
                taken[name] = loader.take(name)
            assert all(torch.equal(taken[name], tensors[name]) for name in tensors)
            assert loader._held == 0


@pytest.mark.parametrize("budget", [None, 4 << 20, 2 << 20])
def test_any_order_of_asking_ends(shards, budget):
    directory, tensors = shards
    with tensafe.safe_open(directory, "pt", backend="pread") as file:
        for order in (sorted(tensors, reverse=True), sorted(tensors, key=lambda name: name[::-1])):
            loader = file.prefetch(budget=budget)
            for name in order[:15]:
                assert torch.equal(loader.take(name), tensors[name])
            rest = dict(loader)
            assert rest.keys() == set(order[15:])
            assert all(torch.equal(rest[name], tensors[name]) for name in rest)
            assert loader._held == 0


@pytest.mark.parametrize("first", [(), ("a",)], ids=["iterated", "taken"])
def test_a_part_that_begins_while_a_tensor_of_it_is_taken_loses_none(path, first, monkeypatch):
    with tensafe.safe_open(path, "pt") as file:
        with monkeypatch.context() as held:
            held.setattr(tensafe.PrefetchLoader, "_begin", lambda loader: None)
            loader = file.prefetch()
        taken = loader._taken

        def overtaken(*arguments):
            # Between the lock and the loading, reading comes to the part.
            loader._begin_more()
            return taken(*arguments)

        monkeypatch.setattr(loader, "_taken", overtaken)
        loaded = {name: loader.take(name) for name in first}
        same(loaded | dict(loader))
        assert loader._held == 0


def test_a_tensor_that_no_budget_of_this_size_has_room_for_is_told_at_once(shards):
    with (
        tensafe.safe_open(shards[0], "pt") as file,
        pytest.raises(tensafe.LimitError, match=r"tensor `layer.0` needs \d+ bytes .* budget is 1048576"),
    ):
        file.prefetch(budget="1MiB")


def test_a_program_ends_while_the_budget_holds_a_loader_back(shards):
    import subprocess
    import sys

    program = (
        f"import sys, tensafe; l = tensafe.safe_open({str(shards[0])!r}, 'pt').prefetch(budget='2MiB')\n"
        "l.take('layer.0'); sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"")

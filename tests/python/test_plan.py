"""Plans: the parts that were asked for, by every access, into new memory or the caller's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensafe
import tensafe.numpy

torch = pytest.importorskip("torch")
ml_dtypes = pytest.importorskip("ml_dtypes")
import tensafe.torch  # noqa: E402

ACCESS = ["auto", "mmap", "pread", "direct"]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "bf16": torch.randn(64, 96).to(torch.bfloat16),
        "bool": torch.randn(8, 8) > 0,
        "cube": torch.randn(4, 6, 10),
        "empty": torch.empty(0, 7),
        "f8": torch.randn(32, 16).to(torch.float8_e4m3fn),
        "i64": torch.arange(50),
        "large": torch.randn(1024, 1500),
        "scalar": torch.tensor(2.5),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]) -> Path:
    path = tmp_path_factory.mktemp("plan") / "model.safetensors"
    tensafe.torch.save_file(tensors, path)
    return path


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(
        torch.equal(
            one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
        )
    )


@pytest.mark.parametrize("io", ACCESS)
@pytest.mark.parametrize("order", ["file", "plan"])
def test_whole_tensors_are_those_of_load_file(
    path: Path, tensors: dict[str, torch.Tensor], io: str, order: str
) -> None:
    model = tensafe.open(path, io=io)
    plan = model.plan(order=order)
    for name in tensors:
        plan.add(name)
    loaded = plan.load()
    assert set(loaded) == set(tensors) and all(same(loaded[name], tensors[name]) for name in tensors)
    if order == "plan":
        assert list(loaded) == list(tensors)
    streamed = dict(plan.execute("torch"))
    assert list(streamed) == list(loaded) and all(same(streamed[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("io", ACCESS)
def test_parts_are_those_of_the_framework(path: Path, tensors: dict[str, torch.Tensor], io: str) -> None:
    model = tensafe.open(path, io=io)
    plan = model.plan(budget="32MiB")
    plan.add("large", shard=(1, 2, 4)).add("bf16", shard=(0, 4, 5)).add("cube", index=np.s_[1:3, ..., ::2])
    plan.add("f8", intervals=[(0, 4), (9, 16)], dim=1).add("i64", index=np.s_[-7:]).add("scalar")
    loaded = plan.load()
    assert same(loaded["large"], tensors["large"][:, 750:1125])
    assert same(loaded["bf16"], tensors["bf16"].chunk(5)[4])
    assert same(loaded["cube"], tensors["cube"][1:3, :, ::2])
    f8 = tensors["f8"].view(torch.uint8)
    assert same(loaded["f8"].view(torch.uint8), torch.cat([f8[:, :4], f8[:, 9:]], 1))
    assert same(loaded["i64"], tensors["i64"][-7:])
    arrays = plan.load("numpy")
    assert arrays["bf16"].dtype == np.dtype(ml_dtypes.bfloat16)
    assert np.array_equal(arrays["large"], tensors["large"][:, 750:1125].numpy())


@pytest.mark.parametrize("io", ACCESS)
def test_reads_into_memory_of_the_caller(path: Path, tensors: dict[str, torch.Tensor], io: str) -> None:
    outs: dict[str, Any] = {
        "large": torch.zeros(1500, 1024).t(),  # strided
        "cube": torch.zeros(4, 6, 20)[..., ::2],
        "bf16": torch.nn.Parameter(torch.zeros(64, 96, dtype=torch.bfloat16)),
        "f8": torch.zeros(32, 16),  # of another dtype: converted
        "bool": torch.zeros(8, 8, dtype=torch.bool),
    }
    plan = tensafe.open(path, io=io).plan()
    for name, out in outs.items():
        plan.add(name).into(name, out)
    loaded = plan.load()
    for name, out in outs.items():
        assert loaded[name] is out
        assert torch.equal(out.detach(), tensors[name].to(out.dtype)), name
    array = np.zeros((64, 96), ml_dtypes.bfloat16)
    reverse = np.zeros((4, 6, 10), np.float32)[::-1]
    plan = tensafe.open(path, io=io).plan().add("bf16").into("bf16", array).add("cube").into("cube", reverse)
    assert plan.load("numpy")["bf16"] is array
    assert np.array_equal(array.view(np.uint16), tensors["bf16"].view(torch.uint16).numpy())
    assert np.array_equal(reverse, tensors["cube"].numpy())


def test_memory_that_does_not_fit_is_refused(path: Path) -> None:
    plan = tensafe.open(path).plan().add("large").add("cube")
    with pytest.raises(tensafe.UsageError, match=r"shape \[3, 4\] to read into, needed \[1024, 1500\]"):
        plan.into("large", torch.zeros(3, 4))
    with pytest.raises(tensafe.UsageError, match="not in the plan"):
        plan.into("bf16", torch.zeros(64, 96))
    with pytest.raises(tensafe.UsageError, match="strides of"):
        plan.into("large", torch.zeros(1500).expand(1024, 1500))
    locked = np.zeros((4, 6, 10), np.float32)
    locked.flags.writeable = False
    with pytest.raises(BufferError, match="may not be written"):
        plan.into("cube", locked)


@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize("order", ["file", "plan"])
def test_all_tensors_come_in_the_order_of_reading(path: Path, order: str, framework: str) -> None:
    model = tensafe.open(path)
    plan = model.plan(order=order).add("i64").add("cube").add("large").add("scalar")
    plan.into("cube", np.zeros((4, 6, 10), np.float32) if framework == "numpy" else torch.zeros(4, 6, 10))
    names = plan.names if order == "plan" else model._checkpoint().offset_names()
    assert list(plan.load(framework)) == [name for name in names if name in plan.names]
    assert list(dict(plan.execute(framework))) == list(plan.load(framework))


def test_intervals_are_read_into_strided_memory(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    expected = torch.cat([tensors["large"][100:300], tensors["large"][700:800]])
    outs = [torch.zeros(300, 3000)[:, :1500], torch.zeros(1500, 300).t(), torch.zeros(300, 1500)]
    for out in [*outs, np.zeros((300, 3000), np.float32)[:, ::2]]:
        plan = tensafe.open(path).plan().add("large", intervals=[(100, 300), (700, 800)])
        loaded = plan.into("large", out).load("numpy" if isinstance(out, np.ndarray) else "torch")
        assert loaded["large"] is out
        assert torch.equal(torch.as_tensor(out), expected)
    plan = tensafe.open(path).plan().add("large", intervals=[(100, 300), (700, 800)])
    with pytest.raises(tensafe.UsageError, match="strides of"):
        plan.into("large", torch.zeros(1500).expand(300, 1500))


def test_a_tensor_is_read_into_one_place(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    plan = tensafe.open(path).plan()
    for name, out in (("cube", torch.zeros(4, 6, 10)), ("f8", torch.zeros(32, 16))):
        plan.add(name).into(name, out)
        for other in (torch.zeros_like(out), torch.zeros_like(out, dtype=torch.float64)):
            with pytest.raises(tensafe.UsageError, match=f"tensor `{name}` is read into memory .* already"):
                plan.into(name, other)
        assert plan.load()[name] is out and torch.equal(out, tensors[name].to(out.dtype))


def test_mistakes_are_named(path: Path) -> None:
    model = tensafe.open(path)
    for make, text in [
        (lambda: model.plan(order="size"), r'order "size" is invalid'),
        (lambda: model.plan(budget="many"), "a size"),
        (lambda: model.plan().add("large").add("large"), "tensor `large` is in the plan already"),
        (lambda: model.plan().add("large", index=np.s_[1:], shard=(0, 0, 2)), "give one of"),
        (lambda: model.plan().add("large", shard=(2, 0, 2)), r"tensor `large`: dimension 2 asked for"),
        (lambda: model.plan().add("large", shard=(0, 2, 2)), "part 2 of 2"),
        (
            lambda: model.plan().add("large", intervals=[(5, 9), (3, 6)]),
            "interval 3..6 of a dimension of 1024",
        ),
        (lambda: model.plan().add("large", index=np.s_[2000:]), "large"),
        (lambda: model.plan().execute("fortran"), "fortran"),
        (lambda: model.plan(local_ranks=0), "local_ranks 0 is invalid"),
        (lambda: tensafe.open(path, cache="burn"), 'cache "burn" is invalid'),
        (lambda: tensafe.open(path, io="mmap", cache="drop"), "needs memory"),
    ]:
        with pytest.raises((tensafe.UsageError, ValueError), match=text):
            make()
    with pytest.raises(tensafe.TensorNotFoundError):
        model.plan().add("missing")


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_memory_and_dtypes_of_another_framework_are_refused(path: Path, framework: str) -> None:
    model = tensafe.open(path)
    arrays, foreign = np.zeros((4, 6, 10)), torch.zeros(4, 6, 10, dtype=torch.float64)
    own, other = (foreign, arrays) if framework == "torch" else (arrays, foreign)
    dtype = torch.float64 if framework == "torch" else np.float64
    plan = model.plan().add("cube").into("cube", other)
    for run in (plan.load, plan.execute):
        with pytest.raises(tensafe.UsageError, match=f"`cube` is read into .* {framework} does not convert"):
            run(framework)
    model.plan().add("cube").into("cube", own).load(framework)
    # Nothing has to be converted to memory of the file's dtype.
    lent = np.zeros((4, 6, 10), np.float32) if framework == "torch" else torch.zeros(4, 6, 10)
    plan = model.plan().add("cube").into("cube", lent)
    assert plan.load(framework)["cube"] is lent
    with pytest.raises(tensafe.UsageError, match="tensor `cube` is read into"):
        plan.cast(dtype).load(framework)
    for wrong in ("nonsense", torch.float64 if framework == "numpy" else np.float64):
        plan = model.plan().add("cube").cast(wrong)
        with pytest.raises(tensafe.UsageError, match=f"tensor `cube`: .* is no dtype of {framework}"):
            plan.load(framework)


def test_equal_plans_are_equal_in_every_process(path: Path) -> None:
    make = (
        "import sys, tensafe\n"
        "plan = tensafe.open(sys.argv[1]).plan(budget='1GiB')\n"
        "plan.add('large', shard=(0, 1, 4)).add('cube')\n"
        "print(plan.fingerprint(), hash(plan))"
    )
    printed = {
        subprocess.run([sys.executable, "-c", make, path], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(printed) == 1
    plan = tensafe.open(path).plan(budget="1GiB").add("large", shard=(0, 1, 4)).add("cube")
    assert printed == {f"{plan.fingerprint()} {hash(plan)}\n"}
    other = tensafe.open(path).plan(budget="1GiB").add("large", shard=(0, 2, 4)).add("cube")
    assert plan != other and plan == plan


def test_filter_cast_and_progress(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    plan = tensafe.open(path, io="pread").plan()
    for name in tensors:
        plan.add(name)
    plan.filter(lambda name: name in ("bf16", "i64", "large")).cast(
        torch.float64, lambda name: name != "large"
    )
    assert plan.names == ["bf16", "i64", "large"] and len(plan) == 3
    seen = []
    loaded = dict(plan.execute(progress=seen.append))
    assert loaded["bf16"].dtype == torch.float64 and loaded["i64"].dtype == torch.int64
    assert same(loaded["large"], tensors["large"])
    assert [step.tensors_done for step in seen] == [1, 2, 3]
    assert seen[-1].bytes_done == seen[-1].bytes_total >= plan.nbytes


def test_a_filter_forgets_what_was_said_of_the_others(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    lent, copied = torch.full((4, 6, 10), -1.0), torch.full((32, 16), -1.0)
    plan = tensafe.open(path).plan().add("bf16").add("cube").into("cube", lent).add("f8").into("f8", copied)
    plan.add("i64").pad("i64", (60,)).add("scalar").cast(torch.float64, lambda name: name != "cube")
    running = plan.execute()
    plan.cast(torch.float16)
    loaded = plan.filter(lambda name: name == "bf16").load()
    assert list(loaded) == ["bf16"] and loaded["bf16"].dtype == torch.float16
    # What was begun earlier is carried out as it was.
    earlier = dict(running)
    assert len(earlier) == 5 and torch.equal(lent, tensors["cube"])
    assert earlier["bf16"].dtype == torch.float64
    lent.fill_(-1)
    names = ("cube", "f8", "i64", "scalar")
    plan.filter(lambda name: False)
    for name in names:
        plan.add(name)
    for loaded in (plan.load(), dict(plan.execute())):
        assert set(loaded) == set(names) and all(same(loaded[name], tensors[name]) for name in names)
    assert (lent == -1).all() and plan.shape("i64") == (50,)


def test_an_explanation_says_what_is_read_and_why(path: Path) -> None:
    model = tensafe.open(path, io="pread")
    explained = model.plan(budget="64MiB").add("large", shard=(1, 0, 2)).explain()
    assert explained.bytes_needed == 1024 * 750 * 4
    # Runs of 3000 bytes with gaps of 3000 are one span.
    assert explained.bytes_needed < explained.bytes_read <= 1024 * 1500 * 4
    assert explained.amplification == explained.bytes_read / explained.bytes_needed
    assert explained.budget == 64 << 20 >= explained.peak_memory
    assert [(r.method, r.why) for r in explained.ranges] == [("buffered", "as asked")]
    assert "bytes needed   3072000" in str(explained) and str(path) in str(explained)


def test_ranks_of_one_host_ask_for_less_at_once(path: Path) -> None:
    model = tensafe.open(path, io="pread")
    plans = {ranks: model.plan(budget="8MiB", local_ranks=ranks).add("large") for ranks in (1, 2, 4)}
    assert {ranks: plan.explain().workers for ranks, plan in plans.items()} == {1: 6, 2: 3, 4: 2}
    assert plans[1] == model.plan(budget="8MiB").add("large") != plans[4]


def test_a_budget_too_small_is_told_before_reading(path: Path) -> None:
    plan = tensafe.open(path, io="pread").plan(budget="1MiB").add("large")
    with pytest.raises(tensafe.LimitError, match="tensor `large` needs 6144000 bytes"):
        plan.explain()
    with pytest.raises(tensafe.LimitError, match="raise budget="):
        plan.load()


def test_cancelling_from_another_thread(path: Path) -> None:
    plan = tensafe.open(path, io="pread").plan(budget="32MiB").add("large").add("cube")
    running = plan.execute()
    thread = threading.Thread(target=running.cancel)
    thread.start()
    thread.join()
    with pytest.raises(tensafe.CancelledError):
        list(running)
    assert list(running) == []
    with plan.execute() as closed:
        pass
    assert list(closed) == []


@pytest.mark.parametrize("io", ACCESS)
@pytest.mark.parametrize("order", ["file", "plan"])
def test_cancelling_after_any_tensor_ends_it(tmp_path: Path, io: str, order: str) -> None:
    tensors = {f"t{i:02}": torch.arange(i, i + 40_000) for i in range(12)}
    tensafe.torch.save_file(tensors, tmp_path / "f", durable=False)
    model = tensafe.open(tmp_path / "f", io=io)
    for step in range(13):
        # Requests of a few pages; at most two tensors that nobody took.
        plan = model.plan(budget="1MiB", order=order)
        for name in tensors:
            plan.add(name, index=np.s_[100:])
        running = plan.execute()
        for _ in range(step):
            name, tensor = next(running)
            assert torch.equal(tensor, tensors[name][100:])
        running.cancel()
        if step < 12:
            with pytest.raises(tensafe.CancelledError):
                next(running)
        assert list(running) == []
        if io in ("pread", "direct"):
            assert running.progress().bytes_done <= min(step + 4, 12) * 320_000
    assert torch.equal(model["t03"].to_torch(), tensors["t03"])


def test_tensors_live_on_without_plan_and_file(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for io in ACCESS:
        with tensafe.open(path, io=io) as model:
            loaded = model.plan().add("large", shard=(0, 0, 2)).load()
        tensafe.trim_memory()
        assert same(loaded["large"], tensors["large"][:512])


def test_a_changed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensafe.torch.save_file({"w": torch.zeros(1000)}, path)
    plan = tensafe.open(path, io="pread").plan().add("w")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(tensafe.IoError, match="ends early|changed while it was open"):
        plan.load()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the page cache is asked by Linux's calls")
def test_dropping_the_cache_leaves_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensafe.torch.save_file({"w": torch.zeros(4 << 20)}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(path) > 0:
        pytest.skip("the file system keeps files in memory")
    tensafe.torch.load_file(path, cache="drop")
    assert resident(path) <= 1 << 20
    tensafe.torch.load_file(path, io="pread", cache="drop")
    assert resident(path) <= 1 << 20
    tensafe.torch.load_file(path, io="pread")
    assert resident(path) >= 16 << 20


def resident(path: Path) -> int:
    """Bytes of a file in the page cache."""
    # util-linux prints bytes, pages and more; -b are bytes.
    command = ["fincore", "-b", "-n", "-o", "RES", path]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

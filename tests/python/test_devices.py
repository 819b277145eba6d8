"""Plans onto devices. No GPU is needed: memory of the host stands in for a device's, and devices without data
or without a runtime take the other ways."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tensafe
from tensafe._plan import Plan, Running

torch = pytest.importorskip("torch")
import tensafe.torch  # noqa: E402

ACCESS = ["auto", "mmap", "pread", "direct"]
# The processor copies, to memory of the host in the place of a device's.
HOST = -1


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    tensors = {
        "bool": torch.randn(8, 8) > 0,
        "c64": torch.randn(7, 3, dtype=torch.complex64),
        "empty": torch.empty(0, 7),
        "f8": torch.randn(32, 16).to(torch.float8_e4m3fn),
        "large": torch.randn(1024, 1500),
        "other": torch.randn(700, 900).to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
    }
    return tensors | {f"small.{i}": torch.full((i + 1,), float(i)) for i in range(50)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]) -> Path:
    path = tmp_path_factory.mktemp("devices") / "model.safetensors"
    tensafe.torch.save_file(tensors, path)
    return path


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(
        one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )


def staged(plan: Plan, **options: Any) -> Running:
    return Running(plan, "torch", "cpu", None, stage=HOST, **options)


def whole(path: Path, io: str = "auto", budget: int | str | None = None, order: str = "file") -> Plan:
    model = tensafe.open(path, io=io)
    plan = model.plan(budget=budget, order=order)
    for name in model:
        plan.add(name)
    return plan


@pytest.mark.parametrize("io", ACCESS)
@pytest.mark.parametrize("budget", [None, "1MiB", "32MiB"])
@pytest.mark.parametrize("order", ["file", "plan"])
def test_staged_tensors_are_those_of_the_file(
    path: Path, tensors: dict[str, torch.Tensor], io: str, budget: str | None, order: str
) -> None:
    with staged(whole(path, io, budget, order)) as running:
        loaded = dict(running)
    assert loaded.keys() == tensors.keys()
    assert all(same(loaded[name], tensors[name]) for name in tensors)


def test_parts_casts_and_memory_of_the_caller(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    plan = tensafe.open(path, io="pread").plan()
    plan.add("large", shard=(1, 1, 4)).add("other", index=(slice(10, 20),)).add("f8").add("scalar").add("c64")
    same_dtype = torch.zeros(())
    plan.filter(lambda name: name != "c64").add("small.9")
    strided = torch.zeros(32, 32).to(torch.float8_e4m3fn)[:, ::2]
    plan.into("f8", strided).into("scalar", same_dtype)
    plan.cast(torch.float64, lambda name: name == "other")
    loaded = dict(staged(plan))
    assert same(loaded["large"], tensors["large"][:, 375:750])
    assert same(loaded["other"], tensors["other"][10:20].double())
    assert loaded["f8"] is strided and same(strided, tensors["f8"])
    assert loaded["scalar"] is same_dtype and same(same_dtype, tensors["scalar"])
    plan = tensafe.open(path).plan().add("c64").into("c64", torch.zeros(7, 3, dtype=torch.complex128))
    assert torch.equal(dict(staged(plan))["c64"].to(torch.complex64), tensors["c64"])


def test_memory_is_made_when_its_turn_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    allocate = tensafe.torch._allocate

    def noted(code: str, shape: list[int], name: str, device: Any) -> torch.Tensor:
        made.append(name)
        return allocate(code, shape, name, device)

    monkeypatch.setattr(tensafe.torch, "_allocate", noted)
    plan = whole(path, "pread", "1MiB")
    running = staged(plan)
    assert made == []
    next(running)
    # As far as the budget goes, and what is read together with the next tensor.
    assert "large" in made and "other" not in made and len(made) < len(plan)
    list(running)
    assert sorted(made) == sorted(plan.names)


def test_a_staged_plan_can_be_left_at_any_point(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for count in range(4):
        running = staged(whole(path, "pread", "1MiB"))
        taken = [next(running) for _ in range(count)]
        if count % 2:
            running.close()
            assert list(running) == []
        else:
            del running
        gc.collect()
        assert all(same(tensor, tensors[name]) for name, tensor in taken)
    running = staged(whole(path, "pread"))
    running.cancel()
    with pytest.raises(tensafe.CancelledError):
        next(running)


def test_a_budget_is_for_slabs(path: Path) -> None:
    explained = whole(path, "pread", "1MiB")._explanation(True, "staged")
    # The largest tensor has 6 MB, on the device.
    assert explained.peak_memory <= 1 << 20 and explained.device_copies == "staged"
    assert str(explained).endswith("device copies: staged")
    with pytest.raises(tensafe.LimitError, match="two slabs of 131072 bytes together, the budget is 1000"):
        next(staged(whole(path, "pread", 1000)))


def test_a_changed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensafe.torch.save_file({"w": torch.zeros(1 << 20)}, path)
    plan = whole(path, "pread")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(tensafe.IoError, match="ends early|changed while it was open"):
        dict(staged(plan))


def test_a_dtype_that_torch_lacks_is_refused_before_memory_is_made(write_file: Any) -> None:
    from conftest import entry

    path = write_file({"x": entry("F6_E2M3", [4], 0, 3)}, bytes(3))
    with pytest.raises(tensafe.UnsupportedError, match="F6_E2M3"):
        staged(whole(path))


@pytest.mark.parametrize("stage", [HOST, None])
def test_all_of_a_checkpoint_of_several_files(
    tmp_path: Path, tensors: dict[str, torch.Tensor], stage: int | None
) -> None:
    names = sorted(tensors)
    for number in range(3):
        part = {name: tensors[name] for name in names[number::3]}
        tensafe.torch.save_file(part, tmp_path / f"model-0000{number + 1}-of-00003.safetensors")
    with tensafe.safe_open(tmp_path, "pt", backend="pread") as file:
        loaded = tensafe.torch._get_all_onto(file._checkpoint(), "cpu", stage)
        assert list(loaded) == file.offset_keys()
    assert all(same(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is asked of Linux")
def test_what_torch_copies_is_never_all_on_the_host(tmp_path: Path) -> None:
    # A device that forgets what it is given, and a file of 384 MiB.
    program = """
        import torch, tensafe, tensafe.torch
        tensafe.torch.save_file({str(i): torch.ones(8 << 20) for i in range(12)}, "model.safetensors")
        tensafe.torch._HOST_BYTES = 32 << 20
        peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
        with open("/proc/self/clear_refs", "w") as file: file.write("5")
        before = peak()
        with tensafe.safe_open("model.safetensors", "pt", backend="pread") as file:
            loaded = tensafe.torch._get_all(file._checkpoint(), torch.device("meta"))
        assert len(loaded) == 12 and loaded["3"].is_meta
        print(peak() - before)
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # 32 MiB, and twice the largest tensor.
    assert int(done.stdout) < 160 << 10


def test_meta_reads_nothing(tmp_path: Path, path: Path, tensors: dict[str, torch.Tensor]) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(path.read_bytes())
    plan = whole(copy, "pread")
    with copy.open("r+b") as file:
        file.truncate(16)
    loaded = plan.load(device="meta")
    assert loaded.keys() == tensors.keys() and list(loaded) == [row[0] for row in plan._reading_order()]
    for name, tensor in loaded.items():
        assert tensor.is_meta and (tensor.dtype, tensor.shape) == (tensors[name].dtype, tensors[name].shape)
    assert plan.explain("meta").device_copies is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_runtime_the_framework_copies(path: Path) -> None:
    assert tensafe.torch._stage_of("cuda") is None and tensafe.torch._stage_of("xpu:0") is None
    plan = whole(path)
    for device in ("cuda", 0, "cuda:1", "xpu"):
        explained = plan.explain(device)
        assert explained.device_copies == "by torch" and str(explained).endswith("device copies: by torch")
        with pytest.raises((RuntimeError, AssertionError)):
            plan.load(device=device)
        with pytest.raises((RuntimeError, AssertionError)):
            tensafe.torch.load_file(path, device)
    assert plan.explain().device_copies is None and "device copies" not in str(plan.explain())

"""The benchmark runs, on small files with what this environment has, and its checks can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
# Why a row has no figures: a package that is not here, or a version of one that cannot do it.
MISSING = ("ModuleNotFoundError", "UnavailableError")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark asks Linux's page cache")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the benchmark can be imported."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture
def small_file(tmp_path: Path, bench: None) -> Path:
    import files

    files.make(str(tmp_path), vars(files.Shape(64, 64, 64, 64, 1, 64, 1, 8)), 0, ["safetensors"])
    return tmp_path / "copy0" / "one.safetensors"


def test_quick_run_has_a_row_for_every_way_of_every_cell(bench: None) -> None:
    # In the tree, not in a temporary directory: pages of a file system in memory cannot be cold.
    directory = ROOT / ".cache" / "bench-test"
    command = [sys.executable, "bench/load.py", "--quick", "--dir", str(directory)]
    command += ["--python", sys.executable, "--python-rc", str(directory / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    from cells import CELLS
    from runner import Outcome

    report = (directory / "quick" / "RESULTS.md").read_text()
    for cell in CELLS:
        section = report.partition(f"### {cell.name}: ")[2].partition("\n### ")[0]
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
        outcome = Outcome(cell)
        assert [row[0].removeprefix("| ") for row in rows[2:]] == [
            outcome.label(name) for name in outcome.names
        ]
        for row, name in zip(rows[2:], cell.ways, strict=False):
            # What is not installed is told; what is has figures.
            word, _, reason = row[1].partition(": ")
            installed = outcome.way(name).environment == "main" and not reason.startswith(MISSING)
            assert word != "failed" and (word != "skipped" or not installed), row
    assert "</svg>" in (directory / "quick" / "results.svg").read_text()


def test_bytes_that_differ_are_found(small_file: Path) -> None:
    import actions
    import files

    expected = files.entries([str(small_file)])
    tensors = files.tensors(expected)
    actions.compare(tensors.items(), expected, {})
    wrong = tensors["model.norm.weight"].clone()
    wrong.view(actions.torch.uint8)[5] ^= 1
    with pytest.raises(actions.WrongBytesError, match=r"`model\.norm\.weight` differs"):
        actions.compare((tensors | {"model.norm.weight": wrong}).items(), expected, {})
    del tensors["lm_head.weight"]
    with pytest.raises(actions.WrongBytesError, match="1 tensors are missing"):
        actions.compare(tensors.items(), expected, {})


def test_the_kernel_sums_every_byte(bench: None) -> None:
    import actions

    tensor = actions.torch.arange(19, dtype=actions.torch.uint8)
    words = [int.from_bytes(bytes(tensor[at : at + 8].tolist()), "little") for at in (0, 8)]
    assert actions.words(tensor) == sum(words) + 16 + 17 + 18


def test_pages_are_dropped_and_read_and_counted(bench: None) -> None:
    import measure

    path = ROOT / ".cache" / "bench-test" / "pages"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(1 << 20))
    try:
        measure.make_cold([path])
        assert measure.residency(path) < measure.COLD
        measure.make_warm([path])
        assert measure.residency(path) == 1.0
    finally:
        path.unlink()


def test_a_part_of_the_results_is_replaced(bench: None) -> None:
    import report

    once = report.replace_section("# Results\n\nBy hand.\n", "first")
    twice = report.replace_section(once + "\nAfter.\n", "second")
    assert "first" in once and "first" not in twice
    assert twice.startswith("# Results\n\nBy hand.\n") and twice.endswith("\nAfter.\n") and "second" in twice


@pytest.mark.parametrize(("theirs", "reached"), [(1.6, True), (1.4, False)])
def test_a_bar_is_reached_or_not(bench: None, theirs: float, reached: bool) -> None:
    import bars
    from cells import CELLS
    from runner import Outcome

    cell = next(cell for cell in CELLS if cell.name == "save-durable")
    outcome = Outcome(cell, {"tensafe": [{"wall": 1.0}] * 3, "safetensors-save": [{"wall": theirs}] * 3})
    bar = bars.Faster("save-durable", "beside safetensors", 1.5, ("tensafe",), ("safetensors-save",))
    assert bar.check(outcome).reached is reached


def test_what_the_rounds_leave_open_is_told(bench: None) -> None:
    import bars

    # Of ten coins one or none shows heads 11 times of 1,024; of five none does once of 32, which is too often.
    rounds = [0.8, 0.9, 0.95, 1.0, 1.02, 1.04, 1.05, 1.1, 1.2, 1.3]
    assert bars.Spread.of(rounds).surely == (0.9, 1.2)
    assert bars.Spread.of(rounds[:6]).surely == (0.8, 1.04)
    assert bars.Spread.of(rounds[:5]).surely is None
    # Of forty as many as thirteen, 19 times of 1,000.
    assert bars.Spread.of([float(number) for number in range(40)]).surely == (13.0, 26.0)
    for least, crosses in ((0.9, False), (0.91, True), (1.2, True), (1.21, False)):
        assert bars.Spread.of(rounds).may_cross(least) is crosses


@pytest.mark.parametrize(
    ("theirs", "word"),
    [
        ([1.6] * 10, "yes"),
        ([1.4] * 10, "**no**"),
        ([1.4] * 2 + [1.6] * 8, "yes, may be chance"),
        ([1.6] * 2 + [1.4] * 8, "**no**, may be chance"),
        ([1.6] * 3, "yes, may be chance"),
    ],
)
def test_the_report_tells_what_may_be_chance(bench: None, theirs: list[float], word: str) -> None:
    import bars
    import report
    from cells import CELLS
    from runner import Outcome

    cell = next(cell for cell in CELLS if cell.name == "save-durable")
    rows = {"tensafe": [{"wall": 1.0}] * len(theirs), "safetensors-save": [{"wall": wall} for wall in theirs]}
    bar = bars.Faster("save-durable", "beside safetensors", 1.5, ("tensafe",), ("safetensors-save",))
    text = report.render({}, [], [bar.check(Outcome(cell, rows))], None)
    (line,) = (line for line in text.splitlines() if line.startswith("| save-durable"))
    assert line.endswith(f"| {word} |")

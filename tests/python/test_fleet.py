"""Fleets of files on the local engine: rows, progress, what is lost, the command line. Ray has tests of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensafe
from tensafe import fleet
from tensafe.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
PAYLOAD = b"cos\nsystem\n(S'touch TENSAFE-MARKER-MUST-NOT-EXIST'\ntR."


def rows(what: Any, paths: Any, **options: Any) -> dict[str, fleet.Row]:
    found = list(fleet.run(what, paths, **options))
    by_path = {row.path: row for row in found}
    assert len(by_path) == len(found), "a file with two rows"
    return by_path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    texts = [str(argument) for argument in arguments]
    return subprocess.run([sys.executable, "-m", "tensafe", *texts], capture_output=True, text=True)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Sixty arrays, in three directories."""
    for number in range(60):
        path = tmp_path / "many" / f"d{number % 3}" / f"f{number:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full(4, number))
    return tmp_path / "many"


def test_a_scan_has_the_report_of_one_scan() -> None:
    whole = json.loads(tensafe.scan_to("json", ROOT / "pickles"))
    found = rows("scan", ROOT / "pickles", batch=50)
    assert len(found) == len(whole["files"])
    for file in whole["files"]:
        row = found[file["path"]]
        assert json.loads(row.details) == file["findings"], file["path"]
        assert (row.verdict, row.kind, row.bytes) == (file["verdict"], file["kind"], file["bytes"])
        assert row.inconclusive == file["inconclusive"] and row.error is None


def test_links_are_followed_as_a_scan_does(tmp_path: Path) -> None:
    model = tmp_path / "models--a--b"
    (model / "blobs").mkdir(parents=True)
    (model / "snapshots" / "1").mkdir(parents=True)
    (model / ".git").mkdir()
    (model / ".git" / "x.pkl").write_bytes(PAYLOAD)
    (model / "blobs" / "blob").write_bytes(PAYLOAD)
    (tmp_path / "outside.pkl").write_bytes(PAYLOAD)
    snapshot = model / "snapshots" / "1"
    (snapshot / "w.pkl").symlink_to("../../blobs/blob")
    (snapshot / "out.pkl").symlink_to(tmp_path / "outside.pkl")
    (snapshot / "gone.pkl").symlink_to("nowhere")
    (snapshot / "up").symlink_to("..")
    os.mkfifo(snapshot / "pipe")
    for top in (snapshot, model, tmp_path):
        whole = tensafe.scan(top)
        found = rows("scan", top)
        assert {file.path: file.verdict for file in whole.files} == {p: r.verdict for p, r in found.items()}


def test_verify_has_the_verdicts_of_the_program(tmp_path: Path) -> None:
    found = rows("verify", ROOT / "corpus")
    assert len(found) > 200
    paths = [path for path in found if not path.endswith(".json")]
    done = subprocess.run(
        [sys.executable, "-m", "tensafe", "verify", "--format", "json", *paths],
        capture_output=True,
        text=True,
    )
    files = [file for model in json.loads(done.stdout)["models"] for file in model["files"]]
    assert {file["path"]: file["verdict"] for file in files} == {path: found[path].verdict for path in paths}
    assert found[str(ROOT / "corpus" / "accept" / Path(paths[0]).name)].status != "failed"
    bad = rows("verify", ROOT / "corpus" / "reject")
    assert {row.level for row in bad.values()} == {"error"}


def test_names_that_are_no_text_and_patterns_are_names(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors")
    names = [b"\xff\xfe.safetensors", b"[ab].safetensors", b"-x.safetensors"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"short")
    found = rows("verify", tmp_path)
    bad = {os.path.basename(os.fsencode(path)) for path, row in found.items() if row.verdict == "bad"}
    assert bad == set(names) and len(found) == 4
    table = tmp_path / "rows.csv"
    # What a run itself writes there is none of its files, also at the second time.
    for _ in range(2):
        progress = tmp_path / "progress.jsonl"
        done = command("scan", "--engine=local", tmp_path, "--rows", table, "--progress", progress)
        assert done.returncode == 1 and len(table.read_text().splitlines()) == 5


def test_convert_mirrors_directories_and_an_index_stands_for_its_shards(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = tmp_path / "in" / "model"
    model.mkdir(parents=True)
    shards = {"w0": "pytorch_model-00001-of-00002.bin", "w1": "pytorch_model-00002-of-00002.bin"}
    for name, file in shards.items():
        torch.save({name: torch.ones(3)}, model / file)
    (model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    (model / "bad.pt").write_bytes(PAYLOAD)
    (model / "config.json").write_text("{}")
    torch.save({"a": torch.ones(2)}, model / "one.pt")
    torch.save({"a": torch.zeros(2)}, model / "one.pth")
    found = {
        Path(path).name: row
        for path, row in rows("convert", tmp_path / "in", output=str(tmp_path / "out")).items()
    }
    statuses = {name: row.status for name, row in found.items()}
    assert statuses == {
        "pytorch_model.bin.index.json": "ok", "bad.pt": "refused", "one.pt": "ok", "one.pth": "refused",
    }  # fmt: skip
    assert "another input" in (found["one.pth"].error or "")
    assert set(load_file(tmp_path / "out" / "model" / "model.safetensors")) == {"w0", "w1"}
    assert load_file(found["one.pt"].output or "")["a"].tolist() == [1.0, 1.0]
    assert not (tmp_path / "TENSAFE-MARKER-MUST-NOT-EXIST").exists()
    # What is there is another's, and stays.
    again = rows("convert", tmp_path / "in", output=str(tmp_path / "out"))
    assert {row.status for row in again.values()} == {"refused"}


class Vanishing(fleet.Scan):
    """Scans, but the file called f07 is gone when its turn comes, and f09 raises."""

    def work(self, items: Sequence[fleet.Item]) -> list[fleet.Row]:
        for item in items:
            if item.path.endswith("f07.npy"):
                Path(item.path).unlink(missing_ok=True)
            if item.path.endswith("f09.npy"):
                raise RuntimeError("a fault of ours")
        return super().work(items)


def test_no_file_ends_a_run(many: Path) -> None:
    found = rows(Vanishing(), [many, many / "missing.npy"])
    failed = {Path(path).name: row.error or "" for path, row in found.items() if row.status == "failed"}
    assert set(failed) == {"f07.npy", "f09.npy", "missing.npy"} and len(found) == 61
    assert "a fault of ours" in failed["f09.npy"] and "No such file" in failed["f07.npy"]


class Flaky(fleet.Scan):
    """A file system that answers at the third time."""

    def work(self, items: Sequence[fleet.Item]) -> list[fleet.Row]:
        if items[0].attempts < 2:
            return [
                fleet.Row(i.path, "scan", "failed", error="Input/output error (os error 5)") for i in items
            ]
        return super().work(items)


def test_what_may_pass_is_tried_again(many: Path) -> None:
    found = rows(Flaky(), many)
    assert {(row.status, row.attempts) for row in found.values()} == {("ok", 3)}
    found = rows(Flaky(), many, attempts=2)
    assert {(row.status, row.attempts) for row in found.values()} == {("failed", 2)}


class Fragile:
    """An engine whose worker dies of files called poison; counts what it holds."""

    def __init__(self, room: int = 4) -> None:
        self._most, self.waiting, self.closed = room, [], False
        self.lost: list[int] = []

    def room(self) -> int:
        return self._most - len(self.waiting)

    def submit(self, operation: fleet.Operation, items: Sequence[fleet.Item]) -> None:
        assert self.room() > 0
        self.waiting.append((operation, items))

    def wait(self, timeout: float | None) -> list[Any]:
        from tensafe.fleet._operations import perform

        operation, items = self.waiting.pop(0)
        if any("poison" in item.path for item in items):
            self.lost.append(len(items))
            return [(items, fleet.WorkerLost("killed"))]
        return [(items, perform(operation, items))]

    def close(self) -> None:
        self.closed = True


def test_a_file_that_kills_its_worker_is_found_and_the_others_are_done(many: Path) -> None:
    (many / "d1" / "poison.npy").write_bytes(b"")
    engine = Fragile()
    found = rows("scan", many, engine=engine, batch=64)
    (bad,) = [row for row in found.values() if row.status != "ok"]
    assert bad.path.endswith("poison.npy") and bad.status == "failed" and len(found) == 61
    assert "worker died 3 times" in (bad.error or "") and bad.attempts == len(engine.lost)
    assert engine.lost.count(1) == 3 and engine.closed


def test_an_output_of_a_worker_that_died_is_replaced_and_no_other(many: Path, tmp_path: Path) -> None:
    class Late(Fragile):
        """Dies after it did its work, at the first time."""

        def wait(self, timeout: float | None) -> list[Any]:
            ((items, results),) = super().wait(timeout)
            if any(item.attempts == 0 for item in items):
                return [(items, fleet.WorkerLost("killed"))]
            return [(items, results)]

    other = many / "d0" / "f03.safetensors"
    other.write_bytes(b"of another")
    found = rows("convert", many, engine=Late())
    (refused,) = [row for row in found.values() if row.status != "ok"]
    assert refused.path.endswith("f03.npy") and refused.status == "refused"
    assert other.read_bytes() == b"of another" and len(found) == 60


def test_no_more_is_taken_than_engines_ask_for(many: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield many / "d0" / "f00.npy"

    run = fleet.run("scan", endless(), batch=10, threads=2)
    for _ in range(500):
        next(run)
    run.close()  # type: ignore[attr-defined]
    assert taken <= 500 + 5 * 10


def test_a_run_goes_on_where_it_ended(many: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress.jsonl"
    run = fleet.run("scan", many, progress=progress, batch=4)
    first = {next(run).path for _ in range(20)}
    run.close()  # type: ignore[attr-defined]
    noted = progress.read_text().splitlines()
    assert first <= {json.loads(line).get("path") for line in noted}
    # A line that was being written when the power went.
    with progress.open("a") as file:
        file.write('{"path":"/half')
    found = rows("scan", many, progress=progress)
    assert len(found) == 60
    assert len(progress.read_text().splitlines()) == 61, "a file was done twice"
    # What changed is done again, and nothing else.
    np.save(many / "d0" / "f00.npy", np.zeros(9))
    assert len(rows("scan", many, progress=progress)) == 60
    assert len(progress.read_text().splitlines()) == 62
    # Of other options, everything is; of the first ones, nothing then.
    rows("scan", many, progress=progress, crc=True)
    assert len(progress.read_text().splitlines()) == 62 + 61
    assert len(rows("scan", many, progress=progress)) == 60
    assert len(progress.read_text().splitlines()) == 62 + 61 + 1


def test_a_file_that_is_no_progress_is_left_alone(many: Path, tmp_path: Path) -> None:
    for content in (b"precious", b"precious\n", b'{"a": 1}\n', b"\x00" * 100):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(tensafe.UsageError, match="not a file of progress"):
            list(fleet.run("scan", many, progress=tmp_path / "other"))
        assert (tmp_path / "other").read_bytes() == content
    held = fleet.run("scan", many, progress=tmp_path / "p")
    next(held)
    with pytest.raises(tensafe.UsageError, match="another run"):
        list(fleet.run("scan", many, progress=tmp_path / "p"))
    held.close()  # type: ignore[attr-defined]


HELD = """
import sys, threading, time
from tensafe import fleet

class Held(fleet.Convert):
    lock, files = threading.Lock(), 0

    def work(self, items):
        done = super().work(items)
        with self.lock:
            Held.files += len(items)
            hold = Held.files > 20
        # Written, and never noted.
        if hold:
            time.sleep(600)
        return done

for row in fleet.run(Held(), sys.argv[1], threads=2, progress=sys.argv[2]):
    pass
"""


def test_a_conversion_that_was_killed_goes_on(many: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress.jsonl"
    child = subprocess.Popen([sys.executable, "-c", HELD, str(many), str(progress)])

    def is_held() -> bool:
        noted = progress.read_text().count('"status"') if progress.exists() else 0
        return noted >= 10 and len(list(many.rglob("*.safetensors"))) > noted

    while not is_held():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    noted = [json.loads(line) for line in progress.read_text().splitlines() if line.endswith("}")]
    kept = {entry["output"]: os.stat(entry["output"]).st_mtime_ns for entry in noted if "output" in entry}
    # Written, and no row says so: these may be written again, and are not refused.
    assert len(list(many.rglob("*.safetensors"))) > len(kept)
    found = rows("convert", many, progress=progress)
    assert {row.status for row in found.values()} == {"ok"} and len(found) == 60
    assert {path: os.stat(path).st_mtime_ns for path in kept} == kept, "done twice"


def test_the_command_line(many: Path, tmp_path: Path) -> None:
    done = command("scan", many, "--engine", "local", "--rows", tmp_path / "rows.jsonl")
    assert (done.returncode, done.stdout) == (0, "60 files: 60 ok\n")
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 60
    assert not list(tmp_path.glob(".*partial"))
    (many / "bad.pkl").write_bytes(PAYLOAD)
    assert command("scan", "--engine=local", many).returncode == 1
    policy = tmp_path / "policy.toml"
    policy.write_text('[[allow]]\nsymbol = "os.system"\nreason = "a test"\n')
    assert command("scan", "--engine=local", many, "--policy", policy).returncode == 0
    policy.write_text('fail-on = "error"\n')
    assert command("scan", "--engine=local", many, "--policy", policy).returncode == 1
    (many / "bad.pkl").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(40))
    assert command("scan", "--engine=local", many).returncode == 3
    assert command("scan", "--engine=local", many, many / "missing").returncode == 2
    quiet = command("scan", "--engine=local", many, "--format", "quiet")
    assert quiet.stdout == f"{many / 'bad.pkl'}\n"
    for line in command("scan", "--engine=local", many, "--format", "json").stdout.splitlines():
        assert json.loads(line)["operation"] == "scan"
    assert command("verify", "--engine=local", ROOT / "corpus" / "accept").returncode == 0
    assert command("verify", "--engine=local", ROOT / "corpus" / "reject").returncode == 1
    assert command("convert", "--engine=local", many, "--output", tmp_path / "out").returncode == 2
    refused = command("scan", "--engine=local", many, "--rows", tmp_path / "rows.xls")
    assert refused.returncode == 2 and "rows.xls" in refused.stderr


def test_other_commands_are_those_of_the_program(many: Path) -> None:
    done = command("scan", many)
    assert done.returncode == 0 and "60 files: 60 clean" in done.stdout
    # A path may have that name.
    assert "No such file" in command("scan", "--", "--engine", "local").stderr
    assert "tensafe scan" in command("scan", "--engine", "local", "--help").stdout


def test_a_request_that_makes_no_sense_is_refused_before_anything_is_done(many: Path, tmp_path: Path) -> None:
    for options in (
        {"engine": "slurm"},
        {"attempts": 0},
        {"batch": 0},
        {"nonsense": 1},
        {"policy": "[[allow"},
    ):
        with pytest.raises(tensafe.UsageError):
            fleet.run("scan", many, **options)  # type: ignore[arg-type]
    with pytest.raises(tensafe.UsageError):
        fleet.run("load", many)
    assert not (tmp_path / "p").exists()

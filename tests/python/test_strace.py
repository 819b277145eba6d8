"""What the system sees while hostile pickles are converted, scanned and loaded: no program is started,
nothing is sent, and no file is opened beyond input, output and report.

Each way in runs under strace. In Python, two attempts to open files that are not there mark where the
call begins and ends; before lie the imports.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "pickles"
MARKER = "TENSAFE-MARKER-MUST-NOT-EXIST"
BEGIN, END = "/tensafe-begins-here", "/tensafe-ends-here"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

PROGRAM = str(Path(sys.executable).parent / "tensafe")

WAYS: dict[str, list[str]] = {
    "convert": [PROGRAM, "convert", "{input}", "{out}/out.safetensors", "--report", "{out}/report.json"],
    "convert-salvage": [PROGRAM, "convert", "{input}", "{out}/out.safetensors", "--salvage"],
    "scan": [PROGRAM, "scan", "{input}"],
    "scan-sarif": [PROGRAM, "scan", "{input}", "--format", "sarif", "--output", "{out}/report.sarif"],
    "python-convert": ["tensafe.convert({input!r}, {out!r} + '/out.safetensors', salvage=True)"],
    "python-load-torch": ["tensafe.torch.load_pickle({input!r})"],
    "python-load-torch-salvage": ["tensafe.torch.load_pickle({input!r}, salvage=True)"],
    "python-load-numpy": ["tensafe.numpy.load_pickle({input!r}, salvage=True)"],
    "python-load-bytes": ["tensafe.torch.load_pickle(DATA, salvage=True)"],
    "python-scan": ["tensafe.scan({input!r})"],
    "python-scan-bytes": ["tensafe.scan(DATA)"],
}

# What threads, allocators and the runtime look at.
RUNTIME = re.compile(
    r"^/(proc|sys|dev/(null|urandom|tty))(/|$)|^/etc/(ld\.so\.cache|localtime|nsswitch\.conf)|\.so(\.\d+)*$|^/usr/share/zoneinfo"
)


def hostile_files() -> list[Path]:
    """The files of the list that the corpus has, and of each kind of container at least one."""
    import json

    entries = json.loads((ROOT / "hostile.json").read_text())
    chosen: dict[str, Path] = {}
    for name, entry in sorted(entries.items()):
        payload = MARKER.encode() in (ROOT / "hostile" / name).read_bytes()
        if entry["verdict"] == "bad" and entry["effect"] == "exec" and payload:
            chosen.setdefault(entry["container"], ROOT / "hostile" / name)
    return list(chosen.values())


def traced(command: list[str], log: Path, cwd: Path) -> list[str]:
    calls = "execve,execveat,fork,vfork,socket,connect,sendto,sendmsg,open,openat,openat2,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmodat"
    strace = [
        "strace",
        "-f",
        "-s",
        "4096",
        "-qq",
        "-e",
        f"trace={calls}",
        "-e",
        "signal=none",
        "-o",
        str(log),
    ]
    done = subprocess.run([*strace, *command], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1, 2, 3), done.stderr
    return log.read_text(errors="replace").splitlines()


def check(lines: list[str], source: Path, out: Path) -> None:
    for line in lines:
        call = re.sub(r"^\d+\s+", "", line)
        name = call.split("(", 1)[0]
        if name.startswith("<..."):
            continue
        assert name not in (
            "execve",
            "execveat",
            "fork",
            "vfork",
            "socket",
            "connect",
            "sendto",
            "sendmsg",
        ), call
        paths = re.findall(r'"([^"]*)"', call)
        if name in ("open", "openat", "openat2"):
            assert len(paths) == 1, call
            writes = "O_WRONLY" in call or "O_RDWR" in call
            inside = paths[0] == str(out) or paths[0].startswith(f"{out}/")
            if writes:
                assert inside, call
            else:
                assert inside or paths[0] == str(source) or RUNTIME.search(paths[0]), call
        else:
            assert all(path == str(out) or path.startswith(f"{out}/") for path in paths), call


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_started_sent_or_opened(way: str, tmp_path: Path) -> None:
    sources = hostile_files()
    assert len(sources) >= 8, [source.name for source in sources]
    out = tmp_path / "out"
    out.mkdir()
    log = tmp_path / "log"
    if way.startswith("python"):
        (expression,) = WAYS[way]
        script = ["import os, tensafe, tensafe.torch, tensafe.numpy", "tensafe.scan(b'.')"]
        script += [
            f"try: tensafe.torch.load_pickle(open({str(ROOT / 'benign' / 'handmade' / 'big_endian.pt')!r}, 'rb').read())",
            "except Exception: pass",
        ]
        for source in sources:
            call = expression.format(input=str(source), out=str(out))
            script += [
                f"DATA = open({str(source)!r}, 'rb').read()",
                f"try: open({BEGIN!r})",
                "except OSError: pass",
                f"try: {call}",
                "except tensafe.SafetensorError: pass",
                f"try: open({END!r})",
                "except OSError: pass",
            ]
        program = tmp_path / "program.py"
        program.write_text("\n".join(script))
        lines = traced([sys.executable, str(program)], log, out)
        marks = [place for place, line in enumerate(lines) if BEGIN in line or END in line]
        parts = [lines[begin + 1 : end] for begin, end in zip(marks[::2], marks[1::2], strict=True)]
        assert len(parts) == len(sources)
        for source, part in zip(sources, parts, strict=True):
            check(part, source, out)
    else:
        for source in sources:
            command = [part.format(input=source, out=out) for part in WAYS[way]]
            if way == "convert":
                command.append("--force")
            lines = traced(command, log, out)
            assert "execve(" in lines[0]
            # The console script of the wheel is Python: what follows the start of the program is judged.
            starts = [
                place for place, line in enumerate(lines) if str(source) in line and "execve" not in line
            ]
            assert starts, lines[-5:]
            check(lines[starts[0] :], source, out)
            for left in out.iterdir():
                left.unlink()
    assert not list(Path.cwd().glob(MARKER)) and not list(out.glob(f"*{MARKER}*"))

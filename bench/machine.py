"""What a run was made on and with: without it figures say nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def describe(
    root: Path, installed: dict[str, dict[str, str | None]], rounds: int, command: list[str]
) -> dict[str, str]:
    """The lines of the report's head, by what they are."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "commit": _commit(),
        "command": " ".join(["python3", *(_relative(part) for part in command)]),
        "rounds": str(rounds),
        "machine": f"{_processor()}, {os.cpu_count()} processors, {_memory()}",
        "kernel": f"{platform.system()} {platform.release()}, transparent huge pages: {_huge_pages()}",
        "file system": _file_system(root),
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        **{f"environment `{name}`": _versions(versions) for name, versions in installed.items()},
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed
    except OSError:
        return "unknown"


def _relative(part: str) -> str:
    """Paths as they are typed in the tree; where the tree is is nobody's business."""
    return part.replace(f"{ROOT}/", "")


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return f"{int(found[1]) / (1 << 20):.0f} GiB" if found else "memory unknown"


def _huge_pages() -> str:
    try:
        found = re.search(r"\[(\w+)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text())
    except OSError:
        found = None
    return found[1] if found else "unknown"


def _file_system(root: Path) -> str:
    """The type and the device of the mount that the files are on."""
    path = str(root.resolve())
    best = ("", "unknown", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, kind, device)
    return f"{best[1]} on {best[2]}"


def _versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)

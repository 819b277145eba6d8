"""What loading model files would run, import or read: told without loading them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _tensafe

_LEVELS = ("inconclusive", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that was found, by a rule of docs/scan.md."""

    rule: str
    name: str
    level: str
    """``note``, ``warning``, ``error``, or ``inconclusive`` where something could not be judged."""
    message: str
    member: str | None
    """The member of an archive, with those around it."""
    offset: int | None
    """The first byte, counted from the start of the member, or of the file."""
    symbol: str | None
    opcode: str | None
    count: int
    allowed: str | None
    """The reason of the policy that allows it."""


@dataclass(frozen=True)
class ScannedFile:
    """What was found in one file."""

    path: str
    kind: str
    bytes: int
    verdict: str
    """``clean``, ``findings``, ``inconclusive`` or ``unreadable``."""
    inconclusive: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ScanReport:
    """What was found in all files."""

    files: tuple[ScannedFile, ...]
    errors: tuple[dict[str, str], ...]
    """Files that could not be read."""

    @property
    def findings(self) -> list[Finding]:
        """Every finding of every file, those that a policy allows among them."""
        return [finding for file in self.files for finding in file.findings]

    def reaches(self, level: str = "warning") -> bool:
        """Whether a finding of this level or above stands that no policy allows."""
        if level not in _LEVELS[1:]:
            raise ValueError(f"level `{level}` is not known; needed note, warning or error")
        least = _LEVELS.index(level)
        return any(_LEVELS.index(f.level) >= least for f in self.findings if f.allowed is None)

    @property
    def is_clean(self) -> bool:
        """Whether everything was read and judged, and nothing was found that no policy allows."""
        return all(file.verdict == "clean" for file in self.files) and not self.errors


def scan(
    paths: str | os.PathLike[str] | bytes | bytearray | memoryview | Iterable[str | os.PathLike[str]],
    *,
    policy: str | os.PathLike[str] | None = None,
    crc: bool = False,
    threads: int = 0,
) -> ScanReport:
    """Scans files, directories with all that is below them, or the bytes of one file.

    What is not known to be harmless is a warning, what is known to do harm an error, and what could
    not be judged is inconclusive, never clean. ``policy`` is a TOML file of what is allowed and denied;
    ``crc`` reads every byte of archives and compares checksums; ``threads=0`` takes as many as the
    machine has. Nothing is loaded, imported or executed.
    """
    document: dict[str, Any] = json.loads(_report(paths, policy, crc, threads, "json"))
    files = []
    for row in document["files"]:
        findings = tuple(Finding(**finding) for finding in row.pop("findings"))
        files.append(ScannedFile(**row, findings=findings))
    return ScanReport(tuple(files), tuple(document["errors"]))


def scan_to(
    format: str,
    paths: str | os.PathLike[str] | bytes | bytearray | memoryview | Iterable[str | os.PathLike[str]],
    *,
    policy: str | os.PathLike[str] | None = None,
    crc: bool = False,
    threads: int = 0,
) -> str:
    """The report of :func:`scan` as a document: ``"json"``, ``"sarif"`` or ``"cyclonedx"``."""
    return _report(paths, policy, crc, threads, format)


def _report(paths: Any, policy: str | os.PathLike[str] | None, crc: bool, threads: int, format: str) -> str:
    text = None if policy is None else Path(policy).read_text(encoding="utf-8")
    if isinstance(paths, (bytes, bytearray, memoryview)):
        return _tensafe.scan([], paths, text, crc, threads, format)
    chosen = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    return _tensafe.scan(chosen, None, text, crc, threads, format)

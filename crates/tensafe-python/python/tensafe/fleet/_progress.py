"""The progress of a run in a file, so that a run that was ended goes on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from .._errors import UsageError
from ._rows import Row

_SCHEMA = "tensafe.fleet/1"


class Progress:
    """A file of JSON lines. A line with ``schema`` says which operation, options and version of tensafe the
    rows after it are of; ``begun`` names files whose output may be there without a row.

    What is done is held as a path and an offset for each file. One run at a time has the file; another one
    gets a :class:`UsageError`, as does a file that is something else.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self._path = os.fspath(path)
        # As it is read back: tuples are lists there.
        head = json.loads(json.dumps({"schema": _SCHEMA, **identity}))
        self._file = open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
        self._done: dict[str, int] = {}
        self._begun: set[str] = set()
        try:
            self._lock()
            current = self._read(head)
            if not current:
                self._append([json.dumps(head, separators=(",", ":"))])
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self._path}: another run writes its progress there") from None

    def _read(self, head: dict[str, Any]) -> bool:
        """Notes what is done; returns whether what is appended next belongs to ``head``."""
        current, offset, first = False, 0, True
        for line in self._file:
            if not line.endswith(b"\n"):
                # The run was ended while it wrote: what is whole counts.
                break
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if first and not (isinstance(entry, dict) and entry.get("schema") == _SCHEMA):
                raise UsageError(f"{self._path}: not a file of progress; nothing was changed")
            first = False
            if isinstance(entry, dict):
                if "schema" in entry:
                    current = entry == head
                elif not current:
                    pass
                elif "begun" in entry:
                    self._begun.update(entry["begun"])
                else:
                    self._done[entry["path"]] = offset
                    self._begun.discard(entry["path"])
            offset += len(line)
        if first and os.fstat(self._file.fileno()).st_size > 0:
            # One line without an end: torn while it was the first, or another file.
            self._file.seek(0)
            begin = json.dumps({"schema": _SCHEMA}, separators=(",", ":"))[:-1].encode()
            if not begin.startswith(self._file.read(len(begin))):
                raise UsageError(f"{self._path}: not a file of progress; nothing was changed")
        self._file.seek(offset)
        self._file.truncate()
        return current

    def row(self, path: str) -> Row | None:
        """The row of a file that an earlier run finished."""
        offset = self._done.get(path)
        if offset is None:
            return None
        end = self._file.tell()
        self._file.seek(offset)
        row = Row.from_dict(json.loads(self._file.readline()))
        self._file.seek(end)
        return row

    def was_begun(self, path: str) -> bool:
        """Whether a run began to write the output of this file, and has no row of it."""
        return path in self._begun

    def begin(self, paths: Iterable[str]) -> None:
        """Notes that outputs will be written. Durable when it returns."""
        self._append([json.dumps({"begun": list(paths)}, separators=(",", ":"))])

    def record(self, rows: Iterable[Row]) -> None:
        """Notes what is finished. Durable when it returns."""
        self._append([row.to_json() for row in rows])

    def _append(self, lines: list[str]) -> None:
        if lines:
            self._file.write("".join(line + "\n" for line in lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

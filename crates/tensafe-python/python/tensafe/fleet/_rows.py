"""One row for each file, and tables of them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from .._errors import UnsupportedError, UsageError

LEVELS = ("note", "warning", "error")
STATUSES = ("ok", "findings", "inconclusive", "refused", "failed")

# Rows that one piece of a table holds: its memory, not the number of files, bounds what is kept.
_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one file."""

    path: str
    operation: str
    status: str
    """``ok``; ``findings``; ``inconclusive``: could not be judged; ``refused``: the file is at fault, and
    would be again; ``failed``: it could not be read, or whoever worked on it died."""
    verdict: str = ""
    """The operation's own word, such as ``clean`` (scan) or ``good`` (verify)."""
    level: str | None = None
    """The highest level of a finding that no policy allows: ``note``, ``warning`` or ``error``."""
    inconclusive: bool = False
    """Something could not be judged, also beside findings."""
    findings: int = 0
    kind: str | None = None
    bytes: int | None = None
    """Of the file, and of the shards that an index names."""
    mtime_ns: int | None = None
    seconds: float = 0.0
    """Where files were worked on in one call, an equal part of its time."""
    attempts: int = 1
    host: str = ""
    """Where it was worked on; with Ray, ``host/node``."""
    output: str | None = None
    """What ``convert`` wrote."""
    error: str | None = None
    details: str = "[]"
    """The findings as JSON, as ``tensafe scan`` and ``tensafe verify`` print them."""

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Row:
        return cls(**{name: given[name] for name in _NAMES if name in given})


_NAMES = [field.name for field in fields(Row)]


def table(rows: Iterable[Row]) -> Any:
    """The rows as a ``pyarrow.Table``. All are in memory at once; :class:`RowWriter` keeps few."""
    pyarrow = _pyarrow("tables")
    return pyarrow.Table.from_batches(_batches(pyarrow, rows), _schema(pyarrow))


class RowWriter:
    """Writes rows to a table as they come: ``.parquet``, ``.arrow``, ``.jsonl`` or ``.csv``, by the ending
    of ``path``. The file is there when the block ends without an exception, as a whole; what was there
    before is replaced. Raises :class:`UnsupportedError` for the first two without pyarrow.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        self._waiting: list[Row] = []
        ending = self._path.suffix
        if ending in (".parquet", ".arrow"):
            pyarrow = _pyarrow(ending)
            if ending == ".parquet":
                import pyarrow.parquet as parquet

                self._sink = parquet.ParquetWriter(os.fspath(self._partial), _schema(pyarrow))
            else:
                self._sink = pyarrow.ipc.new_file(os.fspath(self._partial), _schema(pyarrow))
            self._flush = self._flush_arrow
        elif ending in (".jsonl", ".csv"):
            self._sink = self._partial.open("w", encoding="utf-8", newline="")
            self._flush = self._flush_lines if ending == ".jsonl" else self._flush_csv
            if ending == ".csv":
                csv.writer(self._sink).writerow(_NAMES)
        else:
            raise UsageError(f"{self._path}: rows go to .parquet, .arrow, .jsonl or .csv")

    @property
    def files(self) -> list[Path]:
        """What is written, for a run to leave out: the table, and what it is until it is whole."""
        return [self._path, self._partial]

    def write(self, row: Row) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= _CHUNK:
            self._flush()
            self._waiting.clear()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._sink.close()
            if kind is not None:
                self._partial.unlink(missing_ok=True)
        if kind is None:
            os.replace(self._partial, self._path)

    def _flush_arrow(self) -> None:
        for batch in _batches(_pyarrow(self._path.suffix), self._waiting):
            self._sink.write_batch(batch)

    def _flush_lines(self) -> None:
        self._sink.writelines(row.to_json() + "\n" for row in self._waiting)

    def _flush_csv(self) -> None:
        csv.writer(self._sink).writerows(_plain(row).values() for row in self._waiting)


def _plain(row: Row) -> dict[str, Any]:
    """The fields, in texts that every encoding of tables can hold: a path on Unix is any bytes."""
    made = asdict(row)
    for name in ("path", "output", "error"):
        if made[name] is not None:
            made[name] = made[name].encode("utf-8", "backslashreplace").decode("utf-8")
    return made


def _batches(pyarrow: Any, rows: Iterable[Row]) -> Iterator[Any]:
    rows = iter(rows)
    while chunk := list(islice(rows, _CHUNK)):
        yield pyarrow.RecordBatch.from_pylist([_plain(row) for row in chunk], schema=_schema(pyarrow))


def _schema(pyarrow: Any) -> Any:
    types = {
        "inconclusive": pyarrow.bool_(),
        "findings": pyarrow.int64(),
        "bytes": pyarrow.int64(),
        "mtime_ns": pyarrow.int64(),
        "seconds": pyarrow.float64(),
        "attempts": pyarrow.int64(),
    }
    return pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in _NAMES])


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UnsupportedError(
            f"{what} need pyarrow, which is not installed; .jsonl and .csv do not"
        ) from None
    return pyarrow

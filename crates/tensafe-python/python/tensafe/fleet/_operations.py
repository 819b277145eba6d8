"""What is done to files: scan, verify, convert; and what becomes of a batch in which one goes wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from .. import _convert, _tensafe
from .._errors import SafetensorError, UsageError
from ._rows import LEVELS, Row
from ._walk import Found, walk

# An index of shards that is larger is no index; those of the largest models have 10 MB.
_INDEX_BYTES = 64 << 20
# Names that checkpoints have which `convert` reads. A file that is given itself may have any.
_CHECKPOINTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
# Files beside a pickle that are looked at before none of them counts as safetensors.
_SIBLINGS = 64
# A system takes so many bytes of arguments at least, on all that we run on.
_ARGUMENT_BYTES = 24 << 10
# What trying again does not mend.
_LASTING = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG,
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ENXIO,
}  # fmt: skip


@dataclass(slots=True)
class Item:
    """One file to work on."""

    path: str
    output: str | None = None
    replaces: bool = False
    """The output may be that of an earlier attempt, and is replaced."""
    ours: bool = False
    """What appears as the output from now on is of this run."""
    attempts: int = 0
    """How often it was tried before."""
    deaths: int = 0
    """How often its worker died with no other file in hand."""


class Operation(Protocol):
    """What :func:`run` does to files. It is sent to workers by pickle."""

    @property
    def name(self) -> str: ...

    @property
    def batch(self) -> int:
        """How many files are worked on in one call, at most."""

    @property
    def writes(self) -> bool:
        """Whether items have outputs."""

    def options(self) -> dict[str, Any]:
        """What makes a row another one: a run goes on where these are the same. As JSON."""

    def inputs(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Item | Row]:
        """The files to work on, and rows of those that will not be. Called where the run is driven."""

    def work(self, items: Sequence[Item]) -> list[Row]:
        """A row for each item, in their order. An exception means that one of them is at fault, and that
        each can be given again alone."""


@dataclass(frozen=True)
class Scan:
    """``tensafe scan`` on each file. ``policy`` is the text of a policy, not its path.

    That a pickle lies beside safetensors (``TS-505``) is told by what is in its directory, so that it does
    not depend on which files are scanned in one call.
    """

    policy: str | None = None
    crc: bool = False
    name: str = field(default="scan", init=False)
    batch: int = field(default=128, init=False)
    writes: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        # Refused before a run begins, not by every file.
        _tensafe.scan([], None, self.policy, self.crc, 1, "json")

    def options(self) -> dict[str, Any]:
        policy = None if self.policy is None else hashlib.sha256(self.policy.encode()).hexdigest()
        return {"policy": policy, "crc": self.crc}

    def inputs(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Item | Row]:
        for found in _found(paths):
            if found.outside:
                finding = {
                    "rule": "TS-902",
                    "name": "limit",
                    "level": "inconclusive",
                    "message": found.refused,
                }
                yield Row(
                    path=found.path,
                    operation=self.name,
                    status="inconclusive",
                    verdict="inconclusive",
                    inconclusive=True,
                    findings=1,
                    kind="link",
                    details=json.dumps([finding]),
                )
            elif found.refused is not None:
                yield _refused(self.name, found)
            else:
                yield Item(found.path)

    def work(self, items: Sequence[Item]) -> list[Row]:
        beside: dict[str, str | None] = {}
        return [self._row(item.path, beside) for item in items]

    def _row(self, path: str, beside: dict[str, str | None]) -> Row:
        start = time.perf_counter()
        paths = [path]
        if path.lower().endswith((".bin", ".ckpt", ".pt", ".pth")):
            directory = os.path.dirname(path)
            if directory not in beside:
                beside[directory] = _some_safetensors(directory)
            if (sibling := beside[directory]) is not None:
                paths.append(sibling)
        document = json.loads(_tensafe.scan(paths, None, self.policy, self.crc, 1, "json"))
        file = document["files"][0]
        findings = file["findings"]
        standing = [finding["level"] for finding in findings if finding["allowed"] is None]
        unread = file["verdict"] == "unreadable"
        status = {"clean": "ok", "unreadable": "failed"}.get(file["verdict"], file["verdict"])
        return Row(
            path=path,
            operation=self.name,
            status=status,
            verdict=file["verdict"],
            level=_highest(standing),
            inconclusive=file["inconclusive"],
            findings=len(findings),
            kind=file["kind"],
            seconds=time.perf_counter() - start,
            error=document["errors"][0]["message"] if unread and document["errors"] else None,
            details=json.dumps(findings, separators=(",", ":")),
        )


@dataclass(frozen=True)
class Verify:
    """``tensafe verify`` on each file. Below directories these are ``*.safetensors``, and indices of
    shards, whose rows have what concerns no shard alone."""

    deep: bool = False
    name: str = field(default="verify", init=False)
    batch: int = field(default=128, init=False)
    writes: bool = field(default=False, init=False)

    def options(self) -> dict[str, Any]:
        return {"deep": self.deep}

    def inputs(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Item | Row]:
        for found in _found(paths):
            if not found.named and not found.path.endswith((".safetensors", ".safetensors.index.json")):
                continue
            yield Item(found.path) if found.refused is None else _refused(self.name, found)

    def work(self, items: Sequence[Item]) -> list[Row]:
        rows: list[Row] = []
        for group in _groups([item.path for item in items]):
            start = time.perf_counter()
            document = self._run(group)
            seconds = (time.perf_counter() - start) / len(group)
            models = {model["path"]: model for model in document["models"]}
            files = {file["path"]: file for model in document["models"] for file in model["files"]}
            errors = {error["path"]: error["message"] for error in document["errors"]}
            for path in group:
                # The program prints what is no UTF-8 in its own way; such a path is a group of its own.
                shown = path if _is_text(path) else next(iter(models), path)
                facts = files.get(shown) if not shown.endswith(".json") else models.get(shown)
                rows.append(replace(self._row(path, facts, errors.get(shown)), seconds=seconds))
        return rows

    def _run(self, paths: list[str]) -> dict[str, Any]:
        """The program in a process of its own, as it prints what it finds."""
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = "import sys; from tensafe._tensafe import cli; raise SystemExit(cli(sys.argv))"
        options = ["--format", "json", *(["--deep"] if self.deep else [])]
        done = subprocess.run(
            [sys.executable, "-c", code, "verify", *options, "--", *paths],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if done.returncode not in (0, 1, 2) or not done.stdout:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise RuntimeError(f"the program ended with {done.returncode}: {said}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def _row(self, path: str, facts: dict[str, Any] | None, error: str | None) -> Row:
        if facts is None or facts["verdict"] == "unreadable":
            said = error or "No such file or directory"
            return Row(path, self.name, "failed", verdict="unreadable", error=said)
        findings = facts["findings"]
        level = _highest(finding["level"] for finding in findings)
        # Of an index, the verdict is also that of its shards.
        status = "findings" if facts["verdict"] == "bad" or level in ("warning", "error") else "ok"
        return Row(
            path=path,
            operation=self.name,
            status=status,
            verdict=facts["verdict"],
            level="error" if facts["verdict"] == "bad" else level,
            findings=len(findings),
            kind=facts.get("kind", "file"),
            details=json.dumps(findings, separators=(",", ":")),
        )


@dataclass(frozen=True)
class Convert:
    """``tensafe convert`` on each checkpoint. Below directories these are files with the names that
    checkpoints have, and indices of shards, which stand for their shards.

    An output stands beside its input, or below ``output`` as the input does below the path that was given.
    Two inputs with one output: the second is refused. The rest is as in :func:`tensafe.convert`.
    """

    output: str | None = None
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None
    max_shard_size: int | str | None = None
    duplicate: bool = False
    dense: bool = False
    salvage: bool = False
    crc: bool = False
    metadata: Mapping[str, str] | None = None
    overwrite: bool = False
    name: str = field(default="convert", init=False)
    batch: int = field(default=4, init=False)
    writes: bool = field(default=True, init=False)

    def options(self) -> dict[str, Any]:
        given = self._given()
        return {**given, "output": None if self.output is None else os.path.abspath(self.output)}

    def inputs(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Item | Row]:
        outputs: set[str] = set()
        shards: set[str] = set()
        for found in _indices_first(_found(paths)):
            if found.path in shards:
                shards.discard(found.path)
                continue
            if found.refused is not None:
                if found.named or _is_checkpoint(found.path):
                    yield _refused(self.name, found)
                continue
            if not found.named and not _is_checkpoint(found.path):
                continue
            if not found.named and found.path.endswith(".index.json"):
                shards.update(_shards(found.path))
            output = self._output(found)
            if output in outputs:
                said = f"another input is written to {output}"
                yield Row(found.path, self.name, "refused", output=output, error=said)
                continue
            outputs.add(output)
            yield Item(found.path, output)

    def work(self, items: Sequence[Item]) -> list[Row]:
        return [self._row(item) for item in items]

    def _row(self, item: Item) -> Row:
        try:
            return self._converted(item)
        except Exception as error:
            return _raised(self, item, error)

    def _converted(self, item: Item) -> Row:
        start = time.perf_counter()
        assert item.output is not None
        os.makedirs(os.path.dirname(item.output), exist_ok=True)
        options = self._given()
        options["overwrite"] = self.overwrite or item.replaces
        done = _convert.convert(item.path, item.output, **options)
        told = [
            {"path": file["path"], "bytes": file["bytes"], "tensors": file["tensors"]}
            for file in done["files"]
        ]
        return Row(
            path=item.path,
            operation=self.name,
            status="ok",
            verdict="converted",
            seconds=time.perf_counter() - start,
            output=item.output,
            details=json.dumps(told, separators=(",", ":")),
        )

    def _given(self) -> dict[str, Any]:
        names = (
            "select", "exclude", "rename", "dtype", "max_shard_size", "duplicate", "dense", "salvage", "crc",
            "metadata", "overwrite",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _output(self, found: Found) -> str:
        beside = os.fspath(_convert._beside(Path(found.path)))
        if self.output is None:
            return beside
        return os.path.join(os.path.abspath(self.output), os.path.relpath(beside, found.root))


def perform(operation: Operation, items: Sequence[Item], host: str | None = None) -> list[tuple[Row, bool]]:
    """The rows of a batch, each with whether trying again may help. A file that raises costs its own row
    alone. ``seconds`` are those of its own call."""
    host = socket.gethostname() if host is None else host
    measured = [measure(item.path) for item in items]
    try:
        rows = operation.work(items)
    except Exception as error:
        if len(items) > 1:
            return [pair for item in items for pair in perform(operation, [item], host)]
        rows = [_raised(operation, items[0], error)]
    done = []
    for item, row, size in zip(items, rows, measured, strict=True):
        bytes, mtime_ns = size if size is not None else (None, None)
        row = replace(row, bytes=bytes, mtime_ns=mtime_ns, attempts=item.attempts + 1, host=host)
        done.append((row, row.status == "failed" and _may_pass(item.path, row)))
    return done


def measure(path: str) -> tuple[int, int] | None:
    """The size of a file in bytes and when it was changed; of an index, with the shards that it names."""
    try:
        found = os.stat(path)
        size, changed = found.st_size, found.st_mtime_ns
        if path.endswith(".index.json"):
            for shard in _shards(path):
                found = os.stat(shard)
                size, changed = size + found.st_size, max(changed, found.st_mtime_ns)
    except OSError:
        return None
    return size, changed


def is_there(output: str) -> bool:
    """Whether an output is there, as one file or as shards with their index."""
    return os.path.lexists(output) or os.path.lexists(output + ".index.json")


def _raised(operation: Operation, item: Item, error: Exception) -> Row:
    said = str(error) or type(error).__name__
    if isinstance(error, OSError):
        status = "refused" if error.errno == errno.EEXIST else "failed"
    elif isinstance(error, SafetensorError):
        status = "refused"
    else:
        status, said = "failed", f"{type(error).__name__}: {said}"
    return Row(item.path, operation.name, status, output=item.output, error=said)


def _may_pass(path: str, row: Row) -> bool:
    """Whether a failure may be gone at the next attempt: not where the file itself says that it stays."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        return error.errno not in _LASTING
    said = row.error or ""
    return not any(f"os error {number})" in said for number in _LASTING)


def _found(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Found]:
    for path in paths:
        yield from walk(path)


def _indices_first(found: Iterator[Found]) -> Iterator[Found]:
    """Of each directory, the indices before the files that they may name."""
    waiting: list[Found] = []
    directory = ""
    for each in found:
        if os.path.dirname(each.path) != directory:
            yield from sorted(waiting, key=lambda found: not found.path.endswith(".index.json"))
            waiting, directory = [], os.path.dirname(each.path)
        waiting.append(each)
    yield from sorted(waiting, key=lambda found: not found.path.endswith(".index.json"))


def _is_checkpoint(path: str) -> bool:
    return path.endswith((*_CHECKPOINTS, *(ending + ".index.json" for ending in _CHECKPOINTS)))


def _shards(path: str) -> set[str]:
    """The files that an index names, of its own directory; none where it is no index."""
    try:
        if os.stat(path).st_size > _INDEX_BYTES:
            return set()
        named = json.loads(Path(path).read_bytes())["weight_map"].values()
        directory = os.path.dirname(path)
        return {os.path.join(directory, name) for name in set(named) if os.path.basename(name) == name}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def _some_safetensors(directory: str) -> str | None:
    """A file of the directory that is safetensors by its content too, among the first of that name."""
    try:
        with os.scandir(directory) as entries:
            named = (entry.path for entry in entries if entry.name.endswith(".safetensors"))
            for path in islice(named, _SIBLINGS):
                document = json.loads(_tensafe.scan([path], None, None, False, 1, "json"))
                if [file["kind"] for file in document["files"]] == ["safetensors"]:
                    return path
    except OSError:
        pass
    return None


def _groups(paths: list[str]) -> Iterator[list[str]]:
    """Paths that fit into the arguments of one process."""
    group: list[str] = []
    left = _ARGUMENT_BYTES
    for path in paths:
        if not _is_text(path):
            yield [path]
            continue
        size = len(os.fsencode(path)) + 1
        if group and size > left:
            yield group
            group, left = [], _ARGUMENT_BYTES
        group.append(path)
        left -= size
    if group:
        yield group


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(operation: str, found: Found) -> Row:
    status = "refused" if found.outside else "failed"
    return Row(found.path, operation, status, verdict="unreadable", error=found.refused)


def _highest(levels: Iterable[str]) -> str | None:
    known = [level for level in levels if level in LEVELS]
    return max(known, key=LEVELS.index, default=None)


def operation(name: str, options: Mapping[str, Any]) -> Operation:
    """An operation by its name, with the options of its class."""
    known: dict[str, type[Scan] | type[Verify] | type[Convert]] = {
        "scan": Scan,
        "verify": Verify,
        "convert": Convert,
    }
    if name not in known:
        raise UsageError(f"operation `{name}` is not known; needed {', '.join(known)}")
    try:
        return known[name](**options)
    except TypeError as error:
        raise UsageError(f"{name}: {error}") from None

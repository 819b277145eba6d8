"""``tensafe scan|verify|convert --engine local|ray``: the commands of a fleet."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._errors import SafetensorError
from ._rows import LEVELS, STATUSES, Row, RowWriter
from ._run import run

COMMANDS = ("scan", "verify", "convert")

_CODES = {
    "scan": "0 nothing at or above --fail-on, 1 something, 2 a file cannot be read, 3 not all could be judged",
    "verify": "0 every file is good, 1 a file breaks a rule, 2 a file cannot be read",
    "convert": "0 all converted, 2 a file was refused or could not be read or written",
}


def asks_for_fleet(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments of a command of this module."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    named = any(text == "--engine" or text.startswith("--engine=") for text in options)
    return named and next((text for text in options if not text.startswith("-")), None) in COMMANDS


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    at = next(place for place, text in enumerate(arguments) if text in COMMANDS)
    name = arguments[at]
    parsed = _parser(name).parse_args([*arguments[:at], *arguments[at + 1 :]])
    try:
        return _run(name, parsed)
    except (OSError, ValueError, SafetensorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"tensafe {name}",
        description=f"{name.capitalize()} fleets of files: below directories, on many machines, and go on "
        "where a run was ended. Without --engine, see `tensafe --help`.",
        epilog=f"Exit codes: {_CODES[name]}.",
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, and directories with all below them")
    parser.add_argument("--engine", choices=("local", "ray"), required=True, help="threads here, or Ray")
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of a Ray cluster: auto, HOST:PORT; local starts one here"
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="of the local engine; 0: one for each processor"
    )
    parser.add_argument(
        "--progress", metavar="FILE", help="keep there what is done, and pass over what is done there"
    )
    parser.add_argument("--rows", metavar="FILE", help="a table: .parquet, .arrow, .jsonl or .csv")
    parser.add_argument("--batch", type=int, metavar="N", help="files of one call, at most")
    parser.add_argument(
        "--attempts", type=int, default=3, metavar="N", help="for what cannot be read, or kills its worker"
    )
    parser.add_argument(
        "--format",
        choices=("human", "json", "quiet"),
        default="human",
        help="json: one row a line; quiet: the paths of what is not ok",
    )
    if name == "scan":
        parser.add_argument("--fail-on", choices=LEVELS, help="the level that makes the exit code 1")
        parser.add_argument("--policy", metavar="FILE", help="a TOML file of what is allowed and denied")
        parser.add_argument("--crc", action="store_true", help="compare checksums of archives")
    elif name == "verify":
        parser.add_argument("--deep", action="store_true", help="read data too")
    else:
        parser.add_argument("--output", metavar="DIRECTORY", help="where outputs go [default: beside inputs]")
        parser.add_argument("--select", action="append", default=[], metavar="PATTERN")
        parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN")
        parser.add_argument("--rename", action="append", default=[], type=_pair, metavar="REGEX=TEXT")
        parser.add_argument("--metadata", action="append", default=[], type=_pair, metavar="KEY=TEXT")
        parser.add_argument("--dtype", choices=("f64", "f32", "f16", "bf16"))
        parser.add_argument("--max-shard-size", metavar="SIZE")
        for flag in ("duplicate", "dense", "salvage", "crc"):
            parser.add_argument(f"--{flag}", action="store_true")
        parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: needed KEY=TEXT")
    return key, value


def _run(name: str, parsed: argparse.Namespace) -> int:
    options, fail_on = _options(name, parsed)
    counted: Counter[str] = Counter()
    worst, inconclusive = -1, False
    begin = last = time.monotonic()
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(RowWriter(parsed.rows)) if parsed.rows else None
        rows = run(
            name,
            parsed.paths,
            engine=parsed.engine,
            address=parsed.address,
            threads=parsed.threads,
            progress=parsed.progress,
            batch=parsed.batch,
            attempts=parsed.attempts,
            leave_out=[] if writer is None else writer.files,
            **options,
        )
        stack.callback(rows.close)  # type: ignore[attr-defined]
        for row in rows:
            counted[row.status] += 1
            worst = max(worst, -1 if row.level is None else LEVELS.index(row.level))
            inconclusive = inconclusive or row.inconclusive
            if writer is not None:
                writer.write(row)
            _show(row, parsed.format)
            if sys.stderr.isatty() and time.monotonic() - last > 1:
                last = time.monotonic()
                print(
                    f"\r{counted.total()} files, {last - begin:.0f} s ", end="", file=sys.stderr, flush=True
                )
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    if parsed.format == "human":
        told = ", ".join(f"{counted[status]} {status}" for status in STATUSES if counted[status])
        print(f"{counted.total()} files: {told or 'none'}")
    if counted["failed"] or (name == "convert" and counted["refused"]):
        return 2
    if name == "scan":
        return 1 if worst >= LEVELS.index(fail_on) else 3 if inconclusive else 0
    return 1 if name == "verify" and worst == LEVELS.index("error") else 0


def _options(name: str, parsed: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The options of the operation, and from which level on findings make the exit code 1."""
    if name == "scan":
        policy = None if parsed.policy is None else Path(parsed.policy).read_text(encoding="utf-8")
        asked = parsed.fail_on or (policy and tomllib.loads(policy).get("fail-on"))
        return {"policy": policy, "crc": parsed.crc}, asked or "warning"
    if name == "verify":
        return {"deep": parsed.deep}, "error"
    names = ("output", "dtype", "max_shard_size", "duplicate", "dense", "salvage", "crc")
    options = {name: getattr(parsed, name) for name in names}
    options["overwrite"] = parsed.force
    options["metadata"] = dict(parsed.metadata) or None
    for each in ("select", "exclude", "rename"):
        options[each] = tuple(getattr(parsed, each))
    return options, "error"


def _show(row: Row, format: str) -> None:
    if format == "json":
        print(row.to_json())
    elif row.status != "ok":
        path = os.fsencode(row.path).decode(errors="replace")
        if format == "quiet":
            print(path)
        else:
            facts = [row.level or "", f"{row.findings} found" if row.findings else "", row.error or ""]
            print(f"{row.status:12} {path}", *(f" {fact}" for fact in facts if fact))

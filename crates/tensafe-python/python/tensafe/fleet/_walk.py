"""Which files there are below paths, one directory at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

# Directories of version control, whose objects no loader reads.
_LEFT_OUT = {".git", ".hg", ".svn"}


class Found(NamedTuple):
    path: str
    """Absolute: who works on it may be in another directory."""
    refused: str | None = None
    """Why it is not read."""
    outside: bool = False
    """It is a link that leads out of the directory that was given."""
    named: bool = False
    """It was given itself, not found in a directory."""
    root: str = ""
    """The directory that was given, or the one of the file that was."""


def walk(path: str | os.PathLike[str]) -> Iterator[Found]:
    """What ``tensafe scan`` walks over: files of a directory in the order of their names, then what is
    below. Links lead to files within the directory alone, or from a snapshot in the cache of the Hub to its
    blobs; links to directories are not followed, so that the walk ends.

    Holds the names of one directory, and those of the directories that wait.
    """
    top = os.path.abspath(os.fsdecode(path))
    try:
        mode = os.stat(top).st_mode
    except OSError as error:
        yield Found(top, _text(error), named=True, root=os.path.dirname(top))
        return
    if not stat.S_ISDIR(mode):
        refused = None if stat.S_ISREG(mode) else "neither a file nor a directory"
        yield Found(top, refused, named=True, root=os.path.dirname(top))
        return
    border = _border(os.path.realpath(top))
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Found(directory, _text(error), named=True, root=top)
            continue
        below = []
        for entry in listed:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _LEFT_OUT:
                        below.append(entry.path)
                elif entry.is_symlink():
                    target = os.path.realpath(entry.path, strict=True)
                    if not _within(target, border):
                        refused = "a symbolic link leads out of the directory, and was not followed"
                        yield Found(entry.path, refused, outside=True, root=top)
                    elif os.path.isfile(target):
                        yield Found(entry.path, root=top)
                elif entry.is_file(follow_symlinks=False):
                    yield Found(entry.path, root=top)
                else:
                    yield Found(entry.path, "neither a file nor a directory", root=top)
            except OSError as error:
                yield Found(entry.path, _text(error), root=top)
        waiting.extend(reversed(below))


def _border(root: str) -> str:
    """The directory that links may not lead out of: of a snapshot, the model with its blobs."""
    snapshots = os.path.dirname(root)
    model = os.path.dirname(snapshots)
    if os.path.basename(snapshots) == "snapshots" and os.path.isdir(os.path.join(model, "blobs")):
        return model
    return root


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(os.path.join(directory, ""))


def _text(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}"

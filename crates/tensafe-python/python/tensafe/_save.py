"""Saves to a file; and in the background: what is written, how far it is, and how it ended."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from ._tensafe import SaveControl, write
from ._tensafe import snapshot as copies

__all__ = ["SaveHandle"]


class SaveHandle:
    """A save that goes on in the background.

    It goes on without this handle, and the interpreter does not exit before it is done. A failure that
    nobody asked for with :meth:`result` is a warning.
    """

    def __init__(self, outcome: _Outcome, control: SaveControl) -> None:
        self._outcome = outcome
        self._control = control

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._outcome.done()

    def result(self, timeout: float | None = None) -> None:
        """Waits until the file is there, or raises what went wrong.

        ``TimeoutError`` after ``timeout`` seconds; the save goes on then. ``tensafe.CancelledError``
        where :meth:`cancel` came in time.
        """
        self._outcome.result(timeout)

    def cancel(self) -> None:
        """Asks for the end of the save: the file that was there stays, unless it is replaced already.

        Returns at once; :meth:`result` tells how it ended.
        """
        self._outcome.wanted = False
        self._control.cancel()

    def progress(self) -> tuple[int, int]:
        """Bytes of the file that are written, and all of them: ``(0, 0)`` before they are counted."""
        return self._control.progress()

    def __repr__(self) -> str:
        state = "done" if self.done() else "{} of {} bytes".format(*self.progress())
        return f"<SaveHandle of {self._outcome.filename}: {state}>"


class _Outcome(Future[None]):
    """How a save ended; whoever lets the last reference go without asking is warned of a failure."""

    def __init__(self, filename: str) -> None:
        super().__init__()
        self.filename = filename
        self.wanted = True

    def result(self, timeout: float | None = None) -> None:
        # Raises where the time is up, and nothing was told.
        self.exception(timeout)
        self.wanted = False
        super().result()

    def __del__(self) -> None:
        error = self.exception() if self.done() else None
        if error is not None and self.wanted:
            text = f"{self.filename} was not saved, and nobody asked: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=1)


def write_file(
    filename: str | os.PathLike[str],
    entries: Sequence[tuple[str, str, Sequence[int], Any]],
    metadata: dict[str, str] | None,
    *,
    durable: bool,
    align: int = 8,
) -> None:
    """Writes ``entries``, which are those of ``write``, to a file."""
    # `write` makes bytes where the path is None.
    write(os.fspath(filename), entries, metadata, durable=durable, align=align)


def start_save(
    entries: Sequence[tuple[str, str, Sequence[int], Any]],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None,
    *,
    snapshot: bool,
    durable: bool,
    align: int,
) -> SaveHandle:
    """Begins to write ``entries``, which are those of ``write``."""
    # The working directory may be another before the file is opened.
    path = os.path.abspath(filename)
    metadata = None if metadata is None else dict(metadata)
    kept = _snapshot(entries) if snapshot else list(entries)
    control, outcome = SaveControl(), _Outcome(path)

    def run(outcome: _Outcome) -> None:
        try:
            write(path, kept, metadata, durable=durable, align=align, control=control)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)
        finally:
            # Memory is given back when the file is there, however long the handle lives; and an
            # error's traceback would keep the outcome that holds it.
            kept.clear()
            del outcome

    # Not a daemon: the interpreter waits for it.
    threading.Thread(target=run, args=(outcome,), name=f"save {path}", daemon=False).start()
    return SaveHandle(outcome, control)


def _snapshot(
    entries: Sequence[tuple[str, str, Sequence[int], Any]],
) -> list[tuple[str, str, Sequence[int], Any]]:
    """The entries with copies of their bytes; what functions fetch is a copy already."""
    shared = [place for place, entry in enumerate(entries) if not callable(entry[3])]
    memory = dict(zip(shared, copies([entries[place][3] for place in shared]), strict=True))
    return [
        (name, dtype, shape, memory[place] if place in memory else data(0))
        for place, (name, dtype, shape, data) in enumerate(entries)
    ]

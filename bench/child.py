"""A process for each measurement, without the time of imports: a server forks, the fork measures.

    python bench/child.py SOCKET     imports torch and numpy, then forks a child for each connection

The driver's side is :class:`Server` and :class:`Child`. A child reads one task, loads a small file, says
that it is ready and waits for the word to go, says that its clock has stopped and waits once more, and
answers with one line of JSON. What it imports of a loader it imports itself; its memory is its own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Row = dict[str, Any]
# Seconds after which a library that says nothing is taken to hang.
PATIENCE = 300.0


class ChildError(Exception):
    """A measurement that failed; ``unavailable`` where a library cannot do it here."""

    def __init__(self, reason: str, unavailable: bool = False) -> None:
        super().__init__(reason)
        self.unavailable = unavailable


class Server:
    """The process of an environment that children are forked from."""

    def __init__(self, python: Path) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self._socket = str(Path(self._directory.name) / "socket")
        self._log = Path(self._directory.name) / "log"
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), __file__, self._socket],
                env={**os.environ, **threads},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while not Path(self._socket + ".ready").exists():
            if self._process.poll() is not None:
                raise ChildError(self._log.read_text().strip() or "the environment does not start")
            time.sleep(0.01)

    def child(self, task: Row, patience: float | None = PATIENCE) -> Child:
        """A child that has its task and makes itself ready."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._socket)
        connection.settimeout(patience)
        return Child(connection, task, self._log)

    def ask(self, task: Row) -> Any:
        """What a child answers to a task without a clock."""
        with self.child(task, patience=None) as child:
            return child.result()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._directory.cleanup()


class Child:
    """One measurement, from the driver's side."""

    def __init__(self, connection: socket.socket, task: Row, log: Path) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")
        self._log = log
        connection.sendall(json.dumps(task).encode() + b"\n")
        self.pid = int(self._lines.readline())

    def wait(self) -> None:
        """Returns when the clock may start, and again when it has stopped; raises :class:`ChildError`."""
        self._answer()

    def go(self) -> None:
        with contextlib.suppress(ConnectionError):
            # A child that has died has no answer either, and there it is told.
            self._connection.sendall(b"go\n")

    def result(self) -> Any:
        """The figures; raises :class:`ChildError`."""
        return self._answer()

    def _answer(self) -> Any:
        try:
            line = self._lines.readline()
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise ChildError(f"no answer within {PATIENCE:.0f} s") from None
        except ConnectionError:
            line = ""
        if not line:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ChildError(f"the process died: {' '.join(last)}".strip())
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"], answer["unavailable"])
        return answer["result"]

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._connection.close()
        # Its memory goes back before the next one begins: a process that has ended has no `status`.
        for _ in range(1000):
            if not Path(f"/proc/{self.pid}").exists():
                return
            time.sleep(0.005)
        # It waits for a thread that does not end.
        os.kill(self.pid, signal.SIGKILL)


def serve(path: str) -> None:
    # What every child needs, so that none of them spends a second on it.
    import numpy  # noqa: F401
    import torch  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    # Nobody waits for children: the kernel forgets them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    Path(path + ".ready").touch()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket) -> None:
    """The child: one task, one answer."""
    lines = connection.makefile("r")
    task = json.loads(lines.readline())

    def say(value: Any) -> None:
        connection.sendall(json.dumps(value).encode() + b"\n")

    def pause() -> None:
        say({"result": None})
        if lines.readline() != "go\n":
            os._exit(0)

    say(os.getpid())
    os.environ.update(task.get("variables", {}))
    try:
        say({"result": run(task, pause)})
    except BaseException as error:
        traceback.print_exc()
        say({"error": reason(error), "unavailable": is_unavailable(error)})
    # An orderly end may wait for threads of a library.
    sys.stdout.flush()
    sys.stderr.flush()


def run(task: Row, pause: Callable[[], None]) -> Any:
    import torch

    torch.set_num_threads(1)
    if task["action"] == "make":
        import files

        return files.make(task["root"], task["shape"], task["copy"], task["formats"])
    if task["action"] == "versions":
        return versions(task["packages"])
    import actions

    return actions.ACTIONS[task["action"]](actions.Task(**task), pause)


def versions(packages: list[str]) -> dict[str, str | None]:
    """The versions of what is installed, by the name of the package."""
    from importlib import metadata

    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def is_unavailable(error: BaseException) -> bool:
    return isinstance(error, ImportError) or type(error).__name__ == "UnavailableError"


def reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    named = type(error).__name__
    return f"{named}: {text[0]}" if text else named


if __name__ == "__main__":
    serve(sys.argv[1])

"""Operations of the tests alone, which workers import: slow ones, and one that kills its process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

from tensafe import fleet


class Slow(fleet.Scan):
    """Scans, and takes a moment for each file."""

    def work(self, items: Sequence[fleet.Item]) -> list[fleet.Row]:
        time.sleep(0.02 * len(items))
        return super().work(items)


class Poisoned(fleet.Scan):
    """Dies, with its process, of files that are called poison."""

    def work(self, items: Sequence[fleet.Item]) -> list[fleet.Row]:
        if any("poison" in item.path for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(items)


class Logged(Slow):
    """Notes each file that it works on in a file beside all of them."""

    def work(self, items: Sequence[fleet.Item]) -> list[fleet.Row]:
        log = os.path.join(os.path.dirname(items[0].path), "..", "log")
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, "".join(f"{item.path}\n" for item in items).encode())
        os.close(descriptor)
        return super().work(items)


if __name__ == "__main__":
    # Run from here as a program of its own, the class has to be that which workers import.
    from faulty import Logged as Imported

    directory, progress, address = sys.argv[1:]
    rows = fleet.run(Imported(), directory, engine="ray", address=address, progress=progress, batch=4)
    print(sum(1 for _ in rows))

"""The console script ``tensafe``: the program of the crate ``tensafe-cli``."""

from __future__ import annotations

import signal
import sys

from ._tensafe import cli


def main() -> None:
    if any(text.startswith("--engine") for text in sys.argv):
        from .fleet import _cli as fleet

        if fleet.asks_for_fleet(sys.argv[1:]):
            raise SystemExit(fleet.main(sys.argv[1:]))
    # While Rust runs, Python would note Ctrl-C and never act on it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(cli(["tensafe", *sys.argv[1:]]))


if __name__ == "__main__":
    main()

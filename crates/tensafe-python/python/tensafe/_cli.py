"""The console script ``tensafe``: the program of the crate ``tensafe-cli``."""

from __future__ import annotations

import signal
import sys

from ._tensafe import cli


def main() -> None:
    # While Rust runs, Python would note Ctrl-C and never act on it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise SystemExit(cli(["tensafe", *sys.argv[1:]]))


if __name__ == "__main__":
    main()

"""``python -m tensafe``: the command line."""

from ._cli import main

main()

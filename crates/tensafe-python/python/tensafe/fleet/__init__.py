"""Fleets of files: scan, verify or convert many, on this machine or on a cluster, and go on where it ended.

    from tensafe import fleet

    for row in fleet.run("scan", ["models/"], progress="scan.jsonl"):
        if row.status != "ok":
            print(row.path, row.status, row.level)

The command line is ``tensafe scan|verify|convert --engine local|ray``; docs/integrations/ray.md has both.
"""

from ._operations import Convert, Item, Operation, Scan, Verify
from ._rows import Row, RowWriter, table
from ._run import Engine, LocalEngine, WorkerLost, run

__all__ = [
    "Convert",
    "Engine",
    "Item",
    "LocalEngine",
    "Operation",
    "Row",
    "RowWriter",
    "Scan",
    "Verify",
    "WorkerLost",
    "run",
    "table",
]

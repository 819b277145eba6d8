"""Asserts which crate may depend on which: the house as ARCHITECTURE.md draws it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A crate, and the crates of this workspace that it may name. What they name in turn comes with them.
ALLOWED: dict[str, set[str]] = {
    "tensafe-format": set(),
    "tensafe-io": {"tensafe-format"},
    # What files are wrapped in, without what stands in them.
    "tensafe-container": {"tensafe-io"},
    # The pickle machine knows nothing of files or tensors.
    "tensafe-pickle": set(),
    "tensafe-model": {"tensafe-format", "tensafe-io", "tensafe-container", "tensafe-pickle"},
    # The scanner judges what the readers of formats tell it.
    "tensafe-trust": {"tensafe-format", "tensafe-io", "tensafe-pickle", "tensafe-container"},
    "tensafe": {"tensafe-format", "tensafe-io", "tensafe-model", "tensafe-trust"},
    "tensafe-cli": {"tensafe"},
    # The console script of the wheel is the program of tensafe-cli.
    "tensafe-python": {"tensafe", "tensafe-cli"},
    # The kit names the format that it tests; tests alone name the kit.
    "tensafe-testkit": {"tensafe-format"},
}
FORBID_UNSAFE = {
    "tensafe-format",
    "tensafe-container",
    "tensafe-pickle",
    "tensafe-model",
    "tensafe-trust",
    "tensafe",
    "tensafe-cli",
    "tensafe-testkit",
}


def main() -> int:
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = {package["name"]: package for package in metadata["packages"]}
    wrong = []
    for name, package in sorted(packages.items()):
        if name not in ALLOWED:
            wrong.append(f"{name} is not in the table of tools/edges.py")
            continue
        for dependency in package["dependencies"]:
            other, kind = dependency["name"], dependency["kind"] or "normal"
            if other not in packages:
                continue
            fine = other in ALLOWED[name] or (kind == "dev" and other == "tensafe-testkit")
            print(f"{name} -> {other} ({kind})")
            if not fine:
                wrong.append(f"{name} must not depend on {other}")
    for name in sorted(FORBID_UNSAFE & set(packages)):
        root = Path(packages[name]["manifest_path"]).parent / "src" / "lib.rs"
        if "#![forbid(unsafe_code)]" not in root.read_text():
            wrong.append(f"{name} does not forbid unsafe code")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

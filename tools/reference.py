"""Runs the reference implementation's own Python tests against tensafe.

    python tools/reference.py VERSION [pytest arguments]

The tests come from the source distribution on PyPI, as they are: nothing is edited. `import
safetensors` means tensafe there, by `python -m tensafe.compat`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Without a GPU these fail with the reference too: the build of paddle on PyPI has no CUDA.
NEEDS_GPU = (
    "tests/test_paddle_comparison.py::WithOpenCase::test_paddle_tensor_gpu",
    "tests/test_paddle_comparison.py::WithOpenCase::test_paddle_slice_gpu",
)


def tests_of(version: str, label: str) -> Path:
    """The directory that holds `tests/` of a version, unpacked afresh."""
    cache = ROOT / ".cache" / "reference"
    archive = cache / f"safetensors-{version}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += [
            "--no-deps",
            "--no-binary",
            "safetensors",
            "--dest",
            str(cache),
            f"safetensors=={version}",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
    place = cache / f"{version}-{label}"
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return place / f"safetensors-{version}" / "bindings" / "python"


def main() -> int:
    version, *arguments = sys.argv[1:]
    label = Path(sys.prefix).name
    directory = tests_of(version, label)
    (directory / "tests" / "data").mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "tensafe.compat",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rfEs",
    ]
    command += [option for test in NEEDS_GPU for option in ("--deselect", test)]
    return subprocess.run([*command, *(arguments or ["tests"])], cwd=directory).returncode


if __name__ == "__main__":
    sys.exit(main())

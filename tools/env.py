"""Makes the virtual environments that the tests and the demo run in.

    python3 tools/env.py NAME...           .venv/NAME with requirements/NAME.txt, pinned
    python3 tools/env.py --wheel NAME...   the same, and the package built from this tree
    python3 tools/env.py --built NAME...   the same, and the package as it was built last
    python3 tools/env.py --tools           programs of Debian that tests run

An environment whose requirements have not changed is left as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".cache" / "wheels"
# Programs of Debian, each in the package of its name.
TOOLS = ["fio", "strace"]
# Environments that see the packages of another one behind their own: torch is large.
OVER = {"bench": "main", "bench-rc": "main", "deepspeed": "main", "ray": "main"}
# Environments whose requirements are complete, and of which one asks for a version that the index lacks.
NO_DEPS = {"vllm"}


def python(name: str) -> Path:
    """The interpreter of an environment."""
    return ROOT / ".venv" / name / "bin" / "python"


def create(name: str) -> None:
    """Makes the environment, or makes it again where its requirements have changed."""
    requirements = ROOT / "requirements" / f"{name}.txt"
    base = OVER.get(name)
    if base is not None:
        create(base)
    wanted = hashlib.sha256(requirements.read_bytes() + (sys.version + (base or "")).encode()).hexdigest()
    place = python(name).parent.parent
    stamp = place / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    make_venv(place)
    if base is not None:
        (packages(name) / "over.pth").write_text(f"{packages(base)}\n")
    options = ["--quiet", "--disable-pip-version-check", *(["--no-deps"] if name in NO_DEPS else [])]
    try:
        run(python(name), "-m", "pip", "install", *options, "-r", requirements)
    except subprocess.CalledProcessError as error:
        # The most frequent reason, and one that pip says in the middle of a page.
        free = shutil.disk_usage(place).free / 1e9
        sys.exit(
            f"error: {requirements} could not be installed, pip's exit code is {error.returncode}; {free:.1f} GB of disk are free"
        )
    stamp.write_text(wanted)


def packages(name: str) -> Path:
    """Where an environment has its packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return python(name).parent.parent / "lib" / version / "site-packages"


def make_venv(place: Path) -> None:
    command = [sys.executable, "-m", "venv", str(place)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return
    # Debian keeps the module that fills an environment in a package of its own.
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "python3-venv")
    shutil.rmtree(place, ignore_errors=True)
    run(*command)


def build_wheel() -> Path:
    """Builds the wheel of this tree; maturin comes from the environment `main`."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    create("main")
    run(python("main"), "-m", "maturin", "build", "--quiet", "--release", "--locked", "--out", WHEELS)
    (wheel,) = WHEELS.glob("*.whl")
    return wheel


def built_wheel() -> Path:
    """The wheel that was built last, or else a new one."""
    return next(WHEELS.glob("*.whl"), None) or build_wheel()


def install_wheel(name: str, wheel: Path) -> None:
    create(name)
    options = ("--quiet", "--disable-pip-version-check", "--force-reinstall", "--no-deps")
    run(python(name), "-m", "pip", "install", *options, wheel)


def install_tools() -> None:
    """Installs what is missing of the programs that tests run; without the right to, they are skipped."""
    missing = [name for name in TOOLS if not shutil.which(name)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", *missing)


def run(*command: object) -> None:
    # What builds say belongs to who watches, not to who reads the output.
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", action="store_true", help="build the package and install it too")
    parser.add_argument("--built", action="store_true", help="install the package as it was built last")
    parser.add_argument("--tools", action="store_true", help="install the programs that tests run")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    (ROOT / ".cache").mkdir(exist_ok=True)
    # Two runs at once would write the same environment.
    with (ROOT / ".cache" / "env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if arguments.tools:
            install_tools()
        for name in arguments.names:
            create(name)
        if arguments.wheel or arguments.built:
            wheel = build_wheel() if arguments.wheel else built_wheel()
            for name in arguments.names:
                install_wheel(name, wheel)


if __name__ == "__main__":
    main()

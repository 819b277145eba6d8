#!/usr/bin/env python3
"""Collects benign/ and benign.json from the writers themselves: real versions of torch, numpy and joblib.

    make_benign.py --check                              do all files have the sha256 of the manifest?
    make_benign.py --environments                       how each environment is made
    make_benign.py --env torch-1.4.0 --python PATH      write the files of one environment again

Files of torch hold addresses of memory as keys, so a second run gives other bytes: --check compares sums,
and an environment is only written again on purpose. write_benign.py says what is written; it runs inside
the environment, loads what it wrote with that environment's own loader, and reports the tensors.

benign.json: "environments": name -> {python, packages, parts}, and "files": path under benign/ -> {
    writer      versions
    what        what it shows
    format      torch zip, torch legacy stream, tar of torch < 0.1.10, TorchScript, pt2, pickle, npy, npz, joblib ...
    protocol    of the pickle, where it is known
    refused     why a converter to safetensors refuses the file, or null
    sha256      of the file
    companions  files that belong to it (joblib < 0.10 has one for each array), with their sums
    tensors     (empty where the file was not loaded) name -> {dtype (of torch), shape, and of the
                little-endian C-contiguous elements the hex, up to 128 bytes, or the sha256}: keys of
                dictionaries and indices of sequences, in order, joined by dots; the name of a root is
                empty; quantised tensors show their integers; conjugated and negated views are resolved
    others      name -> type, for the leaves that are no tensors
    salvage     whole modules only: the tensors of their state_dict
}
"""

import argparse
import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = HERE / "benign.json"
# What must not be in a file: absolute paths, names of users.
PRIVATE = re.compile(rb"/(?:tmp|root|home|work|Users)/|site-packages")

# name -> interpreter, packages (pip install --no-deps for torch 1.x), parts of write_benign.py
ENVIRONMENTS = {
    "torch-1.0.1-py2": ("2.7", "torch==1.0.1 numpy==1.14.6 typing six future", "torch"),
    "torch-1.0.1": ("3.6", "torch==1.0.1 numpy==1.13.3 six typing_extensions", "torch"),
    "torch-1.4.0": ("3.7", "torch==1.4.0 numpy==1.16.6", "torch"),
    "torch-1.5.1": ("3.8", "torch==1.5.1 numpy==1.17.5 future", "torch"),
    "torch-1.6.0": ("3.8", "torch==1.6.0 numpy==1.19.5 future", "torch"),
    "torch-1.12.1": ("3.10", "torch==1.12.1 numpy==1.23.5 typing_extensions", "torch"),
    "torch-2.1.2": ("3.11", "torch==2.1.2 numpy==1.26.4", "torch"),
    "torch-2.15.0": ("3.11", "torch==2.15.0 numpy==2.4.6", "torch"),
    "handmade": ("3.11", "torch==2.15.0 numpy==2.4.6", "handmade"),
    "python-2.7": ("2.7", "numpy==1.14.6", "pickle,numpy"),
    "python-3.6": ("3.6", "numpy==1.11.3", "pickle,numpy"),
    "python-3.9": ("3.9", "numpy==1.26.4", "numpy"),
    "python-3.12": ("3.12", "numpy==2.5.5", "pickle,numpy"),
    "joblib-0.8.4": ("3.6", "joblib==0.8.4 numpy==1.11.3", "joblib"),
    "joblib-0.9.4": ("3.6", "joblib==0.9.4 numpy==1.13.3", "joblib"),
    "joblib-0.9.4-py2": ("2.7", "joblib==0.9.4 numpy==1.14.6", "joblib"),
    "joblib-0.10.3": ("3.6", "joblib==0.10.3 numpy==1.14.6", "joblib"),
    "joblib-0.11": ("3.7", "joblib==0.11 numpy==1.16.6 lz4", "joblib"),
    "joblib-0.14.1": ("3.8", "joblib==0.14.1 numpy==1.18.5 lz4", "joblib"),
    "joblib-1.2.0": ("3.9", "joblib==1.2.0 numpy==1.26.4 lz4", "joblib"),
    "joblib-1.6.0": ("3.12", "joblib==1.6.0 numpy==2.5.5 lz4", "joblib"),
}


def private(content: bytes) -> bool:
    """Is there a path of this machine, in the file or in what it has packed?"""
    parts = [content]
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                with contextlib.suppress(zipfile.BadZipFile):  # some have no CRC; those are stored
                    parts.append(archive.read(info))
    for unpack in (zlib.decompress, gzip.decompress, bz2.decompress, lzma.decompress):
        with contextlib.suppress(OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
            parts.append(unpack(content))
    return any(PRIVATE.search(part) for part in parts)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_manifest() -> dict[str, dict[str, dict[str, object]]]:
    if MANIFEST.exists():
        return json.loads(MANIFEST.read_text())
    return {"environments": {}, "files": {}}


def write_manifest(manifest: dict[str, dict[str, dict[str, object]]]) -> None:
    lines = []
    for part in ("environments", "files"):
        entries = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(manifest[part].items())]
        lines.append(f'"{part}": {{\n' + ",\n".join(entries) + "\n}")
    MANIFEST.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def collect(name: str, python: str) -> int:
    """Runs the writer of one environment and takes over its files."""
    version, packages, parts = ENVIRONMENTS[name]
    manifest = read_manifest()
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}
        command = [python, str(HERE / "write_benign.py"), "write", directory, parts]
        subprocess.run(command, check=True, env=environment, cwd=directory)
        made = pathlib.Path(directory)
        entries = json.loads((made / "entries.json").read_text())
        target = HERE / "benign" / name
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*"):
            old.unlink()
        manifest["files"] = {k: v for k, v in manifest["files"].items() if not k.startswith(name + "/")}
        for file, entry in entries.items():
            sums = {}
            for part in [file, *entry["companions"]]:
                content = (made / part).read_bytes()
                if private(content):
                    print(f"{name}/{part}: has a path of this machine, left out", file=sys.stderr)
                    break
                sums[part] = sha256(content)
            else:
                for part in sums:
                    (target / part).write_bytes((made / part).read_bytes())
                entry["sha256"] = sums.pop(file)
                entry["companions"] = sums
                manifest["files"][f"{name}/{file}"] = entry
    manifest["environments"][name] = {"python": version, "packages": packages, "parts": parts}
    write_manifest(manifest)
    count = sum(path.startswith(name + "/") for path in manifest["files"])
    print(f"{name}: {count} files")
    return 0


def check() -> int:
    expected = {}
    for path, entry in read_manifest()["files"].items():
        expected[path] = entry["sha256"]
        for companion, total in entry["companions"].items():
            expected[str(pathlib.PurePosixPath(path).parent / companion)] = total
    base = HERE / "benign"
    on_disk = {p.relative_to(base).as_posix(): p for p in base.rglob("*") if p.is_file()}
    stale = sorted(on_disk.keys() - expected.keys())
    wrong = [
        p for p, total in expected.items() if p not in on_disk or sha256(on_disk[p].read_bytes()) != total
    ]
    leaking = [p for p, path in on_disk.items() if private(path.read_bytes())]
    for path in stale + wrong + leaking:
        print(f"{path}: not as benign.json has it", file=sys.stderr)
    return 1 if stale or wrong or leaking else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Benign files, from their real writers.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--environments", action="store_true")
    parser.add_argument("--env", choices=ENVIRONMENTS)
    parser.add_argument("--python", help="the interpreter of that environment")
    options = parser.parse_args()
    if options.environments:
        for name, (version, packages, parts) in ENVIRONMENTS.items():
            print(f"{name}: Python {version}, pip install {packages}; writes {parts}")
        return 0
    if options.env and options.python:
        return collect(options.env, options.python)
    return check()


if __name__ == "__main__":
    sys.exit(main())

"""Writes archives and streams in every way that the standard library has, into a directory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

ROOT = Path(sys.argv[1])
MEMBERS = {
    "archive/data.pkl": b"\x80\x02N.",
    "archive/data/0": bytes(range(256)) * 40,
    "empty": b"",
    "umlaut-ä/\U0001f600": b"name",
    "long/" * 30 + "name": b"deep",
}


class Pipe(io.RawIOBase):
    """What cannot go back: sizes are known only behind the data."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def zips() -> None:
    for method in ("STORED", "DEFLATED"):
        compression = getattr(zipfile, f"ZIP_{method}")
        for way in ("plain", "pipe", "zip64", "comment", "append", "directory", "many"):
            with open(ROOT / f"{way}-{method.lower()}.zip", "wb") as file:
                target = Pipe(file) if way == "pipe" else file
                with zipfile.ZipFile(target, "w", compression) as archive:
                    for name, data in MEMBERS.items():
                        if way == "zip64":
                            with archive.open(name, "w", force_zip64=True) as member:
                                member.write(data)
                        else:
                            archive.writestr(name, data)
                    if way == "comment":
                        archive.comment = b"PK\x01\x02 and more" * 99
                    if way == "directory":
                        archive.writestr(zipfile.ZipInfo("directory/"), b"")
                    if way == "many":
                        for number in range(70000 if method == "STORED" else 10):
                            archive.writestr(f"many/{number}", b"")
            if way == "append":
                with zipfile.ZipFile(ROOT / f"{way}-{method.lower()}.zip", "a", compression) as archive:
                    archive.writestr("appended", b"later")


def tars() -> None:
    for way in ("USTAR", "GNU", "PAX"):
        with tarfile.open(
            ROOT / f"{way.lower()}.tar", "w", format=getattr(tarfile, f"{way}_FORMAT")
        ) as archive:
            for name, data in MEMBERS.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "t" * 99
            archive.addfile(link)


def streams() -> None:
    data = b"".join(MEMBERS.values()) * 50
    (ROOT / "data.bin").write_bytes(data)
    encoders = {
        "gzip": gzip.compress,
        "zlib": zlib.compress,
        "bzip2": bz2.compress,
        "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
        "xz-sha256": lambda data: lzma.compress(data, check=lzma.CHECK_SHA256),
        "xz-extreme": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        "xz-bcj": lambda data: lzma.compress(
            data, filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
        ),
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    }
    for name, encode in encoders.items():
        (ROOT / f"{name}.stream").write_bytes(encode(data))
        if name not in ("zlib", "lzma"):
            parts = [data[:1000], b"", data[1000:]]
            (ROOT / f"{name}-parts.stream").write_bytes(b"".join(encode(part) for part in parts))


zips()
tars()
streams()

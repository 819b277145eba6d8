"""Lists what the standard library reads of every archive of a directory.

One line for each archive, `A` and its file name; after it one line for each member, `M`, the name and the
bytes in hexadecimal, or `!` in the place of bytes that cannot be read. An archive that cannot be read at
all is `X`.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
import zlib
from pathlib import Path


def members(path: Path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                try:
                    yield info.filename, archive.read(info).hex()
                except zlib.error:
                    # It refuses streams that refer to bytes before their start; here the checksum does.
                    yield info.filename, "!"
                except zipfile.BadZipFile as error:
                    if "Bad CRC-32" not in str(error):
                        raise
                    yield info.filename, "!"
        return
    with tarfile.open(path, "r:") as archive:
        for entry in archive.getmembers():
            file = archive.extractfile(entry) if entry.isreg() else None
            yield entry.name, file.read().hex() if file else "!"


for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        found = list(members(path))
    except Exception as error:
        print("X", path.name, type(error).__name__, str(error).replace("\n", " "))
        continue
    print("A", path.name)
    for name, content in found:
        print("M", name.encode("utf-8", "surrogateescape").hex() or "-", content or "-")

#!/usr/bin/env python3
"""Writes hostile/ and hostile.json. Run it after a change here; needs the standard library alone.

    python3 tests/pickles/make_hostile.py            write the files, remove those that are no longer made
    python3 tests/pickles/make_hostile.py --check    exit with 1 where a file on disk differs

Nothing hostile is ever run: streams are put together opcode by opcode (assemble.py), containers header by
header (containers.py), and neither this script nor a test loads them with pickle. What a payload would do
is create a file named TENSAFE-MARKER-MUST-NOT-EXIST, so that a test can see that nobody called it.

hostile.json: file -> {technique, made, effect, verdict, container, reference, symbols}. `effect` is what a
loader would suffer; `symbols` ("module:name") are names that a scanner has to report, at least these.
`verdict`: `bad` (a scanner must not call it clean, a converter must not convert it), `scan` (a scanner must
not call it clean), `odd` (it only has to be survived, within limits).
"""

import json
import pathlib
import sys

import hostile_archives
import hostile_streams
from hostile_files import FILES, MANIFEST, ODD

HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    hostile_streams.cases()
    hostile_archives.cases()
    assert ODD <= FILES.keys(), ODD - FILES.keys()
    made = {f"hostile/{name}": content for name, content in FILES.items()}
    entries = [f"{json.dumps(name)}: {json.dumps(MANIFEST[name])}" for name in sorted(MANIFEST)]
    made["hostile.json"] = ("{\n" + ",\n".join(entries) + "\n}\n").encode()
    on_disk = {str(path.relative_to(HERE)): path for path in HERE.glob("hostile/*")}
    on_disk["hostile.json"] = HERE / "hostile.json"
    if sys.argv[1:] == ["--check"]:
        stale = sorted(on_disk.keys() - made.keys())
        wrong = [p for p, content in made.items() if p not in on_disk or on_disk[p].read_bytes() != content]
        for path in stale + wrong:
            print(f"{path}: not as make_hostile.py makes it", file=sys.stderr)
        return 1 if stale or wrong else 0
    for path in on_disk.keys() - made.keys():
        on_disk[path].unlink()
    (HERE / "hostile").mkdir(exist_ok=True)
    for path, content in made.items():
        (HERE / path).write_bytes(content)
    print(f"{len(FILES)} files, {sum(map(len, FILES.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

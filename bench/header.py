"""Instructions of parsing and validating a header, beside the published crate, counted by callgrind.

    python3 bench/header.py [--json] [--directory DIR]

Needs valgrind and cargo. Each header is parsed once and three times by ``bench/header``: half of the
difference is one parse, without the start of the process and without freeing what was parsed. ``ours`` is
``tensafe_format::Header::parse``, strict; ``reference`` is ``safetensors::SafeTensors::read_metadata``. The
headers are made by this script, the same in each run; the data sections behind them are holes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "bench" / "header"
PROGRAM = CRATE / "target" / "release" / "tensafe-bench-header"
BITS = {"F32": 32, "BF16": 16, "F8_E4M3": 8, "I64": 64}
# Where a writer puts the tensors of a dtype: the greatest alignment first.
ORDER = ["I64", "F32", "BF16", "F8_E4M3"]

Tensor = tuple[str, str, list[int]]


@dataclass
class Row:
    """One header, and the instructions of parsing it once."""

    header: str
    tensors: int
    header_bytes: int
    ours: int
    reference: int
    ratio: float


def small() -> list[Tensor]:
    """50,000 tensors of 16 bytes, as `bench/python.py` writes them."""
    return [(f"layers.{i // 10}.w{i % 10}", "F32", [4]) for i in range(50_000)]


def experts() -> Iterator[Tensor]:
    """A mixture of experts of 48 layers. Its dimensions are a quarter of those of such models: the
    published crate needs the whole file in memory."""
    model = "model"
    yield f"{model}.embed_tokens.weight", "BF16", [37984, 512]
    yield f"{model}.norm.weight", "BF16", [512]
    yield f"{model}.rotary_emb.position_ids", "I64", [1, 40960]
    yield "lm_head.weight", "BF16", [37984, 512]
    for layer in range(48):
        prefix = f"{model}.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            yield f"{prefix}.{norm}.weight", "F32", [512 if "layernorm" in norm else 128]
        for projection, shape in (
            ("q", [1024, 512]),
            ("k", [128, 512]),
            ("v", [128, 512]),
            ("o", [512, 1024]),
        ):
            yield f"{prefix}.self_attn.{projection}_proj.weight", "F8_E4M3", shape
        yield f"{prefix}.mlp.gate.weight", "F32", [128, 512]
        for expert in range(128):
            for projection, shape in (("gate", [192, 512]), ("up", [192, 512]), ("down", [512, 192])):
                yield f"{prefix}.mlp.experts.{expert}.{projection}_proj.weight", "BF16", shape


def write(path: Path, tensors: list[Tensor], shuffle: bool) -> int:
    """Writes a file as our writer does: by dtype, then name; a header without spaces, padded to 8 bytes.

    Shuffled, the names stand in the header in another order than their bytes in the file. Returns the
    bytes of the header.
    """
    entries: list[tuple[str, dict[str, object]]] = []
    end = 0
    for name, dtype, shape in sorted(tensors, key=lambda t: (ORDER.index(t[1]), t[0])):
        begin, bits = end, BITS[dtype]
        for dimension in shape:
            bits *= dimension
        end += bits // 8
        entries.append((name, {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}))
    if shuffle:
        random.Random(0).shuffle(entries)
    members: list[tuple[str, dict[str, object]]] = [("__metadata__", {"format": "pt"}), *entries]
    header = json.dumps(dict(members), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return len(header)


def instructions(parser: str, path: Path, tensors: int) -> int:
    """Instructions of one parse."""
    once, thrice = (counted(parser, path, tensors, times) for times in (1, 3))
    return (thrice - once) // 2


def counted(parser: str, path: Path, tensors: int, times: int) -> int:
    out = path.with_name(f"{path.name}.{parser}.{times}.callgrind")
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    command = [*valgrind, str(PROGRAM), parser, str(path), str(times)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(ran.stderr)
    assert int(ran.stdout) == tensors, f"{parser} read {ran.stdout.strip()} tensors, {tensors} were written"
    summary = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
    assert summary is not None
    return int(summary[1])


def measure(directory: Path) -> Iterator[Row]:
    cases = [
        ("50,000 small tensors, sorted", small(), False),
        ("mixture of experts", list(experts()), False),
        ("50,000 small tensors, shuffled", small(), True),
    ]
    for place, (name, tensors, shuffle) in enumerate(cases):
        path = directory / f"{place}.safetensors"
        header_bytes = write(path, tensors, shuffle)
        ours, reference = (instructions(parser, path, len(tensors)) for parser in ("ours", "reference"))
        yield Row(name, len(tensors), header_bytes, ours, reference, ours / reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    parser.add_argument("--directory", type=Path, help="where headers and profiles stay")
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=CRATE, check=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        rows = list(measure(directory))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print("| header | tensors | bytes | tensafe | safetensors | ratio |\n|---|---|---|---|---|---|")
    for row in rows:
        counts = f"{row.tensors:,} | {row.header_bytes:,} | {row.ours:,} | {row.reference:,}"
        print(f"| {row.header} | {counts} | {row.ratio:.3f} |")


if __name__ == "__main__":
    main()

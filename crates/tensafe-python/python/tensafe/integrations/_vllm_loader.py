"""The loader class behind vLLM's load format ``tensafe``.

It is vLLM's own default loader, which finds the files and gives what an iterator yields to the model,
with another iterator: one plan over the files of the model. A rank of several gets tensors that are read
when a weight loader has cut its part out of them, see :mod:`tensafe.integrations._lazy`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import vllm
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

import tensafe

from .._checkpoint import Checkpoint
from .._errors import MissingFileError, UnsupportedError, UsageError
from ._lazy import Ahead

# Bytes of tensors that were read and not taken, where no budget is given; more where one tensor needs it.
_BUDGET = 1 << 30
# What the default loader calls, or is called by, that is not documented.
_SEAM = ("_prepare_weights", "_get_weights_iterator", "Source")
# Why a plan reads through the page cache what is in it.
_RESIDENT = "in memory already"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Options:
    """The keys of ``model_loader_extra_config`` for the load format ``tensafe``."""

    budget: int | str | None = None
    """Bytes, or text such as ``"2GiB"``, of tensors that were read and not taken; 1 GiB without it."""
    io: str = "auto"
    """As for :func:`tensafe.open`; ``"auto"`` maps files that are in the page cache, and reads others."""
    cache: str = "keep"
    """``"drop"`` leaves nothing in the page cache that was not there."""
    lenient: bool | None = None
    """Whether to read what the reference reads beyond the published format."""
    tp: str = "auto"
    """``"on"``: parts of tensors are read when they are cut out. ``"off"``: tensors are read whole.
    ``"auto"``: on where several ranks share a model by tensors or by layers, and its files are not in the
    page cache."""
    enable_weights_track: bool | None = None
    """vLLM's own: whether to check that every parameter was loaded."""

    @classmethod
    def of(cls, extra: Any) -> Options:
        """The options in a dict of vLLM; :class:`UsageError` names what is unknown or invalid."""
        if not isinstance(extra, dict):
            raise UsageError(f"model_loader_extra_config: {type(extra).__name__}, needed a dict")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in extra:
            if key not in known:
                raise UsageError(
                    f'model_loader_extra_config: key "{key}" is unknown to load format tensafe'
                    f" (expected some of: {', '.join(known)})"
                )
        options = cls(**extra)
        options._check()
        return options

    def _check(self) -> None:
        for key, value, expected in (
            ("io", self.io, ("auto", "mmap", "pread", "direct")),
            ("cache", self.cache, ("keep", "drop")),
            ("tp", self.tp, ("auto", "on", "off")),
            ("lenient", self.lenient, (None, True, False)),
            ("enable_weights_track", self.enable_weights_track, (None, True, False)),
        ):
            if not any(value is one or (isinstance(value, str) and value == one) for one in expected):
                raise UsageError(
                    f"model_loader_extra_config: {key} {value!r} is invalid"
                    f" (expected one of: {', '.join(map(repr, expected))})"
                )
        budget = self.budget
        if isinstance(budget, bool) or not (budget is None or isinstance(budget, (int, str))) or budget == 0:
            raise UsageError(f"model_loader_extra_config: budget {budget!r} is no number of bytes")


class TensafeModelLoader(DefaultModelLoader):  # type: ignore[misc]
    """Loads the ``*.safetensors`` files of a model through plans of tensafe.

    The files are those that vLLM's ``safetensors`` would load: those of the index, where there is one.
    Other weights are refused.
    """

    counter_before_loading_weights: float

    def __init__(self, load_config: Any) -> None:
        lacking = [name for name in _SEAM if not hasattr(DefaultModelLoader, name)]
        if lacking:
            raise UnsupportedError(
                f"load format tensafe: vLLM {vllm.__version__} has no DefaultModelLoader.{lacking[0]};"
                " use another version of vLLM, or load format safetensors"
            )
        self._options = Options.of(load_config.model_loader_extra_config)
        strategy = getattr(load_config, "safetensors_load_strategy", None)
        if strategy in ("eager", "prefetch"):
            raise UsageError(
                f'safetensors_load_strategy "{strategy}" is for load format safetensors; tensafe plans its'
                " reads itself, see io and budget of model_loader_extra_config"
            )
        track = self._options.enable_weights_track
        kept = {} if track is None else {"enable_weights_track": track}
        # What finds the files knows the formats of vLLM alone.
        super().__init__(
            dataclasses.replace(load_config, load_format="safetensors", model_loader_extra_config=kept)
        )

    def _prepare_weights(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            prepared = super()._prepare_weights(model_name_or_path, *args, **kwargs)
        except RuntimeError as error:
            if "Cannot find any model weights" not in str(error):
                raise
            raise MissingFileError(_no_weights(model_name_or_path)) from error
        _, files, *_ = prepared
        for file in files:
            if not file.endswith(".safetensors"):
                raise UnsupportedError(_not_ours(file))
        return prepared

    def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, torch.Tensor]]:
        if getattr(self.load_config, "safetensors_load_strategy", None) == "torchao":
            # Tensors that are put together of several are made by vLLM.
            iterator: Iterator[tuple[str, torch.Tensor]] = super()._get_weights_iterator(source)
            return iterator
        folder, files, _, index = self._prepare_weights(
            source.model_or_path,
            source.subfolder,
            source.revision,
            source.fall_back_to_pt,
            source.allow_patterns_overrides,
        )
        files = self._wanted_files(folder, files, index)
        if self.counter_before_loading_weights == 0.0:
            self.counter_before_loading_weights = time.perf_counter()
        weights = self._weights(_groups(folder, files, index), getattr(source, "is_unused_weight", None))
        return ((source.prefix + name, tensor) for name, tensor in weights)

    def _wanted_files(self, folder: str, files: list[str], index: str) -> list[str]:
        """Without the files of the language model, where only the encoders of others are loaded."""
        prefixes = getattr(self, "_encoder_only_lm_prefixes", None)
        if prefixes is None:
            return files
        from vllm.model_executor.model_loader import weight_utils

        mapper = self._encoder_only_weights_mapper
        wanted: list[str] = weight_utils.filter_mm_encoder_only_safetensors_files(
            files, folder, index, prefixes, weights_mapper=mapper
        )
        if not wanted:
            raise MissingFileError(f"model `{folder}`: no file holds weights of its encoders")
        return wanted

    def _weights(
        self, groups: Iterable[str], unused: Callable[[str], bool] | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        parts, replicas = _ranks()
        several = self._options.tp == "on" or (self._options.tp == "auto" and parts > 1)
        for path in groups:
            checkpoint, lazy = _open(path, self._options, several, parts * replicas == 1)
            names = self._names(checkpoint, unused)
            budget = self._options.budget
            if budget is None:
                largest = max((checkpoint[name].nbytes for name in names), default=0)
                budget = max(_BUDGET, 2 * largest)
            if lazy:
                yield from Ahead(checkpoint, names, budget)
                continue
            plan = checkpoint.plan(budget=budget, order="plan")
            for name in names:
                plan.add(name)
            with plan.execute("torch") as running:
                yield from running

    def _names(self, checkpoint: Checkpoint, unused: Callable[[str], bool] | None) -> list[str]:
        """The tensors in the order of vLLM: by file, and by name in each."""
        names = sorted(checkpoint)
        if len(checkpoint.files) > 1:
            place = {name: file for name, _, _, file, *_ in checkpoint._checkpoint().infos()}
            paths = [_natural(str(path)) for path in checkpoint.files]
            names.sort(key=lambda name: paths[place[name]])
        experts = getattr(self, "local_expert_ids", None)
        if experts is not None:
            from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

            names = [name for name in names if not should_skip_weight(name, experts)]
        wanted = names if unused is None else [name for name in names if not unused(name)]
        return wanted or names


def _ranks() -> tuple[int, int]:
    """How many ranks share a model by tensors and by layers, and how many models there are."""
    from vllm.config import get_current_vllm_config
    from vllm.distributed import get_pp_group, get_tensor_model_parallel_world_size

    parts = int(get_tensor_model_parallel_world_size() * get_pp_group().world_size)
    return parts, int(get_current_vllm_config().parallel_config.data_parallel_size)


def _groups(folder: str, files: list[str], index: str) -> list[str]:
    """What to open: the index where it means just these files, else each file."""
    path = os.path.join(folder, index)
    if len(files) > 1 and os.path.isfile(path):
        with tensafe.open(path) as checkpoint:
            if {os.path.realpath(str(file)) for file in checkpoint.files} == set(
                map(os.path.realpath, files)
            ):
                return [path]
    return sorted(files, key=_natural)


def _open(path: str, options: Options, several: bool, alone: bool) -> tuple[Checkpoint, bool]:
    """Opens files by the means that the options say, or that suit where their bytes are; and whether
    to read parts of tensors when they are cut out. ``alone``: no other process loads them too."""
    how: dict[str, Any] = {"lenient": options.lenient, "cache": options.cache}
    if options.io != "auto":
        return tensafe.open(path, io=options.io, **how), several
    checkpoint = tensafe.open(path, owned=True, **how)
    plan = checkpoint.plan()
    for name in checkpoint:
        plan.add(name)
    ranges = plan.explain().ranges
    resident = 2 * sum(one.needed for one in ranges if one.why == _RESIDENT) >= checkpoint.nbytes
    cold = 2 * sum(one.needed for one in ranges if one.method == "direct") > checkpoint.nbytes
    lazy = several and not (resident and options.tp == "auto")
    if lazy or (cold and not alone):
        # Processes of one host find in the page cache what another one has read.
        return tensafe.open(path, io="pread", **how), lazy
    if cold or options.cache == "drop":
        return checkpoint, False
    # Copied once, from the page cache to the parameters; of a mapping no more than is cut out.
    return tensafe.open(path, io="auto", **how), False


def _natural(path: str) -> list[Any]:
    """Orders numbers in names by value."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", os.path.basename(path))]


def _no_weights(model: str) -> str:
    text = f"model `{model}`: no *.safetensors file found, and load format tensafe reads no other"
    if os.path.isdir(model):
        names = (name for name in sorted(os.listdir(model)) if name.endswith(_PICKLES))
        for name in itertools.islice(names, 1):
            text += f"; {_advice(os.path.join(model, name))}"
    return text


def _not_ours(file: str) -> str:
    return f"file `{file}`: the model asks for it, and load format tensafe reads *.safetensors alone; {_advice(file)}"


def _advice(file: str) -> str:
    return f"`tensafe convert {file}` makes safetensors of it without running the pickle"

"""States of all kinds through a file and back, and what is refused."""

from __future__ import annotations

import argparse
import collections
import enum
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed.runtime")
os.environ["DS_ACCELERATOR"] = "cpu"

import numpy as np
import tensafe
import tensafe.torch
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from tensafe.integrations.deepspeed import STRUCTURE, TensafeCheckpointEngine


class Colour(enum.IntEnum):
    RED = 1


class Mine(dict[str, int]):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pt"


def again(state: Any, path: Path) -> Any:
    engine = TensafeCheckpointEngine(durable=False)
    engine.save(state, path)
    assert b"torch._utils" not in path.read_bytes()
    return engine.load(path)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        0.1,
        -math.inf,
        "text \ud800 \x00 é",
        b"\x00\xff",
        1 - 2j,
        [1, [2.0, (3,)], {}],
        (),
        {1, 2},
        frozenset({"a"}),
        {1: "a", "1": "b", None: 2, (1, "x"): 3, 1.5: 4, True and 7: 5},
        collections.OrderedDict([("b", 1), ("a", 2)]),
        torch.Size([2, 3]),
        torch.bfloat16,
        torch.device("cpu"),
        np.float32(0.1),
        np.int64(-3),
        argparse.Namespace(lr=0.1, nested={"a": (1,)}),
        ZeroStageEnum.weights,
        fragment_address(numel=3, start=1),
    ],
    ids=repr,
)
def test_a_value_comes_back_with_its_type(value: Any, path: Path) -> None:
    found = again({"value": value, "list": [value]}, path)
    for loaded in (found["value"], found["list"][0]):
        assert type(loaded) is type(value)
        assert loaded == value
        if isinstance(value, dict):
            assert [(type(key), key) for key in loaded] == [(type(key), key) for key in value]


def test_a_loss_scaler_comes_back(path: Path) -> None:
    scaler = DynamicLossScaler(
        init_scale=2**12,
        scale_window=100,
        min_scale=1.0,
        delayed_shift=2,
        consecutive_hysteresis=False,
        raise_error_at_min_scale=True,
        dtype=torch.float16,
    )
    found = again(scaler, path)
    assert type(found) is DynamicLossScaler
    assert vars(found) == vars(scaler)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6, dtype=torch.int64).reshape(2, 3).T,
        torch.empty(0, 3),
        torch.tensor(5),
        torch.randn(4).to(torch.float8_e4m3fn),
        torch.randn(2, dtype=torch.complex64).conj(),
        torch.tensor([True, False]),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.ones(2, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_a_tensor_comes_back(tensor: torch.Tensor, path: Path) -> None:
    found = again([tensor], path)[0]
    assert type(found) is type(tensor)
    assert (found.dtype, found.shape, found.requires_grad) == (
        tensor.dtype,
        tensor.shape,
        tensor.requires_grad,
    )
    assert found.tolist() == tensor.tolist()


def test_arrays_of_numpy_come_back(path: Path) -> None:
    arrays = [np.arange(6, dtype=np.uint32).reshape(2, 3).T, np.array(2.5), np.empty((0, 2), np.int8)]
    for array, found in zip(arrays, again(arrays, path), strict=True):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert (found == array).all()


def test_what_is_one_tensor_stays_one(path: Path) -> None:
    tensor = torch.arange(10.0)
    found = again({"a": tensor, "b": {"c": tensor}, "part": tensor[2:5], "view": tensor.view(2, 5)}, path)
    assert found["a"] is found["b"]["c"]
    assert found["part"].tolist() == [2.0, 3.0, 4.0]
    found["a"][2] = -1
    # Views of a part are saved alone.
    assert found["part"][0] == 2
    assert found["view"].shape == (2, 5)


def test_names_that_meet_are_told_apart(path: Path) -> None:
    state = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "__metadata__": torch.full((1,), 2.0)}
    found = again(state, path)
    assert [found["a"]["b"].item(), found["a.b"].item(), found["__metadata__"].item()] == [0, 1, 2]


def test_a_state_dict_keeps_what_torch_attaches(path: Path) -> None:
    state = torch.nn.BatchNorm1d(2).state_dict()
    found = again(state, path)
    assert type(found) is collections.OrderedDict
    assert found._metadata == state._metadata


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "`a.0`: found an object of `builtins.object`, needed a tensor or a plain value"),
        (Colour.RED, "`a.0`: found an object of `test_structure.Colour`"),
        (Mine(x=1), "`a.0`: found an object of `test_structure.Mine`"),
        (np.array(["text"]), "`a.0`: numpy's <U4"),
        (print, "`a.0`: found an object of `builtins.builtin_function_or_method`"),
        (torch.ones(2, 2).to_sparse(), "`a.0`: found a tensor of torch.sparse_coo, needed a dense one"),
        (torch.ones(2, device="meta"), "`a.0`: found a tensor without data"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_of_no_kind_is_refused_by_its_path(value: Any, text: str, path: Path) -> None:
    path.write_bytes(b"before")
    with pytest.raises(tensafe.SafetensorError) as error:
        TensafeCheckpointEngine().save({"a": [value]}, path)
    assert str(error.value).startswith(text)
    assert path.read_bytes() == b"before"


def test_a_state_within_itself_is_refused(path: Path) -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(tensafe.UsageError, match="beyond 32 levels"):
        TensafeCheckpointEngine().save(state, path)


@pytest.mark.parametrize(
    "structure",
    [
        "",
        "NaN",
        '{"is":"tensor","of":"missing"}',
        '{"is":"record","name":"os.system","of":[]}',
        '{"is":"record","name":"Popen","of":[["args",["id"]]]}',
        '{"is":"enum","name":"Colour","of":1}',
        '{"is":"dtype","of":"torch.load"}',
        '{"is":"dtype","of":"serialization"}',
        '{"is":"call","of":"print"}',
        '{"of":1}',
        "[" * 60 + "]" * 60,
    ],
)
def test_a_structure_that_no_save_makes_is_refused(structure: str, path: Path) -> None:
    tensafe.torch.save_file({"a": torch.ones(1)}, path, {STRUCTURE: structure})
    with pytest.raises(tensafe.FormatError, match="the structure cannot be read"):
        TensafeCheckpointEngine().load(path)


def test_files_of_others_are_refused(path: Path) -> None:
    tensafe.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(tensafe.FormatError, match="needed a saved state"):
        TensafeCheckpointEngine().load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(tensafe.FormatError, match="DeepSpeed's own engine"):
        TensafeCheckpointEngine().load(path)


def test_a_flat_state_is_a_file_of_its_names(path: Path) -> None:
    state = torch.nn.Linear(2, 3).state_dict()
    TensafeCheckpointEngine().save(state, path)
    assert sorted(tensafe.torch.load_file(path)) == ["bias", "weight"]
    with tensafe.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()[STRUCTURE])["is"] == "ordered"

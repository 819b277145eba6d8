"""Errors: their classes, their texts, and what they carry."""

from __future__ import annotations

import errno
import os
import pickle

import numpy as np
import pytest
import tensafe
import tensafe.numpy
from conftest import entry


@pytest.fixture
def path(tmp_path):
    tensafe.numpy.save_file({"a": np.arange(1000)}, tmp_path / "f")
    return tmp_path / "f"


@pytest.mark.parametrize(
    "kind, standard",
    [
        (tensafe.FormatError, ValueError),
        (tensafe.LimitError, ValueError),
        (tensafe.UsageError, ValueError),
        (tensafe.UnsupportedError, NotImplementedError),
        (tensafe.TensorNotFoundError, KeyError),
        (tensafe.IoError, OSError),
        (tensafe.MissingFileError, FileNotFoundError),
    ],
)
def test_each_kind_is_also_a_standard_exception_and_can_be_pickled(kind, standard):
    error = kind("what went wrong")
    error.tensor, error.path, error.rule = "t", "/p", "S-14"
    assert isinstance(error, standard) and isinstance(error, tensafe.SafetensorError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == "what went wrong"
    assert (again.tensor, again.path, again.rule) == ("t", "/p", "S-14")


def test_errors_are_caught_by_the_class_of_the_published_package(path):
    reference = pytest.importorskip("safetensors")
    with pytest.raises(reference.SafetensorError):
        tensafe.open(path)["b"]
    assert issubclass(tensafe.SafetensorError, reference.SafetensorError)


def test_a_broken_file_is_described_in_one_sentence(write_file):
    path = write_file({"wte": entry("F32", [2, 4], 0, 40)}, bytes(40))
    for attempt in (tensafe.open, tensafe.numpy.load_file, lambda p: tensafe.safe_open(p, "np")):
        with pytest.raises(tensafe.FormatError) as error:
            attempt(path)
        assert str(error.value) == (
            f"{path}: tensor `wte`: data_offsets 0..40 hold 40 bytes, F32 [2, 4] needs 32 (S-14)"
        )
        assert (error.value.tensor, error.value.rule, error.value.path) == ("wte", "S-14", str(path))
    with pytest.raises(tensafe.FormatError) as error:
        tensafe.numpy.load(path.read_bytes())
    assert str(error.value).startswith("tensor `wte`: ") and error.value.path is None


def test_a_missing_file_and_a_refused_one_carry_their_errno(tmp_path):
    for attempt in (tensafe.open, lambda p: tensafe.safe_open(p, "np")):
        with pytest.raises(FileNotFoundError) as error:
            attempt(tmp_path / "missing")
        assert error.value.errno == errno.ENOENT and error.value.filename == str(tmp_path / "missing")
        assert str(error.value) == f"No such file or directory: {tmp_path / 'missing'}"
    with pytest.raises(OSError) as error:
        tensafe.numpy.save_file({"a": np.zeros(1)}, tmp_path)
    assert error.value.errno in (errno.EISDIR, None) and str(tmp_path) in str(error.value)
    with pytest.raises(FileNotFoundError):
        tensafe.numpy.save_file({"a": np.zeros(1)}, tmp_path / "no" / "f")


def test_an_unknown_tensor_is_a_key_error(path):
    with tensafe.safe_open(path, "np") as file:
        for attempt in (file.get_tensor, file.get_slice, file.get_tensor_meta):
            with pytest.raises(KeyError) as error:
                attempt("b")
            assert str(error.value) == "File does not contain tensor b" and error.value.tensor == "b"


def test_a_closed_file_says_so(path):
    with tensafe.safe_open(path, "np") as file:
        part = file.get_slice("a")
    for attempt in (
        file.keys,
        file.get_tensors,
        file.metadata,
        lambda: part[:2],
        lambda: file.get_tensor("a"),
        file.__enter__,
    ):
        with pytest.raises(tensafe.SafetensorError, match="File is closed"):
            attempt()


def test_arguments_that_make_no_sense_are_named(path):
    for keywords, text in [
        ({"framework": "foo"}, "framework foo is invalid"),
        ({"framework": "np", "device": "foo"}, "device foo is invalid"),
        (
            {"framework": "np", "backend": "foo"},
            'backend "foo" is invalid (expected one of: "mmap", "pread")',
        ),
        ({"framework": "np", "io": "foo"}, 'io "foo" is invalid (expected one of: "auto", "mmap", "pread")'),
        (
            {"framework": "np", "io": "mmap", "owned": True},
            'owned=True needs memory of its own, io="mmap" does not give it',
        ),
    ]:
        with pytest.raises(tensafe.SafetensorError) as error:
            tensafe.safe_open(path, **keywords)
        assert str(error.value) == text


def test_a_file_that_changes_while_it_is_read_is_an_error_and_one_that_is_replaced_is_not(path):
    with tensafe.safe_open(path, "np", backend="pread") as file:
        replacement = path.with_name("other")
        tensafe.numpy.save_file({"b": np.zeros(3)}, replacement)
        os.replace(replacement, path)
        assert np.array_equal(file.get_tensor("a"), np.arange(1000))
    with tensafe.safe_open(path, "np", backend="pread") as file:
        os.truncate(path, path.stat().st_size - 8)
        with pytest.raises(OSError, match="ends early|changed while it was open"):
            file.get_tensor("b")


def test_what_is_not_a_dict_of_tensors_is_refused():
    with pytest.raises(ValueError, match="Expected a dict"):
        tensafe.numpy.save([np.zeros(1)])
    with pytest.raises(ValueError, match="Key `a` is invalid"):
        tensafe.numpy.save({"a": [1, 2]})
    with pytest.raises(TypeError):
        tensafe.numpy.save({"a": np.zeros(1)}, {"k": 1})
    with pytest.raises(tensafe.SafetensorError, match='Unknown dtype "nonsense". Supported dtypes: bool, '):
        tensafe.TensorSpec(dtype="nonsense", shape=[1], data_ptr=0, data_len=0)

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
    assert error.value.errno == errno.EISDIR and str(tmp_path) in str(error.value)
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
        pass
    for attempt in (
        file.keys,
        file.get_tensors,
        file.metadata,
        lambda: file.get_slice("a"),
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
        (
            {"framework": "np", "io": "foo"},
            'io "foo" is invalid (expected one of: "auto", "mmap", "pread", "direct")',
        ),
        (
            {"framework": "np", "io": "mmap", "owned": True},
            'owned=True needs memory of its own, io="mmap" does not give it',
        ),
    ]:
        with pytest.raises(tensafe.SafetensorError) as error:
            tensafe.safe_open(path, **keywords)
        assert str(error.value) == text


def attempts(file):
    return (lambda: file.get_tensor("a"), lambda: file.get_slice("a")[5:7], lambda: file.get_tensors())


@pytest.mark.parametrize("keywords", [{"backend": "pread"}, {"owned": True}], ids=["pread", "owned"])
def test_a_file_that_changes_while_it_is_open_is_an_error(path, keywords):
    def rewrite():
        with path.open("r+b") as file:
            file.seek(200)
            file.write(b"\xff" * 8)
        # A clock of coarse ticks could give the time that the file had.
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    def grow():
        with path.open("ab") as file:
            file.write(b"\xff" * 8)

    for change, text in [
        (rewrite, "changed while it was open"),
        (grow, "changed while it was open: another length"),
        (lambda: os.truncate(path, path.stat().st_size - 4), "ends early|changed while it was open"),
        (lambda: os.truncate(path, 4), "ends early"),
    ]:
        tensafe.numpy.save_file({"a": np.arange(1000)}, path)
        with tensafe.safe_open(path, "np", **keywords) as file:
            change()
            for attempt in attempts(file)[:1] if "length" not in text else attempts(file):
                with pytest.raises(OSError, match=text) as error:
                    attempt()
                assert isinstance(error.value, tensafe.IoError) and error.value.path == str(path)


def test_a_file_that_is_replaced_or_deleted_while_it_is_open_is_still_read(path, access):
    for change in (
        lambda: tensafe.numpy.save_file({"b": np.zeros(3)}, path),
        lambda: os.unlink(path),
    ):
        tensafe.numpy.save_file({"a": np.arange(1000)}, path)
        with tensafe.safe_open(path, "np", **access) as file:
            change()
            whole, part, tensors = (attempt() for attempt in attempts(file))
        assert whole.sum() == 499_500 and part.tolist() == [5, 6] and tensors["a"].sum() == 499_500


@pytest.mark.parametrize("size", [0, 7, 8, 20, 71, 100, -1, 1])
def test_a_file_of_another_length_is_refused_when_it_is_opened(path, size, access):
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" if size == 1 else whole[:size])
    with pytest.raises(tensafe.FormatError) as error:
        tensafe.safe_open(path, "np", **access)
    assert error.value.rule is not None and error.value.path == str(path)
    assert str(error.value).endswith(f"({error.value.rule})") and "\n" not in str(error.value)
    with pytest.raises(tensafe.FormatError):
        tensafe.numpy.load(path.read_bytes())


@pytest.mark.parametrize(
    "kind",
    ["FormatError", "UsageError", "UsageIndexError", "TensorNotFoundError", "IoError", "MissingFileError"],
)
def test_an_error_that_was_raised_crosses_processes(kind, tmp_path, write_file):
    raisers = {
        "FormatError": lambda: tensafe.open(write_file({"a": entry("F32", [2], 0, 4)}, bytes(4))),
        "UsageError": lambda: tensafe.open(tensafe.numpy.save({"a": np.zeros(2)}))["a"][::-1],
        "UsageIndexError": lambda: tensafe.open(tensafe.numpy.save({"a": np.zeros(2)}))["a"][5],
        "TensorNotFoundError": lambda: tensafe.open(tensafe.numpy.save({}))["a"],
        "IoError": lambda: tensafe.numpy.save_file({"a": np.zeros(1)}, tmp_path),
        "MissingFileError": lambda: tensafe.open(tmp_path / "missing"),
    }
    with pytest.raises(tensafe.SafetensorError) as error:
        raisers[kind]()
    again = pickle.loads(pickle.dumps(error.value))
    assert type(again) is type(error.value) is getattr(tensafe._errors, kind) and str(again) == str(
        error.value
    )
    names = ("tensor", "path", "rule") + (("errno", "filename") if isinstance(again, OSError) else ())
    for name in names:
        assert getattr(again, name) == getattr(error.value, name), name


def test_what_is_not_a_dict_of_tensors_is_refused():
    with pytest.raises(ValueError, match="Expected a dict"):
        tensafe.numpy.save([np.zeros(1)])
    with pytest.raises(ValueError, match="Key `a` is invalid"):
        tensafe.numpy.save({"a": [1, 2]})
    with pytest.raises(TypeError):
        tensafe.numpy.save({"a": np.zeros(1)}, {"k": 1})
    with pytest.raises(tensafe.SafetensorError, match='Unknown dtype "nonsense". Supported dtypes: bool, '):
        tensafe.TensorSpec(dtype="nonsense", shape=[1], data_ptr=0, data_len=0)

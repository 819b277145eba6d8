"""Strict by default, lenient when asked: by an argument, or by the environment."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensafe
import tensafe.numpy

TENSOR = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
# What the reference reads beyond the published format, and the rule that it breaks.
LENIENT = {
    "a name twice": (b'{"a":' + TENSOR + b',"a":' + TENSOR + b"}", "S-06"),
    "a name twice, once escaped": (b'{"a":' + TENSOR + b',"\\u0061":' + TENSOR + b"}", "S-06"),
    "a key of the metadata twice": (b'{"__metadata__":{"k":"1","k":"2"},"a":' + TENSOR + b"}", "S-07"),
    "an unknown field": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}', "S-08"),
    "an entry that is an array": (b'{"a":["U8",[1],[0,1]]}', "S-08"),
}
# What neither reads.
REFUSED = {
    "the metadata twice": b'{"__metadata__":{},"__metadata__":{},"a":' + TENSOR + b"}",
    "a field twice": b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "metadata that is no text": b'{"__metadata__":{"k":1},"a":' + TENSOR + b"}",
}


def attempts(path):
    """Every way to a tensor's value that takes `lenient`."""
    data = path.read_bytes()
    return [
        lambda **k: tensafe.numpy.load_file(path, **k)["a"],
        lambda **k: tensafe.numpy.load_file(path, backend="pread", **k)["a"],
        lambda **k: tensafe.numpy.load(data, **k)["a"],
        lambda **k: tensafe.safe_open(path, "np", **k).get_tensor("a"),
        lambda **k: tensafe.open(path, **k)["a"].to_numpy(),
        lambda **k: tensafe.open(data, **k)["a"].to_numpy(),
        lambda **k: tensafe.open(io.BytesIO(data), **k)["a"].to_numpy(),
    ]


@pytest.mark.parametrize("header, rule", LENIENT.values(), ids=LENIENT.keys())
def test_lenient_reading_is_asked_for(header, rule, write_file, monkeypatch):
    path = write_file(header, b"\5")
    for attempt in attempts(path):
        monkeypatch.delenv("TENSAFE_LENIENT", raising=False)
        with pytest.raises(tensafe.FormatError) as error:
            attempt()
        assert error.value.rule == rule and "lenient=True reads past it" in str(error.value)
        assert attempt(lenient=True).tolist() == [5]
        monkeypatch.setenv("TENSAFE_LENIENT", "1")
        assert attempt().tolist() == [5]
        with pytest.raises(tensafe.FormatError):
            attempt(lenient=False)
        for off in ("", "0"):
            monkeypatch.setenv("TENSAFE_LENIENT", off)
            with pytest.raises(tensafe.FormatError):
                attempt()


@pytest.mark.parametrize("header, rule", LENIENT.values(), ids=LENIENT.keys())
def test_the_lowest_layer_follows_the_environment(header, rule, write_file, monkeypatch):
    data = write_file(header, b"\5").read_bytes()
    with pytest.raises(tensafe.FormatError, match=rule):
        tensafe.deserialize(data)
    monkeypatch.setenv("TENSAFE_LENIENT", "1")
    assert [(name, bytes(row["data"])) for name, row in tensafe.deserialize(data)] == [("a", b"\5")]


@pytest.mark.parametrize("header", [header for header, _ in LENIENT.values()], ids=LENIENT.keys())
def test_lenient_reads_what_the_published_package_reads(header, write_file):
    theirs = pytest.importorskip("safetensors.numpy")
    path = write_file(header, b"\5")
    assert np.array_equal(tensafe.numpy.load_file(path, lenient=True)["a"], theirs.load_file(path)["a"])


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED.keys())
def test_lenient_does_not_mean_anything_goes(header, write_file):
    path = write_file(header, b"\5")
    for attempt in attempts(path):
        for lenient in (False, True):
            with pytest.raises(tensafe.FormatError) as error:
                attempt(lenient=lenient)
            assert "lenient=True reads past it" not in str(error.value)
    theirs = pytest.importorskip("safetensors.numpy")
    with pytest.raises(Exception, match="deserializing header"):
        theirs.load_file(path)

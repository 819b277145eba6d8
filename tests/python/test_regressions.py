"""Defects that were found and mended: each has a test that failed before."""

from __future__ import annotations

import errno
import os
import socket
import sys

import numpy as np
import pytest
import tensafe
import tensafe.numpy

unix = pytest.mark.skipif(sys.platform == "win32", reason="links and numbers of unix")


@unix
def test_refusals_of_the_system_carry_their_errno(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    for attempt, path, number in [
        (lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p), tmp_path / "empty", errno.EISDIR),
        (lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p), tmp_path / "loop", errno.ELOOP),
        (tensafe.open, tmp_path / "loop", errno.ELOOP),
        (tensafe.open, tmp_path / "empty", errno.ENOENT),
        (tensafe.numpy.load_file, tmp_path / "empty", errno.ENOENT),
    ]:
        with pytest.raises(OSError) as error:
            attempt(path)
        assert isinstance(error.value, tensafe.IoError) and error.value.errno == number, str(error.value)
        assert error.value.filename == str(path)


@unix
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ("pipe", "socket", "/dev/zero"):
            for attempt in (tensafe.open, tensafe.numpy.load_file):
                with pytest.raises(tensafe.UsageError, match="not a regular file") as error:
                    attempt(path)
                assert error.value.path == path


def test_a_path_with_a_nul_byte_is_a_value_error():
    for attempt in (tensafe.open, lambda p: tensafe.numpy.save_file({"a": np.zeros(1)}, p)):
        with pytest.raises(ValueError, match="NUL"):
            attempt("a\0b")

"""Defects that were found and mended: each has a test that failed before."""

from __future__ import annotations

import errno
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

"""The files of an export: all of them or none."""

from __future__ import annotations

import os

import pytest

from pyro_vae.errors import StorageError
from pyro_vae.export.writing import _written


@pytest.mark.parametrize("made", [True, False])
def test_a_disk_that_is_full_at_the_second_file_keeps_none(tmp_path, monkeypatch, made):
    folder = tmp_path / "export"
    if made:
        folder.mkdir()
    real = os.write

    def full(descriptor, content):
        if bytes(content) == b"second":
            raise OSError(28, "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    for files in ({"a": b"first", "b": b"second"}, {"b": b"second", "a": b"first"}):
        with pytest.raises(StorageError, match="No space left on device"):
            _written(folder, files)
        assert folder.exists() is made
        assert not made or list(folder.iterdir()) == []
    _written(folder, {"a": b"first", "b": b"other"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"first", "b": b"other"}

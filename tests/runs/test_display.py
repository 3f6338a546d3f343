from __future__ import annotations

import sys

import pytest

from pyro_vae.runs.display import track


def test_a_bar_is_for_a_terminal_alone(capsys, monkeypatch):
    assert list(track([1, 2, 3], 3)) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(track(iter([1, 2, 3]), 3)) == [1, 2, 3]
    assert "evaluating" in capsys.readouterr().err


def test_an_error_ends_the_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def fail() -> None:
        for item in track([1, 2], 2):
            raise KeyError(item)

    with pytest.raises(KeyError):
        fail()
    assert list(track([1], 1)) == [1]

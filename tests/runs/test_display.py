from __future__ import annotations

import logging
import sys

import pytest

from pyro_vae.runs.display import listening, track


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


def test_what_is_logged_is_said_for_a_while_and_not_after():
    """By whoever listens, at whatever level the user's own logging stands, which is then as it was."""
    logger, lines = logging.getLogger("pyro_vae"), []
    before = (logger.level, list(logger.handlers))
    with listening(lines.append):
        logging.getLogger("pyro_vae.somewhere").info("took %d s", 3)
        logging.getLogger("pyro_vae.somewhere").debug("too much")
    logging.getLogger("pyro_vae.somewhere").info("later")
    assert lines == ["took 3 s"]
    assert (logger.level, logger.handlers) == before

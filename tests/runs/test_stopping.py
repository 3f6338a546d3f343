"""Signals end a fit after its step, and only those that nobody else wants."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from pyro_vae.runs.stopping import SIGNALS, stopping


@pytest.fixture
def trainer():
    return SimpleNamespace(stop_requested=False)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_does_what_it_did(number, trainer):
    before = signal.signal(number, signal.SIG_DFL)  # whatever the tests themselves are run under
    try:
        with stopping(trainer) as came:
            os.kill(os.getpid(), number)
            assert trainer.stop_requested
            assert came == [number]
            assert signal.getsignal(number) is signal.SIG_DFL
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [number for number in SIGNALS if number != signal.SIGINT])
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *given: None], ids=["ignored", "handled"])
def test_what_is_ignored_or_handled_already_is_left_alone(number, handler, trainer):
    before = signal.signal(number, handler)
    try:
        with stopping(trainer):
            assert signal.getsignal(number) is handler
            os.kill(os.getpid(), number)
        assert not trainer.stop_requested
    finally:
        signal.signal(number, before)

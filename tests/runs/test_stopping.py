"""Signals end a fit after its step, and only those that nobody else wants."""

from __future__ import annotations

import faulthandler
import os
import signal
from types import SimpleNamespace

import pytest

from pyro_vae.errors import TrainingError
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


def test_a_handler_that_python_does_not_know_of_is_left_alone(trainer, tmp_path):
    with (tmp_path / "traces").open("w+") as file:
        faulthandler.register(signal.SIGUSR1, file=file)
        try:
            with stopping(trainer):
                os.kill(os.getpid(), signal.SIGUSR1)
            assert not trainer.stop_requested
            assert "test_stopping.py" in (tmp_path / "traces").read_text()
        finally:
            faulthandler.unregister(signal.SIGUSR1)


@pytest.mark.parametrize("alone", [True, False])
def test_what_one_of_several_processes_found_is_said_before_it_is_ended(alone, trainer, monkeypatch):
    monkeypatch.setattr("pyro_vae.runs.stopping.is_one_of_several", lambda: not alone)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(TrainingError), stopping(trainer) as came:
            raise TrainingError("the others are gone", "start again")
        if not alone:
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)

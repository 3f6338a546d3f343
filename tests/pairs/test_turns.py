"""Two threads of one process: one trains, and the other is refused or waited for, never silently different."""

from __future__ import annotations

import threading

import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.pairs import turns
from pyro_vae.runs.display import Silent
from tests.conftest import FAST, make_pair

SETTINGS = FAST | {"data": "toy", "labels": "none", "batch_size": 400}


def in_a_thread(do):
    """What a thread gets, or the error that it ends with."""
    found = []

    def run():
        try:
            found.append(do())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return found[0]


def test_a_second_training_or_look_is_refused_in_words_and_changes_nothing():
    alone = pyro_vae.fit(display=False, **SETTINGS)
    refused = []

    class Meanwhile(Silent):
        def epoch(self, row):
            for do in (
                lambda: pyro_vae.fit(display=False, **SETTINGS),
                lambda: alone.sample(3),
                lambda: alone.evaluate(num_samples=3),
            ):
                refused.append(in_a_thread(do))

    beside = pyro_vae.fit(display=Meanwhile(), **SETTINGS)
    assert len(refused) == 6
    for error in refused:
        assert isinstance(error, InputError)
        assert "expected one thing at a time in a process; got a training in another thread" in str(error)
    assert beside.history.equals(alone.history)
    weights = alone.pair.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in beside.pair.state_dict().items())
    assert torch.equal(in_a_thread(lambda: alone.sample(3)), alone.sample(3)), "free again"


def test_those_who_only_look_wait_for_each_other(x):
    pair = make_pair()
    order = []

    def look():
        with pair.looked_at(0):
            order.append("thread")

    with pair.looked_at(0):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(0.2)
        order.append("main")
        with pair.looked_at(1), pair.scope():
            order.append("main, once more")
    thread.join(10)
    assert order == ["main", "main, once more", "thread"]


def test_a_turn_is_given_back_whatever_happens():
    with pytest.raises(RuntimeError), turns.training(), turns.looking():
        raise RuntimeError
    assert in_a_thread(lambda: make_pair().looked_at(0).__enter__()) is None


def test_a_loop_over_epochs_that_is_left_gives_the_turn_back(x):
    from tests.training.test_recorded_step import trainer_for

    for _ in trainer_for(make_pair(), x).epochs():
        break
    assert in_a_thread(lambda: make_pair().looked_at(0).__enter__()) is None

"""Two threads of one process: one trains, and the other is refused or waited for, never silently different."""

from __future__ import annotations

import threading

import pyro
import pytest
import torch
from pyro import poutine

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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_a_fit_computes_gradients_whatever_its_caller_has_switched_off(mode):
    with torch.set_grad_enabled(True):
        expected = pyro_vae.fit(display=False, **SETTINGS)
        with mode():
            found = pyro_vae.fit(display=False, **SETTINGS)
            assert not torch.is_grad_enabled()
    assert found.history.equals(expected.history)


@pytest.mark.parametrize(
    ("around", "name"),
    [
        (poutine.trace(), "TraceMessenger"),
        (poutine.condition(data={"z": torch.zeros(2)}), "ConditionMessenger"),
        (pyro.plate("outer", 5), "plate"),
    ],
)
def test_a_fit_within_handlers_of_pyro_is_refused(around, name):
    with around, pytest.raises(InputError, match=f"one within {name}; give the model within it"):
        pyro_vae.fit(display=False, **SETTINGS)
    with poutine.seed(rng_seed=3):
        pyro_vae.fit(display=False, **SETTINGS)


def test_half_precision_by_default_is_refused():
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(InputError, match=r"got bfloat16; use torch\.set_default_dtype"):
            pyro_vae.fit(display=False, **SETTINGS)
    finally:
        torch.set_default_dtype(torch.float32)

"""Averages of weights against the same averages by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_vae
from pyro_vae.training.averaging import averaging
from pyro_vae.training.validation_rows import Validation
from tests.conftest import make_pair
from tests.runs.checkpoint_files import weights
from tests.training.test_recorded_step import Listening, train, trainer_for

EMA = {"ema": 0.9, "optimizer": "adamax", "lr_warmup": 5, "skip_norm": 30.0}


def weights_of(pair) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pair.state_dict().items()}


def test_the_average_by_hand():
    """A first update takes the weights as they are; later ones a share that falls to what the decay leaves."""
    pair = make_pair()
    average = averaging(pair, 0.99, num_steps=200)
    name = next(name for name, value in pair.state_dict().items() if value.dim() == 2)
    expected, values = None, pair.state_dict()[name]
    for step in range(1, 301):
        values.normal_()
        average.after_step()
        if step % 10 == 0:
            share = max(1 - 0.99**10, 9 / (8 + step // 10))
            expected = values.clone() if expected is None else expected + share * (values - expected)
    before = values.clone()
    with average.in_use():
        torch.testing.assert_close(values, expected)
    assert torch.equal(values, before)


def test_a_short_epoch_is_averaged_at_its_end():
    pair = make_pair()
    average = averaging(pair, 0.99, num_steps=3)
    before = weights_of(pair)
    for step in range(3):
        for value in pair.state_dict().values():
            value.fill_(float(step))
        average.after_step()
    with average.in_use():
        assert all((value == 2).all() for value in pair.state_dict().values())
    assert before.keys() == pair.state_dict().keys()


def test_running_statistics_are_averaged_and_counters_are_left():
    pair = make_pair()
    pair.guide.norm = nn.BatchNorm1d(3)
    average = averaging(pair, 0.5, num_steps=1)
    for mean in (1.0, 3.0):
        pair.guide.norm.running_mean.fill_(mean)
        pair.guide.norm.num_batches_tracked.add_(1)
        average.after_step()
    with average.in_use():
        assert pair.guide.norm.num_batches_tracked == 2
        torch.testing.assert_close(pair.guide.norm.running_mean, torch.full((3,), 1 + 2 * 9 / 10))


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("compile", ["off", pytest.param("on", marks=pytest.mark.exhaustive)])
def test_the_average_is_what_is_judged(x, compile):
    """The history's figures are those of the averaged weights, and training goes on from those that train."""
    plain, _ = train(make_pair(), x, compile=compile)
    pair = make_pair()
    trainer, rows = train(pair, x, compile=compile, ema=0.9)
    assert all(torch.equal(value, plain.pair.state_dict()[name]) for name, value in pair.state_dict().items())
    other = make_pair()
    other.probe(x)
    other.load_state_dict(trainer.weights())
    measured = Validation(other.probe(x), trainer.validation.images, trainer_for(other, x).loss.objective, 1.0)()
    assert measured["validation_elbo"] == pytest.approx(rows[-1]["validation_elbo"], rel=1e-6)
    assert plain.validation()["validation_elbo"] != pytest.approx(rows[-1]["validation_elbo"], rel=1e-6)


def test_without_averaging_the_weights_are_those_that_train(x):
    trainer, _ = train(make_pair(), x, compile="off")
    assert all(torch.equal(value, trainer.weights()[name]) for name, value in trainer.pair.state_dict().items())
    assert trainer.state_dict()["average"] == {}


@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("compile", [pytest.param("off", marks=pytest.mark.exhaustive), "on"])
def test_stopped_and_resumed_is_the_run_in_one(compile, toy_npz, tmp_path):
    """In the middle of an epoch, with everything that a step can be told."""
    settings = {"batch_size": 20, "hidden": (8,), "latent_dim": 2, "compile": compile, "epochs": 4} | EMA
    whole = pyro_vae.fit("vae", data=toy_npz, out=tmp_path / "whole", display=False, **settings)
    with pytest.raises(pyro_vae.Interrupted) as caught:
        pyro_vae.fit("vae", data=toy_npz, out=tmp_path / "parts", display=Listening(stop_at=(2, 1)), **settings)
    stopped = weights(tmp_path / "parts", "last")
    assert all(torch.equal(value, stopped[k]) for k, value in caught.value.run.probed.pair.state_dict().items())
    resumed = pyro_vae.resume(tmp_path / "parts", display=False)
    assert (whole.path / "history.csv").read_bytes() == (resumed.path / "history.csv").read_bytes()
    for name in ("best", "last"):
        first, second = (weights(run.path, name) for run in (whole, resumed))
        assert all(torch.equal(first[key], second[key]) for key in first)
    loaded = pyro_vae.load(whole.path)
    assert torch.equal(loaded.sample(5), whole.sample(5))
    assert loaded.config.ema == 0.9
    assert loaded.config.optimizer == "adamax"

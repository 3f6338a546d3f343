"""Averages of weights against the same averages by hand."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae
from pyro_vae.pairs import Pair, label_distribution
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


class WithABareParameter(nn.Module):
    """A classifier that trains a module, one that it shares with the model, and a parameter without a module."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared, self.dropped, self.own = shared, nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        pyro.module("own", self.own)
        pyro.module("shared", self.shared)
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        logits = scale * self.own(self.dropped(self.shared(x)))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"}, obs=y)


def pair_with_a_bare_parameter() -> Pair:
    shared = nn.Linear(16, 4)

    def model(x, y=None):
        pyro.module("shared", shared)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.zeros(3)), obs=y)
            pyro.sample("x", dist.Normal(shared.bias.sum(), 1.0).expand([16]).to_event(1), obs=x)

    return Pair(model, WithABareParameter(shared))


@pytest.mark.parametrize("make", [pair_with_a_bare_parameter, partial(make_pair, "ss_vae")])
def test_the_teacher_has_the_averages_at_any_time(make, x):
    """Its answers are those of the pair with the averages in use, and it leaves the weights that train alone."""
    pair, x = make(), x.flatten(1) if make is pair_with_a_bare_parameter else x
    pair.probe(x)
    average = averaging(pair, 0.5, num_steps=1)
    teacher = average.teacher
    for _ in range(3):
        with torch.no_grad():
            for value in pair.state_dict().values():
                value.add_(torch.randn_like(value), alpha=0.3)
        average.after_step()
    before = weights_of(pair)
    with average.in_use(), pair.evaluating():
        expected = label_distribution(pair, x).probs
    pair.train()
    found = label_distribution(teacher, x).probs
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, label_distribution(pair, x).probs, atol=1e-3)
    assert not found.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("compile", [pytest.param("off", marks=pytest.mark.exhaustive), "on"])
def test_a_run_with_a_teacher_is_resumed_to_the_bit(compile, toy_npz, tmp_path):
    settings = {
        "compile": compile,
        "epochs": 2,
        "ema": 0.9,
        "marginal_weight": 30.0,
        "labels": 6,
        "hidden": (8,),
        "latent_dim": 2,
    }
    settings |= {"batch_size": 20, "classifier": "conv:channels=4,dense=8,batch_norm=true,dropout=0.1"}
    whole = pyro_vae.fit("ss_vae", data=toy_npz, out=tmp_path / "whole", display=False, **settings)
    with pytest.raises(pyro_vae.Interrupted):
        pyro_vae.fit("ss_vae", data=toy_npz, out=tmp_path / "parts", display=Listening(stop_at=(1, 1)), **settings)
    resumed = pyro_vae.resume(tmp_path / "parts", display=False)
    first, second = weights(whole.path, "last"), weights(resumed.path, "last")
    assert all(torch.equal(first[key], second[key]) for key in first)


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

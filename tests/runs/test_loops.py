"""A fit of a program with a loop does its turns at once, and resumes as if it had never stopped."""

from __future__ import annotations

import os
import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae
from pyro_vae.compiled.loops import done_at_once
from pyro_vae.runs.display import Silent
from tests.runs.test_fitting import assert_same_run


class Series(nn.Module):
    """As many numbers in a row as data have, from states that wait for one another."""

    def model(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = x.new_zeros(len(x))
            for t in range(x.shape[1]):
                z = pyro.sample(f"z_{t}", dist.Normal(pyro.param("keep", torch.tensor(0.5)) * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[:, t])


@pytest.mark.exhaustive
def test_a_fit_does_its_loops_at_once_and_resumes_to_the_bit(tmp_path, monkeypatch):
    model, x = Series().model, torch.randn(60, 6, generator=torch.Generator().manual_seed(0)).numpy()
    done = []

    def noted(*args):
        done.append(done_at_once(*args))
        return done[-1]

    class StopAt(Silent):
        def step(self, progress):
            if progress.epoch == 30:
                os.kill(os.getpid(), signal.SIGINT)

    def fitted(name, display=False):
        settings = {"data": x, "batch_size": 12, "epochs": 60, "seed": 0, "display": display}
        return pyro_vae.fit(model, "mean_field", **settings, out=tmp_path / name)

    monkeypatch.setattr("pyro_vae.compiled.loops.done_at_once", noted)
    whole = fitted("whole")
    with pytest.raises(pyro_vae.Interrupted):
        fitted("parts", StopAt())
    resumed = pyro_vae.resume(tmp_path / "parts", model=model, data=x, display=False)
    assert len(done) >= 3
    assert_same_run(whole.path, resumed.path)
    monkeypatch.setattr("pyro_vae.compiled.payoff.FEWEST_OF_LOOPS", 10**9)
    turn_by_turn = fitted("turns")
    assert whole.history["validation_elbo"].to_numpy() == pytest.approx(
        turn_by_turn.history["validation_elbo"].to_numpy(), rel=1e-3
    )

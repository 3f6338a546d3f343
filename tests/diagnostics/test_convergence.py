"""Convergence from iterates: known chains, ArviZ's figures, and what a trace of the loss does not show."""

import math

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from scipy.stats import norm, rankdata

from pyro_vae.diagnostics.convergence import convergence
from pyro_vae.errors import InputError


def autoregressive(correlation, *shape):
    """A stationary chain of unit variance along the second dimension."""
    noise = torch.randn(shape, dtype=torch.float64)
    values = [noise[:, 0]]
    for step in range(1, shape[1]):
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * noise[:, step])
    return torch.stack(values, 1)


def test_independent_iterates_have_converged():
    """R-hat below 1.05 and a standard error of sd / sqrt(2,000), within 25 %, for each of 20 parameters."""
    found = convergence(3 + 2 * torch.randn(4, 500, 20))
    assert (found.r_hat < 1.05).all()
    assert ((found.mcse * math.sqrt(2000) - 1).abs() < 0.25).all()
    assert found.converged
    assert (found.num_runs, found.num_steps) == (4, 500)
    assert torch.allclose(found.mean, torch.tensor(3.0).double(), atol=0.3)


def test_figures_are_those_of_arviz():
    chains = autoregressive(0.7, 4, 300, 4)
    chains[..., 3] = torch.randn(4, 300)
    chains[0, :, 1] += 0.5
    chains[:, :, 2] += torch.linspace(0, 1, 300)
    found = convergence(chains)
    for k in range(4):
        values = np.asarray(chains[..., k])
        assert found.r_hat[k].item() == pytest.approx(float(az.rhat(values, method="rank")), rel=1e-6)
        assert found.ess[k].item() == pytest.approx(float(az.ess(values, method="mean")), rel=0.03)


def test_correlated_iterates_count_for_less():
    """An autoregression has an ESS of (1 - r) / (1 + r) of its steps; within a third, of 8,000."""
    found = convergence(autoregressive(0.9, 4, 2000, 10))
    assert ((found.ess / 8000 * 19 - 1).abs() < 1 / 3).all()
    short = convergence(autoregressive(0.9, 1, 400, 10))
    assert (short.mcse > 0.1).any()  # an ESS of about 21
    assert not short.converged


def test_one_run_is_folded():
    steps = torch.linspace(0, 3, 400, dtype=torch.float64).unsqueeze(-1) + torch.randn(400, 2).double() * 0.5
    one, halves = convergence(steps), steps[:, 0].reshape(2, 200)
    expected = []
    for values in (halves, (halves - steps[:, 0].quantile(0.5)).abs()):
        scores = norm.ppf((rankdata(values).reshape(2, 200) - 0.375) / 400.25)
        expected.append(float(az.rhat(scores, method="identity")))
    assert one.r_hat[0].item() == pytest.approx(max(expected), rel=1e-6)
    assert (one.r_hat > 1.1).all()
    assert not one.converged


def test_a_drift_is_seen_and_its_end_is_not_a_drift():
    torch.manual_seed(1)
    drift = torch.exp(-torch.arange(2000.0) / 150)
    iterates = (5 * drift + 0.1 * torch.randn(2000)).unsqueeze(-1)
    early, late = convergence(iterates[:600]), convergence(iterates[1400:])
    assert early.r_hat.item() > 1.3
    assert late.converged


def test_restarts_in_two_modes_are_no_convergence_though_each_run_is_one():
    runs = torch.randn(4, 500, 1) + torch.tensor([-2.0, -2.0, 2.0, 2.0]).reshape(4, 1, 1)
    assert all(convergence(run).converged for run in runs)
    found = convergence(runs)
    assert found.r_hat.item() > 1.5
    assert not found.converged


def test_a_difference_in_spread_alone_is_seen():
    runs = torch.randn(2, 1000, 1) * torch.tensor([0.2, 2.0]).reshape(2, 1, 1)
    assert convergence(runs).r_hat.item() > 1.1


def test_a_trace_of_the_loss_says_nothing():
    """A parameter that is still on its way where the loss is flat: its iterates say so, the losses do not.

    SVI itself: two locations, one of which the data hardly inform.  The gradient that drives the second one is a
    hundredth of the noise in the loss.
    """
    x = torch.full((20,), 2.0)

    def model(x):
        a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.Normal(30.0, 30.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(a + 0 * b, 1.0), obs=x)

    def guide(x):
        for name in "ab":
            pyro.sample(name, dist.Normal(pyro.param(f"{name}_loc", torch.tensor(0.0)), 1.0))

    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO())
        losses, iterates = [], []
        for _ in range(900):
            losses.append(svi.step(x))
            iterates.append([pyro.param("a_loc").item(), pyro.param("b_loc").item()])
    trace = torch.tensor(losses[300:]).unsqueeze(-1)
    of_loss, of_parameters = convergence(trace), convergence(torch.tensor(iterates[300:]), names=("a", "b"))
    assert of_loss.r_hat.item() < 1.05
    assert of_parameters.r_hat[1].item() > 1.4
    assert abs(iterates[-1][1] - 30) > 25, "nowhere near its optimum"
    assert of_parameters.as_dict()["worst"][0]["name"] == "b"


def test_parameters_that_stand_still_or_are_no_numbers():
    iterates = torch.randn(2, 40, 4)
    iterates[..., 1] = 7.0
    iterates[0, :, 2], iterates[1, :, 2] = 1.0, 2.0
    iterates[0, 5, 3] = math.nan
    found = convergence(iterates)
    assert found.r_hat[1:].tolist() == [1.0, math.inf, math.inf]
    assert found.mcse[1:].tolist() == [0.0, math.inf, math.inf]
    assert found.converged_parameters[1:].tolist() == [True, False, False]


def test_the_unit_of_the_standard_error():
    iterates = 5 * torch.randn(2, 500, 3)
    plain, scaled = convergence(iterates), convergence(iterates, torch.tensor([1.0, 5.0, 500.0]))
    assert torch.allclose(scaled.mcse / plain.mcse, torch.tensor([5.0, 1.0, 0.01]).double(), rtol=0.1)
    assert scaled.converged_parameters.tolist() == [False, True, True]


def test_many_parameters_are_taken_in_parts(monkeypatch):
    iterates = torch.randn(2, 40, 11)
    whole = convergence(iterates)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 240)
    parts = convergence(iterates)
    assert torch.allclose(parts.r_hat, whole.r_hat)
    assert torch.allclose(parts.mcse, whole.mcse)


def test_too_few_iterates_and_wrong_names_are_refused():
    for shape in ((1, 5, 3), (2, 100, 0), (9,)):
        with pytest.raises(InputError, match="with 8 steps or more"):
            convergence(torch.zeros(shape))
    with pytest.raises(InputError, match="a unit and a name for each of 3 parameters"):
        convergence(torch.randn(1, 10, 3), names=("a",))

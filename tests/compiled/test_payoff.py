"""When a call is recorded, and when its graph is compiled, without knowing how many are to come."""

from __future__ import annotations

import functools
import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae.compiled import CompiledTrace_ELBO, making, payoff
from pyro_vae.compiled.payoff import CompileEstimate, Credit
from tests.compiled.agreeing import DATA, gaussian, guide, losses

pytestmark = pytest.mark.usefixtures("uncompiled")


def unrolled(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    for _ in range(60):
        z = torch.sin(z) + 0.1
    pyro.sample("x", dist.Normal(z, 1.0).expand([6]).to_event(1), obs=x)


def test_a_large_program_is_recorded_once_its_calls_have_cost_as_much(monkeypatch):
    monkeypatch.setattr(payoff, "RECORDED_AT_ONCE", 100)
    monkeypatch.setattr(payoff, "CALLS_FOR_A_RECORDING", 2)
    elbo, counts = CompiledTrace_ELBO(), []
    pyro.clear_param_store()
    torch.manual_seed(0)
    found = []
    for _ in range(40):
        found.append(elbo.loss_and_grads(unrolled, guide, DATA))
        counts.append(elbo.num_graphs(unrolled, guide))
    assert counts[:5] == [0] * 5
    assert counts[-1] == 1
    assert found == pytest.approx(losses(Trace_ELBO(), unrolled, each=40), rel=1e-5)


def test_recording_costs_a_third_of_what_running_did():
    credit = Credit()
    credit.spend(credit.operations)
    for _ in range(10 * payoff.CALLS_FOR_A_RECORDING):
        credit.earn(100)
    assert credit.operations == pytest.approx(10 * payoff.MOST_LOST * 100, abs=1)


@pytest.mark.parametrize("at_once", [60, 190])
def test_what_a_recording_takes_is_counted_where_one_was_given_up(at_once, monkeypatch):
    """A try ends in the forward pass, or where the run turns back; the next one waits until as much is allowed."""
    monkeypatch.setattr(payoff, "RECORDED_AT_ONCE", at_once)
    monkeypatch.setattr(payoff, "CALLS_FOR_A_RECORDING", 2)
    tries, elbo = [], CompiledTrace_ELBO()
    monkeypatch.setattr(
        making, "make_graph", lambda *given, make=making.make_graph: tries.append(given[2]) or make(*given)
    )
    found = losses(elbo, unrolled, each=40)
    assert elbo.num_graphs(unrolled, guide) == 1
    assert len(tries) == 2
    assert tries[0] == at_once < tries[1]
    assert found == pytest.approx(losses(Trace_ELBO(), unrolled, each=40), rel=1e-5)


def test_a_graph_is_compiled_once_its_runs_have_lost_what_compiling_costs(monkeypatch, caplog):
    estimate = CompileEstimate(operations=200, traffic=0, runs=1)
    due = round(estimate.cost / estimate.gain)
    assert not CompileEstimate(200, 0, due - 1).is_due
    assert CompileEstimate(200, 0, due + 1).is_due
    assert not CompileEstimate(payoff.MAX_COMPILED + 1, 0, 10**9).is_due
    monkeypatch.setattr(payoff, "SECONDS_ONCE", 11.0)
    monkeypatch.setattr(payoff, "SECONDS_AN_OPERATION", 0.0)
    monkeypatch.setattr(payoff, "SAVED_AN_OPERATION", 1.0)
    elbo = CompiledTrace_ELBO()
    with caplog.at_level(logging.INFO, logger="pyro_vae"):
        losses(elbo, gaussian, each=6)
    assert [(entry.levelname, entry.message.split(":")[0]) for entry in caplog.records] == [
        ("WARNING", "Trace_ELBO is compiled")
    ]
    assert elbo.num_graphs(gaussian, guide) == 1


def test_programs_that_are_left_soon_are_recorded_up_to_a_limit_for_all_of_them(monkeypatch):
    monkeypatch.setattr(Credit, "shared", 500.0)
    graphs = []
    for i in range(9):
        model, elbo = functools.partial(gaussian, offset=float(i)), CompiledTrace_ELBO()
        losses(elbo, model, each=4)
        graphs.append(elbo.num_graphs(model, guide))
    assert graphs[0] == 1
    assert sum(graphs) < 6
    losses(elbo, model, each=200)  # and one that goes on earns its own
    assert elbo.num_graphs(model, guide) == 1

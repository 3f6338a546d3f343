"""What stands around a call: validation, warnings, effect handlers."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch.overrides import TorchFunctionMode

from pyro_vae.compiled import CompiledTrace_ELBO, NotCompiled, Recompiled
from tests.compiled.agreeing import DATA, gaussian, guide, ignored, losses
from tests.compiled.comparing import assert_equal, call, run

pytestmark = pytest.mark.usefixtures("uncompiled")


def test_a_mistake_shows_at_the_first_call_as_in_stock_pyro():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)  # no plate

    def messages(loss):
        with pytest.raises(ValueError, match="invalid log_prob shape") as raised:
            loss.loss_and_grads(model, guide, DATA)
        return str(raised.value)

    with pyro.validation_enabled(True):
        assert messages(CompiledTrace_ELBO()) == messages(Trace_ELBO())


def test_what_others_do_at_a_collection_is_not_the_program_s_doing():
    def look(*_):
        time.perf_counter()

    threshold = gc.get_threshold()
    gc.callbacks.append(look)
    gc.set_threshold(1)
    try:
        elbo = CompiledTrace_ELBO()
        found = run(lambda: (gaussian, guide), elbo, [call(DATA)] * 4)
        assert gc.isenabled()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(look)
    assert_equal(found, run(lambda: (gaussian, guide), Trace_ELBO(), [call(DATA)] * 4))


@pytest.mark.parametrize("validated", [False, True])
def test_validation_is_left_as_it_was(validated):
    prior = dist.Normal(torch.zeros(()), 1.0, validate_args=True)

    def model(x):
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z, 1.0).expand([6]).to_event(1), obs=x)

    with pyro.validation_enabled(validated):
        found = run(lambda: (model, guide), CompiledTrace_ELBO(), [call(DATA)] * 4)
        assert pyro.settings.get("validate_poutine") is validated
        assert torch.distributions.Distribution._validate_args is validated
    assert_equal(found, run(lambda: (model, guide), Trace_ELBO(), [call(DATA)] * 4))


@pytest.mark.parametrize("method", ["loss", "loss_and_grads", "differentiable_loss"])
def test_a_loss_that_is_no_number_warns_as_in_stock_pyro(method):
    def model(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("evidence", x.sum())

    elbo, stock = CompiledTrace_ELBO(), Trace_ELBO()
    with pyro.validation_enabled(False):
        for _ in range(4):  # eagerly, recorded, and as a graph
            for loss in (elbo, stock):
                with pytest.warns(UserWarning, match="Encountered NaN: loss") as said:
                    getattr(loss, method)(model, guide, DATA * torch.nan)
                assert {str(warning.message) for warning in said} == {"Encountered NaN: loss"}
    assert elbo.num_graphs(model, guide) == 1


def test_effect_handlers_around_a_step():
    found = []
    for elbo in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        svi = SVI(gaussian, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        values = [svi.step(DATA) for _ in range(3)]
        with ignored(NotCompiled), poutine.scale(scale=3.0):
            values += [svi.step(DATA) for _ in range(2)]
        values += [svi.step(DATA) for _ in range(2)]
        found.append(values)
    assert found[0] == pytest.approx(found[1])


def test_an_effect_handler_around_a_step_is_said():
    elbo = CompiledTrace_ELBO()
    losses(elbo, gaussian)
    with poutine.scale(scale=3.0), pytest.warns(NotCompiled, match=r"an effect handler .* \(ScaleMessenger\)"):
        elbo.loss(gaussian, guide, DATA)


def test_anomalies_are_looked_for_as_in_stock_pyro():
    size = torch.ones(3)

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        distance = (pyro.param("w", torch.ones(3)) * size).pow(2).sum().sqrt()  # its gradient at 0 is not a number
        pyro.sample("x", dist.Normal(z + distance, 1.0).expand([6]).to_event(1), obs=x)

    elbo = CompiledTrace_ELBO()
    losses(elbo, model)
    size.zero_()
    with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="returned nan values"):
            elbo.loss_and_grads(model, guide, DATA)
    assert [str(each.message) for each in said if each.category is NotCompiled] == [
        "Trace_ELBO runs eagerly: torch looks for anomalies, operation by operation"
    ]
    size.fill_(1.0)
    assert elbo.num_graphs(model, guide) == 1
    assert elbo.loss_and_grads(model, guide, DATA) > 0


def test_what_is_not_deterministic_is_refused_as_in_stock_pyro():
    rows = torch.arange(6)

    def model(x):
        gaussian(torch.zeros(6).put_(rows, x))  # which torch refuses then

    elbo = CompiledTrace_ELBO()
    losses(elbo, model)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            elbo.loss_and_grads(model, guide, DATA)
    finally:
        torch.use_deterministic_algorithms(False)
    assert elbo.num_graphs(model, guide) == 1


class Counting(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_a_mode_of_torch_sees_every_operation():
    elbo = CompiledTrace_ELBO()
    losses(elbo, gaussian)
    counts = []
    for loss in (elbo, Trace_ELBO()):
        with Counting() as mode, warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*a mode of torch stands around the call .Counting.", NotCompiled)
            loss.loss(gaussian, guide, DATA)
        counts.append(mode.calls)
    assert counts[0] == counts[1] > 10


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_evaluation_without_gradients_is_a_graph_beside_that_of_training(without_gradients):
    found = []
    for elbo in (CompiledTrace_ELBO(), Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        svi = SVI(gaussian, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
        values = []
        for _ in range(5):
            values.append(svi.step(DATA))
            with without_gradients():
                values.append(svi.evaluate_loss(DATA * 1.0))
        found.append(values)
        if isinstance(elbo, CompiledTrace_ELBO):
            assert elbo.num_graphs(gaussian, guide) == 2
    assert found[0] == pytest.approx(found[1])


def bernoulli(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(logits=z), obs=x)


def positive(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x > 0):
        pyro.sample("x", dist.Gamma(2.0, 1 + z * z), obs=x)


def scaled(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(probs=0.5 + 0 * z + x[0] / 2), obs=torch.ones_like(x))


def simplex(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Dirichlet(torch.ones(4)), obs=x)


CORNER = torch.tensor([0.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("method", "calls"), [("loss", 5), ("loss_and_grads", 2), ("differentiable_loss", 3), ("loss_and_grads", 6)]
)
@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (bernoulli, torch.ones(4), torch.full((4,), 0.3)),
        (positive, torch.ones(4), torch.tensor([1.0, -1.0, 1.0, 1.0])),
        (scaled, torch.zeros(4), torch.full((4,), 4.0)),
        (scaled, torch.zeros(4), torch.full((4,), float("nan"))),
        (simplex, torch.full((4,), 0.25), CORNER + 1),
    ],
)
def test_a_value_outside_its_support_is_stocks_error(model, good, bad, method, calls):
    said = []
    for elbo in (Trace_ELBO(), CompiledTrace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        with pyro.validation_enabled(True):
            for _ in range(calls - 1):
                getattr(elbo, method)(model, guide, good)
            with pytest.raises(ValueError, match=r"Expected|Error while") as error:
                getattr(elbo, method)(model, guide, bad)
            said.append((str(error.value), torch.rand(1)))
            said.append(torch.as_tensor(getattr(elbo, method)(model, guide, good)).item())  # as if nothing had been
    assert said[0] == said[2]
    assert said[1] == pytest.approx(said[3])
    assert elbo.num_graphs(model, guide) == 1


def test_without_validation_nothing_is_checked():
    nodes = {}
    for validated in (False, True):
        elbo = CompiledTrace_ELBO()
        with pyro.validation_enabled(validated):
            losses(elbo, bernoulli, args=(torch.ones(4),))
            assert elbo.num_graphs(bernoulli, guide) == 1
            if not validated:
                assert elbo.loss_and_grads(bernoulli, guide, torch.full((4,), 0.3)) > 0  # as stock Pyro has it
        (graph,) = elbo._known(bernoulli, guide).pair._graphs
        nodes[validated] = graph.checks
    assert nodes == {False: False, True: True}


def test_a_switch_of_validation_is_another_kind_of_call():
    elbo = CompiledTrace_ELBO()
    pyro.clear_param_store()
    for validated in (False, True, False, True):
        with pyro.validation_enabled(validated):
            for _ in range(3):
                elbo.loss_and_grads(bernoulli, guide, torch.ones(4))
    assert elbo.num_graphs(bernoulli, guide) == 2


def made_anew(kind, steps=12):
    """A new estimator and a new model for every step."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    optimizer = pyro.optim.Adam({"lr": 0.1})
    return [SVI(lambda x: gaussian(x), guide, optimizer, kind()).step(DATA) for _ in range(steps)]


def test_programs_that_are_made_anew_for_every_step_are_recognized():
    expected = made_anew(Trace_ELBO)
    with pytest.warns(NotCompiled, match="is made anew for every call; make it once, before the loop") as said:
        assert made_anew(CompiledTrace_ELBO) == pytest.approx(expected)
    assert [Path(warning.filename).name for warning in said] == ["test_surroundings.py"]


def newton(kind, steps=7):
    """Steps of Newton's method, from the fourth on."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    elbo, found = kind(), []
    for step in range(steps):
        loss = elbo.differentiable_loss(gaussian, guide, DATA)
        loc = pyro.param("loc").unconstrained()
        (gradient,) = torch.autograd.grad(loss, [loc], create_graph=step > 4)
        curvature = torch.autograd.grad(gradient, [loc])[0].item() if step > 4 else 1e3
        with torch.no_grad():
            loc -= gradient / curvature
        found += [loss.item(), gradient.item(), curvature]
    return [*found, torch.rand(1).item()]


def test_gradients_of_gradients_are_stocks():
    with pytest.warns(NotCompiled, match="its gradients are differentiated once more") as said:
        found = newton(CompiledTrace_ELBO)
    assert found == pytest.approx(newton(Trace_ELBO), rel=1e-5)
    assert len(said) == 1


@pytest.mark.parametrize("own", [True, False])
def test_a_logger_that_is_switched_on_says_what_the_program_logs(caplog, own):
    log = logging.getLogger("tests.quiet") if own else logging.getLogger()

    def model(x):
        log.debug("a run") if own else logging.debug("a run")
        gaussian(x)

    elbo = CompiledTrace_ELBO()
    log.setLevel(logging.INFO)
    for _ in range(5):
        elbo.loss(model, guide, DATA)
    assert elbo.num_graphs(model, guide) == 1
    with caplog.at_level(logging.DEBUG, logger=log.name if own else None), ignored(NotCompiled), ignored(Recompiled):
        for _ in range(5):
            elbo.loss(model, guide, DATA)
    assert [entry.message for entry in caplog.records if entry.name == log.name] == ["a run"] * 5

"""Laws of every model and every pair, over the registries."""

from __future__ import annotations

import copy
import pickle

import pyro
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO

from pyro_vae.data import Batches, Images
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS, SSVAE, VAE
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair, draw_terms
from pyro_vae.priors import PRIORS
from tests.conftest import EVENT_SHAPE, NUM_CLASSES, PAIRS, SMALL, combinations, make_pair


@pytest.mark.parametrize("name", MODELS)
def test_generates_without_data(name):
    model = make_pair(name).model
    assert model().shape == (1, *EVENT_SHAPE)


@pytest.mark.parametrize("name", MODELS)
def test_sites_are_those_declared(name, x):
    model = make_pair(name).model
    trace = poutine.trace(model).get_trace(x)
    assert set(trace.stochastic_nodes) - {"data"} == {latent.name for latent in model.latents}
    assert trace.observation_nodes == ["x"]
    assert trace.nodes["data"]["fn"].size == len(x)
    for latent in model.latents:
        value = trace.nodes[latent.name]["value"]
        assert value.shape == ((7,) if latent.discrete else (7, latent.size))


@pytest.mark.parametrize(("model", "guide"), PAIRS)
def test_model_and_guide_sample_the_same_sites(model, guide, x, y):
    pair = make_pair(model, guide)
    for labels in (None, y):
        q = poutine.trace(pair.guide).get_trace(x, labels)
        p = poutine.trace(poutine.replay(pair.model, q)).get_trace(x, labels)
        assert set(q.stochastic_nodes) == set(p.stochastic_nodes)


@pytest.mark.parametrize(("model", "guide"), PAIRS)
def test_gradients_reach_every_parameter(model, guide, x):
    pair = make_pair(model, guide)
    probed = pair.probe(x)
    elbo = (TraceEnum_ELBO if probed.enumerated else Trace_ELBO)(max_plate_nesting=1)
    elbo.differentiable_loss(pair.model, pair.guide, x).backward()
    for role, module in pair.modules().items():
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{role}.{name}"
            assert parameter.grad.abs().sum() > 0, f"{role}.{name}"


@pytest.mark.parametrize(("model", "guide"), combinations(MODELS, GUIDES, colours=[3]))
def test_stock_svi_trains_it_with_the_label_enumerated(model, guide, x):
    pair = make_pair(model, guide)
    enumerated = pair.probe(x).enumerated
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if enumerated else Trace_ELBO()
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    losses = [svi.step(x) for _ in range(25)]
    assert sum(losses[-10:]) / 10 < 0.9 * sum(losses[:5]) / 5


@pytest.mark.parametrize(
    ("model", "prior"), combinations([name for name in MODELS if MODELS.takes(name, "prior")], PRIORS)
)
def test_every_prior_goes_with_every_model(model, prior, x):
    """Its parameters learn, the terms are those of the objective, and the model generates."""
    torch.manual_seed(0)
    shape = {"event_shape": EVENT_SHAPE, "num_classes": NUM_CLASSES, "latent_dim": 2}
    program = MODELS.build(model, **shape, prior=PRIORS.build(prior, latent_dim=2), network=SMALL)
    pair = Pair(program, GUIDES.build("mean_field", model=program, network=SMALL))
    if prior == "vampprior":
        program.prior.follow(pair.guide)
    probed, objective = pair.probe(x), OBJECTIVES["elbo"](pair.probe(x))
    losses = torch.stack([objective(x.repeat(5, 1, 1, 1)) for _ in range(15)])
    losses.mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in program.prior.parameters())
    error = losses.std() / len(losses) ** 0.5
    assert (draw_terms(probed, x, 2000).elbo.mean() + losses.mean()).abs() < 9 * error  # of 14 degrees of freedom
    assert program().shape == (1, *EVENT_SHAPE)


def test_stock_svi_trains_ss_vae_with_the_label_sampled(x):
    pair = make_pair("ss_vae")
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    with pytest.warns(UserWarning, match="If you want to enumerate sites"):
        losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-20:]) / 20 < 0.8 * sum(losses[:20]) / 20


def test_stock_svi_trains_ss_vae_with_the_label_observed(x, y):
    pair = make_pair("ss_vae")
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(x, y) for _ in range(150)]
    assert sum(losses[-20:]) / 20 < 0.8 * sum(losses[:20]) / 20


def test_two_models_never_share_parameters(x):
    """Pyro's parameter store goes by name; a second model called alike would train the first one's weights."""
    first, second = make_pair(seed=1), make_pair(seed=2)
    Trace_ELBO().loss(first.model, first.guide, x)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    svi = SVI(second.model, second.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    start = {name: value.clone() for name, value in second.state_dict().items()}
    svi.step(x)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in before.items())
    assert all(not torch.equal(value, second.state_dict()[name]) for name, value in start.items())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_trains_its_own_parameters(x, duplicate):
    pair = make_pair()
    Trace_ELBO().loss(pair.model, pair.guide, x)
    model, guide = duplicate(pair.model), duplicate(pair.guide)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO()).step(x)
    assert all(torch.equal(value, pair.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(model.decoder.last.weight, pair.model.decoder.last.weight)


def test_the_label_prior_is_uniform(x, y):
    model = SSVAE(EVENT_SHAPE, NUM_CLASSES, 2, network=SMALL)
    trace = poutine.trace(model).get_trace(x, y)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["y"]["log_prob"].exp(), torch.full((7,), 1 / NUM_CLASSES))


def test_posterior_is_the_distribution_that_the_guide_samples(x, y):
    for pair, labels in ((make_pair("vae"), None), (make_pair("ss_vae"), y)):
        q = poutine.trace(pair.guide).get_trace(x, labels)
        posterior = pair.guide.posterior(x, labels)
        assert (posterior.batch_shape, posterior.event_shape) == ((7,), (2,))
        torch.testing.assert_close(posterior.mean, q.nodes["z"]["fn"].mean)
        torch.testing.assert_close(posterior.variance, q.nodes["z"]["fn"].variance)


@pytest.mark.parametrize(("model", "guide"), PAIRS)
def test_every_posterior_draws_as_its_guide_does(model, guide, x, y):
    pair = make_pair(model, guide)
    labels = y if any(latent.discrete for latent in pair.model.latents) else None
    posterior = pair.guide.posterior(x, labels)
    assert (posterior.batch_shape, posterior.event_shape) == ((7,), (2,))
    if model in ("adgm", "hvae", "sdgm"):  # whose last site depends on a draw
        return
    sampled = poutine.trace(pair.guide).get_trace(x, labels).nodes["z"]["fn"]
    draws = []
    for q in (posterior, sampled):
        torch.manual_seed(3)
        draws.append(q.sample())
    torch.testing.assert_close(*draws)


def test_posterior_without_a_label_takes_the_most_probable(x):
    pair = make_pair("ss_vae")
    q = poutine.trace(pair.guide).get_trace(x)
    guess = q.nodes["y"]["fn"].probs.argmax(-1)
    torch.testing.assert_close(pair.guide.posterior(x).mean, pair.guide.posterior(x, guess).mean)


def test_batches_feed_a_plate_with_subsampled_rows(x):
    """The bound of the whole set is unbiased: a batch is a set of its own, not scaled up by N / B."""
    model = VAE(EVENT_SHAPE, 2, network=SMALL)
    batches = Batches(Images(x), torch.empty(0, dtype=torch.int64), 3, "none", seed=0)
    for batch in batches.epoch():
        trace = poutine.trace(model).get_trace(batch.unlabelled.x)
        assert trace.nodes["x"]["scale"] == 1

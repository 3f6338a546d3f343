from __future__ import annotations

import copy

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import MixtureSameFamily

from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import HVAE, SSVAE, VAE
from pyro_vae.pairs import Pair
from pyro_vae.priors import PRIORS, RealNVP, VampPrior, meet_first_batch
from tests.conftest import EVENT_SHAPE, SMALL

SHALLOW = {"realnvp": "realnvp:num_blocks=3,hidden=8"}  # twenty blocks of arbitrary weights are far from any normal


def build(name: str, size: int):
    """A prior by name; one that follows a guide gets one."""
    prior = PRIORS.build(SHALLOW.get(name, name), latent_dim=size)
    if isinstance(prior, VampPrior):
        model = VAE(EVENT_SHAPE, size, prior=prior, network=SMALL)
        prior.follow(GUIDES.build("full_rank", model=model, network=SMALL))
    return prior


@pytest.mark.parametrize("name", PRIORS)
def test_priors_declare_their_event_dimension(name):
    p = build(name, 5)()
    assert (p.batch_shape, p.event_shape) == ((), (5,))
    assert p.sample((3,)).shape == (3, 5)
    assert p.log_prob(torch.zeros(4, 6, 5)).shape == (4, 6)


def learned(name: str, size: int):
    """A prior with weights that have moved."""
    prior = build(name, size)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior()


@pytest.mark.parametrize("name", PRIORS)
def test_samples_follow_the_density(name):
    """Weights of a narrow normal against the prior average to one over the prior's own draws: 40,000 bounded weights,
    so 6 standard errors hold with a false-alarm rate below 1e-8."""
    p = learned(name, 2)
    with torch.no_grad():
        z = p.sample((40_000,))
        narrow = torch.distributions.Normal(z.mean(0), 0.3 * z.std(0))
        weights = (narrow.log_prob(z).sum(-1) - p.log_prob(z)).exp()
    assert (weights.mean() - 1).abs() < 6 * weights.std() / 200


def test_mixture_prior_by_hand():
    prior = PRIORS.build("mixture", latent_dim=3)
    with torch.no_grad():
        prior.logits.copy_(torch.randn(10))
    z = torch.randn(4, 3)
    densities = torch.distributions.Normal(prior.locs, 1.0).log_prob(z.unsqueeze(1)).sum(-1).exp()
    torch.testing.assert_close(prior().log_prob(z), (prior.logits.softmax(0) * densities).sum(-1).log())


@pytest.mark.parametrize("name", ["flow", "realnvp"])
def test_flow_priors_match_a_brute_force_jacobian(name):
    p = learned(name, 3)
    noise = torch.randn(3)

    def push(value):
        for transform in p.transforms:
            value = transform(value)
        return value

    jacobian = torch.autograd.functional.jacobian(push, noise)
    expected = p.base_dist.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(p.log_prob(push(noise)), expected, rtol=1e-4, atol=1e-4)
    assert (jacobian - torch.diag(jacobian.diagonal())).abs().max() > 0.01


def test_standard_normal_density():
    z = torch.randn(3, 4)
    by_hand = -0.5 * (z.square() + torch.log(torch.tensor(2 * torch.pi))).sum(-1)
    torch.testing.assert_close(PRIORS.build("normal", latent_dim=4)().log_prob(z), by_hand)


def test_vampprior_mixes_the_posteriors_of_its_pseudo_inputs():
    """Also with labels, where the pseudo-inputs are pairs, and in the layer below, where they are latents."""
    z = torch.randn(6, 3)
    for model in (
        VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL),
        SSVAE(EVENT_SHAPE, 5, 3, prior=VampPrior(3, 4), network=SMALL),
        HVAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL),
        HVAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), skip=True, network=SMALL),
    ):
        guide = GUIDES.build("mean_field", model=model, network=SMALL)
        model.prior.follow(guide)
        assert isinstance(model.prior(), MixtureSameFamily)
        q = guide.conditionals[model.prior_site](*model.prior.pseudo_inputs)
        densities = torch.stack([q.log_prob(row) for row in z]).exp()
        torch.testing.assert_close(model.prior().log_prob(z), densities.mean(-1).log(), rtol=1e-4, atol=1e-4)


def test_vampprior_leaves_the_guide_its_parameters(x):
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    model.prior.follow(guide)
    pair = Pair(model, guide)
    pair.probe(x)
    mine = {id(p) for p in model.parameters()}
    assert not any(id(p) in mine for p in guide.parameters())
    assert len(pair.parameters()) == len(list(model.parameters())) + len(list(guide.parameters()))
    assert sum("pseudo_inputs" in name for name in pair.state_dict()) == 1


def test_a_pair_with_a_vampprior_is_copied_whole(x):
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    model.prior.follow(guide)
    model_copy, guide_copy = copy.deepcopy((model, guide))
    with torch.no_grad():
        guide_copy.conditionals["z"].family.loc.bias.add_(5.0)
    assert (model_copy.prior().mean - model.prior().mean - 5).abs().max() < 1e-4


def test_vampprior_needs_a_guide_that_it_can_mix():
    model = VAE(EVENT_SHAPE, 3, prior=VampPrior(3, 4), network=SMALL)
    with pytest.raises(InputError, match=r"a guide whose posteriors to mix; got none; call prior.follow\(guide\)"):
        model()
    for name in ("planar", "iaf", "spline"):
        guide = GUIDES.build(name, model=model, network=SMALL)
        with pytest.raises(
            InputError, match="quick to evaluate at any point, for the prior 'vampprior'; got one without"
        ):
            model.prior.follow(guide)


def model_with(name: str) -> tuple[VAE, torch.nn.Module]:
    model = VAE(EVENT_SHAPE, 5, prior=PRIORS.build(SHALLOW.get(name, name), latent_dim=5), network=SMALL)
    return model, GUIDES.build("mean_field", model=model, network=SMALL)


@pytest.mark.parametrize("name", ["flow", "realnvp"])
def test_a_flow_prior_is_copied_after_a_step(name, x):
    model, guide = model_with(name)
    Trace_ELBO().differentiable_loss(model, guide, x).backward()
    z = torch.randn(4, 5)
    torch.testing.assert_close(copy.deepcopy(model).prior().log_prob(z), model.prior().log_prob(z))


def test_realnvp_by_hand():
    """The density of two blocks, written out, and its inverse, whose draws are images of the same noise."""
    prior = RealNVP(5, num_blocks=2, hidden=(8,))
    z = 2 * torch.randn(40, 5) + 1
    prior.start(z)
    u, log_det = z, torch.zeros(40)
    for norm, coupling, order in zip(prior.norms, prior.couplings, prior.orders, strict=True):
        u = (u - norm.loc) / norm.log_scale.exp()
        shift, log_scale = coupling.nn(u[:, :2])
        assert shift.shape == (40, 3)
        assert log_scale.abs().max() < 3  # where Pyro clips it
        u = torch.cat([u[:, :2], u[:, 2:] * log_scale.exp() + shift], -1)[:, order]
        log_det = log_det - norm.log_scale.sum() + log_scale.sum(-1)
    base = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(prior().log_prob(z), base.log_prob(u).sum(-1) + log_det)
    back = u
    for transform in prior().transforms:
        back = transform(back)
    torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-4)


def test_realnvp_begins_from_the_first_batch():
    """Each block is given mean 0 and variance 1, block after block, and a second batch changes nothing."""
    prior = RealNVP(4, num_blocks=3, hidden=(8,))
    z = torch.randn(200, 4) @ torch.randn(4, 4) + torch.tensor([10.0, -3.0, 0.0, 1e4])
    z[:, 2] = 7.0  # a dimension that does not vary is moved alone
    prior.start(z)
    u = z
    for norm, coupling, order in zip(prior.norms, prior.couplings, prior.orders, strict=True):
        u = norm(u)
        torch.testing.assert_close(u.mean(0), torch.zeros(4), rtol=0, atol=1e-3)
        varies = u.var(0, correction=0) > 1e-3
        assert varies.sum() >= 3
        torch.testing.assert_close(u.var(0, correction=0)[varies], torch.ones(int(varies.sum())), rtol=1e-2, atol=0)
        u = coupling(u)[:, order]
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    prior().log_prob(torch.randn(30, 4))
    prior().sample((30,))
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())


def test_realnvp_needs_two_dimensions():
    with pytest.raises(InputError, match=r"two latent dimensions for the prior 'realnvp'; got 1; use --latent-dim 2"):
        RealNVP(1)


def test_the_first_batch_reaches_a_prior_wherever_it_is(x):
    """In a program of one's own, at a site of any name; once, from the guide's draws, with the random state kept."""
    prior = RealNVP(3, num_blocks=2, hidden=(8,))
    encoder = torch.nn.Linear(16, 3)

    def program(x):
        pyro.module("prior", prior)
        with pyro.plate("rows", len(x)):
            code = pyro.sample("code", prior())
            pyro.sample("x", pyro.distributions.Normal(code.sum(-1), 1.0), obs=x.flatten(1).sum(-1))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x)):
            pyro.sample("code", pyro.distributions.Normal(5 + 3 * encoder(x.flatten(1)), 0.1).to_event(1))

    pair = Pair(program, guide)
    pair.probe(x)
    assert not prior.norms[0].loc.any()
    random_state = torch.get_rng_state()
    meet_first_batch(pair, x, seed=3)
    assert torch.equal(torch.get_rng_state(), random_state)
    with pair.looked_at(3):
        z = pyro.poutine.trace(guide).get_trace(x).nodes["code"]["value"]
    torch.testing.assert_close(prior.norms[0].loc.detach(), z.mean(0))
    torch.testing.assert_close(prior.norms[0].log_scale.detach().exp(), z.std(0, correction=0))

"""What each model is, by hand."""

from __future__ import annotations

import math

import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import Bernoulli, MultivariateNormal, Normal

from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES, MeanField
from pyro_vae.models import ADGM, CVAE, DBVAE, HVAE, MODELS, SDGM, SSVAE, Banana, LinearGaussian
from pyro_vae.networks import MLP, Conv
from pyro_vae.pairs import Pair, draw, draw_terms, label_distribution
from tests.conftest import EVENT_SHAPE, NUM_CLASSES, SMALL, make_pair


def log_joint(model, x, **latent) -> torch.Tensor:
    """log p(x, z) of each datum, shape (N,)."""
    trace = poutine.trace(poutine.condition(model, data=latent)).get_trace(x)
    trace.compute_log_prob()
    return sum(trace.nodes[name]["log_prob"] for name in [*latent, "x"])


def test_linear_gaussian_knows_its_evidence_and_posterior():
    """Bayes' rule holds at any z, and the marginal is the normal with covariance W W^T + s^2 I."""
    model = LinearGaussian((2, 3), 2, scale=0.5)
    x, z = torch.randn(7, 2, 3), torch.randn(7, 2)
    bayes = log_joint(model, x, z=z) - model.posterior(x).log_prob(z)
    torch.testing.assert_close(model.evidence(x), bayes, rtol=1e-4, atol=1e-4)
    w = model.decoder.weight
    marginal = MultivariateNormal(model.decoder.bias, w @ w.T + 0.25 * torch.eye(6))
    torch.testing.assert_close(model.evidence(x), marginal.log_prob(x.flatten(1)), rtol=1e-4, atol=1e-4)


def test_linear_gaussian_draws_what_it_scores():
    """Moments of 40,000 draws; 6 standard errors of each of 15 covariances: a false alarm has a chance below 1e-7."""
    model = LinearGaussian((3,), 2, scale=0.5)
    with torch.no_grad():
        draws = poutine.uncondition(model)(torch.zeros(40_000, 3))
        covariance = model.decoder.weight @ model.decoder.weight.T + 0.25 * torch.eye(3)
    error = ((covariance.diagonal().outer(covariance.diagonal()) + covariance.square()) / 40_000).sqrt()
    assert ((torch.cov(draws.T) - covariance).abs() < 6 * error).all()


def test_banana_is_bent():
    """The evidence by importance weighting is that of a grid, and along the ridge z_2 falls as z_1 squared rises."""
    torch.manual_seed(4)
    model = Banana((3,), 2, bend=1.0, scale=0.3)
    x = poutine.uncondition(model)(torch.zeros(4, 3)).detach()
    axis = torch.linspace(-6, 6, 601)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        grid = torch.stack([log_joint(model, row.expand(len(z), -1), z=z) for row in x])
        evidence = grid.logsumexp(1) + 2 * math.log(12 / 600)
        pair = Pair(model, MeanField(model, network=SMALL))
        terms = draw_terms(pair.probe(x), x, 40_000)
    weighted = terms.log_weights.logsumexp(0) - math.log(40_000)
    weights = (terms.log_weights - terms.log_weights.logsumexp(0)).exp()
    error = (weights.square().sum(0)).sqrt()  # relative, of a self-normalized estimate
    assert ((weighted - evidence).abs() < 6 * error + 0.01).all()
    torch.testing.assert_close(model.evidence(x), evidence, rtol=0, atol=1e-4)
    posterior = grid[0].softmax(0)
    first, second = z.T
    bent = torch.stack([posterior @ (second * first.square()), posterior @ second, posterior @ first.square()])
    assert bent[0] - bent[1] * bent[2] < -0.5 * (posterior @ first.pow(4) - bent[2] ** 2)


@pytest.mark.parametrize("bend", [0.01, 1.0, 5.0])
def test_the_posterior_of_a_banana_obeys_bayes(bend):
    """At any z, near or far; the evidence of five dimensions is the mean likelihood under 200,000 prior draws."""
    torch.manual_seed(5)
    model = Banana((2, 3), 5, bend=bend, scale=0.8)
    x = torch.cat([poutine.uncondition(model)(torch.zeros(3, 2, 3)), 4 * torch.randn(2, 2, 3)]).detach()
    posterior = model.posterior(x)
    for z in (torch.randn(5, 5), posterior.sample(), 3 * torch.randn(5, 5)):
        bayes = log_joint(model, x, z=z) - posterior.log_prob(z)
        torch.testing.assert_close(model.evidence(x), bayes, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        z = torch.randn(200_000, 5)
        seen = torch.cat([z[:, 1:2] + bend * (z[:, :1].square() - 1), z[:, 2:]], -1)
        likelihood = Normal(model.decoder(seen), 0.8).log_prob(x[0].flatten()).sum(-1).exp().double()
    mean, error = likelihood.mean(), likelihood.std() / len(z) ** 0.5
    assert abs(model.evidence(x)[0].exp() - mean) < 5 * error  # a false alarm has a chance below 1e-6


def test_draws_from_the_posterior_of_a_banana_have_its_moments():
    """200,000 draws: means and covariances to 5 standard errors, 54 of them: a false alarm has a chance below 4e-5."""
    torch.manual_seed(6)
    model = Banana((4,), 3, scale=0.5)
    with torch.no_grad():
        x = torch.cat([poutine.uncondition(model)(torch.zeros(2, 4)), model.decoder(torch.tensor([[4.0, 0.0]]))])
        posterior = model.posterior(x)
        draws = posterior.sample(torch.Size([200_000])).double()
    mean, covariance = posterior.mean.double(), posterior.covariance_matrix.double()
    centred = draws - mean
    assert (centred.mean(0).abs() < 5 * (centred.std(0) / len(draws) ** 0.5)).all()
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / len(draws) ** 0.5).all()
    arms = draws[:, 2, 0].abs()
    assert (arms > 1).double().mean() > 0.95  # two of them, mirror images
    assert (draws[:, 2, 0] > 0).double().mean() == pytest.approx(0.5, abs=0.006)


def test_banana_needs_two_dimensions():
    with pytest.raises(InputError, match="at least two latent dimensions for the model 'banana'; got 1"):
        Banana((3,), 1)


def grid(size: int = 61, side: float = 6.0) -> tuple[torch.Tensor, float]:
    """Points of one dimension, shape (size, 1), and the logarithm of what each stands for."""
    return torch.linspace(-side, side, size).unsqueeze(-1), math.log(2 * side / (size - 1))


@pytest.mark.parametrize("kind", [ADGM, SDGM])
def test_models_with_an_auxiliary_variable_are_products_of_their_factors(kind, x, y):
    model = kind(EVENT_SHAPE, NUM_CLASSES, 2, auxiliary_dim=3, network=SMALL)
    a, z, label = torch.randn(7, 3), torch.randn(7, 2), torch.eye(NUM_CLASSES)[y]
    params = model.decoder(z, label) if kind is ADGM else model.decoder(a, z, label)
    encoder, family = model.auxiliary.encoder, model.auxiliary.family
    features = encoder(x, label, z) if kind is ADGM else encoder(label, z)
    expected = Normal(0.0, 1.0).log_prob(z).sum(-1) - math.log(NUM_CLASSES)
    expected = expected + Normal(family.loc(features), family.log_scale(features).exp()).log_prob(a).sum(-1)
    expected = expected + Bernoulli(logits=params).log_prob(x).flatten(1).sum(-1)
    torch.testing.assert_close(log_joint(model, x, a=a, y=y, z=z), expected)


@pytest.mark.parametrize("kind", [ADGM, SDGM])
def test_the_bound_with_an_auxiliary_variable_by_hand(kind, x):
    """sum_y q(y | a, x) [log p(x, y, z_y, a) - log q(z_y | a, x, y) - log q(y | a, x)] - log q(a | x), at its draws."""
    model = kind(EVENT_SHAPE, NUM_CLASSES, 2, network=SMALL)
    pair = Pair(model, MeanField(model, network=SMALL))
    drawn = draw(pair.probe(x), x)
    a = drawn.q.nodes["a"]["value"].squeeze(0).expand(1, 7, 2).reshape(7, 2)
    z = drawn.q.nodes["z"]["value"].expand(NUM_CLASSES, 1, 7, 2).squeeze(1)
    of = pair.guide.conditionals
    expected = -of["a"](x).log_prob(a)
    answers = of["y"](x, a).logits.log_softmax(-1)
    for value in range(NUM_CLASSES):
        y = torch.full((7,), value)
        label = torch.eye(NUM_CLASSES)[y]
        joint = log_joint(model, x, a=a, y=y, z=z[value]) - of["z"](x, a, label).log_prob(z[value])
        expected = expected + answers[:, value].exp() * (joint - answers[:, value])
    torch.testing.assert_close(drawn.terms.elbo, expected)


@pytest.mark.parametrize("kind", [ADGM, SDGM])
def test_importance_weights_sum_the_auxiliary_variable_out(kind, x):
    """log p(x) of 4,000 weights is that of a grid: over z, as of ss_vae, where a is given x; over a and z for sdgm.
    Six standard errors of each of 7 data: a false alarm has a chance below 1e-7."""
    torch.manual_seed(4)
    model = kind(EVENT_SHAPE, NUM_CLASSES, 1, network=SMALL)
    points, width = grid()
    with torch.no_grad():
        terms = []
        for label in torch.eye(NUM_CLASSES):
            z = points
            prior = Normal(0.0, 1.0).log_prob(z).squeeze(-1) + width - math.log(NUM_CLASSES)
            if kind is ADGM:
                params = model.decoder(z, label.expand(len(z), -1))
            else:
                conditional = model.auxiliary(label.expand(len(z), -1), z)
                prior = (prior + conditional.log_prob(points.unsqueeze(1)) + width).flatten()  # (a, z)
                a, z = points.repeat_interleave(len(points), 0), points.repeat(len(points), 1)
                params = model.decoder(a, z, label.expand(len(z), -1))
            likelihood = torch.stack([Bernoulli(logits=params).log_prob(row).flatten(1).sum(-1) for row in x], 1)
            terms.append((prior.unsqueeze(-1) + likelihood).logsumexp(0))
        evidence = torch.stack(terms).logsumexp(0)
        pair = Pair(model, MeanField(model, network=SMALL))
        weights = draw_terms(pair.probe(x), x, 4000).log_weights
    estimate = weights.logsumexp(0) - math.log(4000)
    error = (weights - weights.logsumexp(0)).exp().square().sum(0).sqrt()
    assert (error < 0.1).all()
    assert ((estimate - evidence).abs() < 6 * error + 1e-3).all()


def test_answers_are_means_over_the_auxiliary_variable(x):
    """2,000 draws against a grid: 6 standard errors of each of 21 probabilities, a false alarm below 1e-7."""
    torch.manual_seed(4)
    model = SDGM(EVENT_SHAPE, NUM_CLASSES, 1, network=SMALL)
    pair = Pair(model, MeanField(model, network=SMALL))
    pair.probe(x)
    points, width = grid()
    of = pair.guide.conditionals
    with torch.no_grad():
        weights = (of["a"](x).log_prob(points.unsqueeze(1)) + width).exp()  # (a, N)
        answers = of["y"](x.expand(len(points), *x.shape), points.unsqueeze(1).expand(-1, 7, -1)).probs
        expected = (weights.unsqueeze(-1) * answers).sum(0)
        assert answers.std(0).max() > 0.003
        found = label_distribution(pair, x, num_samples=2000).probs
        one = label_distribution(pair, x).probs
    deviation = ((weights.unsqueeze(-1) * answers.square()).sum(0) - expected.square()).clamp(min=1e-12).sqrt()
    assert ((found - expected).abs() < 6 * deviation / 2000**0.5 + 1e-4).all()
    assert not torch.allclose(one, expected, atol=1e-4)


def test_a_guide_without_draws_before_the_label_answers_at_once(x):
    pair = make_pair("ss_vae")
    assert torch.equal(label_distribution(pair, x, num_samples=50).probs, label_distribution(pair, x).probs)


def test_hvae_is_the_chain_of_its_layers(x):
    model = HVAE(EVENT_SHAPE, 2, num_layers=3, network=SMALL)
    assert [(latent.name, latent.given) for latent in model.latents] == [
        ("z1", ("x",)),
        ("z2", ("z1",)),
        ("z3", ("z2",)),
    ]
    z1, z2, z3 = torch.randn(3, 7, 2)
    pixels = Bernoulli(logits=model.decoder(z1)).log_prob(x)
    expected = Normal(0.0, 1.0).log_prob(z3).sum(-1) + pixels.flatten(1).sum(-1)
    for name, below, above in (("z2", z2, z3), ("z1", z1, z2)):
        features = model.layers[name].encoder(above)
        family = model.layers[name].family
        normal = Normal(family.loc(features), family.log_scale(features).exp())
        expected = expected + normal.log_prob(below).sum(-1)
    torch.testing.assert_close(log_joint(model, x, z1=z1, z2=z2, z3=z3), expected)


def test_hvae_has_a_bottom_up_guide(x):
    model = HVAE(EVENT_SHAPE, 2, network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    trace = poutine.trace(guide).get_trace(x)
    z1 = trace.nodes["z1"]["value"]
    torch.testing.assert_close(trace.nodes["z2"]["fn"].mean, guide.conditionals["z2"](z1).mean)


def test_hvae_with_skip_has_a_top_down_guide_in_which_every_layer_sees_x(x):
    model = HVAE(EVENT_SHAPE, 2, num_layers=3, skip=True, network=SMALL)
    assert [(latent.name, latent.given) for latent in model.latents] == [
        ("z3", ("x",)),
        ("z2", ("x", "z3")),
        ("z1", ("x", "z2")),
    ]
    guide = GUIDES.build("mean_field", model=model, network=SMALL)
    nodes = poutine.trace(guide).get_trace(x).nodes
    torch.testing.assert_close(nodes["z3"]["fn"].mean, guide.conditionals["z3"](x).mean)
    for name, above in (("z2", "z3"), ("z1", "z2")):
        torch.testing.assert_close(nodes[name]["fn"].mean, guide.conditionals[name](x, nodes[above]["value"]).mean)


def test_hvae_with_skip_decodes_all_its_layers(x):
    """The joint density is that of the chain of layers, but for what is decoded."""
    plain = HVAE(EVENT_SHAPE, 2, num_layers=3, network=SMALL)
    model = HVAE(EVENT_SHAPE, 2, num_layers=3, skip=True, network=SMALL)
    model.layers = plain.layers
    z1, z2, z3 = torch.randn(3, 7, 2)

    def pixels(logits):
        return Bernoulli(logits=logits).log_prob(x).flatten(1).sum(-1)

    same = log_joint(plain, x, z1=z1, z2=z2, z3=z3) - pixels(plain.decoder(z1))
    expected = same + pixels(model.decoder(z1, z2, z3))
    torch.testing.assert_close(log_joint(model, x, z1=z1, z2=z2, z3=z3), expected)


def test_hvae_goes_with_convolutions_and_needs_two_layers():
    model = HVAE((1, 8, 8), 2, network=Conv(dense=12))
    guide = GUIDES.build("mean_field", model=model, network=Conv(dense=12))
    Pair(model, guide).probe(torch.zeros(2, 1, 8, 8))
    model = HVAE((1, 8, 8), 2, skip=True, network=Conv(dense=12))
    Pair(model, GUIDES.build("iaf", model=model, network=Conv(dense=12))).probe(torch.zeros(2, 1, 8, 8))
    assert isinstance(Conv(dense=0).for_vectors(), MLP)
    with pytest.raises(InputError, match="at least two stochastic layers for the model 'hvae'; got 1; use --model vae"):
        HVAE(EVENT_SHAPE, 2, num_layers=1)


def test_quadrants():
    visible = {n: (~CVAE((1, 2, 2), 1, quadrants=n, network=SMALL).hidden[0]).long().tolist() for n in (1, 2, 3)}
    assert visible == {1: [[0, 0], [1, 0]], 2: [[1, 0], [1, 0]], 3: [[1, 0], [1, 1]]}


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_cvae_scores_hidden_pixels_and_keeps_visible_ones(x, likelihood):
    from pyro_vae.likelihoods import LIKELIHOODS

    model = CVAE(EVENT_SHAPE, 2, likelihood=LIKELIHOODS.build(likelihood, event_shape=EVENT_SHAPE), network=SMALL)
    z = torch.randn(7, 2)
    features = model.encoder(x.masked_fill(model.hidden, 0.0))
    pixels = model.likelihood(model.decoder(z, features)).base_dist.log_prob(x)
    prior = model.prior(features).log_prob(z)
    expected = prior + (pixels * model.hidden).flatten(1).sum(-1)
    torch.testing.assert_close(log_joint(model, x, z=z), expected)
    drawn = poutine.trace(poutine.uncondition(model)).get_trace(x).nodes["x"]
    for filled in (drawn["value"], drawn["fn"].mean):
        assert torch.equal(filled.masked_fill(model.hidden, 0.0), x.masked_fill(model.hidden, 0.0))
    assert not torch.equal(drawn["value"], x)


def test_cvae_never_sees_the_hidden_part(x):
    model = CVAE(EVENT_SHAPE, 2, network=SMALL)
    other = torch.where(model.hidden, 1 - x, x)
    p, changed = (poutine.trace(model).get_trace(images).nodes["z"]["fn"] for images in (x, other))
    assert torch.equal(p.mean, changed.mean)
    assert model.visible(x)[:, :, 0, -1].unique().tolist() == [0.5]
    with pytest.raises(InputError, match=r"with quadrants for the model 'cvae'; got shape \(16,\); use --model vae"):
        CVAE((16,), 2)


def test_db_vae_has_one_encoder(x):
    model = DBVAE(EVENT_SHAPE, NUM_CLASSES, 2, network=SMALL)
    guide = GUIDES.build("mean_field", model=model, network=SMALL, classifier=MLP(hidden=(3,)))
    assert guide.conditionals["y"].encoder is guide.conditionals["z"].encoder
    pair = Pair(model, guide)
    pair.probe(x)
    sizes = sum(value.numel() for value in pair.state_dict().values())
    assert sizes == sum(p.numel() for program in (model, guide) for p in program.parameters())
    other = GUIDES.build("mean_field", model=SSVAE(EVENT_SHAPE, NUM_CLASSES, 2, network=SMALL), network=SMALL)
    assert other.conditionals["y"].encoder is not other.conditionals["z"].encoder


@pytest.mark.parametrize("name", ["cvae", "linear_gaussian", "banana"])
def test_models_with_a_prior_of_their_own_say_so(name):
    assert not MODELS.takes(name, "prior")

"""Laws of the objectives that are not the plain ELBO."""

from __future__ import annotations

import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair, draw
from pyro_vae.pairs.handlers import frozen
from tests.conftest import NUM_CLASSES, ROWS, SMALL, LinearGaussian, LinearNetwork, combinations, make_pair

SINGLE_DRAW = ["iwae:num_samples=1", "renyi:alpha=0,num_samples=1", "renyi:alpha=0.5,num_samples=1", "stl"]
LABEL_FIRST = [model for model in MODELS if model not in ("adgm", "sdgm")]  # whose label is not given a draw
FIRST = combinations(LABEL_FIRST, GUIDES, ROWS, ["whole", "tempered"], colours=[3])
ANY_POINT = combinations(LABEL_FIRST, [guide for guide in GUIDES if guide != "planar"], ROWS, colours=[1])


def loss_and_gradients(choice: str, pair: Pair, x, y=None, beta: float = 1.0):
    return gradients_of(OBJECTIVES.build(choice, probed=pair.probe(x)), x, y, beta=beta)


def gradients_of(objective, x, y=None, seed: int = 5, beta: float = 1.0):
    pair = objective.pair
    for module in pair.modules().values():
        module.zero_grad()
    torch.manual_seed(seed)
    loss = objective(x, y, beta=beta)
    loss.backward()
    named = [(f"{r}.{n}", p) for r, m in pair.modules().items() for n, p in m.named_parameters()]
    return loss.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize(("model", "guide", "rows", "kl"), FIRST)
def test_one_draw_makes_the_elbo(model, guide, rows, kl, x, y):
    """At the same seed, in value and in gradient, whatever beta is."""
    pair, labels = make_pair(model, guide), y if rows == "labelled" else None
    beta = {"whole": 1.0, "tempered": 0.3}[kl]
    expected, gradients = loss_and_gradients("elbo", pair, x, labels, beta=beta)
    for choice in SINGLE_DRAW[:3]:
        loss, found = loss_and_gradients(choice, pair, x, labels, beta=beta)
        assert loss == pytest.approx(expected, rel=1e-5), choice
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, (choice, name)


@pytest.mark.parametrize(("model", "guide", "rows"), ANY_POINT)
def test_path_gradients_come_with_the_same_value(model, guide, rows, x, y):
    pair, labels = make_pair(model, guide), y if rows == "labelled" else None
    for choice, plain in (("stl", "elbo"), ("stl:num_samples=3", None), ("dreg:num_samples=4", "iwae:num_samples=4")):
        loss, gradients = loss_and_gradients(choice, pair, x, labels)
        assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
        if plain is not None:
            expected, plain_gradients = loss_and_gradients(plain, pair, x, labels)
            assert loss == pytest.approx(expected, rel=1e-4)
            assert gradients.keys() == plain_gradients.keys()
            for name, gradient in gradients.items():  # the model's are the plain ones, draw by draw
                if name.startswith("model"):
                    torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-3, atol=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("model", "guide"),
    [("vae", "mean_field"), ("ss_vae", "mean_field"), pytest.param("vae", "iaf", marks=pytest.mark.exhaustive)],
)
@pytest.mark.parametrize(("choice", "plain"), [("stl", "elbo"), ("dreg:num_samples=3", "iwae:num_samples=3")])
def test_path_gradients_agree_in_expectation(model, guide, choice, plain, x):
    """40 pairs of gradients, each a mean over 3,000 draws; a t of 40 - 1 degrees of freedom beyond 8 has a chance of
    1e-9, and there are about 1,000 parameters in each of 6 cases."""
    pair, rows = make_pair(model, guide), x.repeat(3000 // len(x), 1, 1, 1)
    sticking, whole = (OBJECTIVES.build(name, probed=pair.probe(x)) for name in (choice, plain))
    differences: dict[str, list[torch.Tensor]] = {}
    for seed in range(40):
        _, path = gradients_of(sticking, rows, seed=seed)
        _, ordinary = gradients_of(whole, rows, seed=1000 + seed)
        for name in ordinary:
            if name.startswith("guide"):
                differences.setdefault(name, []).append(path[name] - ordinary[name])
    for name, values in differences.items():
        stacked = torch.stack(values)
        error = stacked.std(0) / len(values) ** 0.5
        assert (stacked.mean(0).abs() <= 8 * error + 1e-7).all(), name


def train(objective, x, steps: int) -> None:
    """Fit the guide alone, the step falling to 0."""
    optimizer = torch.optim.Adam(objective.pair.guide.parameters(), lr=0.03)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        optimizer.zero_grad()
        objective(x).backward()
        optimizer.step()


def exact_pair(toy: LinearGaussian) -> Pair:
    """The linear-Gaussian model with its posterior as a guide with parameters."""
    posterior = toy.posterior(torch.zeros(1, 5))
    weight = torch.linalg.solve(posterior.precision_matrix[0], toy.w.T / toy.variance)

    class Exact(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Linear(5, 2)
            with torch.no_grad():
                self.loc.weight.copy_(weight)
                self.loc.bias.copy_(-weight @ toy.b)
            self.tril = torch.nn.Parameter(posterior.scale_tril[0])

        def forward(self, x):
            pyro.module("exact", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(self.loc(x), scale_tril=self.tril))

    return Pair(toy.model, Exact())


def test_sticking_the_landing(linear_gaussian: LinearGaussian):
    """Where the guide is exact its gradient is 0 draw by draw, while that of the ELBO is noise."""
    x, pair = linear_gaussian.sample(8), exact_pair(linear_gaussian)
    _, path = loss_and_gradients("stl", pair, x)
    _, plain = loss_and_gradients("elbo", pair, x)
    for name in ("guide.loc.weight", "guide.tril"):
        assert path[name].abs().max() < 1e-3
        assert plain[name].abs().max() > 0.05


@pytest.mark.exhaustive
def test_dreg_lowers_the_variance_at_fifty_draws(linear_gaussian: LinearGaussian):
    """The guide's gradient variance against that of the importance-weighted bound, 200 gradients each, after some
    training: far from the posterior all weight is on one draw and the squared weights help nobody."""
    many = linear_gaussian.sample(200)
    train(OBJECTIVES.build("elbo", probed=linear_gaussian.pair.probe(many)), many, 300)
    x = linear_gaussian.sample(8)

    def variance(choice: str) -> float:
        objective = OBJECTIVES.build(choice, probed=linear_gaussian.pair.probe(x))
        runs = [gradients_of(objective, x, seed=seed)[1] for seed in range(200)]
        return sum(torch.stack([r[n] for r in runs]).var(0).sum().item() for n in runs[0] if n.startswith("guide"))

    ratio = variance("dreg:num_samples=50") / variance("iwae:num_samples=50")
    print(f"variance of the guide's gradient at k = 50, dreg / iwae: {ratio:.3f}")
    assert ratio < 0.5


def test_bounds_rise_with_the_number_of_draws(linear_gaussian: LinearGaussian):
    """Means over 400 draws of 50 data, ten at a time; neighbours lie far more than the 6 standard errors apart that a
    false alarm of 1e-6 asks for, of 40 means."""
    x = linear_gaussian.sample(50)
    rows = x.repeat(10, 1)

    def bounds(k: int) -> torch.Tensor:
        objective = OBJECTIVES.build(f"iwae:num_samples={k}", probed=linear_gaussian.pair.probe(rows))
        with torch.no_grad():
            return torch.stack([-objective(rows) for _ in range(40)])

    levels = [bounds(k) for k in (1, 2, 5, 25)]
    for lower, higher in pairwise(levels):
        error = ((lower.var() + higher.var()) / 40).sqrt()
        assert higher.mean() - lower.mean() > 6 * error
    evidence = linear_gaussian.evidence(x).mean()
    assert levels[-1].mean() < evidence + 6 * levels[-1].std() / 40**0.5


def test_labels_are_weighed_by_hand(x):
    """sum_y q(y|x) [L_k(x, y) - log q(y|x)], with L_k the importance bound of each label given."""
    pair = make_pair("ss_vae")
    torch.manual_seed(5)
    loss = OBJECTIVES.build("iwae:num_samples=4", probed=pair.probe(x))(x).item()
    torch.manual_seed(5)
    noise = torch.randn(NUM_CLASSES, 4, len(x), 2)
    log_q = pair.guide.conditionals["y"](x).logits.log_softmax(-1)
    total = torch.zeros(len(x))
    for label in range(NUM_CLASSES):
        one_hot = torch.eye(NUM_CLASSES)[label].expand(len(x), -1)
        q = pair.guide.conditionals["z"](x, one_hot)
        z = q.mean + q.stddev * noise[label]
        p = torch.distributions.Bernoulli(logits=pair.model.decoder(z, one_hot)).log_prob(x).flatten(2).sum(-1)
        log_w = p + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - math.log(NUM_CLASSES) - q.log_prob(z)
        bound = log_w.logsumexp(0) - math.log(4)
        total += log_q[:, label].exp() * (bound - log_q[:, label])
    assert loss == pytest.approx(-total.mean().item(), rel=1e-5)


def test_renyi_falls_from_the_importance_bound_to_the_elbo(x):
    pair = make_pair()

    def bound(choice: str) -> float:
        torch.manual_seed(5)
        return -OBJECTIVES.build(choice, probed=pair.probe(x))(x).item()

    levels = [bound(f"renyi:alpha={alpha},num_samples=8") for alpha in (-1, 0, 0.5, 0.9, 0.9999)]
    assert levels == sorted(levels, reverse=True)
    assert levels[1] == pytest.approx(bound("iwae:num_samples=8"), rel=1e-6)
    assert levels[-1] == pytest.approx(bound("stl:num_samples=8"), rel=1e-3)
    with pytest.raises(InputError, match=r"alpha other than 1, .*; got 1; use --objective elbo"):
        OBJECTIVES.build("renyi:alpha=1", probed=pair.probe(x))


def test_the_total_correlation_decomposition_adds_up_to_the_kl(x):
    pair = make_pair()
    objective = OBJECTIVES.build("beta_tc", probed=pair.probe(x), num_data=100)
    with pair.scope():
        draws = draw(pair.probe(x), x)
        parts = objective.parts(draws)
    torch.testing.assert_close(sum(parts), draws.terms.kl, rtol=1e-4, atol=1e-5)
    torch.manual_seed(5)
    loss = objective(x).item()
    torch.manual_seed(5)
    assert loss == pytest.approx(OBJECTIVES["elbo"](pair.probe(x))(x).item(), rel=1e-5)


def test_the_aggregate_posterior_of_a_whole_set_by_hand(x):
    """With every datum in the batch the estimate is the aggregate itself."""
    probed = make_pair().probe(x)
    with probed.pair.scope():
        draws = draw(probed, x)
        information, correlation, dimensions = OBJECTIVES.build("beta_tc", probed=probed, num_data=7).parts(draws)
    z, q = draws.q.nodes["z"]["value"][0], probed.pair.guide.posterior(x)
    for i in range(7):
        densities = torch.stack([q.base_dist.log_prob(z[i])[j] for j in range(7)])
        joint = densities.sum(-1).logsumexp(0) - math.log(7)
        product = (densities.logsumexp(0) - math.log(7)).sum()
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[i]).sum()
        torch.testing.assert_close(information[i], densities[i].sum() - joint, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(correlation[i], joint - product, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dimensions[i], product - prior, rtol=1e-4, atol=1e-4)


def test_beta_weighs_the_total_correlation_alone(x):
    pair = make_pair()
    objective = OBJECTIVES.build("beta_tc", probed=pair.probe(x), num_data=50)
    torch.manual_seed(5)
    with pair.scope():
        correlation = objective.parts(draw(pair.probe(x), x))[1].mean().item()
    losses = []
    for beta in (1.0, 6.0):
        torch.manual_seed(5)
        losses.append(objective(x, beta=beta).item())
    assert losses[1] - losses[0] == pytest.approx(5 * correlation, rel=1e-3)


def closed_form_kl(pair: Pair, x) -> torch.Tensor:
    """KL(q(z | x) || N(0, I)) by dimension, shape (N, 2)."""
    q = pair.guide.posterior(x).base_dist
    return 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log())


def test_free_bits_hold(x):
    """Below the floor a dimension costs the floor and has no gradient; above it, its KL."""
    pair = make_pair()
    kl = closed_form_kl(pair, x).mean(0)
    assert kl.max() < 0.5
    torch.manual_seed(5)
    reconstruction = OBJECTIVES.build("elbo", probed=pair.probe(x))(x, beta=0.0)

    def loss(floor: float, beta: float = 1.0) -> float:
        torch.manual_seed(5)
        return OBJECTIVES.build(f"free_bits:floor={floor}", probed=pair.probe(x))(x, beta=beta).item()

    assert loss(0.5) == pytest.approx(reconstruction.item() + 2 * 0.5, rel=1e-5)
    assert loss(0.5, beta=3.0) == pytest.approx(reconstruction.item() + 3 * 2 * 0.5, rel=1e-5)
    assert loss(0) == pytest.approx(reconstruction.item() + kl.sum().item(), rel=1e-5)
    between = (kl.min() + kl.max()).item() / 2
    assert loss(between) == pytest.approx(reconstruction.item() + between + kl.max().item(), rel=1e-5)
    _, held = loss_and_gradients("free_bits:floor=0.5", pair, x)
    _, free = loss_and_gradients("elbo", pair, x, beta=0.0)
    for name, gradient in free.items():
        torch.testing.assert_close(held[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "guide", ["mean_field", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("full_rank", "iaf"))]
)
def test_free_bits_keep_the_kl_from_collapsing(guide, x):
    """Images that carry nothing: without a floor the KL goes to 0, with one it stays at it."""
    noise = (torch.rand(200, 1, 4, 4) < 0.5).float()
    reached = {}
    for choice in ("elbo", "free_bits:floor=0.5"):
        pair = make_pair("vae", guide)
        objective = OBJECTIVES.build(choice, probed=pair.probe(x))
        objective(noise)
        optimizer = torch.optim.Adam(pair.parameters().values(), lr=0.03)
        for _ in range(80):
            optimizer.zero_grad()
            objective(noise).backward()
            optimizer.step()
        probed = pair.probe(noise)
        with pair.scope(), torch.no_grad():
            reached[choice] = draw(probed, noise, num_samples=50).terms.kl.mean().item()
    assert reached["elbo"] < 0.5
    assert reached["free_bits:floor=0.5"] > 0.7


def test_free_bits_and_capacity_take_labels_into_account(x):
    """At no floor, and far below capacity, both are the bound with another sign of the KL."""
    pair = make_pair("ss_vae")
    torch.manual_seed(5)
    reconstruction = OBJECTIVES["elbo"](pair.probe(x))(x, beta=0.0).item()
    q_y = pair.guide.conditionals["y"](x).probs
    kl = (q_y * (q_y.log() + math.log(NUM_CLASSES))).sum(-1)
    for label in range(NUM_CLASSES):
        one_hot = torch.eye(NUM_CLASSES)[label].expand(len(x), -1)
        q = pair.guide.conditionals["z"](x, one_hot).base_dist
        kl = kl + q_y[:, label] * 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).sum(-1)
    torch.manual_seed(5)
    free = OBJECTIVES.build("free_bits:floor=0", probed=pair.probe(x))(x).item()
    assert free == pytest.approx(reconstruction + kl.mean().item(), rel=1e-5)
    torch.manual_seed(5)
    held = OBJECTIVES.build("capacity:nats=30", probed=pair.probe(x))(x).item()
    assert held == pytest.approx(reconstruction + 30 - kl.mean().item(), rel=1e-5)


def test_capacity_rises_over_its_epochs(x):
    pair = make_pair()
    kl = closed_form_kl(pair, x).sum(-1).mean().item()
    objective = OBJECTIVES.build("capacity:nats=20,epochs=10", probed=pair.probe(x))

    def loss(epoch: float, beta: float) -> float:
        torch.manual_seed(5)
        return objective(x, beta=beta, epoch=epoch).item()

    for epoch, target in ((0, 0), (2.5, 5), (10, 20), (99, 20)):
        assert loss(epoch, 3.0) - loss(epoch, 0.0) == pytest.approx(3 * abs(kl - target), rel=1e-4)


@pytest.mark.parametrize(
    ("choice", "model", "guide", "message"),
    [
        ("stl", "vae", "planar", r"density can be evaluated at any point, .*; got one .* at the site 'z'; use"),
        ("dreg", "ss_vae", "planar", r"density can be evaluated at any point"),
        ("beta_tc", "ss_vae", "mean_field", r"one latent site, .*; got the sites y, z; use --model vae"),
        ("beta_tc", "vae", "full_rank", r"factorizes over the latent dimensions, .*; use --guide mean_field"),
        ("beta_tc", "vae", "iaf", r"factorizes over the latent dimensions"),
    ],
)
def test_pairs_that_make_no_sense_say_why(choice, model, guide, message, x):
    pair = make_pair(model, guide)
    with pytest.raises(InputError, match=message):
        OBJECTIVES.build(choice, probed=pair.probe(x))


@pytest.mark.parametrize("choice", ["iwae", "renyi", "stl", "dreg", "free_bits", "capacity"])
def test_sampled_labels_and_global_sites_are_refused(choice):
    def discrete(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))

    def outside(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    x = torch.zeros(4, 2)
    for program, message in ((discrete, "can be reparameterized; got the site 'k'"), (outside, "plate")):
        pair = Pair(program, program)
        with pytest.raises(InputError, match=message):
            OBJECTIVES.build(choice, probed=pair.probe(x))


def test_frozen_parameters_come_back(x):
    guide = GUIDES.build("mean_field", model=make_pair().model, network=SMALL)
    with frozen(guide):
        assert not any(p.requires_grad for p in guide.parameters())
        assert not guide.posterior(x).mean.requires_grad
    assert all(p.requires_grad for p in guide.parameters())


def test_bare_parameters_are_frozen_too():
    def guide():
        return pyro.param("loc", torch.tensor(1.0, requires_grad=True)) * 2

    with frozen(guide):
        assert not guide().requires_grad
    assert guide().requires_grad


@pytest.mark.exhaustive
def test_full_rank_reaches_the_evidence_and_mean_field_does_not(linear_gaussian: LinearGaussian):
    """Guides with linear encoders trained by sticking the landing, whose noise vanishes as they get exact.

    The bound of the full-rank guide then has hardly any noise either.  The best of the mean-field ones, the product of
    the posterior's conditionals in scale, lies -1/2 log det of a correlation matrix below the evidence."""
    x = linear_gaussian.sample(200)
    evidence = linear_gaussian.evidence(x).mean().item()
    precision = linear_gaussian.posterior(x).precision_matrix[0]
    best_gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    assert best_gap > 0.1
    gaps = {}
    for name in ("full_rank", "mean_field"):
        guide = GUIDES.build(name, model=linear_gaussian.model, network=LinearNetwork())
        pair = Pair(linear_gaussian.model, guide)
        objective = OBJECTIVES.build("stl", probed=pair.probe(x))
        train(objective, x, 400)
        with pair.scope(), torch.no_grad():
            gaps[name] = evidence - draw(pair.probe(x), x, num_samples=2000).terms.elbo.mean().item()
    print(f"evidence {evidence:.4f}; below it: full_rank {gaps['full_rank']:.4f}, mean_field {gaps['mean_field']:.4f}")
    assert abs(gaps["full_rank"]) < 0.02
    assert gaps["mean_field"] == pytest.approx(best_gap, abs=0.03)

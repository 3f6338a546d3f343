from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Categorical, Normal
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from pyro_vae.config import TrainingConfig
from pyro_vae.data import Batches, Images
from pyro_vae.errors import InputError
from pyro_vae.guides import GUIDES
from pyro_vae.models import MODELS
from pyro_vae.objectives import OBJECTIVES
from pyro_vae.pairs import Pair, temper
from pyro_vae.training import Trainer
from tests.conftest import NUM_CLASSES, ROWS, LinearGaussian, combinations, make_pair


def gradients(pair: Pair) -> dict[str, torch.Tensor]:
    return {
        f"{role}.{name}": p.grad.clone()
        for role, module in pair.modules().items()
        for name, p in module.named_parameters()
        if p.grad is not None  # q(y | x) has no part in the bound of a labelled row
    }


@pytest.mark.parametrize(("model", "guide", "rows"), combinations(MODELS, GUIDES, ROWS))
def test_loss_and_gradients_equal_stock_pyro_at_the_same_seed(model, guide, rows, x, y):
    labels = y if rows == "labelled" else None
    ours, stock = make_pair(model, guide), make_pair(model, guide)
    torch.manual_seed(5)
    loss = OBJECTIVES["elbo"](ours.probe(x))(x, labels)
    loss.backward()
    enumerated = stock.probe(x, labels).enumerated
    torch.manual_seed(5)
    elbo = (TraceEnum_ELBO if enumerated else Trace_ELBO)(max_plate_nesting=1)
    expected = elbo.loss_and_grads(stock.model, stock.guide, x, labels)
    assert loss.item() == pytest.approx(expected / len(x), rel=1e-6)
    assert gradients(ours).keys() == gradients(stock).keys()
    for name, gradient in gradients(stock).items():
        difference = gradients(ours)[name] - gradient / len(x)
        assert difference.norm() <= 1e-4 * gradient.norm() / len(x), name


@pytest.mark.parametrize("model", ["vae", "ss_vae"])
def test_training_equals_stock_svi_step_by_step(model, x):
    """Two epochs of our trainer, one fused Adam, against stock SVI with Pyro's Adam on the same batches and seed."""

    def batches() -> Batches:
        return Batches(Images(x), torch.empty(0, dtype=torch.int64), 3, "none", seed=0)

    ours, stock = make_pair(model), make_pair(model)
    probed = ours.probe(x)
    config = TrainingConfig(epochs=2, lr=0.01, lr_schedule="constant", beta=1.0, clip_norm=1e9)
    trainer = Trainer(probed, batches(), Images(x), config)
    torch.manual_seed(9)
    rows = list(trainer.epochs())

    elbo = TraceEnum_ELBO(max_plate_nesting=1) if probed.enumerated else Trace_ELBO(max_plate_nesting=1)
    per_datum = [poutine.scale(program, 1 / 3) for program in (stock.model, stock.guide)]
    svi = SVI(*per_datum, pyro.optim.Adam({"lr": 0.01}), elbo)
    torch.manual_seed(9)
    stock_batches = batches()
    losses = [[svi.step(batch.unlabelled.x) for batch in stock_batches.epoch()] for _ in range(2)]
    for row, epoch_losses in zip(rows, losses, strict=True):
        assert row["train_loss"] == pytest.approx(sum(epoch_losses) / len(epoch_losses), rel=1e-5)
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("guide", GUIDES)
def test_analytic_kl_equals_stock_pyro_at_the_same_seed(guide, x):
    ours, stock = make_pair("vae", guide), make_pair("vae", guide)
    torch.manual_seed(5)
    loss = OBJECTIVES["analytic_kl"](ours.probe(x))(x)
    torch.manual_seed(5)
    expected = TraceMeanField_ELBO(max_plate_nesting=1).loss(stock.model, stock.guide, x)
    assert loss.item() == pytest.approx(expected / len(x), rel=1e-5)


@pytest.mark.exhaustive
def test_analytic_kl_has_the_same_mean_and_less_noise(x):
    """Means of 300 losses each, of 5 copies of the data, lie within 6 standard errors of each other: a false alarm has
    a chance below 1e-8."""
    pair, rows = make_pair("vae"), x.repeat(5, 1, 1, 1)
    objectives = (OBJECTIVES[name](pair.probe(x)) for name in ("elbo", "analytic_kl"))
    with torch.no_grad():
        plain, analytic = (torch.stack([objective(rows) for _ in range(300)]) for objective in objectives)
    error = (plain.var() / 300 + analytic.var() / 300).sqrt()
    assert (plain.mean() - analytic.mean()).abs() < 6 * error
    assert analytic.var() < plain.var()


def test_analytic_kl_by_hand_and_tempered(x):
    pair = make_pair("vae")
    objective = OBJECTIVES["analytic_kl"](pair.probe(x))

    def loss(beta: float) -> float:
        torch.manual_seed(5)
        return objective(x, beta=beta).item()

    kl = torch.distributions.kl_divergence(pair.guide.posterior(x), Normal(torch.zeros(2), 1.0).to_event(1))
    assert loss(1.0) - loss(0.0) == pytest.approx(kl.mean().item(), rel=1e-3)
    assert loss(4.0) - loss(0.0) == pytest.approx(4 * kl.mean().item(), rel=1e-3)


def test_analytic_kl_refuses_a_discrete_site(x):
    pair = make_pair("ss_vae")
    with pytest.raises(InputError, match=r"reparameterized, .*; got the discrete site 'y'; use --objective elbo"):
        OBJECTIVES["analytic_kl"](pair.probe(x))


def test_enumerated_bound_is_the_sum_over_labels_by_hand(x):
    pair = make_pair("ss_vae")
    model, guide = pair.model, pair.guide
    torch.manual_seed(5)
    loss = OBJECTIVES["elbo"](pair.probe(x))(x)

    torch.manual_seed(5)
    noise = torch.randn(NUM_CLASSES, len(x), 2)
    log_q_y = guide.conditionals["y"](x).logits.log_softmax(-1)
    bound = torch.zeros(len(x))
    for label in range(NUM_CLASSES):
        one_hot = torch.eye(NUM_CLASSES)[label].expand(len(x), -1)
        q_z = guide.conditionals["z"](x, one_hot)
        z = q_z.mean + q_z.stddev * noise[label]
        log_joint = (
            -torch.tensor(float(NUM_CLASSES)).log()
            + Normal(0.0, 1.0).log_prob(z).sum(-1)
            + torch.distributions.Bernoulli(logits=model.decoder(z, one_hot)).log_prob(x).flatten(1).sum(-1)
        )
        bound += log_q_y[:, label].exp() * (log_joint - q_z.log_prob(z) - log_q_y[:, label])
    assert loss.item() == pytest.approx(-bound.mean().item(), rel=1e-5)


def test_beta_zero_leaves_the_reconstruction_alone(x):
    pair = make_pair("vae")
    torch.manual_seed(5)
    loss = OBJECTIVES["elbo"](pair.probe(x))(x, beta=0.0)
    torch.manual_seed(5)
    z = pair.guide.posterior(x).rsample()
    reconstruction = torch.distributions.Bernoulli(logits=pair.model.decoder(z)).log_prob(x).flatten(1).sum(-1)
    assert loss.item() == pytest.approx(-reconstruction.mean().item(), rel=1e-6)


def test_beta_zero_leaves_the_reconstruction_alone_with_enumeration(x):
    pair = make_pair("ss_vae")
    torch.manual_seed(5)
    loss = OBJECTIVES["elbo"](pair.probe(x))(x, beta=0.0)
    torch.manual_seed(5)
    noise = torch.randn(NUM_CLASSES, len(x), 2)
    q_y = pair.guide.conditionals["y"](x).probs
    expected = torch.zeros(len(x))
    for label in range(NUM_CLASSES):
        one_hot = torch.eye(NUM_CLASSES)[label].expand(len(x), -1)
        q_z = pair.guide.conditionals["z"](x, one_hot)
        p = torch.distributions.Bernoulli(logits=pair.model.decoder(q_z.mean + q_z.stddev * noise[label], one_hot))
        expected += q_y[:, label] * p.log_prob(x).flatten(1).sum(-1)
    assert loss.item() == pytest.approx(-expected.mean().item(), rel=1e-5)


@pytest.mark.parametrize("model", ["vae", "ss_vae"])
def test_the_loss_is_linear_in_beta(model, x):
    objective = OBJECTIVES["elbo"](make_pair(model).probe(x))

    def loss(beta: float) -> float:
        torch.manual_seed(5)
        return objective(x, beta=beta).item()

    assert loss(4.0) - loss(0.0) == pytest.approx(4 * (loss(1.0) - loss(0.0)), rel=1e-3)


def test_temper_scales_latent_sites_and_spares_observed_ones(x):
    model = make_pair("vae").model
    with temper(0.25):
        trace = poutine.trace(model).get_trace(x)
    assert trace.nodes["z"]["scale"] == 0.25
    assert trace.nodes["x"]["scale"] == 1


def test_temper_composes_with_other_scales():
    def model():
        with poutine.scale(scale=3.0):
            pyro.sample("y", Categorical(torch.ones(2)))

    with temper(0.5):
        assert poutine.trace(model).get_trace().nodes["y"]["scale"] == 1.5


def test_the_bound_never_exceeds_the_closed_form_evidence(linear_gaussian: LinearGaussian):
    """On probabilistic PCA with a mean-field guide.

    The bound is the mean of 500 draws of each of 200 data.  It would have to lie 6 of its standard errors above its
    expectation to fail at a gap of 0, so the false-alarm rate is below 1e-8; the gap is far from 0.
    """
    x = linear_gaussian.sample(200)
    objective = OBJECTIVES["elbo"](linear_gaussian.pair.probe(x))
    losses = torch.stack([objective(x).detach() for _ in range(500)])
    evidence = linear_gaussian.evidence(x).mean()
    error = losses.std() / len(losses) ** 0.5
    assert -losses.mean() <= evidence + 6 * error
    assert evidence + losses.mean() > 0.1


def test_the_exact_posterior_makes_the_bound_the_evidence(linear_gaussian: LinearGaussian):
    """With q(z | x) = p(z | x) every single draw of the integrand is log p(x)."""
    x = linear_gaussian.sample(20)

    def exact(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.MultivariateNormal(*_parameters(linear_gaussian, x)))

    loss = OBJECTIVES["elbo"](Pair(linear_gaussian.model, exact).probe(x))(x)
    assert -loss.item() == pytest.approx(linear_gaussian.evidence(x).mean().item(), abs=1e-4)


def _parameters(toy: LinearGaussian, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    posterior = toy.posterior(x)
    return posterior.mean, posterior.covariance_matrix

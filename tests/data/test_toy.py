from __future__ import annotations

import torch
from torch.distributions import MultivariateNormal

from pyro_vae.data import load_data
from pyro_vae.data.toy import BIAS, NOISE_SCALE, WEIGHT


def everything() -> torch.Tensor:
    data = load_data("toy")
    return torch.cat([part.values() for part in (data.train, data.validation, data.test)]).double()


def test_toy_is_always_the_same():
    data = load_data("toy")
    assert (len(data.train), len(data.validation), len(data.test)) == (1600, 200, 200)
    assert data.event_shape == (5,)
    assert data.num_classes is None
    assert torch.equal(data.train.pixels, load_data("toy").train.pixels)


def test_toy_has_the_evidence_of_its_constants():
    """The mean of log p(x) over 2,000 rows lies within 5 of its standard errors of minus the entropy (chance 6e-7)."""
    weight, bias = torch.tensor(WEIGHT).double(), torch.tensor(BIAS).double()
    covariance = weight @ weight.T + NOISE_SCALE**2 * torch.eye(5)
    evidence = MultivariateNormal(bias, covariance)
    log_prob = evidence.log_prob(everything())
    error = (5 / 2 / len(log_prob)) ** 0.5  # (x - b)^T C^{-1} (x - b) is chi-squared with 5 degrees, variance 10
    assert abs(log_prob.mean() + evidence.entropy()) < 5 * error


def test_toy_has_the_moments_of_its_constants():
    """Means and covariances within 5 standard errors: 5 + 15 tests, a false alarm has a chance below 2e-5."""
    weight, bias = torch.tensor(WEIGHT).double(), torch.tensor(BIAS).double()
    covariance = weight @ weight.T + NOISE_SCALE**2 * torch.eye(5)
    x = everything()
    assert ((x.mean(0) - bias).abs() < 5 * (covariance.diag() / len(x)).sqrt()).all()
    spread = (covariance.diag()[:, None] * covariance.diag() + covariance**2) / len(x)
    assert ((x.T.cov() - covariance).abs() < 5 * spread.sqrt()).all()


def test_the_posterior_of_toy_is_correlated():
    weight = torch.tensor(WEIGHT)
    posterior = torch.linalg.inv(torch.eye(2) + weight.T @ weight / NOISE_SCALE**2)
    correlation = posterior[0, 1] / (posterior[0, 0] * posterior[1, 1]).sqrt()
    assert abs(correlation + 0.73) < 0.005

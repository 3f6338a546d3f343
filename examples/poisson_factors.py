"""Counts of twenty kinds in each row, from two positive factors: Poisson factor analysis.

    python -m examples.poisson_factors

    x_n ~ Poisson(z_n @ loadings),  z_n ~ Gamma(2, 1) for each factor,  loadings positive, found by maximum likelihood

Given the loadings the posterior of a row has two dimensions, so a sum over a grid gives its mean, its width and the
evidence of the row.  The posterior of two factors that explain a count between them is correlated and skewed:
``iaf``.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of

NUM_KINDS = 20


def model(x: Tensor) -> None:
    """Counts of shape (N, 20)."""
    start = torch.linspace(0.5, 1.5, NUM_KINDS)
    loadings = pyro.param("loadings", lambda: torch.stack([start, start.flip(0)]), constraint=constraints.positive)
    with pyro.plate("documents", len(x)):
        z = pyro.sample("z", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Poisson(z @ loadings).to_event(1), obs=x)


def make(num_rows: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and the loadings that they were drawn with: either factor has kinds of its own, and they share some."""
    rng = np.random.default_rng(seed)
    loadings = np.stack([np.linspace(0.1, 1.5, NUM_KINDS), np.linspace(1.5, 0.1, NUM_KINDS)])
    return rng.poisson(rng.gamma(2, 1, (num_rows, 2)) @ loadings).astype(np.float32), loadings


def exact(x: Tensor, loadings: Tensor) -> tuple[dict[str, Moments], Tensor]:
    """Mean and standard deviation of the factors of each row, and its evidence in nats, by a sum over a grid."""
    axis = torch.linspace(-6, 2.8, 221, dtype=torch.float64)  # of log z
    z = torch.cartesian_prod(axis, axis).exp()
    log_cell = 2 * (axis[1] - axis[0]).log() + z.log().sum(1)
    rate = z @ loadings.double()
    likelihood = x.double() @ rate.log().T - rate.sum(1) - torch.lgamma(x.double() + 1).sum(1, keepdim=True)
    joint = likelihood + dist.Gamma(2.0, 1.0).log_prob(z).sum(1) + log_cell
    weights = joint.softmax(1)
    mean = weights @ z
    return {"z": (mean, (weights @ z.square() - mean.square()).sqrt())}, joint.logsumexp(1)


def main(batch_size: int = 100) -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from the posterior; of the evidence it is the error in nats per row."""
    counts, _ = make()
    run = pyro_vae.fit(
        model,
        "iaf",
        data=counts,
        objective="stl",
        hidden=(64,),
        lr=0.01,
        lr_schedule="cosine",
        batch_size=batch_size,
        epochs=2000 * batch_size // 1600,
        display=False,
    )
    x = run.data.test.values()  # rows that training did not see
    with run.pair.scope():
        loadings = pyro.param("loadings").detach()
    moments, evidence = exact(x, loadings)
    off = abs(run.evaluate(num_samples=500)["nll"] + evidence.mean().item())
    print(f"log-likelihood {-evidence.mean():.3f} nats per row, {off:.3f} off")
    return against(draws_of(run, x), moments) | {"evidence": (off, 0.0)}


if __name__ == "__main__":
    main()

"""A mixture of two normals, whose means all rows share and whose components are enumerated.

    python -m examples.gaussian_mixture

    x_n ~ Normal(loc_k, 1),  k_n ~ Categorical(0.4, 0.6),  loc ~ Normal((-1, 1), 2)

The guide of a component is a classifier that sees the row and the means.  The exact posterior of the two means is a sum
over a grid, and with it the probability that a row belongs to the second component, averaged over the means.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of

WEIGHTS, CENTERS = torch.tensor([0.4, 0.6]), torch.tensor([-1.0, 1.0])


def model(x: Tensor) -> None:
    """Rows of shape (N, 1)."""
    locs = pyro.sample("locs", dist.Normal(CENTERS, 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(Vindex(locs)[..., k], 1.0), obs=x[:, 0])


def make(num_rows: int = 500, seed: int = 0) -> np.ndarray:
    """Rows around -1.5 and 1.5: many belong to either."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((num_rows, 1)) < 0.4, -1.5, 1.5) + rng.normal(size=(num_rows, 1))


def exact(x: Tensor) -> tuple[dict[str, Moments], Tensor]:
    """Mean and standard deviation of the two means, and the probability of each row's second component."""
    axis = torch.linspace(-2.5, 2.5, 151, dtype=torch.float64)
    locs = torch.cartesian_prod(axis, axis)
    joint = dist.Normal(locs[:, None, :], 1.0).log_prob(x.double()[None]) + WEIGHTS.log()  # (grid, N, 2)
    prior = dist.Normal(CENTERS, 2.0).log_prob(locs).sum(1)
    weights = (prior + joint.logsumexp(-1).sum(1)).softmax(0)
    mean = weights @ locs
    return {"locs": (mean, (weights @ (locs - mean).square()).sqrt())}, weights @ joint.softmax(-1)[..., 1]


def main(batch_size: int = 100) -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from the posterior; of k it is the mean error of the probabilities."""
    run = pyro_vae.fit(
        model,
        "mean_field",
        data=make(),
        hidden=(64,),
        lr=0.02,
        lr_schedule="cosine",
        batch_size=batch_size,
        epochs=2000 * batch_size // 400,
        display=False,
    )
    x = run.data.train.values()
    draws, (moments, second) = draws_of(run, x), exact(x)
    off = (draws["k"].double().mean(0) - second).abs().mean().item()
    print(f"responsibilities {off:.4f} off on average")
    return against(draws, moments) | {"k": (off, 0.0)}


if __name__ == "__main__":
    main()

"""A regression with an effect of each group: what all groups share, and what each has of its own.

    python -m examples.hierarchical_regression

    y_nj ~ Normal(effect_n + slope t_nj, 1),  effect_n ~ Normal(mean, 1),  mean, slope ~ Normal(0, 3)

A row of the data is a group: its outcomes y, and its covariates t, which the model reads without observing them.  All
is normal, so the posterior is a formula.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of

SIZE = 4  # of a group


def model(x: Tensor) -> None:
    """Groups of shape (N, 8): outcomes, then covariates."""
    y, t = x.chunk(2, 1)
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
    with pyro.plate("groups", len(x)):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        center = effect.unsqueeze(-1) + slope.unsqueeze(-1) * t
        pyro.sample("y", dist.Normal(center, 1.0).to_event(1), obs=y)


def make(num_groups: int = 250, seed: int = 0) -> np.ndarray:
    """Groups around a mean of 2, with a slope of -1."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(num_groups, SIZE))
    y = 2 + rng.normal(size=(num_groups, 1)) - t + rng.normal(size=t.shape)
    return np.concatenate([y, t], 1)


def exact(x: Tensor) -> dict[str, Moments]:
    """Mean and standard deviation of every latent, by the rules for linear maps of normals."""
    y, t = x.double().chunk(2, 1)
    design = torch.stack([torch.ones_like(t), t], -1)  # what the outcomes of a group are of mean and slope
    inverse = (torch.ones(SIZE, SIZE) + torch.eye(SIZE)).double().inverse()  # of the covariance of y given these
    covariance = (torch.eye(2) / 9 + (design.mT @ inverse @ design).sum(0)).inverse()
    both = covariance @ (design.mT @ inverse @ y[..., None]).sum(0)[:, 0]
    shrunk = 1 / (SIZE + 1)  # the variance of an effect given mean and slope
    pull = shrunk * torch.stack([torch.ones(len(t)), -t.sum(1)], 1)  # what the effect is of them, then
    widths = covariance.diagonal().sqrt()
    return {
        "mean": (both[0], widths[0]),
        "slope": (both[1], widths[1]),
        "effect": (pull @ both + shrunk * y.sum(1), (shrunk + ((pull @ covariance) * pull).sum(1)).sqrt()),
    }


def main(batch_size: int = 100) -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from the posterior."""
    run = pyro_vae.fit(
        model,
        "mean_field",
        data=make(),
        objective="stl",
        hidden=(64,),
        lr=0.01,
        lr_schedule="cosine",
        batch_size=batch_size,
        epochs=2500 * batch_size // 200,
        display=False,
    )
    x = run.data.train.values()
    return against(draws_of(run, x), exact(x))


if __name__ == "__main__":
    main()

"""Eight schools, with five hundred: effects of groups that share a mean and a spread.

    python -m examples.eight_schools

    y_n ~ Normal(effect_n, error_n),  effect_n ~ Normal(mean, spread),  mean ~ Normal(0, 5),  spread ~ HalfCauchy(5)

A row of the data is an estimate and its standard error (Rubin 1981; Gelman et al., *Bayesian Data Analysis*, section
5.5).  In the guide the effect of a school is encoded from its row and from the two numbers that all schools share, and
training sees a hundred schools at a time.  The posterior is known: given the spread everything is normal, and the
spread is one number, which a sum over a grid integrates out.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of


def model(x: Tensor) -> None:
    """Schools of shape (N, 2): an estimate and its standard error."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(x)):
        effect = pyro.sample("effect", dist.Normal(mean, spread))
        pyro.sample("y", dist.Normal(effect, x[:, 1]), obs=x[:, 0])


def make(num_schools: int = 500, seed: int = 0) -> np.ndarray:
    """Schools with a mean of 4, a spread of 6 and errors from 3 to 12."""
    rng = np.random.default_rng(seed)
    error = rng.uniform(3, 12, num_schools)
    return np.stack([rng.normal(4, np.sqrt(6**2 + error**2)), error], 1)


def exact(x: Tensor) -> dict[str, Moments]:
    """Mean and standard deviation of every latent, by a sum over a grid of spreads."""
    y, error = x.double().T
    spread = torch.linspace(0.01, 20, 4000, dtype=torch.float64)[:, None]
    variance = spread.square() + error.square()  # of y given mean and spread
    precision = 1 / 25 + (1 / variance).sum(1)  # of the mean given y and spread
    mean = (y / variance).sum(1) / precision
    evidence = dist.Normal(0.0, variance.sqrt()).log_prob(y).sum(1) + (precision * mean**2 - precision.log()) / 2
    weights = (dist.HalfCauchy(5.0).log_prob(spread[:, 0]) + evidence).softmax(0)
    kept = spread.square() / variance  # the share of its own estimate in the effect of a school

    def moments(centers: Tensor, variances: Tensor) -> Moments:
        center = weights @ centers
        return center, (weights @ (variances + (centers - center).square())).sqrt()

    return {
        "mean": moments(mean, 1 / precision),
        "spread": moments(spread[:, 0], torch.zeros_like(mean)),
        "effect": moments(
            kept * y + (1 - kept) * mean[:, None],
            kept * error.square() + (1 - kept).square() / precision[:, None],
        ),
    }


def main(batch_size: int = 100) -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from the posterior."""
    run = pyro_vae.fit(
        model,
        "mean_field",
        data=make(),
        objective="stl",  # much less noisy than the plain bound where latents are shared
        hidden=(64,),
        lr=0.02,
        lr_schedule="cosine",
        batch_size=batch_size,
        epochs=2500 * batch_size // 400,
        display=False,
    )
    x = run.data.train.values()
    return against(draws_of(run, x), exact(x))


if __name__ == "__main__":
    main()

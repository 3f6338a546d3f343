"""A chain of hidden states in time, seen with noise, in sequences of unequal length: one guide for every step.

    python -m examples.state_space

    z_1 ~ Normal(0, 1),  z_t ~ Normal(0.9 z_{t-1}, 0.5),  x_t ~ Normal(z_t, 0.5)

Sequences are padded with NaN, and the model's masks say which steps there are.  All is normal, so the posterior of a
row's states is a formula; q(z_t given z_{t-1}, x) is a normal in it, too, and ``mean_field`` can be exact.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

import pyro_vae
from examples.compare import Moments, against, draws_of

STEPS, DECAY, MOVE, NOISE = 8, 0.9, 0.5, 0.5


def model(x: Tensor) -> None:
    """Sequences of shape (N, T), NaN where one has ended."""
    there = ~x.isnan()
    with pyro.plate("sequences", len(x)):
        z = torch.zeros(len(x))
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=there[:, t]):  # type: ignore[call-overload]  # takes any tensor of truth values
                z = pyro.sample(f"z_{t}", dist.Normal(DECAY * z, MOVE if t else 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, NOISE), obs=x[:, t].nan_to_num())


def make(num_sequences: int = 1000, seed: int = 0) -> np.ndarray:
    """Sequences of three to eight steps."""
    rng = np.random.default_rng(seed)
    z, x = rng.normal(size=num_sequences), np.empty((num_sequences, STEPS))
    for t in range(STEPS):
        z = DECAY * z + MOVE * rng.normal(size=num_sequences) if t else z
        x[:, t] = z + NOISE * rng.normal(size=num_sequences)
    x[np.arange(STEPS) >= rng.integers(3, STEPS + 1, size=(num_sequences, 1))] = np.nan
    return x


def exact(x: Tensor) -> Moments:
    """Mean and standard deviation of every state that there is, row by row, by conditioning the joint normal."""
    after = torch.arange(STEPS).unsqueeze(1) - torch.arange(STEPS)
    effect = torch.where(after >= 0, DECAY ** after.clamp(min=0).double(), 0.0)  # of each step's own part on the later
    effect = effect * torch.tensor([1.0] + [MOVE] * (STEPS - 1))
    covariance, means, widths = effect @ effect.T, [], []
    for row in x.double():
        known = ~row.isnan()
        own = covariance[known][:, known]
        gain = own @ (own + NOISE**2 * torch.eye(len(own))).inverse()
        means.append(gain @ row[known])
        widths.append((own - gain @ own).diagonal().sqrt())
    return torch.cat(means), torch.cat(widths)


def main() -> dict[str, tuple[float, float]]:
    """Fit, and print how far the guide is from the posterior."""
    run = pyro_vae.fit(
        model,
        "mean_field",
        data=make(),
        missing="mask",
        hidden=(32,),
        lr=0.01,
        lr_schedule="cosine",
        epochs=250,
        batch_size=200,
        objective="stl",
        display=False,
    )
    x = run.data.train.values()[:200]
    drawn = draws_of(run, x)
    states = torch.stack([drawn[f"z_{t}"].reshape(-1, len(x)) for t in range(STEPS)], -1)
    return against({"z": states[:, ~x.isnan()]}, {"z": exact(x)})


if __name__ == "__main__":
    main()

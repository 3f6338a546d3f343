"""Programs of many kinds, of which a guide is made by name: what is local, shared, constrained, discrete, nested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

ROWS = 7
WEIGHTS = torch.tensor([[1.0, 0.5, -0.5, 2.0], [0.0, 1.0, 1.0, -1.0]])
MIXING = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])


def linear(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHTS, 0.5).to_event(1), obs=x)


def counts(x):
    with pyro.plate("people", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("counts", dist.Poisson(rate.unsqueeze(-1).expand((*rate.shape, 4))).to_event(1), obs=x)


def groups(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.HalfNormal(2.0))
    with pyro.plate("groups", len(x)):
        effect = pyro.sample("effect", dist.Normal(mean, spread))
        pyro.sample("x", dist.Normal(effect, 1.0), obs=x[:, 0])


def chain(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        below = pyro.sample("below", dist.Normal(top.unsqueeze(-1).expand((*top.shape, 2)), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(below @ WEIGHTS, 0.5).to_event(1), obs=x)


def clusters(x):
    locs = pyro.sample("locs", dist.Normal(torch.zeros(3), 3.0).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(logits=torch.zeros(3)))
        pyro.sample("x", dist.Normal(locs[k].unsqueeze(-1), 1.0).to_event(1), obs=x[:, :1])


def switch(x):
    with pyro.plate("data", len(x)):
        on = pyro.sample("on", dist.Bernoulli(0.4))
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHTS + on.unsqueeze(-1), 0.5).to_event(1), obs=x)


def bits(x):
    with pyro.plate("data", len(x)):
        code = pyro.sample("code", dist.Bernoulli(0.5 * torch.ones(2)).to_event(1))
        pyro.sample("x", dist.Normal(code @ WEIGHTS, 1.0).to_event(1), obs=x)


def births(x):
    with pyro.plate("data", len(x)):
        number = pyro.sample("number", dist.Poisson(3.0))
        pyro.sample("x", dist.Normal(number, 1.0), obs=x[:, 0])


def topics(x):
    with pyro.plate("documents", len(x)):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
        pyro.sample("words", dist.Multinomial(probs=shares @ MIXING, validate_args=False), obs=x)


def answers(x):
    with pyro.plate("questions", x.shape[1], dim=-1):
        hard = pyro.sample("hard", dist.Normal(0.0, 1.0))
    with pyro.plate("people", len(x), dim=-2):
        able = pyro.sample("able", dist.Normal(0.0, 1.0))
        with pyro.plate("questions_", x.shape[1], dim=-1):
            pyro.sample("x", dist.Bernoulli(logits=able - hard), obs=x)


def repeated(x):
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("repeats", x.shape[1], dim=-1):
        size = pyro.sample("size", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", dist.Normal(size, 0.5), obs=x)


def followed(x):
    """A plate outside of that over rows."""
    with pyro.plate("columns", x.shape[1], dim=-2), pyro.plate("rows", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x.T)


def explained(x, covariates):
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(covariates @ slope, 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x[:, :1])


def labelled(x, y=None):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2)), obs=y)
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHTS + y.unsqueeze(-1), 0.5).to_event(1), obs=x)


def alone(x):
    """Nothing but what all rows share."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x[:, 0])


def normal(rows: int = ROWS, seed: int = 0) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


def whole(rows: int = ROWS, seed: int = 0) -> Tensor:
    return torch.poisson(torch.full((rows, 4), 2.0), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Program:
    """A model, and what it is called with."""

    model: Callable[..., Any]
    data: Callable[..., Tensor] = normal
    covariates: bool = False
    one_number: bool = True  # whether a row has a latent of one number, which some families have no use for

    def arguments(self, rows: int = ROWS) -> tuple[Tensor, ...]:
        x = self.data(rows)
        return (x, normal(rows, seed=1)[:, :2]) if self.covariates else (x,)


PROGRAMS = {
    "linear": Program(linear, one_number=False),
    "counts": Program(counts, whole),
    "groups": Program(groups),
    "chain": Program(chain),
    "clusters": Program(clusters, one_number=False),
    "switch": Program(switch, one_number=False),
    "bits": Program(bits, one_number=False),
    "births": Program(births, one_number=False),
    "topics": Program(topics, lambda *a: torch.tensor([[3.0, 1, 0, 2]]).expand(a[0] if a else ROWS, 4)),
    "answers": Program(answers, lambda *a: normal(*a).gt(0).float()),
    "repeated": Program(repeated, lambda *a: normal(*a).exp(), one_number=False),
    "followed": Program(followed, one_number=False),
    "explained": Program(explained, covariates=True),
    "labelled": Program(labelled, one_number=False),
    "alone": Program(alone, one_number=False),
}

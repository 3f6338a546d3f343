"""Guides that are asked for by name, for programs of one's own; and guides that put each row into one point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import Tensor

from benchmarks.programs import discrete, families, gaussian, shared
from benchmarks.programs.gaussian import GAIN, S, W, answers, shift, to
from benchmarks.programs.kinds import Answers, Kind, Program, register
from pyro_vae import Run

NAMED: dict[str, Any] = {"epochs": 120, "lr": 0.004, "batch_size": 40}


def _gap(nll: Callable[[Tensor], Tensor]) -> Callable[[Run], float]:
    """How far the bound is from the likelihood of the rows that were trained on."""

    def distance(run: Run) -> float:
        exact = nll(run.data.train.values()).mean()
        return float(-run.evaluate("train", num_samples=50)["elbo"] - exact)

    return distance


def _named(name: str, programs: Callable[[], tuple[Program, str]], own: Callable[[], Answers], **changes: Any) -> None:
    register(Kind(f"guide by name: {name}", programs, own, **({"settings": NAMED} | changes)))


_named("mean_field", lambda: (gaussian.model, "mean_field"), answers(fit=_gap(gaussian.nll), tolerance=0.15))


def _correlated() -> tuple[Program, str]:
    """Its posterior does not factorize: the prior's covariance is that of z turned, so that x is what it was."""
    turn = torch.tensor([[0.8, 0.6], [0.6, 0.8]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            v = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), turn @ turn.T))
            pyro.sample("x", dist.Normal(v @ torch.linalg.inv(turn).mT @ to(W), S).to_event(1), obs=x)

    return model, "full_rank"


_named(
    "full_rank, latents that depend on each other",
    _correlated,
    answers(
        fit=_gap(gaussian.nll),
        mean=lambda x: x.double() @ GAIN @ torch.tensor([[0.8, 0.6], [0.6, 0.8]]).double(),
        tolerance=0.15,
    ),
)

_named(
    "mean_field, a positive latent",
    lambda: (families.counts()[0], "mean_field"),
    lambda: families.counts_answers(fit=_gap(families.counts_answers().nll), tolerance=0.15),
    site="rate",
    exact=False,
)

_named(
    "mean_field, discrete",
    lambda: (discrete.model, "mean_field"),
    discrete.answers(fit=_gap(discrete.nll), tolerance=0.15),
)

_named(
    "mean_field, discrete, summed out in the model",
    lambda: (config_enumerate(discrete.model), "mean_field"),
    discrete.answers(fit=_gap(discrete.nll), tolerance=0.15),
)


def _shared_fit(run: Run) -> float:
    """How far the shared latent's mean is from that of its posterior, in quarters of the posterior's spread."""
    train = run.data.train.values()
    shared.remember(train)
    mean, spread = shared.posterior(train)
    draws = torch.as_tensor(run.to_arviz(num_data=2, num_draws=400)["posterior"]["w"].to_numpy())[0].double()
    return float(((draws.mean(0) - mean) / spread).abs().max() / 4)


_named(
    "mean_field, a latent that all rows share beside those of each",
    lambda: (shared.global_local()[0], "mean_field"),
    shared.answers(
        fit=_shared_fit,
        mean=lambda x: (x.double() - shared.trained_mean()) / 2,
        reconstruction=lambda x: (x.double() + shared.trained_mean()) / 2,
        tolerance=0.15,
    ),
    exact=False,
)


def _points() -> tuple[Program, Program]:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ to(GAIN) + shift(), event_dim=1))

    return gaussian.model, guide


gaussian.kind(
    "each row's latent as one point: Delta in the guide",
    _points,
    refused={name: "a density at the site 'z'" for name in ("evaluate", "criticise", "to_arviz")},
    exact=False,
)

"""Latents that all rows share: their posterior is that given all training rows, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor

from benchmarks.programs.kinds import NUM_ROWS, Answers, Kind, Program, register

TRUTH = torch.tensor([0.7, -0.4])
PRIOR = 0.5


def _data() -> Tensor:
    return TRUTH + torch.randn(NUM_ROWS, 2, generator=torch.Generator().manual_seed(8))


def posterior(train: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior of the mean of rows with variance 1, under N(0, PRIOR^2)."""
    precision = 1 / PRIOR**2 + len(train)
    return train.double().sum(0) / precision, torch.full((2,), precision**-0.5, dtype=torch.float64)


def _w_guide() -> Tensor:
    loc = pyro.param("loc", torch.zeros(2))
    scale = pyro.param("scale", 0.1 * torch.ones(2), dist.constraints.positive)
    return pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def _predictive(rows: Callable[[], Tensor]) -> Callable[[Tensor], Tensor]:
    """Minus the log-density of each row given the training rows: that of the exact posterior predictive."""

    def nll(x: Tensor) -> Tensor:
        mean, spread = posterior(rows())
        return -dist.Normal(mean, (1 + spread.square()).sqrt()).log_prob(x.double()).sum(-1)

    return nll


_TRAIN: list[Tensor] = []  # the rows of the last fit: which they are is for the split to say


def remember(train: Tensor) -> None:
    """Keep the rows that were trained on, which the answers depend on."""
    _TRAIN[:] = [train]


def trained_mean() -> Tensor:
    """The posterior mean of w given the rows that were trained on last."""
    return posterior(_TRAIN[0])[0]


def answers(**changes: Any) -> Callable[[], Answers]:
    def fit(run: Any) -> float:
        remember(run.data.train.values())
        mean, spread = posterior(_TRAIN[0])
        found = run.pair.parameters()
        errors = (found["loc"] - mean) / spread, found["scale"].detach() - spread.log()
        return float(torch.cat(errors).detach().abs().max() / 4)  # a quarter of the posterior's spread is near enough

    def data() -> tuple[Tensor, Tensor]:
        return TRUTH, torch.ones(2)

    known: dict[str, Any] = {
        "x": _data(),
        "nll": _predictive(lambda: _TRAIN[0]),
        "shared": lambda train: {"w": posterior(train)},
        "reconstruction": lambda x: posterior(_TRAIN[0])[0].expand(len(x), 2),
        "fit": fit,
    }
    return lambda: Answers(**(known | changes))


def _global() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), PRIOR).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        _w_guide()

    return model, guide


LONG: dict[str, Any] = {"epochs": 150, "lr": 0.05, "batch_size": 60, "lr_schedule": "cosine"}
register(
    Kind(
        "latent that all rows share",
        _global,
        answers(),
        site=None,
        settings=LONG,
        refused={"encode": "latent site for each datum"},
    )
)


def global_local() -> tuple[Program, Program]:
    """A shared mean, and a latent of each row: x | w, z ~ N(w + z, 1/2), z ~ N(0, 1/2), so that x | w ~ N(w, 1)."""
    half = 0.5**0.5

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), PRIOR).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), half).to_event(1))
            pyro.sample("x", dist.Normal(w + z, half).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        w = _w_guide()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - w) / 2, 0.5).to_event(1))

    return model, guide


register(
    Kind(
        "latents of each row beside those that all share",
        global_local,
        answers(
            mean=lambda x: (x.double() - posterior(_TRAIN[0])[0]) / 2,
            reconstruction=lambda x: (x.double() + posterior(_TRAIN[0])[0]) / 2,
        ),
        settings=LONG,
    )
)


def _said_size() -> tuple[Program, Program]:
    """The plate says that there are 2,400 rows, ten times those of the training set."""

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), PRIOR).to_event(1))
        with pyro.plate("data", 2400, subsample=torch.arange(len(x))):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        _w_guide()

    return model, guide


def _tenfold(train: Tensor) -> Tensor:
    return train.repeat(10, 1)


def _said_fit(run: Any) -> float:
    _TRAIN[:] = [_tenfold(run.data.train.values())]
    mean, spread = posterior(_TRAIN[0])
    found = run.pair.parameters()
    return float(torch.cat([(found["loc"] - mean) / spread, found["scale"] - spread.log()]).detach().abs().max() / 4)


register(
    Kind(
        "shared latent, plate that says how many rows there are",
        _said_size,
        answers(fit=_said_fit, shared=lambda train: {"w": posterior(_tenfold(train))}),
        site=None,
        settings=LONG,
        refused={"encode": "latent site for each datum"},
        exact=False,
    )
)


def _automatic() -> tuple[Program, Program]:
    model, _ = _global()
    return model, AutoNormal(model, init_scale=0.1)


def _automatic_fit(run: Any) -> float:
    _TRAIN[:] = [run.data.train.values()]
    mean, spread = posterior(_TRAIN[0])
    guide = run.pair.guide
    return float(torch.cat([(guide.locs.w - mean) / spread, (guide.scales.w / spread).log()]).detach().abs().max() / 4)


register(
    Kind(
        "AutoNormal for a shared latent",
        _automatic,
        answers(fit=_automatic_fit),
        site=None,
        settings=LONG,
        refused={"encode": "latent site for each datum"},
    )
)


def _local_automatic() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model, AutoNormal(model)


register(
    Kind(
        "AutoNormal for a latent of each row",
        _local_automatic,
        answers(),
        refused={"fit": "any number of rows"},
    )
)

MEANS = torch.tensor([-2.0, 2.0])


def _mixture() -> tuple[Program, Program]:
    """The mixture of the tutorials: weights and means by AutoDelta, assignments summed out in the model."""

    def model(x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(2.0 * torch.ones(2)))
        with pyro.plate("components", 2):
            means = pyro.sample("means", dist.Normal(MEANS / 2, 5.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(means[k].unsqueeze(-1), 1.0).to_event(1), obs=x)

    return config_enumerate(model), AutoDelta(poutine.block(model, expose=["weights", "means"]))


def _mixture_data() -> Tensor:
    generator = torch.Generator().manual_seed(9)
    k = (torch.rand(NUM_ROWS, generator=generator) < 0.6).long()
    return (MEANS[k] + torch.randn(NUM_ROWS, generator=generator)).unsqueeze(1)


def _map_mixture(train: Tensor) -> tuple[Tensor, Tensor]:
    """The mode of weights and means given the training rows, by expectation and maximization."""
    x, weights, means = train.double(), torch.tensor([0.5, 0.5]).double(), MEANS.double()
    for _ in range(200):
        log_joint = weights.log() + dist.Normal(means, 1.0).log_prob(x)
        counts = log_joint.softmax(1)
        weights = (1.0 + counts.sum(0)) / (2.0 + len(x))
        means = ((counts * x).sum(0) + MEANS.double() / 2 / 25) / (counts.sum(0) + 1 / 25)
    return weights, means


def _mixture_fit(run: Any) -> float:
    _TRAIN[:] = [run.data.train.values()]
    weights, means = _map_mixture(_TRAIN[0])
    guide = run.pair.guide
    return float(torch.cat([guide.weights - weights, guide.means - means]).detach().abs().max())


def _mixture_log_joint(x: Tensor) -> Tensor:
    weights, means = _map_mixture(_TRAIN[0])
    return weights.log() + dist.Normal(means, 1.0).log_prob(x.double())


register(
    Kind(
        "mixture with shared means by AutoDelta, assignments summed out",
        _mixture,
        answers(
            x=_mixture_data(),
            nll=lambda x: -_mixture_log_joint(x).logsumexp(1),
            shared=None,
            reconstruction=lambda x: (_mixture_log_joint(x).softmax(1) @ _map_mixture(_TRAIN[0])[1]).unsqueeze(1),
            fit=_mixture_fit,
        ),
        site=None,
        settings=LONG,
        refused={"encode": "latent site for each datum"},
        exact=False,
    )
)


def _no_latents() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, lambda x: None


def _mean_fit(run: Any) -> float:
    _TRAIN[:] = [run.data.train.values()]
    return float((run.pair.parameters()["loc"] - _TRAIN[0].mean(0)).detach().abs().max())


register(
    Kind(
        "no latent at all",
        _no_latents,
        answers(
            nll=lambda x: -dist.Normal(_TRAIN[0].double().mean(0), 1.0).log_prob(x.double()).sum(1),
            shared=None,
            reconstruction=lambda x: _TRAIN[0].double().mean(0).expand(len(x), 2),
            fit=_mean_fit,
        ),
        site=None,
        settings=LONG,
        refused={"encode": "latent site for each datum"},
        exact=False,
    )
)

"""Latents of bounded support, counts and 0 or 1, with conjugate answers."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.programs.kinds import NUM_ROWS, Answers, Kind, Program, register, trained

RATES = torch.tensor([1.0, 2.0, 3.0])
GAMMA = (2.0, 0.7)
BETA = (2.0, 1.5)
ALPHA = torch.tensor([1.5, 1.0, 0.5])


def _wide() -> Tensor:
    """What training has to bring to 1: the guide's concentrations are off by the factor."""
    return pyro.param("factor", torch.tensor(1.5), dist.constraints.positive)


def counts() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(*GAMMA))
            pyro.sample("x", dist.Poisson(rate.unsqueeze(-1) * RATES).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(_wide() * (GAMMA[0] + x.sum(1)), GAMMA[1] + RATES.sum()))

    return model, guide


def counts_answers(**changes: Any) -> Answers:
    """The answers of counts whose rate is a latent, some of them changed."""
    generator = torch.Generator().manual_seed(2)
    rate = torch._standard_gamma(torch.full((NUM_ROWS,), GAMMA[0]), generator=generator) / GAMMA[1]
    x = torch.poisson(rate.unsqueeze(1) * RATES, generator=generator)

    def nll(x: Tensor) -> Tensor:
        rate = torch.linspace(1e-4, 40.0, 40_000, dtype=torch.float64)
        shape, inverse_scale = torch.tensor(GAMMA, dtype=torch.float64)
        log_prior = dist.Gamma(shape, inverse_scale).log_prob(rate)
        joint = dist.Poisson(rate[:, None] * RATES.double()).log_prob(x.double().unsqueeze(1)).sum(-1) + log_prior
        return -(joint.logsumexp(1) + (rate[1] - rate[0]).log())

    def mean(x: Tensor) -> Tensor:
        return ((GAMMA[0] + x.double().sum(1)) / (GAMMA[1] + RATES.sum())).unsqueeze(1)

    prior, spread = GAMMA[0] / GAMMA[1], GAMMA[0] ** 0.5 / GAMMA[1]
    known: dict[str, Any] = {
        "x": x,
        "nll": nll,
        "mean": mean,
        "reconstruction": lambda x: mean(x) * RATES,
        "data": (prior * RATES, (prior * RATES + spread**2 * RATES**2).sqrt()),
        "fit": trained("factor", 0.0),
    }
    return Answers(**(known | changes))


def _bits() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(*BETA))
            pyro.sample("x", dist.Bernoulli(p.unsqueeze(-1).expand(*p.shape, 3)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        ones = x.sum(1)
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Beta(_wide() * (BETA[0] + ones), _wide() * (BETA[1] + 3 - ones)))

    return model, guide


def _bits_answers() -> Answers:
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(NUM_ROWS, 3, generator=generator) < torch.rand(NUM_ROWS, 1, generator=generator)).float()
    a, b = (torch.tensor(value, dtype=torch.float64) for value in BETA)

    def log_beta(a: Tensor, b: Tensor) -> Tensor:
        return a.lgamma() + b.lgamma() - (a + b).lgamma()

    def mean(x: Tensor) -> Tensor:
        return ((a + x.double().sum(1)) / (a + b + 3)).unsqueeze(1)

    prior = float(a / (a + b))
    return Answers(
        x=x,
        nll=lambda x: log_beta(a, b) - log_beta(a + x.double().sum(1), b + 3 - x.double().sum(1)),
        mean=mean,
        reconstruction=lambda x: mean(x).expand(-1, 3),
        data=(torch.full((3,), prior), torch.full((3,), (prior * (1 - prior)) ** 0.5)),
        fit=trained("factor", 0.0),
    )


def _simplex() -> tuple[Program, Program]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(ALPHA))
            pyro.sample("x", dist.Multinomial(8, p), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet(_wide() * (ALPHA + x)))

    return model, guide


def _simplex_answers() -> Answers:
    generator = torch.Generator().manual_seed(2)
    p = torch.softmax(torch.randn(NUM_ROWS, 3, generator=generator), 1)
    picked = torch.multinomial(p, 8, replacement=True, generator=generator)
    x = torch.nn.functional.one_hot(picked, 3).sum(1).float()

    def nll(x: Tensor) -> Tensor:
        return -dist.DirichletMultinomial(ALPHA.double(), torch.tensor(8.0)).log_prob(x.double())

    def mean(x: Tensor) -> Tensor:
        return (ALPHA + x).double() / (ALPHA.sum() + 8)

    moments = dist.DirichletMultinomial(ALPHA, torch.tensor(8.0))
    return Answers(
        x=x,
        nll=nll,
        mean=mean,
        reconstruction=lambda x: 8 * mean(x),
        data=(moments.mean, moments.variance.sqrt()),
        fit=trained("factor", 0.0),
    )


def _codes() -> tuple[Program, Program]:
    """Whole numbers that name categories; z is not used, so that everything is known."""
    logits = torch.tensor([0.0, 1.0, 2.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Categorical(logits=logits.expand(len(x), 2, 3)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("shift", torch.tensor(0.5)), 1.0))

    return model, guide


def _codes_answers() -> Answers:
    log_probs = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).log_softmax(0)
    probs, values = log_probs.exp(), torch.arange(3.0, dtype=torch.float64)
    first = (probs * values).sum()
    second = ((probs * values.square()).sum() - first**2).sqrt()
    generator = torch.Generator().manual_seed(2)
    return Answers(
        x=torch.multinomial(probs, 2 * NUM_ROWS, replacement=True, generator=generator).reshape(-1, 2).float(),
        nll=lambda x: -log_probs[x.long()].sum(1),
        mean=lambda x: torch.zeros(len(x), 1),
        data=(first.expand(2), second.expand(2)),
    )


kinds: list[tuple[str, Any, Any, str, dict[str, str]]] = [
    ("positive latent, counts", counts, counts_answers, "rate", {}),
    ("latent between 0 and 1, 0 or 1 observed", _bits, _bits_answers, "p", {}),
    ("latent on the simplex", _simplex, _simplex_answers, "p", {}),
    ("categories observed", _codes, _codes_answers, "z", {"reconstruct": "mean=False"}),
]
for name, programs, found, site, refused in kinds:
    register(Kind(name, programs, found, site=site, refused=refused, settings={"epochs": 150, "lr": 0.05}))

r"""Discrete latents: k is one of three with probabilities PI, x | k ~ N(mu_k, I), so that sums over k are exact.

A latent z, normal whatever x is, gives training something to do: its guide starts off by ``shift``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import Tensor

from benchmarks.programs.kinds import NUM_ROWS, Answers, Kind, Program, register

PI = torch.tensor([0.5, 0.3, 0.2])
MU = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]])


def _data() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    k = torch.multinomial(PI, NUM_ROWS, replacement=True, generator=generator)
    return MU[k] + torch.randn(NUM_ROWS, 2, generator=generator)


def _log_joint(x: Tensor) -> Tensor:
    """Log p(x, k), shape (N, 3)."""
    return PI.double().log() + dist.Normal(MU.double(), 1.0).log_prob(x.double().unsqueeze(1)).sum(-1)


def nll(x: Tensor) -> Tensor:
    return -_log_joint(x).logsumexp(1)


def _reconstruction(x: Tensor) -> Tensor:
    return _log_joint(x).softmax(1) @ MU.double()


def answers(**changes: Any) -> Callable[[], Answers]:
    mean = PI @ MU
    spread = (1 + PI @ MU.square() - mean.square()).sqrt()
    known: dict[str, Any] = {
        "x": _data(),
        "nll": nll,
        "mean": lambda x: torch.zeros(len(x), 1),
        "reconstruction": _reconstruction,
        "data": (mean, spread),
    }
    return lambda: Answers(**(known | changes))


def _shift() -> Tensor:
    return pyro.param("shift", torch.tensor(0.5))


def _z() -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


def _z_guide() -> None:
    pyro.sample("z", dist.Normal(_shift(), 1.0))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(PI))
        _z()
        pyro.sample("x", dist.Normal(MU[k], 1.0).to_event(1), obs=x)


def _guide(**infer: Any) -> Program:
    def guide(x: Tensor) -> None:
        logits = PI.log() + dist.Normal(MU, 1.0).log_prob(x.unsqueeze(1)).sum(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits), infer=cast(Any, infer or None))
            _z_guide()

    return guide


def _z_alone(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        _z_guide()


def _kind(name: str, programs: Callable[[], tuple[Program, Program]], **changes: Any) -> None:
    register(Kind(name, programs, changes.pop("answers", answers()), **changes))


_kind("discrete, enumerated in the guide", lambda: (model, _guide(enumerate="parallel")))
_kind("discrete, enumerated in the model", lambda: (config_enumerate(model), _z_alone))


def _vector(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.OneHotCategorical(PI))
        _z()
        pyro.sample("x", dist.Normal(k @ MU, 1.0).to_event(1), obs=x)


_kind("discrete, a one-hot vector, summed out in the model", lambda: (config_enumerate(_vector), _z_alone))
_kind("discrete, enumerated in model and guide alike", lambda: (config_enumerate(model), config_enumerate(_guide())))
_kind(
    "discrete, enumerated one value at a time",
    lambda: (model, _guide(enumerate="sequential")),
    refused={"criticise": "enumerate", "to_arviz": "enumerate"},
)
_kind("discrete, sampled", lambda: (model, _guide()), refused={"criticise": "enumerate", "to_arviz": "enumerate"})


def _two_discrete() -> tuple[Program, Program]:
    """K summed over in the guide, and which of two spreads applies, in the model."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(PI))
            wide = pyro.sample("wide", dist.Bernoulli(0.25), infer={"enumerate": "parallel"})
            _z()
            spread = (1 + wide).unsqueeze(-1)
            pyro.sample("x", dist.Normal(MU[k], spread).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        logits = _both(x).logsumexp(2).float()
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            _z_guide()

    return model, guide


def _both(x: Tensor) -> Tensor:
    """Log p(x, k, wide), shape (N, 3, 2)."""
    spreads = torch.tensor([1.0, 2.0], dtype=torch.float64)
    log_weights = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    likelihood = dist.Normal(MU.double()[:, None], spreads[:, None]).log_prob(x.double()[:, None, None]).sum(-1)
    return PI.double().log()[:, None] + log_weights + likelihood


_BOTH_SPREAD = (0.75 + 0.25 * 4 + PI @ MU.square() - (PI @ MU).square()).sqrt()
_kind(
    "discrete, one enumerated in the guide and one in the model",
    _two_discrete,
    answers=answers(
        nll=lambda x: -_both(x).flatten(1).logsumexp(1),
        reconstruction=lambda x: _both(x).logsumexp(2).softmax(1) @ MU.double(),
        data=(PI @ MU, _BOTH_SPREAD),
    ),
)


def _clusters() -> tuple[Program, Program]:
    """The prior of z is a mixture that is summed out: z | k ~ N(mu_k, I), x | z ~ N(z, I)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(PI), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(MU[k], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        logits = _log_clusters(x).float()
        parts = dist.Normal((MU + x.unsqueeze(1)) / 2 + 0 * _shift(), 0.5**0.5).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=logits), parts))

    return model, guide


def _log_clusters(x: Tensor) -> Tensor:
    return PI.double().log() + dist.Normal(MU.double(), 2**0.5).log_prob(x.double().unsqueeze(1)).sum(-1)


def _cluster_mean(x: Tensor) -> Tensor:
    weights = _log_clusters(x).softmax(1)
    return (weights.unsqueeze(-1) * (MU + x.unsqueeze(1)).double() / 2).sum(1)


_kind(
    "mixture prior, summed out in the model",
    _clusters,
    answers=answers(
        nll=lambda x: -_log_clusters(x).logsumexp(1),
        mean=_cluster_mean,
        reconstruction=_cluster_mean,
        data=(PI @ MU, (2 + PI @ MU.square() - (PI @ MU).square()).sqrt()),
        fit=lambda run: 0.0,
    ),
)

STAY = 0.8
LEVELS = torch.tensor([-1.5, 1.5])
STEPS = 4


def _chain() -> tuple[Program, Program]:
    """A row is a short series, its hidden states a Markov chain that is summed out."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            _z()
            state: Any = None
            for t in pyro.markov(range(STEPS)):
                stay = torch.tensor([1 - STAY, STAY])
                p = torch.tensor(0.5) if state is None else stay[state.long()]
                state = pyro.sample(f"state_{t}", dist.Bernoulli(p))
                pyro.sample(f"x_{t}", dist.Normal(LEVELS[state.long()], 1.0), obs=x[:, t])

    return config_enumerate(model), _z_alone


def _chain_log_joint(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every path of states, shape (16, STEPS), and log p(x, path), shape (N, 16)."""
    paths = torch.cartesian_prod(*[torch.arange(2)] * STEPS)
    moves = torch.tensor([[STAY, 1 - STAY], [1 - STAY, STAY]], dtype=torch.float64).log()
    prior = 0.5 * torch.ones(len(paths), dtype=torch.float64)
    log_prior = prior.log() + sum(moves[paths[:, t - 1], paths[:, t]] for t in range(1, STEPS))
    levels = LEVELS.double()[paths]
    return levels, log_prior + dist.Normal(levels, 1.0).log_prob(x.double().unsqueeze(1)).sum(-1)


def _chain_data() -> Tensor:
    generator = torch.Generator().manual_seed(6)
    state = torch.rand(NUM_ROWS, generator=generator) < 0.5
    columns = []
    for _ in range(STEPS):
        columns.append(LEVELS[state.long()] + torch.randn(NUM_ROWS, generator=generator))
        state = state ^ (torch.rand(NUM_ROWS, generator=generator) > STAY)
    return torch.stack(columns, 1)


def _chain_reconstruction(x: Tensor) -> Tensor:
    levels, log_joint = _chain_log_joint(x)
    return log_joint.softmax(1) @ levels


_kind(
    "hidden Markov chain, summed out in the model",
    _chain,
    answers=answers(
        x=_chain_data(),
        nll=lambda x: -_chain_log_joint(x)[1].logsumexp(1),
        reconstruction=_chain_reconstruction,
        data=(torch.zeros(STEPS), (1 + LEVELS[1] ** 2).sqrt().expand(STEPS)),
    ),
)


def _parts() -> tuple[Program, Program]:
    """Each of a row's two entries has a component of its own, in a plate inside that over the rows."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            _z()
            with pyro.plate("parts", 2, dim=-1):
                k = pyro.sample("k", dist.Categorical(PI))
                pyro.sample("x", dist.Normal(MU[k, 0], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            _z_guide()

    return config_enumerate(model), guide


def _parts_log_joint(x: Tensor) -> Tensor:
    return PI.double().log() + dist.Normal(MU[:, 0].double(), 1.0).log_prob(x.double().unsqueeze(-1))


_kind(
    "discrete in a nested plate, summed out in the model",
    _parts,
    answers=answers(
        nll=lambda x: -_parts_log_joint(x).logsumexp(-1).sum(1),
        reconstruction=lambda x: _parts_log_joint(x).softmax(-1) @ MU[:, 0].double(),
        data=(
            (PI @ MU[:, 0]).expand(2),
            (1 + PI @ MU[:, 0].square() - (PI @ MU[:, 0]).square()).sqrt().expand(2),
        ),
    ),
)

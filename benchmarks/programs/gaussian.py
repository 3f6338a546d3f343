r"""The Gaussian answers that most kinds share: z ~ N(0, I) and x | z ~ N(z W, s^2 I), so that all else is normal.

The rows of W are orthogonal, so that the posterior factorizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.programs.kinds import NUM_ROWS, Answers, Kind, Program, register, trained

W = torch.tensor([[1.2, 0.9, 0.0], [0.0, 0.0, 1.5]], dtype=torch.float64)
S = 0.8
SPREAD = (1 / (1 + (W @ W.T).diagonal() / S**2)).sqrt()  # of the posterior
GAIN = (W.T / S**2) * SPREAD**2  # E[z | x] = x GAIN
COVARIANCE = W.T @ W + S**2 * torch.eye(3, dtype=torch.float64)


def to(value: Tensor) -> Tensor:
    """A constant in torch's default dtype."""
    return value.to(torch.get_default_dtype())


def shift() -> Tensor:
    """What training has to bring to 0: the guide's means are off by it."""
    return pyro.param("shift", 0.5 * torch.ones(2))


def draws(num: int = NUM_ROWS) -> Tensor:
    """Data of the model."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(num, 5, generator=generator, dtype=torch.float64)
    return to(noise[:, :2] @ W + S * noise[:, 2:])


def nll(x: Tensor) -> Tensor:
    return -dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), COVARIANCE).log_prob(x.double())


def answers(**changes: Any) -> Callable[[], Answers]:
    """The answers, some of them changed."""

    def make() -> Answers:
        known: dict[str, Any] = {
            "x": draws(),
            "nll": nll,
            "mean": lambda x: x.double() @ GAIN,
            "reconstruction": lambda x: x.double() @ GAIN @ W,
            "data": (torch.zeros(3), COVARIANCE.diagonal().sqrt()),
        }
        return Answers(**(known | changes))

    return make


def sample_z(loc: Tensor) -> Tensor:
    return pyro.sample("z", dist.Normal(loc, to(SPREAD)).to_event(1))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        sample_z(x @ to(GAIN) + shift())


def kind(name: str, programs: Callable[[], tuple[Program, Program]], **changes: Any) -> None:
    """Enter a kind with the Gaussian answers."""
    own = changes.pop("answers", answers())
    register(Kind(name, programs, own, **changes))


kind("functions", lambda: (model, guide))


def _other_names() -> tuple[Program, Program]:
    def other_model(pixels: Tensor) -> None:
        with pyro.plate("rows", pixels.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("counts", dist.Normal(z @ to(W), S).to_event(1), obs=pixels)

    def other_guide(pixels: Tensor) -> None:
        with pyro.plate("rows", pixels.shape[0]):
            sample_z(pixels @ to(GAIN) + shift())

    return other_model, other_guide


kind("plate and observation by other names", _other_names)


def _annealed() -> tuple[Program, Program]:
    def scaled_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=0.1):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x)

    def scaled_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.1):
            sample_z(x @ to(GAIN) + 0 * shift())

    return scaled_model, scaled_guide


kind("KL annealed by poutine.scale", _annealed, answers=answers(fit=trained("shift", 0.5)))


def _subsampled() -> tuple[Program, Program]:
    def plate(x: Tensor) -> Any:
        return pyro.plate("data", 1000, subsample=torch.arange(len(x)))

    def part_model(x: Tensor) -> None:
        with plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x)

    def part_guide(x: Tensor) -> None:
        with plate(x):
            sample_z(x @ to(GAIN) + shift())

    return part_model, part_guide


kind("plate that says how many rows there are", _subsampled)


def _random_rows() -> tuple[Program, Program]:
    def some_model(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x[rows])

    def some_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            sample_z(x[rows] @ to(GAIN) + shift())

    return some_model, some_guide


kind("rows drawn at random by the program", _random_rows, refused={"fit": "at random"})


def _deterministic() -> tuple[Program, Program]:
    def noting_model(x: Tensor) -> None:
        pyro.deterministic("noise", torch.tensor(S))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.deterministic("loc", z @ to(W), event_dim=1)
            pyro.sample("x", dist.Normal(loc, S).to_event(1), obs=x)

    return noting_model, guide


kind("deterministic sites", _deterministic)


def _factor() -> tuple[Program, Program]:
    def custom_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ to(W)
            pyro.sample("x", dist.Normal(loc[..., :2], S).to_event(1), obs=x[:, :2])
            pyro.factor("third", dist.Normal(loc[..., 2], S).log_prob(x[:, 2]))

    return custom_model, guide


kind(
    "part of the likelihood as a factor",
    _factor,
    answers=answers(reconstruction=lambda x: torch.cat([(x.double() @ GAIN @ W)[:, :2], x.double()[:, 2:]], 1)),
    refused={"sample": "factor"},
)


def _penalty() -> tuple[Program, Program]:
    def penalized_model(x: Tensor) -> None:
        bias = pyro.param("bias", torch.zeros(()))
        pyro.factor("penalty", -1e6 * bias.square())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ to(W) + bias, S).to_event(1), obs=x)

    return penalized_model, guide


kind("penalty on parameters as a factor", _penalty, refused={"sample": "factor"}, settings={"epochs": 300})

MISSING = -99.0


def _hidden(x: Tensor) -> Tensor:
    return x.eq(MISSING)


def _seen(x: Tensor) -> Any:
    return ~_hidden(x)


def _with_missing() -> Tensor:
    x = draws()
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.3] = MISSING
    return x


def _given_seen(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and spread of z given the entries that are seen, and their negative log-likelihood."""
    means, spreads, nlls = [], [], []
    for row in x.double():
        seen = row.ne(MISSING)
        weights, value = W[:, seen], row[seen]
        precision = torch.eye(2, dtype=torch.float64) + weights @ weights.T / S**2
        means.append(torch.linalg.solve(precision, weights @ value / S**2))
        spreads.append(precision.inverse().diagonal().sqrt())
        joint = COVARIANCE[seen][:, seen]
        some = bool(seen.any())
        nlls.append(
            -dist.MultivariateNormal(torch.zeros_like(value), joint).log_prob(value) if some else row.new_zeros(())
        )
    return torch.stack(means), torch.stack(spreads), torch.stack(nlls)


def _seen_posterior(x: Tensor) -> tuple[Tensor, Tensor]:
    """The best normals that factorize: those of the posterior's precisions."""
    weights = to(W) * ~_hidden(x).unsqueeze(1)  # (N, 2, 3)
    precision = 1 + weights.square().sum(-1) / S**2
    return (weights * x.unsqueeze(1)).sum(-1) / S**2 / precision, precision.rsqrt()


def _seen_guide(x: Tensor) -> None:
    loc, spread = _seen_posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc + shift(), spread).to_event(1))


def _masked() -> tuple[Program, Program]:
    def masked_model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("pixels", 3, dim=-1), pyro.poutine.mask(mask=_seen(x)):
                pyro.sample("x", dist.Normal((z @ to(W)).squeeze(-2), S), obs=x)

    def masked_guide(x: Tensor) -> None:
        loc, spread = _seen_posterior(x)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal((loc + shift()).unsqueeze(1), spread.unsqueeze(1)).to_event(1))

    return masked_model, masked_guide


def _masked_rows() -> tuple[Program, Program]:
    def masked_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ to(W), S).mask(~_hidden(x)).to_event(1), obs=x)

    return masked_model, _seen_guide


partly = answers(
    x=_with_missing(),
    nll=lambda x: _given_seen(x)[2],
    mean=lambda x: _given_seen(x)[0],
    reconstruction=lambda x: _given_seen(x)[0] @ W,
)
kind("partly observed: a masked distribution", _masked_rows, answers=partly)
kind("partly observed: poutine.mask in a plate of pixels", _masked, answers=partly)


def _several() -> tuple[Program, Program]:
    def two_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ to(W)
            pyro.sample("left", dist.Normal(loc[..., :2], S).to_event(1), obs=x[:, :2])
            pyro.sample("right", dist.Normal(loc[..., 2], S), obs=x[:, 2])

    return two_model, guide


kind("several observations", _several)


def _copies() -> tuple[Program, Program]:
    def copying_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ to(W)
            pyro.sample("ends", dist.Normal(loc[..., [0, 2]], S).to_event(1), obs=x[:, [0, 2]])
            pyro.sample("middle", dist.Normal(loc[..., 1], S), obs=x[:, 1].clone())

    return copying_model, guide


kind("observations of columns in another order", _copies)


def _covariate() -> tuple[Program, Program]:
    """The third entry is read, not observed: it is added to the first."""

    def reading_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + x[:, 2], 1.0), obs=x[:, 0])
            pyro.sample("w", dist.Normal(0.0, 1.0), obs=x[:, 1])

    def reading_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x[:, 0] - x[:, 2]) / 2 + shift()[0], 0.5**0.5))

    return reading_model, reading_guide


def _reading_nll(x: Tensor) -> Tensor:
    x = x.double()
    return -dist.Normal(x[:, 2], 2**0.5).log_prob(x[:, 0]) - dist.Normal(0.0, 1.0).log_prob(x[:, 1])


def _first_shift(run: Any) -> float:
    return abs(run.pair.parameters()["shift"][0].item())


kind(
    "covariates: entries that are read, not observed",
    _covariate,
    answers=answers(
        nll=_reading_nll,
        mean=lambda x: ((x[:, 0] - x[:, 2]) / 2).double().unsqueeze(1),
        reconstruction=lambda x: torch.stack(
            [(x[:, 0] - x[:, 2]) / 2 + x[:, 2], torch.zeros(len(x)), x[:, 2]], 1
        ).double(),
        fit=_first_shift,
    ),
    refused={"sample": "all of x"},
)


def _nested() -> tuple[Program, Program]:
    def nested_model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            first = pyro.sample("first", dist.Normal(0.0, 1.0))
            second = pyro.sample("second", dist.Normal(0.0, 1.0))
            with pyro.plate("parts", 3, dim=-1):
                pyro.sample("x", dist.Normal(first * to(W)[0] + second * to(W)[1], S), obs=x)

    def nested_guide(x: Tensor) -> None:
        loc = x @ to(GAIN) + shift()
        with pyro.plate("data", len(x), dim=-2):
            for i, name in enumerate(("first", "second")):
                pyro.sample(name, dist.Normal(loc[:, i : i + 1], to(SPREAD)[i]))

    return nested_model, nested_guide


kind(
    "nested plates",
    _nested,
    site="second",
    answers=answers(mean=lambda x: (x.double() @ GAIN)[:, 1:]),
)


def _hierarchy() -> tuple[Program, Program]:
    """Top ~ N(0, 1), z | top ~ N(top, 1), x | z ~ N(z, 1) in three entries."""

    def two_level_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(top, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, 3), 1.0).to_event(1), obs=x)

    def two_level_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.sum(1) / 3.5 + shift()[0], 3.5**-0.5))
            pyro.sample("top", dist.Normal(z / 2 + shift()[1], 0.5**0.5))

    return two_level_model, two_level_guide


_HIERARCHY = 2 * torch.ones(3, 3, dtype=torch.float64) + torch.eye(3, dtype=torch.float64)
kind(
    "nested latents, guide in another order",
    _hierarchy,
    answers=answers(
        nll=lambda x: -dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), _HIERARCHY).log_prob(x.double()),
        mean=lambda x: x.double().sum(1, keepdim=True) / 3.5,
        reconstruction=lambda x: (x.double().sum(1, keepdim=True) / 3.5).expand(-1, 3),
        data=(torch.zeros(3), 3**0.5 * torch.ones(3)),
    ),
)


def _auxiliary() -> tuple[Program, Program]:
    def auxiliary_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            noise = pyro.sample("noise", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
            loc = x @ to(GAIN) + shift() + to(SPREAD) * noise
            log_density = -to(SPREAD).log().sum().expand(len(x))
            pyro.sample("z", dist.Delta(loc, log_density, event_dim=1))

    return model, auxiliary_guide


kind("auxiliary site in the guide", _auxiliary)


def _one_at_a_time() -> tuple[Program, Program]:
    def joining_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            joined = torch.cat([z, 0 * x], -1)
            pyro.sample("x", dist.Normal(joined[:, :2] @ to(W), S).to_event(1), obs=x)

    return joining_model, guide


def _mixing() -> tuple[Program, Program]:
    """Side by side, ``z[:, 0]`` would be the first datum of all draws."""

    def indexing_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = torch.stack([z[:, 0] * to(W)[0, 0], z[:, 0] * to(W)[0, 1], z[:, 1] * to(W)[1, 2]], -1)
            pyro.sample("x", dist.Normal(loc, S).to_event(1), obs=x)

    return indexing_model, guide


kind("one draw at a time: a latent joined to x", _one_at_a_time)
kind("one draw at a time: z[:, 0]", _mixing)
kind("float64", lambda: (model, guide), float64=True)

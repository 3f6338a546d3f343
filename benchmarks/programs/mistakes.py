"""Programs with a mistake in them: refused in one line, before anything is written."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from benchmarks.programs.gaussian import GAIN, S, W, answers, guide, model, sample_z, shift, to
from benchmarks.programs.kinds import Kind, Program, register


def _mistake(name: str, model: Program, guide: Program, words: str) -> None:
    programs: Callable[[], tuple[Program, Program]] = lambda: (model, guide)  # noqa: E731
    register(Kind(name, programs, answers(), refused={"fit": words}))


def _bare(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x)


def _bare_guide(x: Tensor) -> None:
    sample_z(x @ to(GAIN) + shift())


_mistake("no plate at all", _bare, _bare_guide, "inside of a plate")


def _one_event(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))
    pyro.sample("x", dist.Normal(z @ to(W), S).to_event(2), obs=x)


def _one_event_guide(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(x @ to(GAIN) + shift(), 1.0).to_event(2))


_mistake("all rows in one event", _one_event, _one_event_guide, "inside of a plate")


def _no_event(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ to(W), S), obs=x)


_mistake("to_event forgotten", _no_event, guide, "")


def _unobserved(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


_mistake("no observation", _unobserved, guide, "observe")


def _forgetful(x: Tensor) -> None:
    shift()


_mistake("latent that the guide leaves out", model, _forgetful, "'z'")


def _inventive(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        sample_z(x @ to(GAIN) + shift())
        pyro.sample("other", dist.Normal(0.0, 1.0))


_mistake("latent that the model does not have", model, _inventive, "'other'")


def _loop(x: Tensor) -> None:
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z_{i}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample(f"x_{i}", dist.Normal(z @ to(W), S).to_event(1), obs=x[int(i)])


def _loop_guide(x: Tensor) -> None:
    loc = x @ to(GAIN) + shift()
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z_{i}", dist.Normal(loc[int(i)], S).to_event(1))


_mistake("a loop over the rows", _loop, _loop_guide, "loop")


def _fixed(x: Tensor) -> None:
    with pyro.plate("data", 300):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ to(W), S).to_event(1), obs=x)


def _fixed_guide(x: Tensor) -> None:
    with pyro.plate("data", 300):
        pyro.sample("z", dist.Normal(pyro.param("locs", torch.zeros(300, 2)), 1.0).to_event(1))


_mistake("a number of rows that is written down", _fixed, _fixed_guide, "rows")


def _wrong_support(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.LogNormal(z @ to(W), S).to_event(1), obs=x)


_mistake("data outside the likelihood's support", _wrong_support, guide, "density for")


def _centred_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        sample_z((x - x.mean(0)) @ to(GAIN) + shift())


_mistake("rows that depend on rows: a mean over the batch", model, _centred_guide, "depend on their own x")


def _chain(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.cumsum(-2) @ to(W), S).to_event(1), obs=x)


_mistake("rows that depend on rows: a sum along them", _chain, guide, "depend on their own x")


def _sum_over_rows(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("likelihood", dist.Normal(z @ to(W), S).log_prob(x).sum())


_mistake("likelihood of all rows as one factor", _sum_over_rows, guide, "inside of the plate")


def _no_argument() -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


_mistake("a model that takes no data", _no_argument, guide, "argument")

"""Two programs that most tests of the contract are about, and calls of them that must agree with stock Pyro's."""

from __future__ import annotations

import functools
import warnings
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_vae.compiled import CompiledTrace_ELBO

DATA = torch.linspace(-1.0, 2.0, 6)


def guide(*args, **kwargs):
    return pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))


def gaussian(x, offset=0.0, scale=1.0):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + offset, scale).expand([len(x)]).to_event(1), obs=x)


@contextmanager
def ignored(kind):
    """Without the warnings of a kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield


def losses(elbo, model, *changes, each=4, args=(DATA,)) -> list[float]:
    """The losses of some calls before the first change, after it, and so on."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    found = []
    for change in (lambda: None, *changes):
        change()
        found += [elbo.loss_and_grads(model, guide, *args) for _ in range(each)]
    return found


def agree(make_model, *changes, each=4, args=(DATA,)) -> CompiledTrace_ELBO:
    """Both estimators agree on programs that change; ``changes`` take the model."""
    found, elbo = [], CompiledTrace_ELBO()
    for loss in (Trace_ELBO(), elbo):
        torch.manual_seed(1)
        model = make_model()
        found.append(
            losses(loss, model, *(functools.partial(change, model) for change in changes), each=each, args=args)
        )
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    elbo.graphs_of_model = elbo.num_graphs(model, guide)
    return elbo

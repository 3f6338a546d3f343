"""Which entries of x an observation is of, and x put together from observations again."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.pairs import Pair
from pyro_vae.pairs.observations import assemble, check_generates, observed_entries


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def probed(observe, x=None):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            observe(x, z.unsqueeze(-1))

    return Pair(model, guide).probe(torch.randn(6, 2, 2) if x is None else x)


def normal(z, *shape):
    loc = z.reshape(*z.shape[:-1], *(1,) * len(shape)).expand(*z.shape[:-1], *shape)
    return dist.Normal(loc, 1.0).to_event(len(shape))


@pytest.mark.parametrize(
    ("observe", "entries"),
    [
        (lambda x, z: pyro.sample("any", normal(z, 2, 2), obs=x), {"any": (0, 1, 2, 3)}),
        (lambda x, z: pyro.sample("flat", normal(z, 4), obs=x.flatten(1)), {"flat": (0, 1, 2, 3)}),
        (lambda x, z: pyro.sample("turned", normal(z, 2, 2), obs=x.mT), {"turned": (0, 2, 1, 3)}),
        (lambda x, z: pyro.sample("part", normal(z, 2), obs=x[:, 1]), {"part": (2, 3)}),
        (lambda x, z: pyro.sample("copied", normal(z, 2), obs=x[:, [1, 0], 1]), {"copied": (3, 1)}),
        (lambda x, z: pyro.sample("rounded", normal(z, 2, 2), obs=x.round()), {"rounded": (0, 1, 2, 3)}),
        (lambda x, z: pyro.sample("other", normal(z, 3), obs=torch.zeros(len(x), 3)), {}),
    ],
)
def test_entries(observe, entries):
    assert probed(observe).entries == entries


def test_x_is_put_together_again():
    def observe(x, z):
        pyro.sample("left", normal(z, 2), obs=x[..., 0])
        pyro.sample("right", normal(z, 2), obs=x[:, [1, 0], 1])

    x = torch.randn(6, 2, 2)
    structure = probed(observe, x)
    check_generates(structure, 4)
    values = {"left": (x[..., 0], 1), "right": (x[:, [1, 0], 1], 1)}
    assert torch.equal(assemble(structure, torch.zeros(6, 2, 2), values.__getitem__), x)


def test_what_is_read_only_stays():
    structure = probed(lambda x, z: pyro.sample("part", normal(z, 2), obs=x[:, 1]))
    with pytest.raises(InputError, match="reads 2 of the 4 entries"):
        check_generates(structure, 4)
    check_generates(structure, 4, whole=False)
    made = assemble(structure, torch.ones(6, 2, 2), lambda name: (torch.zeros(6, 2), 1))
    assert torch.equal(made, torch.tensor([[1.0, 1.0], [0.0, 0.0]]).expand(6, 2, 2))


def test_something_else_cannot_be_generated():
    structure = probed(lambda x, z: pyro.sample("sums", normal(z, 1), obs=x.flatten(1).sum(1, keepdim=True)))
    with pytest.raises(InputError, match="'sums', which observes something else"):
        check_generates(structure, 4)


def test_a_factor_cannot_be_drawn():
    structure = probed(lambda x, z: (pyro.sample("x", normal(z, 2, 2), obs=x), pyro.factor("extra", -z.squeeze(-1))))
    with pytest.raises(InputError, match="the factor 'extra'"):
        check_generates(structure, 4)


def test_observations_whose_missing_values_are_filled_are_those_of_their_columns():
    """Of what is not missing by its values; of a column that no row has, by what is left."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator)
    x[torch.rand(6, 4, generator=generator) < 0.3] = torch.nan
    x[0] = 1.0
    x[:, 2] = torch.nan

    def model(x):
        with pyro.plate("data", len(x)):
            for i in (1, 0, 2, 3):
                known = ~x[:, i].isnan()
                pyro.sample(f"x_{i}", dist.Normal(0.0, 1.0).expand([len(x)]).mask(known), obs=x[:, i].nan_to_num(7.0))

    trace = pyro.poutine.trace(model).get_trace(x)
    found = observed_entries(trace, [f"x_{i}" for i in (1, 0, 2, 3)], x, -1)
    assert found == {f"x_{i}": (i,) for i in range(4)}

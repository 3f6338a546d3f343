from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.pairs import Pair
from pyro_vae.training.faults import find_fault

ROWS = torch.tensor([40, 7, 19])


def programs(loc=lambda x: torch.zeros(len(x)), scale=1.0, q_scale=1.0):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), scale))
            pyro.sample("x", dist.Normal(z + loc(x), 1.0), obs=x)

    def guide(x):
        center = pyro.param("center", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(center.expand(len(x)), q_scale))

    return Pair(model, guide)


def fault(pair, x=(0.0, 1.0, 2.0)):
    with pyro.validation_enabled(False):
        pair.probe(torch.zeros(2))
    return find_fault(pair, torch.tensor(x), None, ROWS)


def test_a_sound_pair_has_none():
    assert fault(programs()) == ""


def test_the_rows_of_a_density_are_named():
    sqrt = programs(loc=lambda x: (1 - x).sqrt())  # of which the third is not a number
    assert fault(sqrt) == (
        "the model's site 'x' has a log-density that is not finite for 1 of the batch's 3 rows (training rows 19)"
    )


def test_data_come_first():
    assert fault(programs(), (0.0, float("nan"), float("inf"))).startswith("the data are not finite for 2 of")


def test_a_draw_of_the_guide_comes_before_the_model():
    assert fault(programs(q_scale=float("inf"))).startswith("the guide's site 'z' has values that are not finite")


def test_a_parameter_is_named():
    pair = programs()
    pair.probe(torch.zeros(2))
    with torch.no_grad():
        pair.parameters()["center"].fill_(float("nan"))
    assert find_fault(pair, torch.zeros(3), None, ROWS) == "the parameter 'param.center' is not finite"


def test_looking_leaves_the_random_state_alone():
    pair = programs()
    pair.probe(torch.zeros(2))
    before = torch.get_rng_state()
    find_fault(pair, torch.zeros(3), None, ROWS)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [3, 40])
def test_no_more_than_ten_rows_are_named(size):
    pair = programs(loc=lambda x: x.log())
    pair.probe(torch.ones(2))
    said = find_fault(pair, -torch.ones(size), None, torch.arange(size))
    assert f"{size} of the batch's {size} rows" in said
    assert said.endswith(", …)") == (size > 10)

"""What a model says of its latent sites when it is alone."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from pyro_vae.pairs.declarations import declarations, invert
from tests.guides.programs import PROGRAMS, ROWS, normal, switch


def test_the_order_is_a_faithful_inverse():
    """Of top -> below -> x, below is given x and top is given below alone."""
    sites = {site.name: site for site in declarations(PROGRAMS["chain"].model, (normal(),), (ROWS, 4)).sites}
    assert list(sites) == ["below", "top"]
    assert (sites["below"].given, sites["below"].sees_data) == ((), True)
    assert (sites["top"].given, sites["top"].sees_data) == (("below",), False)
    switched = {site.name: site for site in declarations(switch, (normal(),), (ROWS, 4)).sites}
    assert list(switched) == ["on", "z"]  # the discrete one first
    assert switched["z"].given == ("on",)


def test_inversion_keeps_what_elimination_joins():
    """Two causes of one effect depend on each other, given it; a chain's ends do not, given its middle."""
    assert invert([["a"], ["b"], ["a", "b", "x"]], ["a", "b"]) == {"a": ("x",), "b": ("a", "x")}
    assert invert([["a"], ["a", "b"], ["b", "x"]], ["b", "a"]) == {"b": ("x",), "a": ("b",)}
    assert invert([["a", "s"], ["s", "b"], ["b", "x"]], ["b", "a"], ["s"])["a"] == ("b",)  # s is summed out


def test_looking_leaves_parameters_and_noise_alone():
    def model(x):
        loc = pyro.param("loc", torch.randn(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[:, :2])

    pyro.clear_param_store()
    before = torch.get_rng_state()
    declarations(model, (normal(),), (ROWS, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert not pyro.get_param_store().keys()


def test_where_provenance_is_lost_every_site_depends_on_all_before_it(monkeypatch):
    def fail(*_):
        raise NotImplementedError("an operation that does not know of it")

    monkeypatch.setattr("pyro_vae.pairs.declarations.get_dependencies", fail)
    sites = {site.name: site for site in declarations(switch, (normal(),), (ROWS, 4)).sites}
    assert sites["z"].given == ("on",)
    assert all(site.sees_data for site in sites.values())

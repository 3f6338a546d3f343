"""Programs that observe what is computed of x: in which units they answer."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from tests.conftest import FAST

X = torch.randn(60, 1, generator=torch.Generator().manual_seed(0)).exp()
SETTINGS = FAST | {"display": False, "compile": "off", "labels": "none", "hidden": None}


def programs(observe, of=lambda z: dist.Normal(z, 1.0)):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            value, seen = observe(x[:, 0]).nan_to_num(1.0), ~x[:, 0].isnan()
            with pyro.poutine.mask(mask=seen):
                pyro.sample("x", of(z), obs=value if value.dim() else x[:, 0])

    def guide(x):
        width = 0.5**0.5 + 0 * pyro.param("nothing", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x[:, 0].log().nan_to_num(0.0), width))

    return model, guide


def test_a_density_is_in_the_units_that_are_observed_and_that_is_said():
    run = pyro_vae.fit(*programs(torch.log), data=X, **SETTINGS)
    same = pyro_vae.fit(*programs(lambda x: x, lambda z: dist.LogNormal(z, 1.0)), data=X, **SETTINGS)
    test = run.data.test.values()
    found, plain = run.evaluate(num_samples=20), same.evaluate(num_samples=20)
    assert found["nll"] == pytest.approx(-dist.Normal(0.0, 2**0.5).log_prob(test.log()).mean().item(), abs=1e-4)
    assert plain["nll"] == pytest.approx(found["nll"] + test.log().mean().item(), abs=1e-4)
    assert found["units"] == "of what x observes, which is computed of x"
    assert "units" not in plain
    holed = X.clone()
    holed[::3] = torch.nan
    run = pyro_vae.fit(*programs(torch.log), data=holed, missing="mask", **SETTINGS)
    with pytest.raises(InputError, match=r"a model that observes x as it is, to fill in .*LogNormal in the place of"):
        run.complete(holed)


def test_bits_that_are_computed_are_no_reason_to_binarize_and_broadcast_observations_are_not_drawn():
    model, guide = programs(lambda x: (x > 1).float(), lambda z: dist.Bernoulli(logits=z))
    run = pyro_vae.fit(model, guide, data=X, **SETTINGS)
    assert run.binarization == "none"
    assert run.evaluate(num_samples=5)["units"] == "of what x observes, which is computed of x"

    def broadcast(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)

    run = pyro_vae.fit(broadcast, guide, data=torch.cat([X, 2 * X], 1), **SETTINGS)
    with pytest.raises(InputError, match=r"a distribution of 2 numbers at the site 'x'.*write .expand\(\[2\]\)"):
        run.sample(3)
    with pytest.raises(InputError, match="a model by name, or a program that can be called; got None"):
        pyro_vae.fit(None, guide, data=X, **SETTINGS)

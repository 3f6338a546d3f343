"""Rows that are one number each, of shape (N,), for programs that observe them so."""

from __future__ import annotations

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import pyro_vae
from pyro_vae.errors import InputError

SETTINGS = {"labels": "none", "display": False, "compile": "off", "epochs": 1, "lr": 1e-6}
X = 3 * torch.randn(60, generator=torch.Generator().manual_seed(0))


def model(x):
    width = pyro.param("width", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, width), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, 0.5**0.5))


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(X, id="tensor"),
        pytest.param(X.double().numpy(), id="array", marks=pytest.mark.exhaustive),
        pytest.param(pd.Series(X.numpy()), id="series", marks=pytest.mark.exhaustive),
    ],
)
def test_a_number_per_row(container, tmp_path):
    run = pyro_vae.fit(model, guide, data=container, out=tmp_path / "run", **SETTINGS)
    test = run.data.test.values()
    exact = -dist.Normal(0.0, 2**0.5).log_prob(test)
    assert test.shape == (6,)
    assert run.evaluate(num_samples=20)["nll"] == pytest.approx(exact.mean().item(), abs=1e-3)
    assert torch.allclose(run.encode(test), test[:, None] / 2, atol=1e-4)
    assert run.reconstruct(test).shape == (6,)
    assert run.decode(torch.tensor([[2.0]])).tolist() == [2.0]
    assert run.sample(500, mean=False).var().item() == pytest.approx(2, abs=0.6)  # five standard errors
    assert run.pair.values()["width"].item() == pytest.approx(1, abs=1e-4)
    again = pyro_vae.load(run.path, data=container, model=model, guide=guide)
    assert again.evaluate(num_samples=20)["nll"] == run.evaluate(num_samples=20)["nll"]
    with pytest.raises(InputError, match=r"x of shape \(N,\); got shape \(6, 1\); use x.reshape\(-1\)"):
        run.encode(test[:, None])
    with pytest.raises(InputError, match=r"use x\[None\] for one row"):
        run.encode(2.0)


def test_models_by_name_want_columns():
    with pytest.raises(InputError, match=r"got shape \(60,\); use x\[:, None\]"):
        pyro_vae.fit("vae", data=X, **SETTINGS)

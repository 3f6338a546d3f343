"""Numbers that are standardized inside: densities, draws and means in the units that they came in."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal

import pyro_vae
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import Gaussian, Standardized
from tests.conftest import FAST

SETTINGS = FAST | {"display": False, "compile": "off", "labels": "none", "likelihood": "gaussian", "standardize": True}
MEAN, SPREAD = torch.tensor([1e4, -3.0, 0.0]), torch.tensor([100.0, 1e-3, 2.0])


def rows(count=200):
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return MEAN + SPREAD * (noise @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]))


def test_moments_are_those_of_the_rows_whatever_the_parts_and_holes():
    x = rows().double()
    x[::7, 1] = torch.nan
    likelihood = Standardized(Gaussian((3,)))
    likelihood.learn(x.split(31))
    np.testing.assert_allclose(likelihood.seen.location, np.nanmean(x, 0), rtol=1e-6)
    np.testing.assert_allclose(likelihood.seen.spread, np.nanstd(x, 0), rtol=1e-5)
    likelihood.learn([torch.full((5, 3), 7.0)])  # nothing to divide by
    assert likelihood.seen.spread.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(InputError, match="1 without any; leave those out"):
        likelihood.learn([torch.tensor([[1.0, torch.nan, 2.0]])])


@pytest.mark.parametrize("choice", ["gaussian", "laplace", "gaussian:sigma=optimal", "gaussian:scales=each"])
def test_a_run_on_columns_of_any_scale_is_one_on_standardized_ones_in_other_units(choice, tmp_path):
    x = rows()
    settings = SETTINGS | {"likelihood": choice, "epochs": 3, "augmentation": "none", "beta": 1.0}
    run = pyro_vae.fit("vae", data=x, out=tmp_path / "run", **settings)
    train = run.data.train.values().double()
    mean, spread = train.mean(0), train.std(0, correction=0)
    again = pyro_vae.data.Dataset(
        "standard", *(pyro_vae.data.Images(((p.values() - mean) / spread).float()) for p in run.data.splits)
    )
    plain = pyro_vae.fit("vae", data=again, **(settings | {"standardize": False}))
    jacobian = spread.log().sum().item()
    found, expected = run.evaluate(num_samples=20), plain.evaluate(num_samples=20)
    assert found["nll"] == pytest.approx(expected["nll"] + jacobian, abs=2e-2)
    assert found["elbo"] == pytest.approx(expected["elbo"] - jacobian, abs=2e-2)
    test, standard = run.data.test.values(), again.test.values()
    torch.testing.assert_close(run.encode(test), plain.encode(standard), atol=2e-3, rtol=2e-3)
    for ours, theirs in (
        (run.reconstruct(test), plain.reconstruct(standard)),
        (run.sample(5), plain.sample(5)),
        (run.sample(5, mean=False), plain.sample(5, mean=False)),
        (run.decode(torch.ones(2, 2)), plain.decode(torch.ones(2, 2))),
    ):
        torch.testing.assert_close(((ours - mean) / spread).float(), theirs, atol=5e-3, rtol=5e-3)
    opened = pyro_vae.load(tmp_path / "run", data=x)
    assert torch.equal(opened.reconstruct(test), run.reconstruct(test))
    assert opened.evaluate(num_samples=5)["nll"] == run.evaluate(num_samples=5)["nll"]


def test_imputation_is_in_the_units_of_the_rows():
    x = rows(300)
    holed = x.clone()
    holed[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.2] = torch.nan
    holed[holed.isnan().all(1), 0] = 1e4
    run = pyro_vae.fit("vae", data=holed, missing="mask", **SETTINGS)
    filled = run.complete(holed, num_samples=3)[1]
    there = ~holed.isnan()
    assert torch.equal(filled[there], holed[there])
    assert (((filled - MEAN) / SPREAD).abs() < 6).all()  # of standard deviations, where the columns lie 1e7 apart


@pytest.mark.exhaustive
def test_the_log_likelihood_is_a_density_per_unit_of_x():
    x = rows(2000)
    settings = SETTINGS | {"epochs": 12, "latent_dim": 2, "hidden": (32,), "lr": 1e-2, "beta": 1.0, "patience": "none"}
    run = pyro_vae.fit("vae", data=x, **settings)
    test, train = run.data.test.values().double(), run.data.train.values().double()
    exact = -MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test).mean().item()
    assert run.evaluate(num_samples=200)["nll"] == pytest.approx(exact, abs=0.3)
    assert math.isclose(run.sample(500, mean=False)[:, 0].mean().item(), 1e4, rel_tol=3e-3)


@pytest.mark.parametrize(
    ("model", "data", "settings", "match"),
    [
        ("vae", "digits", {"likelihood": "auto"}, "a likelihood of any real numbers for --standardize.*Binomial"),
        ("vae", "digits", {"likelihood": "bernoulli"}, "got Bernoulli, which is one of other values"),
        ("vae", "digits", {"likelihood": "continuous_bernoulli"}, "got ContinuousBernoulli"),
        ("vae", "toy", {"likelihood": "poisson"}, "got Poisson"),
        ("linear_gaussian", "toy", {"likelihood": "auto"}, "whose likelihood can be chosen, for --standardize"),
        ("vae", "toy", {"binarization": "threshold"}, "numbers for --standardize; got --binarization threshold"),
        ("vae", pd.DataFrame({"a": list("xyxy") * 5}), {"likelihood": "auto"}, "a column of real numbers in arrays"),
    ],
)
def test_what_has_no_units_is_refused(model, data, settings, match, tmp_path):
    with pytest.raises(InputError, match=match):
        pyro_vae.fit(model, data=data, out=tmp_path / "run", **(SETTINGS | settings))
    assert not list(tmp_path.iterdir())


def test_a_program_of_ones_own_and_a_table_with_likelihoods_of_its_own(command, tmp_path):
    with pytest.raises(InputError, match="a program of your own, which is handed x as it is; standardize x before fit"):
        pyro_vae.fit(lambda x: None, lambda x: None, data=rows(), **(SETTINGS | {"likelihood": "auto"}))
    table = pd.DataFrame(rows(40).numpy(), columns=list("abc")).assign(kind=list("xy") * 20)
    table.to_csv(tmp_path / "t.csv", index=False)
    flags = ["--epochs", 1, "--hidden", 8, "--latent-dim", 2, "--labels", "none"]
    found = command("fit", "--data", "t.csv", "--standardize", "--out", "run", *flags)
    assert found.exit_code == 0, found.stderr
    np.save(tmp_path / "x.npy", rows(40))
    found = command("fit", "--data", "x.npy", "--standardize", "--out", "other", *flags)
    assert found.exit_code == 0, found.stderr
    assert "standardized" in found.stderr
    assert command("evaluate", "other", "--samples", 2).exit_code == 0

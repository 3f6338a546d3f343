"""R-hat and effective sample size: against ArviZ, known autocorrelations, and planted failures."""

import warnings

import pytest
import torch

from pyro_vae.posterior.mixing import bulk_ess, r_hat


def autoregression(rho: float, chains: int = 4, draws: int = 500, columns: int = 3) -> torch.Tensor:
    noise = torch.randn(chains, draws, columns)
    values = noise.clone()
    for t in range(1, draws):
        values[:, t] = rho * values[:, t - 1] + (1 - rho**2) ** 0.5 * noise[:, t]
    return values


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_as_arviz_finds_them(rho):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

    values = autoregression(rho)
    data = arviz.convert_to_dataset({"x": values.double().numpy()})
    torch.testing.assert_close(r_hat(values), torch.as_tensor(arviz.rhat(data)["x"].values))
    ess = torch.as_tensor(arviz.ess(data, method="bulk")["x"].values)
    torch.testing.assert_close(bulk_ess(values), ess, rtol=0.05, atol=0)


def test_effective_sample_size_of_an_autoregression():
    """S (1 - rho) / (1 + rho): the mean of 40 estimates lies within 10%, about 6 standard errors."""
    for rho in (0.0, 0.5, 0.8):
        found = bulk_ess(autoregression(rho, draws=2000, columns=40)).mean().item()
        assert found == pytest.approx(8000 * (1 - rho) / (1 + rho), rel=0.1)


def test_chains_in_two_places_or_of_two_widths_are_seen():
    """Of 4 x 500 independent draws R-hat stays below 1.02, missed less than once in a million runs."""
    values = autoregression(0.0)
    assert (r_hat(values) < 1.02).all()
    apart, wide = values.clone(), values.clone()
    apart[0] += 2
    wide[0] *= 4
    assert (r_hat(apart) > 1.2).all()
    assert (r_hat(wide) > 1.05).all()
    assert (bulk_ess(apart) < 50).all()


def test_one_chain_that_drifts_is_seen():
    drifting = autoregression(0.0, chains=1) + torch.linspace(0, 3, 500)[:, None]
    assert (r_hat(drifting) > 1.2).all()


def test_chains_that_stand_still_have_not_mixed():
    values = torch.arange(4.0)[:, None, None].expand(4, 10, 2)
    assert r_hat(values).isinf().all()
    assert (r_hat(torch.zeros(4, 10, 2)) == 1).all()
    assert r_hat(torch.full((4, 10, 2), torch.nan)).isinf().all()
    assert (bulk_ess(torch.full((4, 10, 2), torch.nan)) == 0).all()

"""Pareto-smoothed importance sampling against known shapes, whichever ArviZ is installed."""

import subprocess
import sys

import pytest
import torch
from torch.distributions import Exponential

from pyro_vae.arviz_bridge.pareto import psis


def pareto(k, num_draws=4000, num_data=30):
    """Log weights whose weights are Pareto with the shape k."""
    return k * Exponential(torch.tensor(1.0, dtype=torch.float64)).sample((num_draws, num_data))


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_the_shape_of_pareto_weights_is_found(k):
    """The mean of 30 estimates: its standard error is below 0.022, so 0.11 is missed about once in a million runs.

    With the sign wrong the estimate is about -0.9, a false "excellent".
    """
    k_hat = psis(pareto(k))[1]
    assert k_hat.mean().item() == pytest.approx(k, abs=0.11)
    assert psis(-pareto(k))[1].max() < 0


def test_k_hat_is_of_each_datum():
    """One bad datum among good ones is found, and spoils no other; a joint k-hat would mix them."""
    log_weights = pareto(0.1, num_data=8)
    alone = psis(log_weights)[1]
    log_weights[:, 3] = pareto(2.0, num_data=1)[:, 0]
    k_hat = psis(log_weights)[1]
    others = torch.arange(8) != 3
    assert torch.equal(k_hat[others], alone[others])
    assert k_hat[3] > 1.5 > 0.5 > k_hat[others].max()


def test_a_constant_changes_nothing_and_weights_sum_to_one():
    log_weights = pareto(0.5)
    smoothed, k_hat = psis(log_weights)
    moved, same = psis(log_weights - 1000.0)
    assert torch.allclose(k_hat, same)
    assert torch.allclose(smoothed, moved)
    assert torch.allclose(smoothed.logsumexp(0), torch.zeros(30, dtype=torch.float64), atol=1e-12)


def test_smoothing_keeps_the_order_of_the_weights_and_shortens_the_tail():
    log_weights = pareto(0.9)
    smoothed = psis(log_weights)[0]
    order = log_weights.argsort(0)
    assert (smoothed.gather(0, order).diff(dim=0) > -1e-9).all()
    assert (smoothed.max(0).values <= (log_weights - log_weights.logsumexp(0)).max(0).values + 0.5).all()


def test_weights_that_are_no_numbers_are_refused_and_zeros_are_weights():
    log_weights = pareto(0.3, num_data=6)
    clean = psis(log_weights)[1]
    log_weights[5, 0], log_weights[5, 1] = float("nan"), float("inf")
    log_weights[log_weights[:, 2].argmin(), 2] = -float("inf")
    log_weights[:, 3] = -float("inf")
    smoothed, k_hat = psis(log_weights)
    assert k_hat[[0, 1, 3]].isinf().all()
    assert smoothed[:, [0, 1, 3]].isnan().all()
    assert k_hat[2] == pytest.approx(clean[2].item())
    assert torch.equal(k_hat[4:], clean[4:])


def test_few_weights_above_zero_are_refused():
    log_weights = torch.full((1000, 2), -float("inf"))
    log_weights[:3], log_weights[:3, 1] = torch.randn(3, 2), 0.0
    smoothed, k_hat = psis(log_weights)
    assert k_hat.isinf().all()
    assert torch.allclose(smoothed[:3].exp().sum(0), torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_weights_have_no_tail(dtype):
    """Those of an exact posterior differ by rounding alone."""
    noise = torch.finfo(dtype).eps * torch.randn(1000, 5, dtype=dtype).clamp(-4, 4)
    smoothed, k_hat = psis(-120.0 * (1 + noise))
    assert smoothed.dtype == k_hat.dtype == dtype
    assert torch.equal(k_hat, torch.zeros(5, dtype=dtype))
    assert torch.allclose(smoothed.exp(), torch.full_like(smoothed, 1e-3), rtol=1e-3)


@pytest.mark.parametrize("num_draws", [1, 2, 10, 24])
def test_too_few_draws_say_nothing(num_draws):
    smoothed, k_hat = psis(torch.randn(num_draws, 3))
    assert k_hat.isinf().all()
    assert torch.allclose(smoothed.exp().sum(0), torch.ones(3))


def test_chunks_of_data_change_nothing(monkeypatch):
    log_weights = pareto(0.4, 300, 7)
    whole = psis(log_weights)
    monkeypatch.setattr("pyro_vae.pairs.memory.NUMBERS_AT_ONCE", 700)
    for found, expected in zip(psis(log_weights), whole, strict=True):
        assert torch.equal(found, expected)


def test_arviz_is_imported_when_it_is_used_and_without_a_warning():
    """0.23 announces 1.x at each first import of a day."""
    program = "import sys, pyro_vae.arviz_bridge.tree, pyro_vae.figures.trees; assert 'arviz' not in sys.modules\n"
    program += "from pyro_vae.arviz_bridge.versions import arviz; arviz().__version__"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.slow
def test_psis_of_many_data_takes_seconds():
    """5,000 draws of 10,000 data, as the whole test set of MNIST has them."""
    import time

    log_weights = torch.randn(5000, 10_000)
    begin = time.perf_counter()
    psis(log_weights)
    assert time.perf_counter() - begin < 60

"""Probabilistic PCA by expectation maximization, beside its closed form, and with holes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.imputation import PPCA, Digits


def rows(num: int = 400) -> torch.Tensor:
    torch.manual_seed(0)
    w = torch.randn(6, 2, dtype=torch.float64)
    return torch.randn(num, 2, dtype=torch.float64) @ w.T + 0.3 * torch.randn(num, 6, dtype=torch.float64) + 1.0


def test_without_holes_it_is_the_closed_form():
    from sklearn.decomposition import PCA

    x = rows()
    found, exact = PPCA.fit(x, size=2, steps=400), PCA(2).fit(x.numpy())
    covariance = found.w @ found.w.T + found.variance * torch.eye(6)
    assert torch.allclose(covariance, torch.from_numpy(exact.get_covariance()), atol=0.02)
    assert found.log_likelihood(x) == pytest.approx(exact.score(x.numpy()), abs=0.01)


def test_with_holes_it_fills_in_what_the_others_say():
    x = rows()
    holes = torch.rand(x.shape) < 0.3
    holed = x.masked_fill(holes, torch.nan)
    found = PPCA.fit(holed, size=2, steps=200)
    error = (found.complete(holed) - x)[holes].square().mean().sqrt()
    assert error < 0.5 * (holed.nanmean(0) - x)[holes].square().mean().sqrt()
    assert torch.equal(found.complete(holed)[~holes], x[~holes])


def test_the_digits_are_hidden_in_place():
    digits = Digits.hide(0.3, seed=0)
    seen = ~digits.holed.isnan()
    assert torch.equal(digits.holed[seen], digits.x[seen])
    assert (~seen).double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert digits.error(digits.x) == 0

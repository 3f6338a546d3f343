r"""Scores of codes whose right values are known: those of the factors themselves, turned, doubled, drowned in noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_vae.diagnostics import Disentanglement, disentanglement
from pyro_vae.errors import InputError

NAMES = ("kind", "size", "place")


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    """Every combination of 3 x 4 x 10 values, 10 times each."""
    grid = np.stack(np.meshgrid(np.arange(3), np.arange(4), np.arange(10), indexing="ij"), -1).reshape(-1, 3)
    return np.tile(grid, (10, 1))


def test_the_factors_themselves_are_the_best_code(factors):
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.normal(size=len(factors)), factors[:, [2, 0, 1]], np.zeros(len(factors))])
    found = disentanglement(codes, factors, NAMES, nominal=("kind",))
    assert found.mig == pytest.approx(1.0, abs=0.03)  # the noise has as much information as 1,200 rows pretend
    assert found.entropy == pytest.approx(np.log([3, 4, 10]))
    assert found.mutual_information[[2, 3, 1], [0, 1, 2]] == pytest.approx(np.log([3, 4, 10]))
    assert found.mutual_information[4] == pytest.approx(0.0)
    assert found.predictability[2] == pytest.approx([1.0, 0.0, 0.0], abs=0.05)
    assert found.dci_disentanglement > 0.9
    assert found.dci_completeness > 0.9
    assert found.dci_informativeness == pytest.approx(1.0, abs=0.01)


def test_sap_is_the_mean_gap_of_squared_correlations_and_accuracies(factors):
    """One unit is the size with noise of its own variance, so r^2 = 1/2 against 0; the other is the kind."""
    rng = np.random.default_rng(1)
    size, kind = factors[:, 1], factors[:, 0]
    codes = np.column_stack([size + size.std() * rng.normal(size=len(size)), kind])
    found = disentanglement(codes, factors[:, :2], NAMES[:2], nominal=("kind",))
    assert found.predictability[0, 1] == pytest.approx(0.5, abs=0.06)  # three sd of r^2 at 1,200 rows
    assert found.predictability[1, 0] == 1.0
    assert found.predictability[0, 0] == pytest.approx(1 / 3, abs=0.07)
    gaps = [1 - found.predictability[0, 0], found.predictability[0, 1] - found.predictability[1, 1]]
    assert found.sap == pytest.approx(np.mean(gaps))


def test_a_turned_code_has_no_gap(factors):
    size, place = factors[:, 1] / factors[:, 1].std(), factors[:, 2] / factors[:, 2].std()
    turned = np.column_stack([size + place, size - place])
    found = disentanglement(turned, factors[:, 1:])
    assert found.mig < 0.1
    assert found.sap < 0.05
    assert found.dci_disentanglement < 0.2
    assert found.dci_completeness < 0.2
    assert found.dci_informativeness > 0.95  # nothing is lost, it is only mixed


def test_two_units_for_one_factor_cost_completeness_and_the_gap_but_not_disentanglement(factors):
    codes = np.column_stack([factors[:, 1], factors[:, 2], factors[:, 2]])
    found = disentanglement(codes, factors[:, 1:])
    assert found.mig == pytest.approx(0.5, abs=0.01)
    assert found.dci_disentanglement > 0.95 > found.dci_completeness


def test_completeness_and_disentanglement_of_importances_by_hand():
    """Unit 0 is all of factor 0 and half of 1; unit 1 is the other half: of entropies h(2/3) and 0, weighed 3 to 1."""
    importance = np.array([[1.0, 0.5], [0.0, 0.5]])
    found = Disentanglement(("a", "b"), np.eye(2), np.ones(2), np.eye(2), importance, np.ones(2))
    entropy = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert found.dci_disentanglement == pytest.approx(0.75 * (1 - entropy) + 0.25)
    assert found.dci_completeness == pytest.approx(0.5)


def test_noise_says_nothing(factors):
    codes = np.random.default_rng(2).normal(size=(len(factors), 3))
    found = disentanglement(codes, factors, NAMES)
    assert found.mig < 0.03
    assert found.sap < 0.03
    assert found.dci_informativeness < 0.03


def test_a_code_that_never_changes_scores_nothing(factors):
    scores = disentanglement(torch.zeros(len(factors), 2), factors, NAMES).as_dict()
    assert scores == dict.fromkeys(scores, 0.0)


def test_many_values_are_cut_into_bins():
    rng = np.random.default_rng(3)
    factors = rng.uniform(size=(4000, 2))
    found = disentanglement(factors, factors)
    assert found.entropy == pytest.approx([np.log(20)] * 2, abs=0.01)
    assert found.mig == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": np.zeros((1200, 1))}, "codes of shape"),
        ({"codes": np.zeros(1200)}, "codes of shape"),
        ({"codes": np.zeros((7, 2))}, "a code and factors for each"),
        ({"codes": np.full((1200, 2), np.nan)}, "codes that are finite; got another in row 0"),
        ({"factors": np.zeros((1200, 3))}, "one value of 'kind'"),
        ({"names": ("a", "b")}, "3 names of factors"),
        ({"nominal": ("shape",)}, "'shape'"),
    ],
)
def test_what_cannot_be_scored_is_refused(factors, change, words):
    given = {"codes": factors, "factors": factors, "names": NAMES} | change
    with pytest.raises(InputError, match=words):
        disentanglement(**given)

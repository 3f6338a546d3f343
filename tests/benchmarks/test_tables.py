"""The rivals of the comparison on tables: densities in original units, probabilities that sum to one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.tables import BANDS, Split, factor_analysis, frequencies, in_bands, regression, shuffled


def test_a_factor_analysis_is_a_density_of_the_columns_as_they_are():
    """With one column it is the normal of the training rows' moments, in whatever units."""
    train, test = np.random.default_rng(0).normal(50, 7, (200, 1)), np.array([[40.0], [61.0]])
    expected = stats.norm.logpdf(test[:, 0], train.mean(), train.std())
    np.testing.assert_allclose(factor_analysis(train, test, 1), expected, atol=1e-4)
    scaled = factor_analysis(1000 * train, 1000 * test, 1)
    np.testing.assert_allclose(scaled, expected - np.log(1000), atol=1e-4)


def test_probabilities_of_categories():
    train = pd.Series(["a"] * 6 + ["b"] * 2)
    assert np.exp(frequencies(train, pd.Series(["a", "b"]))) == pytest.approx([0.7, 0.3])
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    kind = np.where(rng.random(600) < 1 / (1 + np.exp(-2 * x)), "up", "down")
    frame = pd.DataFrame({"x": x, "kind": kind})
    split = Split(frame[:400], frame[400:500], frame[500:])
    found = regression(split, ["x"], "kind")
    truth = np.log(1 / (1 + np.exp(np.where(split.test.kind == "up", -2, 2) * split.test.x)))
    assert found.mean() == pytest.approx(truth.mean(), abs=0.05)


def test_bands_are_of_the_training_rows():
    frame = in_bands(shuffled("wine", 1), "alcohol")
    assert set(frame.alcohol) == set(BANDS)
    assert frame.alcohol.value_counts().max() < 60

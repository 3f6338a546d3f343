"""Units there and back, and which rows validate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_vae.data.pixels import Reading
from pyro_vae.sklearn.units import Labels, Units, read_rows, split


def test_columns_are_centred_and_divided_by_one_number():
    x = np.random.default_rng(0).normal([5.0, -3.0], [1.0, 4.0], size=(1000, 2))
    units = Units.standardizing(x, (2,))
    rows = units.rows(x).double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert rows.square().mean().item() == pytest.approx(1)
    assert (rows.std(0)[1] / rows.std(0)[0]).item() == pytest.approx(x.std(0)[1] / x.std(0)[0], rel=1e-5)
    np.testing.assert_allclose(units.numbers(units.rows(x)), x, atol=1e-5)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_numbers_of_any_size_are_scaled(size):
    x = np.random.default_rng(0).normal(size=(20, 2)) * size
    units = Units.standardizing(x, (2,))
    assert units.rows(x).square().mean().item() == pytest.approx(1)


def test_missing_values_are_left_out_of_the_units():
    x = np.array([[1.0, 10.0], [3.0, np.nan], [np.nan, 14.0]])
    units = Units.standardizing(x, (2,))
    np.testing.assert_allclose(units.location, [2, 12])
    assert units.scale == pytest.approx(np.sqrt((1 + 1 + 4 + 4) / 4))
    np.testing.assert_allclose(units.log_volume(x), -np.log(units.scale) * np.array([2, 1, 1]))


def test_constant_columns_keep_their_size():
    units = Units.standardizing(np.full((5, 2), 7.0), (2,))
    assert units.scale == 1
    assert not units.rows(np.full((5, 2), 7.0)).any()


def test_bits_are_left_as_they_are_and_bytes_divided():
    bits = np.random.default_rng(0).integers(0, 2, (20, 16)).astype(float)
    dataset, units = read_rows(bits, (16,), Reading(), True, None, 0)
    assert dataset.kind == "binary"
    np.testing.assert_array_equal(units.numbers(units.rows(bits)), bits)
    grey = np.random.default_rng(0).integers(0, 256, (20, 16)).astype(float)
    dataset, units = read_rows(grey, (1, 4, 4), Reading(channels="first"), False, None, 0)
    assert (units.scale, dataset.event_shape) == (255, (1, 4, 4))


def test_a_tenth_validates_and_every_class_keeps_a_label():
    for seed in range(20):
        labels = np.full(100, -1)
        labels[:12] = np.arange(12) % 4
        train, validation = split(100, Labels(labels, tuple("abcd")), seed)
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(100))
        assert (len(validation), (labels[validation] >= 0).sum()) == (10, 0)  # no label is spent
        few = np.arange(20) % 19  # one class has two rows
        train, _ = split(20, Labels(few, tuple(map(str, range(19)))), seed)
        assert set(few[train]) == set(range(19))
    assert torch.equal(*split(20, Labels(np.arange(20), tuple(map(str, range(20)))), 0))
    assert torch.equal(*split(9, None, 0))
    assert not torch.equal(split(50, None, 0)[1], split(50, None, 1)[1])

"""By which rule numbers become pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_vae.data import Reading, binarize_once, check_range, from_arrays, from_data, load_data
from pyro_vae.errors import InputError

BYTES = (np.arange(20 * 64).reshape(20, 8, 8) % 256).astype(np.uint8)


def all_values(data):
    """The rows of all splits, sorted, as the programs see them."""
    rows = torch.cat([part.values().flatten(1) for part in (data.train, data.validation, data.test)])
    return sorted(map(tuple, rows.tolist()))


def test_bytes_and_wider_integers_and_floats_of_bytes_are_read_alike():
    read = [from_arrays(BYTES.astype(dtype)) for dtype in (np.uint8, np.int16, ">i4", np.uint64, np.float32, float)]
    expected = sorted(map(tuple, (BYTES.reshape(20, -1) / np.float32(255)).tolist()))
    assert all(all_values(data) == expected for data in read)
    assert {data.reading for data in read} == {"whole numbers from 0 to 255, divided by 255"}


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_masks_of_0_and_1_are_what_they_are(dtype):
    mask = (BYTES > 100).astype(dtype)
    data = from_arrays(mask)
    assert data.kind == "binary"
    assert all_values(data) == sorted(map(tuple, mask.reshape(20, -1).astype(float).tolist()))


def test_bytes_of_0_and_255_are_black_and_white():
    data = from_arrays(np.where(BYTES > 100, 255, 0).astype(np.uint8))
    assert data.kind == "binary"
    assert data.train.values().unique().tolist() == [0, 1]


def test_integers_of_a_picture_that_may_be_white_at_several_values_are_refused():
    counts = BYTES % 17
    with pytest.raises(InputError, match=r"got numbers from 0 to 16; use --scale 16 or --scale 255, .*--scale 1 to"):
        from_arrays(counts)
    data = from_arrays(counts, reading=Reading(scale=16))
    assert (data.kind, data.reading) == ("counts", "whole numbers from 0 to 16, divided by 16")
    assert data.train.values().max() == 1
    assert from_arrays(counts, reading=Reading(scale=1)).train.values().max() == 16
    with pytest.raises(InputError, match="use --scale 65535 or --scale 65535"):
        from_arrays(BYTES.astype(np.uint16) * 257)
    with pytest.raises(InputError, match="got numbers from -1 to 1; use --scale 1 to take them as they are"):
        from_arrays((BYTES > 100) * 2 - 1)


def test_numbers_of_no_picture_and_fractions_stay():
    ages = np.arange(60).reshape(20, 3) * 4
    assert all_values(from_arrays(ages)) == sorted(map(tuple, ages.astype(float).tolist()))
    assert from_arrays(BYTES / 2 + 0.25).reading == "numbers from 0.25 to 127.75, as they are"
    own = Reading(pictures=False)  # for programs of one's own
    assert from_arrays(BYTES.astype(float), reading=own).train.values().max() > 200
    assert from_arrays(BYTES, reading=own).train.values().max() <= 1


def test_digits_as_arrays_are_the_digits():
    from sklearn.datasets import load_digits

    read = from_arrays(load_digits().images, reading=Reading(scale=16))
    assert read.kind == "counts"
    assert all_values(read) == all_values(load_data("digits"))


@pytest.mark.parametrize(
    ("shape", "event_shape"),
    [
        ((20, 8, 8, 3), (3, 8, 8)),
        ((20, 8, 6, 1), (1, 8, 6)),
        ((20, 3, 8, 8), (3, 8, 8)),
        ((20, 16, 8, 8), (16, 8, 8)),
        ((20, 8, 8, 16), (16, 8, 8)),
        ((20, 3, 6, 2), None),
        ((20, 3, 3, 3), None),
    ],
)
def test_channels_are_found_where_they_are(shape, event_shape):
    x = np.random.default_rng(0).random(shape)
    if event_shape is None:
        with pytest.raises(InputError, match="use --channels first or --channels last"):
            from_arrays(x)
        return
    data = from_arrays(x)
    assert data.event_shape == event_shape
    last = event_shape != shape[1:]
    assert data.channels_last == last == ("channels last" in data.reading)
    moved = np.moveaxis(x, -1, 1) if last else x
    assert all_values(data) == sorted(map(tuple, moved.reshape(20, -1).astype(np.float32).tolist()))


def test_missing_values_are_masked_whatever_says_so():
    x = (BYTES / 256).astype(np.float32)
    hidden = np.zeros(x.shape, bool)
    hidden[:, 2, 3] = True
    with pytest.raises(InputError, match=r"every value of x of arrays; got 20 missing .* 1.56 % .*use --missing mask"):
        from_arrays(np.where(hidden, np.nan, x))
    ways = [
        {"x": np.where(hidden, np.nan, x)},
        {"x": np.ma.MaskedArray(x, hidden)},
        {"x": x, "missing": hidden},
        {"x": np.where(hidden, np.nan, x), "missing": torch.from_numpy(hidden)},
    ]
    for way in ways:
        data = from_data(way, reading=Reading(missing="mask"))
        assert data.has_missing
        assert data.reading.endswith("1.56 % missing")
        values = data.train.values()
        assert torch.equal(values.isnan(), torch.from_numpy(hidden[:16])[:, None])
    dark = from_data({"x": BYTES, "missing": hidden}, reading=Reading(missing="mask"))
    assert dark.train.pixels.dtype == torch.uint8
    assert dark.train.values().isnan().sum() == 16
    binary = binarize_once(dark.train, "threshold").x()
    assert torch.equal(binary.isnan(), dark.train.values().isnan())
    check_range(dark, "threshold", None)  # nothing is outside where something is missing
    with pytest.raises(InputError, match="one truth value per number of x in missing"):
        from_data({"x": x, "missing": hidden[0]})


def test_numbers_beyond_single_precision_are_refused():
    with pytest.raises(InputError, match="numbers of up to 3e38 in x"):
        from_arrays(BYTES * 1e300)


def test_rows_of_any_shape_are_left_as_they_are_where_no_channel_is_wanted():
    own = Reading(pictures=False, one_channel=False)
    rng = np.random.default_rng(0)
    for shape in ((20, 5, 3), (20, 4, 5, 3), (20, 2, 1, 4, 4)):
        x = rng.normal(size=shape)
        assert from_arrays(x, reading=own).event_shape == shape[1:]
    assert from_arrays(rng.normal(size=(20, 5, 3)), reading=Reading(pictures=False)).event_shape == (1, 5, 3)
    first = Reading(pictures=False, one_channel=False, channels="first")
    assert from_arrays(rng.normal(size=(20, 5, 3)), reading=first).event_shape == (1, 5, 3)
    with pytest.raises(InputError, match="x of shape"):
        from_arrays(rng.normal(size=(20, 2, 1, 4, 4)))


def test_numbers_that_single_precision_cannot_tell_apart_are_refused():
    x = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(InputError, match="3 columns or pixels whose values differ too little"):
        from_arrays(x + 1e9)
    assert torch.allclose(from_arrays(x + 1e3).train.values().mean(), torch.tensor(1e3), rtol=1e-2)

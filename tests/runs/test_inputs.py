"""What a run is asked about: the same in any form, or refused in one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_vae
from pyro_vae.errors import InputError
from tests.conftest import FAST, toy

X, Y = toy()
BYTES = (255 * X).astype(np.uint8)
SETTINGS = FAST | {"display": False, "compile": "off", "epochs": 1}


@pytest.fixture(scope="module")
def labelled():
    """A run on bytes with labels."""
    return pyro_vae.fit("ss_vae", data=(BYTES, np.array(["ant", "bee", "cow"])[Y]), **SETTINGS)


@pytest.fixture(scope="module")
def floats():
    return pyro_vae.fit("vae", data=X, **(SETTINGS | {"labels": "none"}))


@pytest.fixture(scope="module")
def black_and_white():
    return pyro_vae.fit("vae", data=np.where(X > 0.5, 255, 0).astype(np.uint8), **(SETTINGS | {"labels": "none"}))


SEEN = BYTES / np.float32(255)
FORMS = [
    BYTES,
    BYTES.astype(">i4"),
    BYTES.astype(float),
    SEEN,
    SEEN.tolist(),
    list(BYTES),
    BYTES[:, None],
    BYTES[..., None],
    np.asfortranarray(SEEN),
    torch.from_numpy(SEEN).requires_grad_(),
    torch.from_numpy(SEEN).double().mT.contiguous().mT,
    torch.from_numpy(BYTES).to_sparse(),
]


@pytest.mark.parametrize("x", FORMS, ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}")
def test_images_in_any_form_are_the_same_images(labelled, x):
    expected = labelled.encode(torch.from_numpy(SEEN))
    assert not labelled.encode(x).requires_grad
    assert torch.allclose(labelled.encode(x), expected, atol=1e-6)
    assert torch.equal(labelled.classify(x), labelled.classify(SEEN))
    assert torch.allclose(labelled.complete(x, 2)[1].squeeze(1), torch.from_numpy(SEEN), atol=1e-7)


def test_one_row_is_a_row(labelled):
    assert torch.allclose(labelled.encode(BYTES[:1]), labelled.encode(BYTES)[:1], atol=1e-5)
    assert labelled.classify(BYTES[:1]).shape == (1,)
    assert labelled.encode(labelled.data.test).shape == (6, 2)


BAD = [
    (BYTES[:0], r"at least one row of x; got shape \(0, 1, 6, 6\)"),
    (BYTES[0], r"x of shape \(N, 1, 6, 6\); got shape \(6, 6\); use x\[None\] for one row"),
    (BYTES.reshape(60, 36), r"got shape \(60, 36\); use x.reshape\(-1, 1, 6, 6\)"),
    (BYTES[:, :5], r"got shape \(60, 5, 6\); give rows of that shape"),
    (BYTES[None, None], "give rows of that shape"),
    (3, r"got shape \(\); give rows"),
    (None, r"got shape \(\); give rows"),
    (np.where(X > 0.5, np.nan, SEEN), "x without missing values, as the run was fitted on; got .*; fill them, or fit"),
    (np.ma.MaskedArray(BYTES, X > 0.5), "x without missing values"),
    (np.where(X > 0.5, np.inf, SEEN), "finite numbers in x; got .* that are infinite"),
    (BYTES.astype(str), "numbers in x; got dtype"),
    (SEEN + 1j, "numbers in x; got dtype complex"),
    (
        BYTES.astype(int) * 2,
        "values from 0 to 1, as the run was fitted on, or whole numbers from 0 to 255; got .* to 4",
    ),
    (
        -BYTES.astype(int),
        "values from 0 to 1, as the run was fitted on, or whole numbers from 0 to 255; got .* from -2",
    ),
    (SEEN * 99, "values from .* as the run was fitted on, or whole numbers from 0 to 255; got values from 0 to 9"),
    ((BYTES > 99).astype(int), r"got whole numbers of 0 and 1; use x.astype\(float\) if 1 is white, or .*/ 255"),
    (pd.DataFrame({"a": ["b"] * 3}), "columns of numbers in x; got 1 of 1 that hold text"),
]


@pytest.mark.parametrize("call", ["encode", "classify", "class_probabilities", "reconstruct", "complete"])
def test_what_is_no_images_of_the_run_is_refused_in_one_line(labelled, call):
    for x, message in BAD:
        with pytest.raises(InputError, match=message) as refused:
            getattr(labelled, call)(x)
        assert "\n" not in str(refused.value)


def test_numbers_of_another_scale_are_refused_and_masks_read(floats, black_and_white):
    with pytest.raises(InputError, match=r"on the scale of the run's data; got values from 0 to 2\d\d"):
        floats.encode(BYTES)
    noisy = X + 0.3 * np.random.default_rng(0).standard_normal(X.shape)
    assert floats.encode(noisy).isfinite().all()
    mask = X > 0.5
    expected = black_and_white.encode(mask)
    for form in (mask.astype(np.uint8), mask * 255, mask.astype(float), torch.from_numpy(mask)):
        assert torch.equal(black_and_white.encode(form), expected)
    with pytest.raises(InputError, match="values from 0 to 1, as the run was fitted on"):
        black_and_white.encode(X * 3)


POINTS = [
    (np.zeros(2), r"z of shape \(N, 2\) for the latent site 'z'; got shape \(2,\); use z\[None\]"),
    (np.zeros((0, 2)), "give one row per point"),
    (np.zeros((3, 5)), "give one row per point"),
    (np.full((3, 2), np.nan), "finite z in the support"),
    ("ab", "numbers in z"),
    (None, "z of shape"),
]
BAD_CLASSES = [99, -1, 2.5, True, [1, 3], {}, "elk"]


def test_points_and_classes(labelled):
    z = torch.zeros(3, 2, requires_grad=True)
    expected = labelled.decode(np.zeros((3, 2)), y=1)
    for points in (z, [[0, 0]] * 3, torch.zeros(3, 2, dtype=torch.float64), np.zeros((3, 2), dtype=">f4")):
        for label in (1, "bee", np.int64(1), torch.tensor(1), 1.0):
            assert torch.equal(labelled.decode(points, y=label), expected)
    assert torch.equal(labelled.sample(4, y="cow"), labelled.sample(4, y=2))
    for labels in (["ant", "bee", "cow"], (0, 1, 2), np.arange(3), torch.arange(3)):
        mixed = labelled.decode(z, y=labels)
        assert torch.equal(mixed[1], expected[1])
        assert not torch.equal(mixed, expected)
        assert torch.equal(labelled.sample(3, y=labels)[2], labelled.sample(3, y=2)[2])
    with pytest.raises(InputError, match="one class, or one for each of 4; got 3 classes"):
        labelled.sample(4, y=labels)
    for points, message in POINTS:
        with pytest.raises(InputError, match=message):
            labelled.decode(points)
    for label in BAD_CLASSES:
        with pytest.raises(InputError, match=r"a class index from 0 to 2, or a class name; got|a class of this run"):
            labelled.sample(2, y=label)
    with pytest.raises(InputError, match="one row of x, or 3 as are to be made; got 2"):
        labelled.decode(z, x=BYTES[:2])


@pytest.mark.parametrize("number", [0, -1, 2.5, "3", None, float("nan"), float("inf"), True])
def test_counts_are_whole_and_at_least_one(labelled, number):
    calls = [
        lambda: labelled.sample(number),
        lambda: labelled.complete(BYTES, number),
        lambda: labelled.encode(BYTES, num_samples=number),
        lambda: labelled.to_arviz(number, 2),
        lambda: labelled.to_arviz(2, number),
    ]
    calls += [] if number is None else [lambda: labelled.evaluate(num_samples=number)]
    for call in calls:
        with pytest.raises(InputError, match="at least one"):
            call()
    with pytest.raises(InputError, match="a whole number for the seed"):
        labelled.sample(2, seed="a")
    assert labelled.sample(3.0).shape[0] == 3

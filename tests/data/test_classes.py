"""Labels as people have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vae.data import from_arrays, labelled_rows
from pyro_vae.data.classes import read_classes
from pyro_vae.data.containers import as_labels
from pyro_vae.errors import InputError

EXPECTED = [1, -1, 0, 1]
FORMS = {
    "numbers": np.array([7, -1, 3, 7]),
    "floats": np.array([7.0, np.nan, 3.0, 7.0]),
    "float -1": np.array([7.0, -1.0, 3.0, 7.0]),
    "tensor": torch.tensor([7, -1, 3, 7], dtype=torch.int16),
    "list of tensors": [torch.tensor(label) for label in (7, -1, 3, 7)],
    "text": np.array(["dog", "", "cat", "dog"]),
    "text -1": ["dog", "-1", "cat", "dog"],
    "bytes": np.array([b"dog", b"", b"cat", b"dog"]),
    "list": ["dog", None, "cat", "dog"],
    "mixed": ["dog", -1, "cat", "dog"],
    "objects": np.array([7, None, 3, 7], dtype=object),
    "column": np.array([[7], [-1], [3], [7]]),
    "masked": np.ma.MaskedArray([7, 3, 3, 7], [False, True, False, False]),
    "series": pd.Series([7, None, 3, 7], index=[9, 2, 4, 4]),
    "nullable": pd.Series([7, None, 3, 7], dtype="Int64"),
    "strings": pd.Series(["dog", None, "cat", "dog"]),
    "categories": pd.Categorical(["dog", None, "cat", "dog"], categories=["cat", "dog"]),
    "one-hot": np.array([[0, 1], [0, 0], [1, 0], [0, 1]]),
    "one-hot frame": pd.DataFrame({"cat": [0, 0, 1, 0], "dog": [1, 0, 0, 1]}),
    "one-hot truths": torch.tensor([[False, True], [False, False], [True, False], [False, True]]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_partly_labelled_rows_reads_alike(form):
    labels, names = as_labels(FORMS[form], "y")
    indices, classes = read_classes(labels, 4, "pets", names)
    assert indices.tolist() == EXPECTED
    assert classes in (("3", "7"), ("cat", "dog"), ("0", "1"))
    assert indices.dtype == torch.int64


def test_categories_keep_their_order_and_numbers_theirs():
    sizes = pd.Series(["small", "large", "small", "mid"]).astype(pd.CategoricalDtype(["small", "mid", "large"], True))
    assert read_classes(*_args(as_labels(sizes, "y")))[1] == ("small", "mid", "large")
    assert read_classes(np.array([10, 9, 10, 2]), 4, "y")[1] == ("2", "9", "10")
    assert read_classes(np.array([True, False, True, True]), 4, "y")[1] == ("False", "True")
    huge = [10**30, 5, 10**30, 5]
    assert read_classes(as_labels(huge, "y")[0], 4, "y")[1] == ("5", str(10**30))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_what_minus_one_becomes_without_a_sign_is_refused(kind):
    largest = np.iinfo(kind).max
    y = np.where(np.array([False, True, False, False]), np.array(largest, kind), np.array([7, 7, 3, 7], kind))
    with pytest.raises(InputError, match=f"got {largest}, which is what -1 becomes in {np.dtype(kind)}; use np.where"):
        read_classes(y, 4, "pets")
    mended = np.where(y == largest, -1, y.astype(int))
    assert read_classes(mended, 4, "pets")[0].tolist() == EXPECTED
    assert set(read_classes(y.astype(str), 4, "pets")[1]) == {"3", "7", str(largest)}
    assert read_classes(np.arange(256).astype(np.uint8), 256, "bytes")[0].tolist() == list(range(256))


def _args(labels):
    return labels[0], len(labels[0]), "y", labels[1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([-1] * 4, "a label in y of pets; got none: -1, NaN, None and empty text are not labels; leave y out"),
        ([None, "", np.nan, pd.NA], "a label in y of pets; got none"),
        ([1, -1, 1, -1], "got 1, '1', and -1, which is not a label: name the classes"),
        ([-5, -1, 0, 1], "and -1 for no label; got -5 beside -1, which may be a class; use y - y.min"),
        (["cat", "nan", "dog", "cat"], "got the text 'nan', which is what a missing label becomes as text"),
        (["0", "None", "1", "0"], "got the text 'None', which is what a missing label becomes as text"),
        (np.array(["2", "1", "None", "2"]), "got the text 'None'"),
        (["cat", " ", "cat", None], "at least two classes in y of pets; got 1, 'cat'"),
        ([0.5, 1.5, 0.5, 1.0], "class labels in y of pets: whole numbers or text; got 0.5; give classes"),
        ([np.inf, 1.0, 2.0, 1.0], "got inf; give classes"),
        ([1, "1", 2, 2], "one type for each class in y of pets; got 1 as a number and as text"),
        (list(pd.date_range("2020", periods=4)), "whole numbers or text; got Timestamp.*; give classes"),
        ([[1, 0], [1, 1], [0, 1], [0, 1]], r"or one-hot rows; got shape \(4, 2\) with rows that are not one-hot"),
        ([[0.2, 0.8]] * 4, "rows that are not one-hot; give the most probable class"),
        ([1, 2, 1], r"one label per row in y of pets, shape \(4,\); got shape \(3,\)"),
    ],
)
def test_what_names_no_class_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        read_classes(as_labels(y, "y")[0], 4, "pets")


def test_a_class_may_be_called_none():
    assert read_classes(as_labels(["mild", "None", "grave", "mild"], "y")[0], 4, "y")[1] == ("None", "grave", "mild")


def test_only_labelled_rows_are_drawn_and_every_class_has_one():
    x, y = np.random.default_rng(0).random((60, 4)), np.arange(60) % 3
    y[::2] = -1
    data = from_arrays(x, y)
    known = (data.train.labels >= 0).nonzero().squeeze(1)
    assert torch.equal(labelled_rows(data.train, "all", 3, 0), known)
    chosen = labelled_rows(data.train, 9, 3, 0)
    assert data.train.labels[chosen].bincount().tolist() == [3, 3, 3]
    with pytest.raises(
        InputError, match=r"\(the training rows that have one\), or all or none; got 50; use --labels all"
    ):
        labelled_rows(data.train, 50, 3, 0)
    without = from_arrays(x, pd.Categorical.from_codes(np.where(y == 2, -1, y), ["a", "b", "c"]))
    with pytest.raises(InputError, match="a label of each of the 3 classes among the training rows; got none of 'c'"):
        labelled_rows(without.train, "all", 3, 0, without.class_names)


def test_choosing_labelled_rows_is_what_it_was_where_all_have_one():
    data = from_arrays(np.random.default_rng(0).random((60, 4)), np.arange(60) % 3)
    assert labelled_rows(data.train, 7, 3, seed=1).tolist() == [7, 11, 12, 14, 26, 37, 40]

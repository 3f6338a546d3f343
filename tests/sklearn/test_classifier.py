"""SSVAEClassifier: scikit-learn's own checks, labels of every kind, few labels and many."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_vae
from pyro_vae.sklearn import SSVAEClassifier

QUICK = {"n_components": 2, "hidden_layer_sizes": (16,), "max_iter": 12, "random_state": 0, "settings": {"lr": 1e-2}}


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SSVAEClassifier(hidden_layer_sizes=(16,), max_iter=12)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SSVAEClassifier()])
def test_scikit_learns_checks_with_the_defaults(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    x, truth = make_blobs(200, centers=3, n_features=4, random_state=0)
    labels = np.where(np.arange(200) < 30, truth, -1)
    return x, truth, labels


@pytest.fixture(scope="module")
def fitted(blobs) -> SSVAEClassifier:
    x, _, labels = blobs
    return SSVAEClassifier(**QUICK).fit(x, labels)


def test_it_is_the_run_that_fit_makes(blobs, fitted):
    names = {"latent_dim": 2, "hidden": (16,), "epochs": 12, "seed": 0, "lr": 1e-2}
    run = pyro_vae.fit("ss_vae", data=fitted.run_.data, labels="all", display=False, **names)
    rows = (blobs[0] - blobs[0].mean(0)) / fitted._units.scale
    np.testing.assert_allclose(fitted.predict_proba(blobs[0]), run.class_probabilities(rows), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(blobs[0]), run.encode(rows), rtol=1e-3, atol=1e-5)


def test_no_label_is_spent_on_validation(blobs, fitted):
    assert (fitted.run_.data.train.labels >= 0).sum() == 30
    assert fitted.run_.data.validation.labelled() is None


def test_it_classifies_what_has_no_label(blobs, fitted):
    x, truth, labels = blobs
    unlabelled = labels == -1
    assert fitted.score(x[unlabelled], truth[unlabelled]) > 0.9
    assert fitted.score(x, labels) == fitted.score(x[:30], truth[:30])  # rows without a label are passed over
    weights = np.where(np.arange(200) < 3, 1.0, 0.0)
    assert fitted.score(x, labels, weights) == fitted.score(x[:3], truth[:3])
    assert fitted.score(x, labels[:, None]) == fitted.score(x, labels)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(x, labels, weights[:5])
    with pytest.raises(ValueError, match="a label in y to score by; got none but -1"):
        fitted.score(x, np.full(200, -1))


NAMES = np.array(["ant", "bee", "cat"])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "named",
    [
        lambda labels: np.where(labels == -1, "-1", NAMES[labels]),
        lambda labels: np.array([NAMES[k] if k >= 0 else -1 for k in labels], dtype=object),
        lambda labels: np.where(labels == -1, -1.0, labels),
        lambda labels: labels.astype(object),
    ],
    ids=["text", "objects", "floats", "objects of numbers"],
)
def test_labels_of_every_kind(blobs, fitted, named):
    x, _, labels = blobs
    vae = SSVAEClassifier(**QUICK).fit(x, named(labels))
    assert len(vae.classes_) == 3
    expected = fitted.predict(x) if vae.classes_.dtype.kind in "if" else NAMES[fitted.predict(x)]
    np.testing.assert_array_equal(vae.predict(x), expected)
    assert vae.score(x, named(labels)) == fitted.score(x, labels)


@pytest.mark.exhaustive
def test_samples_are_of_their_class(blobs, fitted):
    x, truth, _ = blobs
    vae = SSVAEClassifier(**QUICK | {"max_iter": 40, "settings": {"lr": 1e-2, "patience": "none"}}).fit(x, truth)
    rows, classes = vae.sample(300, random_state=0)
    assert (rows.shape, classes.shape) == ((300, 4), (300,))
    nearest = KNeighborsClassifier(5).fit(x, truth)
    assert nearest.score(rows, classes) > 0.85
    assert np.bincount(classes).min() > 70  # p(y) is uniform: 100 each, with a standard deviation of 8
    again, same = vae.sample(300, random_state=0)
    np.testing.assert_array_equal(rows, again)
    np.testing.assert_array_equal(classes, same)
    twos, labels = vae.sample(20, y=2, random_state=0)
    assert set(labels) == {2}
    assert nearest.score(twos, labels) > 0.85


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (lambda y: np.ones(len(y)), "at least 2 classes in y; got 1 class;"),
        (lambda y: np.full(len(y), -1), "at least 2 classes in y; got 0 classes;"),
        (lambda y: np.where(y == 1, "a", "-1"), "at least 2 classes in y; got 1 class;"),
        (lambda y: y + 0.5, "continuous"),
        (lambda y: np.where(y == 1, np.nan, y), r"contains NaN or None in \d+ of 200 rows; use numpy.where"),
        (lambda y: np.where(y == 1, None, "a"), r"contains NaN or None in \d+ of 200 rows; use numpy.where"),
        (lambda y: np.where(y == 1, np.inf, y), "contains infinity"),
        (lambda y: None, "y is None"),
    ],
    ids=["one class", "no label", "one class of text", "numbers", "NaN", "gaps", "infinity", "None"],
)
def test_bad_labels_are_refused(blobs, y, message):
    with pytest.raises(ValueError, match=message):
        SSVAEClassifier(**QUICK).fit(blobs[0], y(blobs[1]))


@pytest.mark.exhaustive
def test_yes_no_and_no_label(blobs):
    """Objects True, False and -1; and all True or False, as comparisons of columns of objects give them."""
    x, truth, _ = blobs
    y = np.where(np.arange(200) < 60, (truth == 0).astype(object), -1)
    vae = SSVAEClassifier(**QUICK).fit(x, y)
    assert (vae.classes_.tolist(), vae.predict(x).dtype) == ([False, True], bool)
    assert vae.score(x, y) == vae.score(x[:60], (truth[:60] == 0).astype(object)) > 0.8


def test_minus_one_beside_one_other_number_is_a_class(blobs, caplog):
    x, truth, _ = blobs
    y = np.where(truth == 0, 1, -1)
    with caplog.at_level("WARNING", "pyro_vae"):
        vae = SSVAEClassifier(**QUICK).fit(x, y)
    assert "-1 is taken as a class" in caplog.text
    assert vae.classes_.tolist() == [-1, 1]
    assert vae.score(x, y) > 0.9


def test_models_without_labels_and_classes_that_are_not_there_are_refused(blobs, fitted):
    with pytest.raises(ValueError, match="a model with class labels; got 'vae'"):
        SSVAEClassifier(**QUICK | {"settings": {"model": "vae"}}).fit(blobs[0], blobs[1])
    with pytest.raises(ValueError, match="a class of this classifier; got 7; choose one of: 0, 1, 2"):
        fitted.sample(2, y=7)


def test_it_is_pickled(blobs, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(blobs[0]), fitted.predict_proba(blobs[0]))


@pytest.mark.exhaustive
def test_every_row_is_a_class_of_its_own():
    x = load_digits().data[:12]
    vae = SSVAEClassifier(**QUICK).fit(x, np.arange(12))
    assert vae.predict_proba(x).shape == (12, 12)


@pytest.mark.exhaustive
def test_a_grid_search_scores_by_what_has_a_label(blobs):
    x, _, labels = blobs
    search = GridSearchCV(SSVAEClassifier(**QUICK), {"max_iter": [1, 20]}, cv=2, error_score="raise").fit(x, labels)
    assert search.best_params_ == {"max_iter": 20}
    assert search.best_score_ > 0.8  # by 15 labels

"""The semi-supervised variational autoencoder as a classifier: few labels, many rows."""

from __future__ import annotations

import logging
import numbers
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pyro import poutine
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.models import MODELS
from pyro_vae.pairs.classes import LABEL_SITE, indices_of
from pyro_vae.pairs.handlers import unconditioned
from pyro_vae.pairs.traces import value_at
from pyro_vae.sklearn.answers import class_probabilities
from pyro_vae.sklearn.base import FLOATS, VAEEstimator, read_random_state, read_whole
from pyro_vae.sklearn.units import Labels

logger = logging.getLogger(__name__)

UNLABELLED = -1


class SSVAEClassifier(ClassifierMixin, VAEEstimator):
    r"""A classifier q(y | x) that is fitted together with a generative model p(x, y, z), from few labels.

    Rows whose label is -1 have none, as scikit-learn's semi-supervised estimators have it; among text the label may be
    -1 or "-1".  With one other value alone, -1 is a class.  All parameters are those of ``VAETransformer``; the model
    is ``ss_vae`` unless ``settings`` names another one with labels, and what is transformed to is the style z.

    Args:
        n_components: the dimension of the style z.
        hidden_layer_sizes: the widths of the hidden layers, of the classifier too.
        max_iter: passes over the training rows; ``"auto"``: 80, but from 800 to 10,000 steps.
        image_shape: (H, W) or (C, H, W), where rows are images laid flat: then the classifier is convolutional and is
            trained on images that are moved and turned a little.
        n_importance_samples: the samples per row of ``score_samples``.
        settings: every other keyword of ``pyro_vae.fit`` by its name.
        random_state: a seed, a ``RandomState``, or None for another fit each time.
        verbose: whether to show the progress.

    Attributes:
        classes_: the classes, sorted.
        run_: the fitted ``pyro_vae.Run``.
        n_iter_: the number of epochs.
        n_features_in_: the number of columns.
        feature_names_in_: their names, where X has any.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.sklearn import SSVAEClassifier
        >>> kind = np.arange(60) % 2
        >>> x = np.random.default_rng(0).normal(10.0 * kind[:, None], 1.0, size=(60, 3))
        >>> y = np.where(np.arange(60) < 20, kind, -1)  # a third has labels
        >>> vae = SSVAEClassifier(2, (16,), max_iter=20, settings={"lr": 0.01}, random_state=0).fit(x, y)
        >>> vae.classes_, vae.predict_proba(x).shape
        (array([0, 1]), (60, 2))
        >>> vae.score(x, kind)
        1.0
        >>> rows, labels = vae.sample(5)
        >>> rows.shape, labels.shape
        ((5, 3), (5,))
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the model, its guide and the classifier to rows, of which some have a label.

        Args:
            X: rows of shape (N, n_features), two at least.
            y: a label per row, numbers or text; -1 where there is none.

        Raises:
            ValueError: as scikit-learn has it; if fewer than two classes have a label, or a parameter or setting is not
                what it should be.
        """
        self._begin()
        _check_no_gaps(y)
        x, y = validate_data(
            self, X, y, dtype=FLOATS, ensure_all_finite=self._finite, ensure_min_samples=2, multi_output=True
        )
        y = _as_values(column_or_1d(y, warn=True))
        self.classes_, labels = _read_labels(y)
        model = self.checked_settings().get("model", "ss_vae")
        if isinstance(model, str) and not MODELS.takes(model, "num_classes"):
            raise InputError("a model with class labels", repr(model), 'use settings={"model": "ss_vae"}')
        self._fit(x, labels, "ss_vae")
        if not self.run_.structure.has_label:  # of a program of the user's own
            raise InputError(
                f"a model with a label site {LABEL_SITE!r}", repr(self.run_.config.model), "use VAETransformer for it"
            )
        return self

    def predict(self, X: Any) -> Array:
        """The most probable class of each row under q(y | x), shape (N,)."""
        probabilities = self.predict_proba(X)
        classes: Array = self.classes_[probabilities.argmax(1)]
        return classes

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """q(y | x) of each row, shape (N, number of classes), in the order of ``classes_``."""
        x = self._rows(X)
        probabilities = class_probabilities(self.run_, self._units.rows(x)).double().numpy()
        normalized: NDArray[np.float64] = probabilities / probabilities.sum(1, keepdims=True)
        return normalized

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """The logarithm of ``predict_proba``, shape (N, number of classes)."""
        return np.log(self.predict_proba(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy on the rows that have a label.

        Args:
            X: rows of shape (N, n_features).
            y: their labels; rows of -1 are passed over, unless it is a class.
            sample_weight: the weight of each row; default: all alike.

        Raises:
            ValueError: if no row has a label.
        """
        check_is_fitted(self)
        _check_no_gaps(y)
        labels = _as_values(column_or_1d(y))
        known = ~_is_unlabelled(labels) | np.isin(UNLABELLED, self.classes_)
        if known.all():
            return float(super().score(X, labels, sample_weight))
        if not known.any():
            raise InputError("a label in y to score by", "none but -1", "give the labels of some rows")
        predicted = self.predict(X)
        check_consistent_length(predicted, labels, sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(accuracy_score(_as_values(labels[known]), predicted[known], sample_weight=weights))

    def sample(self, n_samples: int = 1, y: Any = None, random_state: Any = None) -> tuple[NDArray[np.float64], Array]:
        """Rows and their classes drawn from the model, shapes (n_samples, n_features) and (n_samples,).

        Args:
            n_samples: how many.
            y: the class of all of them; default: drawn from p(y).
            random_state: a seed, a ``RandomState``, or None for others each time.

        Raises:
            ValueError: if there is no such class, or the model does not generate by class.
        """
        check_is_fitted(self)
        seed = read_random_state(random_state)
        if y is not None and not np.isin(y, self.classes_).all():
            raise InputError(
                "a class of this classifier", repr(y), f"choose one of: {', '.join(map(str, self.classes_))}"
            )
        labels = self._drawn_classes(n_samples, seed)
        if y is not None:
            labels = np.full(len(labels), np.flatnonzero(self.classes_ == y)[0])
        rows = np.empty((len(labels), self.n_features_in_))
        for label in np.unique(labels):
            mine = labels == label
            rows[mine] = self._numbers(self.run_.sample(int(mine.sum()), y=int(label), seed=seed, mean=False))
            seed += 1
        return rows, self.classes_[labels]

    def _drawn_classes(self, n_samples: int, seed: int) -> Array:
        """Class indices drawn from p(y), shape (n_samples,)."""
        template = self.run_.sample(read_whole("n_samples", n_samples), seed=seed)
        with self.run_.pair.looked_at(seed):
            program = poutine.trace(unconditioned(self.run_.model))
            trace = program.get_trace(*self.run_.pair.arguments(torch.zeros_like(template).to(self.run_.device), None))
            assert self.run_.structure.classes is not None
            drawn: Array = indices_of(value_at(trace, LABEL_SITE), self.run_.structure.classes).cpu().numpy()
        return drawn

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _check_no_gaps(y: Any) -> None:
    """Refuse missing labels, which scikit-learn does not take for rows without one."""
    gaps = np.atleast_1d(pd.isna(np.asarray(y, dtype=object)))
    if y is not None and gaps.any():
        raise InputError(
            "a label for each row in y, -1 where there is none",
            f"y that contains NaN or None in {gaps.sum()} of {len(gaps)} rows",
            "use numpy.where(pandas.isna(y), -1, y)",
        )


def _as_values(y: Array) -> Array:
    """Labels as an array of their own type where they came as objects, unless they are text."""
    if y.dtype.kind != "O" or not all(isinstance(value, numbers.Real | np.bool_) for value in y):
        return y
    are_bools = [isinstance(value, bool | np.bool_) for value in y]
    return y if any(are_bools) and not all(are_bools) else np.array(y.tolist())


def _is_unlabelled(y: Array) -> NDArray[np.bool_]:
    """Which labels are -1, of numbers or text, shape of y."""
    if y.dtype.kind in "USO":
        return np.array([value == UNLABELLED or value == str(UNLABELLED) for value in y.ravel()]).reshape(y.shape)
    unlabelled: NDArray[np.bool_] = y == UNLABELLED
    return unlabelled


def _read_labels(y: Array) -> tuple[Array, Labels]:
    """The classes, sorted, and the place of each row's label among them, -1 where it has none.

    Raises:
        ValueError: if they are not classes, or fewer than two.
    """
    unlabelled = _is_unlabelled(y)
    known = _as_values(y[~unlabelled])
    if len(known):
        check_classification_targets(known)
    classes = np.unique(known)
    if len(classes) == 1 and unlabelled.any() and y.dtype.kind not in "USO":
        logger.warning(f"y holds {classes[0]} and -1 alone: -1 is taken as a class, not as 'no label'")
        classes, unlabelled = np.unique(y), np.zeros(len(y), bool)
    if len(classes) < 2:
        count = "1 class" if len(classes) else "0 classes"
        raise InputError("labels of at least 2 classes in y", count, "label rows of another class; -1 is not a label")
    indices = np.full(len(y), UNLABELLED, dtype=np.int64)
    indices[~unlabelled] = np.searchsorted(classes, _as_values(y[~unlabelled]))
    return classes, Labels(indices, tuple(map(str, classes)))

"""What both estimators share: their parameters, how they are fitted, and what they say of rows and of the model."""

from __future__ import annotations

import copy
import logging
import math
import numbers
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_vae.data.pixels import Array, Reading
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import first_line
from pyro_vae.models import MODELS
from pyro_vae.runs.fitting import fit
from pyro_vae.runs.run import Run
from pyro_vae.sklearn.answers import log_likelihoods, one_at_a_time, posterior_means
from pyro_vae.sklearn.units import Labels, read_rows
from pyro_vae.sklearn.words import as_parameters, in_parameters

logger = logging.getLogger(__name__)

FLOATS = [np.float64, np.float32]
NESTED = "settings__"  # before the name of a setting, as scikit-learn names what is inside of a parameter
NAMED = {  # settings of pyro_vae.fit that have a parameter of their own, or none at all
    "latent_dim": "use n_components",
    "hidden": "use hidden_layer_sizes",
    "epochs": "use max_iter",
    "seed": "use random_state",
    "display": "use verbose",
    "channels": "use image_shape=(C, H, W)",
    "data": "give the rows to fit(X)",
    "labels": "give them to fit(X, y), -1 where there is none",
    "label_column": "give labels to fit(X, y)",
    "columns": "fit tables with a likelihood per column by pyro_vae.fit",
    "covariates": "fit tables with covariates by pyro_vae.fit",
}


class VAEEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both estimators share; see ``VAETransformer`` for the parameters."""

    def __init__(
        self,
        n_components: int = 32,
        hidden_layer_sizes: int | tuple[int, ...] | None = None,
        max_iter: int | str = "auto",
        *,
        image_shape: tuple[int, ...] | None = None,
        n_importance_samples: int = 100,
        settings: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.image_shape = image_shape
        self.n_importance_samples = n_importance_samples
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    def transform(self, X: Any) -> Array:
        """The posterior means E_q[z | x].

        Args:
            X: rows of shape (N, n_features).

        Returns:
            Shape (N, n_components), of the type of X.
        """
        x = self._rows(X)
        means: Array = posterior_means(self.run_, self._units.rows(x)).numpy().astype(x.dtype)
        return means

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """The log-likelihood of each row, log p(x), by importance sampling, in nats and in the units of X.

        Args:
            X: rows of shape (N, n_features).

        Returns:
            Shape (N,): log-densities of numbers, log-probabilities of bits and counts; of a row with values missing,
            of those that are there.  A lower bound on average, which rises with ``n_importance_samples``; minus
            infinity for a row so far from the others that single precision has no number for it.
        """
        x = self._rows(X)
        found = log_likelihoods(self.run_, self._units.rows(x), self.n_importance_samples).numpy()
        return found if self._is_discrete else found + self._units.log_volume(x)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, and if ``deep`` each setting as ``settings__NAME``."""
        parameters: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.settings, Mapping):
            parameters |= {f"{NESTED}{name}": value for name, value in self.settings.items()}
        return parameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ``settings__NAME`` sets one of the settings and leaves the others.

        Raises:
            ValueError: if there is no such parameter.
        """
        nested = {name.removeprefix(NESTED): params.pop(name) for name in list(params) if name.startswith(NESTED)}
        super().set_params(**params)
        if nested:
            self.settings = {**(self.settings or {}), **nested}
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether the last ``fit`` came to its end."""
        return hasattr(self, "run_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._may_miss
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the training data, which the run holds while it lives in memory."""
        state: dict[str, Any] = super().__getstate__()
        if "run_" in state:
            state = state | {"run_": copy.copy(state["run_"])}
            state["run_"].forget_data()
        return state

    @property
    def _n_features_out(self) -> int:
        return self.run_.structure.continuous[self.run_.latent_site(None)].size

    @property
    def _may_miss(self) -> bool:
        return isinstance(self.settings, Mapping) and self.settings.get("missing", "refuse") == "mask"

    @property
    def _is_discrete(self) -> bool:
        return bool(getattr(self.run_.structure.support, "is_discrete", False))

    def _rows(self, X: Any) -> Array:
        """Rows to ask about, checked as scikit-learn does."""
        check_is_fitted(self)
        finite = "allow-nan" if self.run_.facts.has_missing else True  # a model fitted without knows of none
        rows: Array = validate_data(self, X, reset=False, dtype=FLOATS, ensure_all_finite=finite)
        return rows

    @property
    def _finite(self) -> bool | str:
        """What scikit-learn's checks take for finite while fitting."""
        return "allow-nan" if self._may_miss else True

    def _begin(self) -> None:
        """Forget the last fit, so that one that fails leaves no model of other rows behind."""
        if hasattr(self, "run_"):
            del self.run_

    def _fit(self, x: Array, labels: Labels | None, model: str) -> Self:
        """Fit to rows that scikit-learn has checked."""
        settings = {"model": model, **_untrained(self.checked_settings())}
        own_scale = settings.get("scale", "auto") != "auto" or settings.get("likelihood", "auto") != "auto"
        takes = isinstance(settings["model"], str) and MODELS.takes(settings["model"], "likelihood")
        scale = settings.get("scale", "auto")
        reading = Reading(
            scale=None if scale == "auto" else scale, channels="first", missing=settings.get("missing", "refuse")
        )
        seed = read_random_state(self.random_state)
        shape = _event_shape(self.image_shape, x.shape[1])
        dataset, self._units = read_rows(x, shape, reading, takes and not own_scale, labels, seed)
        sizes = self.hidden_layer_sizes
        with one_at_a_time, in_parameters():
            self.run_: Run = fit(
                data=dataset,
                latent_dim=read_whole("n_components", self.n_components),
                hidden=None if sizes is None else _wholes("hidden_layer_sizes", sizes),
                epochs="auto" if self.max_iter == "auto" else read_whole("max_iter", self.max_iter),
                seed=seed,
                labels="none" if labels is None else "all",
                display=bool(self.verbose),
                **settings,
            )
        self.n_iter_ = len(self.run_.history)
        for finding in () if self.verbose else self.run_.findings:
            logger.warning(f"{type(self).__name__}: {as_parameters(str(finding))}")
        return self

    def checked_settings(self) -> dict[str, Any]:
        """The settings of ``pyro_vae.fit``.

        Raises:
            InputError: if they are not given by name, or one of them has a parameter of its own.
        """
        read_whole("n_importance_samples", self.n_importance_samples)
        if not isinstance(self.settings, Mapping | None) or not all(
            isinstance(name, str) for name in self.settings or ()
        ):
            raise InputError(
                "settings by name", repr(self.settings), 'use settings={"guide": "iaf"}, for example, or leave it out'
            )
        settings = dict(self.settings or {})
        for name in settings:
            if name in NAMED:
                raise InputError(f"no {name!r} among the settings of {type(self).__name__}", "one", NAMED[name])
        return settings

    def _numbers(self, rows: Any) -> NDArray[np.float64]:
        """What the model made, in the units of X, shape (N, n_features)."""
        return self._units.numbers(rows)


def read_random_state(random_state: Any) -> int:
    """A seed: the number itself, or one drawn from what scikit-learn takes in its place.

    Raises:
        ValueError: if it is nothing that scikit-learn takes.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.sklearn.base import read_random_state
        >>> read_random_state(3)
        3
        >>> read_random_state(np.random.RandomState(0)) == read_random_state(np.random.RandomState(0))
        True
    """
    drawn = check_random_state(random_state)
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(drawn.randint(np.iinfo(np.int32).max))


def _untrained(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose programs are copies, model and guide together, so that ``fit`` leaves those of the user alone."""
    try:
        return settings | copy.deepcopy({name: settings[name] for name in ("model", "guide") if name in settings})
    except (RuntimeError, TypeError) as error:  # of tensors and handles that cannot be copied
        logger.warning(f"the programs in settings are trained in place, as they cannot be copied: {first_line(error)}")
        return settings


def _event_shape(image_shape: Any, num_columns: int) -> tuple[int, ...]:
    """The shape of a datum for the programs: (D,), or (C, H, W) of images."""
    if image_shape is None:
        return (num_columns,)
    shape = _wholes("image_shape", image_shape)
    if len(shape) not in (2, 3) or math.prod(shape) != num_columns:
        raise InputError(
            f"image_shape (H, W) or (C, H, W) of {num_columns} numbers in all, as X has columns",
            repr(image_shape),
            "leave it out for rows that are not images",
        )
    return shape if len(shape) == 3 else (1, *shape)


def _wholes(name: str, values: Any) -> tuple[int, ...]:
    """Several whole numbers, or one."""
    several = [values] if np.ndim(values) == 0 else list(values)
    return tuple(read_whole(name, value) for value in several or ["none"])


def read_whole(name: str, value: Any) -> int:
    """A parameter that is a whole number from 1 on.

    Raises:
        InputError: if it is not.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name} of whole numbers from 1 on", repr(value), f"use {name}={EXAMPLES[name]}")
    return int(value)


EXAMPLES = {
    "n_components": "32",
    "hidden_layer_sizes": "(256, 256)",
    "max_iter": "100, or 'auto'",
    "image_shape": "(8, 8)",
    "n_importance_samples": "100",
    "n_samples": "1",
}

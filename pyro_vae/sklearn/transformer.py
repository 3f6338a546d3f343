"""A variational autoencoder as a transformer: latent means out, rows back, densities of rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.sklearn.base import FLOATS, VAEEstimator, read_random_state, read_whole


class VAETransformer(VAEEstimator):
    r"""A variational autoencoder that maps rows to their posterior means E_q[z | x] and back.

    Args:
        n_components: the dimension of z, ``latent_dim`` of ``pyro_vae.fit``.
        hidden_layer_sizes: the widths of the hidden layers, of the encoder and, in reverse, of the decoder; None: two
            of 256.
        max_iter: passes over the training rows, ``epochs`` of ``pyro_vae.fit``; ``"auto"``: 80, but from 3,000 to
            40,000 steps.  Training may stop early.
        image_shape: (H, W) or (C, H, W), where rows are images laid flat, so that networks for images can be used.
        n_importance_samples: the samples per row of ``score_samples``.
        settings: every other keyword of ``pyro_vae.fit`` by its name: ``model``, ``guide``, ``prior``,
            ``likelihood``, ``beta``, ``batch_size``, ``lr``, ``patience``, ``missing``, ``out``, ….  A run directory
            is written where ``out`` says so, and nowhere else.  Each is a parameter too: ``settings__beta``.
        random_state: a seed, a ``RandomState``, or None for another fit each time.
        verbose: whether to show the progress.

    Attributes:
        run_: the fitted ``pyro_vae.Run``, on the numbers that the model sees.
        n_iter_: the number of epochs.
        n_features_in_: the number of columns.
        feature_names_in_: their names, where X has any.

    Where neither a likelihood nor a scale is set, columns that are all 0 or 1 have a Bernoulli likelihood, and others
    a normal one with one learned scale, after each is centred and all are divided by one number, which densities
    account for.  Columns of unlike units want a ``StandardScaler`` before, as for ``PCA``.  A tenth of the rows chooses
    the best epoch.

    Example:
        >>> import numpy as np
        >>> from pyro_vae.sklearn import VAETransformer
        >>> x = np.random.default_rng(0).normal([10.0, 20.0, 30.0], 2.0, size=(50, 3))
        >>> vae = VAETransformer(n_components=2, hidden_layer_sizes=(16,), max_iter=20, random_state=0).fit(x)
        >>> vae.transform(x).shape, vae.inverse_transform(vae.transform(x)).shape, vae.sample(4).shape
        ((50, 2), (50, 3), (4, 3))
        >>> vae.get_feature_names_out()
        array(['vaetransformer0', 'vaetransformer1'], dtype=object)
        >>> vae.score_samples(x).mean() == vae.score(x)
        np.True_
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model and its guide to rows.

        Args:
            X: rows of shape (N, n_features), two at least.
            y: passed over.

        Raises:
            ValueError: as scikit-learn has it, and if a parameter or setting is not what it should be.
        """
        self._begin()
        x = validate_data(self, X, dtype=FLOATS, ensure_all_finite=self._finite, ensure_min_samples=2)
        return self._fit(x, None, "vae")

    def inverse_transform(self, X: Any) -> Array:
        """The mean E[x | z] of each latent point, in the units of the rows.

        Args:
            X: latent points of shape (N, n_components).

        Returns:
            Shape (N, n_features), of the type of X.
        """
        check_is_fitted(self)
        z = check_array(X, dtype=FLOATS)
        if z.shape[1] != self._n_features_out:
            raise InputError(
                f"{self._n_features_out} columns of latent points", str(z.shape[1]), "give what transform returned"
            )
        rows = self._numbers(self.run_.decode(torch.tensor(z)))
        return rows.astype(z.dtype)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> NDArray[np.float64]:
        """Rows drawn from the model, shape (n_samples, n_features), in the units of X.

        Args:
            n_samples: how many.
            random_state: a seed, a ``RandomState``, or None for others each time.
        """
        check_is_fitted(self)
        count, seed = read_whole("n_samples", n_samples), read_random_state(random_state)
        return self._numbers(self.run_.sample(count, seed=seed, mean=False))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of ``score_samples``, which model selection maximizes.

        Args:
            X: rows of shape (N, n_features).
            y: passed over.
        """
        return float(self.score_samples(X).mean())

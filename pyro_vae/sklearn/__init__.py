"""Estimators of scikit-learn: a VAE that transforms, and one that classifies from few labels.

They take rows of numbers and are fitted by ``pyro_vae.fit``; importing this package loads neither of the two libraries
before a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.sklearn.classifier import SSVAEClassifier
    from pyro_vae.sklearn.transformer import VAETransformer

__all__ = ["SSVAEClassifier", "VAETransformer"]

__getattr__, __dir__ = lazy.attach(__name__, {"SSVAEClassifier": "classifier", "VAETransformer": "transformer"})

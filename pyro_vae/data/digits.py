"""The handwritten digits that come with scikit-learn: real images that need no download."""

from __future__ import annotations

import numpy as np
import torch

from pyro_vae.data.arrays import split_at_random
from pyro_vae.data.base import DATA
from pyro_vae.data.images import Dataset, Images


@DATA.register("digits")
def digits() -> Dataset:
    """Handwritten digits, 8x8, 1,797 images that come with scikit-learn.

    A pixel counts which of 16 points of a fine grid were inked.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = torch.from_numpy(source.images.astype(np.uint8)).unsqueeze(1)
    images = Images(pixels, torch.from_numpy(source.target.astype(np.int64)), scale=16.0)
    return split_at_random("digits", images, validation=200, test=400, class_names=tuple("0123456789"), kind="counts")

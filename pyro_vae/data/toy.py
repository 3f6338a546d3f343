r"""Vectors from a model whose posterior and evidence are known exactly: probabilistic PCA.

z ~ N(0, I) and x | z ~ N(W z + b, s^2 I) (Tipping and Bishop 1999), so that

    p(x) = N(b, W W^T + s^2 I),
    p(z | x) = N(M^{-1} W^T (x - b) / s^2, M^{-1}),   M = I + W^T W / s^2.

The columns of W are far from orthogonal: the two latents have a posterior correlation of -0.73 for every x, which no
guide with a diagonal covariance can reach.
"""

from __future__ import annotations

import torch

from pyro_vae.data.arrays import split_at_random
from pyro_vae.data.base import DATA
from pyro_vae.data.images import Dataset, Images

WEIGHT = ((1.0, 0.8), (0.9, 1.1), (-0.5, 0.3), (0.7, 0.9), (0.2, -0.4))  # W, five rows of two
BIAS = (0.5, -1.0, 0.0, 1.0, -0.5)  # b
NOISE_SCALE = 0.5  # s
NUM_DATA = 2000
SEED = 0


@DATA.register("toy")
def toy() -> Dataset:
    """Vectors of probabilistic PCA, 5 dimensions from 2 latents, 2,000 rows; its evidence is known exactly."""
    generator = torch.Generator().manual_seed(SEED)
    weight, bias = torch.tensor(WEIGHT), torch.tensor(BIAS)
    z = torch.randn(NUM_DATA, weight.shape[1], generator=generator)
    noise = torch.randn(NUM_DATA, len(bias), generator=generator)
    x = z @ weight.T + bias + NOISE_SCALE * noise
    return split_at_random("toy", Images(x), validation=200, test=200)

r"""Which latent points a picture shows.

A *manifold* lays equal steps of probability over the plane: with Phi the cumulative distribution function of the
standard normal, both coordinates run over the quantiles Phi^-1((i + 1/2) / n), i = 0, …, n - 1 (Kingma and Welling,
*Auto-Encoding Variational Bayes*, 2014, appendix D, figure 4).

A *traversal* starts from a base point and moves one coordinate at a time, the others held (Higgins et al., *beta-VAE*,
2017).  The coordinates that carry most come first, by their activity Var_x(E_q[z_u | x]) (Burda, Grosse and
Salakhutdinov, *Importance Weighted Autoencoders*, 2016).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from pyro_vae.runs.generator import Generator

DRAWS = 10  # averaged where a guide does not know its mean
IMAGES_AT_ONCE = 200


def quantiles(num: int) -> Tensor:
    """Quantiles of the standard normal at the middles of ``num`` equal steps of probability, shape (num,)."""
    return torch.special.ndtri((torch.arange(num) + 0.5) / num)


def manifold_points(num: int) -> Tensor:
    """A square grid over the quantiles, shape (num^2, 2), row by row as a picture has them.

    The first coordinate grows to the right, the second one upwards.
    """
    up, right = torch.meshgrid(quantiles(num).flip(0), quantiles(num), indexing="ij")
    return torch.stack([right, up], -1).reshape(-1, 2)


def traversal_points(base: Tensor, dims: Tensor, values: Tensor) -> Tensor:
    """Copies of a point with one coordinate changed, shape (K * M, D), a coordinate after the other.

    Args:
        base: shape (D,).
        dims: the coordinates to change, shape (K,).
        values: what to change each one to, shape (K, M).
    """
    points = base.repeat(len(dims), values.shape[1], 1)
    points[torch.arange(len(dims)), :, dims] = values.to(points)
    return points.flatten(0, 1)


def representatives(pictures: Tensor, num: int) -> Tensor:
    """Indices of pictures that differ and are typical, shape (num,): of ``num`` clusters by k-means, the most central.

    The picture that is farthest from all others would be one that the model hardly ever makes.

    Args:
        pictures: shape (N, ...), N at least ``num``.
        num: how many to choose.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = pictures.flatten(1).double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a collapsed model, whose pictures are all the same
        found = KMeans(num, n_init=3, random_state=0).fit(points)
    distances = torch.from_numpy(found.transform(points))
    distances[torch.from_numpy(found.labels_).unsqueeze(1) != torch.arange(num)] = torch.inf
    return distances.argmin(0)


def spread(means: Tensor) -> tuple[Tensor, Tensor]:
    """Where each latent dimension lies and how wide it is, both of shape (D,), from posterior means of shape (N, D).

    It is that of the prior N(0, 1), unless the means themselves are wider: then the prior is learned, conditional or
    passed over, and what lies within three of its standard deviations is a small part of what the images are coded as.
    """
    deviation = means.std(0, correction=0)
    return means.mean(0) * (deviation > 1), deviation.clamp(min=1)


def activity(means: Tensor) -> Tensor:
    """Var_x(E_q[z_u | x]) of each latent dimension, shape (D,), from posterior means of shape (N, D)."""
    return means.var(0, correction=0)


def posterior_means(generator: Generator, x: Tensor, site: str) -> Tensor:
    r"""E_q[z | x] of images of shape (N, \*event_shape), a few at a time, shape (N, D)."""
    return torch.cat([generator.encode(chunk, site, DRAWS) for chunk in x.split(IMAGES_AT_ONCE)]).cpu()

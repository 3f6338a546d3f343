r"""Latent points of many dimensions in a plane.

Principal components are a projection: what is far apart there is far apart.  t-SNE (van der Maaten and Hinton,
*Visualizing Data using t-SNE*, 2008) and UMAP (McInnes, Healy and Melville, *UMAP: Uniform Manifold Approximation and
Projection*, 2018) keep neighbours together instead: which points lie in one cluster can be read off, how far clusters
are apart and how large they are cannot.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from pyro_vae.errors import InputError, nearest

METHODS = ("pca", "tsne", "umap")
PERPLEXITY = 30.0  # neighbours that count for a point of t-SNE, scikit-learn's default
FEWEST = 4  # points that t-SNE and UMAP can lay out


def plane(points: np.ndarray, site: str = "z", method: str = "pca") -> tuple[np.ndarray, tuple[str, str]]:
    """The points in at most two dimensions, and what the axes are called.

    Args:
        points: shape (N, D); of one or two dimensions they stay as they are, whatever the method.
        site: the latent site.
        method: pca, tsne or umap.

    Raises:
        InputError: if there is no such method, its package is not installed, or there are too few points for it.
    """
    if method not in METHODS:
        raise InputError("a way to lay out latents", repr(method), nearest(method, METHODS))
    if points.shape[1] == 1:
        return points, (f"{site}_0", "images")
    if points.shape[1] == 2:
        return points, (f"{site}_0", f"{site}_1")
    if method == "pca":
        return _principal(points)
    if len(points) < FEWEST:
        raise InputError(f"at least {FEWEST} points for {method}", str(len(points)), "use pca")
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
        found = TSNE(2, perplexity=perplexity, init=_start(points), random_state=0).fit_transform(points)
        return found, ("t-SNE 1", "t-SNE 2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a seed forbids
        found = _umap().UMAP(n_neighbors=min(15, len(points) - 1), random_state=0).fit_transform(points)
    return np.asarray(found), ("UMAP 1", "UMAP 2")


def _principal(points: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # where all points are one
        found = PCA(2, svd_solver="full").fit(points)
    shares = np.nan_to_num(found.explained_variance_ratio_)
    first, second = (f"{100 * share:.0f}% of the variance" for share in shares)
    return found.transform(points), (f"principal component 1, {first}", f"principal component 2, {second}")


def _start(points: np.ndarray) -> np.ndarray:
    """Where t-SNE begins: in the first two principal components, small; on a circle where all points are one."""
    start = _principal(points)[0]
    scale = start[:, 0].std()
    if not scale > 0:
        angle = 2 * np.pi * np.arange(len(points)) / len(points)
        return 1e-4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    return 1e-4 * start / scale


def _umap() -> Any:
    try:
        return importlib.import_module("umap")
    except ImportError:
        raise InputError(
            "the package umap-learn, for umap", "none", "pip install umap-learn, or use tsne, which is here"
        ) from None

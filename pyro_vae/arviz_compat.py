r"""What ArviZ 0.23 and 1.x do differently, said once: nothing else in the package asks which ArviZ it has.

Importing ArviZ is slow, so it is imported when something is asked of it.  Pareto-smoothed importance sampling (Vehtari,
Simpson, Gelman, Yao and Gabry, *Pareto Smoothed Importance Sampling*, 2024) fits a generalized Pareto distribution to
the largest weights of a datum; its shape k-hat says how many moments the weights have: below 0.5 their variance is
finite, above 0.7 their mean is not to be relied on.  ArviZ 0.23 takes log weights, 1.x takes them negated; with the
wrong sign every datum looks excellent.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

Kind = Literal["stats", "diagnostics", "all"]
FEWEST_DRAWS = 25  # whose largest fifth is the five that a fit needs
NUMBERS_AT_ONCE = 2**22
PREDICTIVE_CURVES = 50
POINT_SIZE = 8.0  # of scattered draws, in square points


@cache
def is_version_1() -> bool:
    """Whether ArviZ is 1.0 or newer, without importing it."""
    return int(metadata.version("arviz").split(".")[0]) >= 1


def arviz() -> Any:
    """The module, imported now."""
    with _contained():
        return importlib.import_module("arviz")


def psis(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed importance sampling, each datum by itself.

    Args:
        log_weights: log p(x, z) - log q(z | x), nats, shape (S, N); minus infinity is a weight of zero.

    Returns:
        The smoothed log weights, normalized so that those of a datum sum to one, shape (S, N), and k-hat, shape (N,).
        k-hat is infinite, which every threshold refuses, where nothing can be fitted: where a weight is NaN or
        infinite or all are zero (the smoothed weights are then NaN), where fewer than five lie in the tail, and where
        S < 25.  It is 0 where the weights of the tail are equal to rounding, as those of an exact posterior are:
        nothing is heavy there.
    """
    smoothed, k_hat = torch.empty_like(log_weights), log_weights.new_empty(log_weights.shape[1])
    step = max(1, NUMBERS_AT_ONCE // max(1, len(log_weights)))
    for start in range(0, log_weights.shape[1], step):
        part = slice(start, start + step)
        rounding = 64 * torch.finfo(log_weights.dtype).eps
        of_part = _psis(log_weights[:, part].detach().cpu().double().numpy().T, rounding)
        smoothed[:, part], k_hat[part] = (torch.as_tensor(found.T) for found in of_part)
    return smoothed, k_hat


def _psis(log_weights: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of rows, shape (N, S)."""
    largest = log_weights.max(-1, keepdims=True)
    sound = np.isfinite(largest[:, 0])  # NaN is the largest of any row that holds it
    smoothed = np.full(log_weights.shape, np.nan)
    smoothed[sound] = log_weights[sound] - largest[sound]
    smoothed[sound] -= np.log(np.exp(smoothed[sound]).sum(-1, keepdims=True))
    k_hat = np.full(len(log_weights), np.inf)
    num_draws = log_weights.shape[1]
    if num_draws < FEWEST_DRAWS:
        return smoothed, k_hat
    tail = int(np.ceil(min(num_draws / 5, 3 * num_draws**0.5)))
    threshold = np.partition(log_weights, num_draws - tail - 1, -1)[:, -tail - 1]
    with np.errstate(invalid="ignore"):
        even = sound & (largest[:, 0] - threshold <= rounding * np.maximum(1, np.abs(largest[:, 0])))
    k_hat[even] = 0
    fit = sound & ~even & ((log_weights > threshold[:, None]).sum(-1) >= 5)
    if fit.any():
        with _contained():
            smoothed[fit], k_hat[fit] = _arviz_psislw(log_weights[fit] - largest[fit])
    k_hat[np.isnan(k_hat)] = np.inf
    return smoothed, k_hat


def _arviz_psislw(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if is_version_1():
        return importlib.import_module("arviz_stats.base").array_stats.psislw(-log_weights)
    return arviz().psislw(log_weights)


def as_arviz(tree: xr.DataTree) -> Any:
    """The tree as the functions of ArviZ take it: itself on 1.x, an ``InferenceData`` on 0.23."""
    return tree if is_version_1() else arviz().from_datatree(tree)


def summary(tree: xr.DataTree, kind: Kind) -> pd.DataFrame:
    """ArviZ's table of the posterior, unrounded; the names of its columns are the version's own.

    Args:
        tree: with a group ``posterior``.
        kind: of the statistics.
    """
    with _contained():
        table = arviz().summary(as_arviz(tree), kind=kind, round_to="none")
    return table.astype(float)


def forest(trees: Mapping[str, xr.DataTree], colors: Sequence[str], size: tuple[float, float]) -> Figure:
    """Intervals of every number of one or several posteriors, whose chains and draws must be alike in number.

    Args:
        trees: by the name in the legend.
        colors: one a tree.
        size: in inches.
    """
    with _contained():
        if is_version_1():
            options = {"combined": True, "backend": "matplotlib", "figure_kwargs": {"figsize": size}}
            drawn = arviz().plot_forest(dict(trees), color=list(colors), **options)
            figure = _detached(drawn.viz["figure"].item())
        else:
            data = [as_arviz(tree) for tree in trees.values()]
            options = {"model_names": list(trees), "combined": True, "figsize": size}
            axes = arviz().plot_forest(data, colors=list(colors), **options)
            for legend in (ax.get_legend() for ax in np.ravel(axes)):  # without one it would prefix every row
                if legend is not None:
                    legend.remove()
            figure = _detached(np.ravel(axes)[0].figure)
    return _with_legend(figure, trees, colors)


def pair(trees: Mapping[str, xr.DataTree], colors: Sequence[str], size: tuple[float, float]) -> Figure:
    """Draws of every two coordinates, one posterior over the other, the last on top.

    Args:
        trees: by the name in the legend.
        colors: one a tree.
        size: in inches.
    """
    axes: Any = None
    options: dict[str, Any]
    with _contained():
        for tree, color in zip(trees.values(), colors, strict=True):
            if is_version_1():
                visuals = {"scatter": {"color": color, "alpha": 0.3, "size": POINT_SIZE}, "dist": {"color": color}}
                options = {"plot_matrix": axes, "visuals": visuals, "marginal_kind": "kde", "backend": "matplotlib"}
                options |= {"figure_kwargs": {"figsize": size}} if axes is None else {}
                axes = arviz().plot_pair(tree, **options)
            else:
                dots = {"color": color, "alpha": 0.3, "s": POINT_SIZE, "edgecolors": "none"}
                options = {"kind": "scatter", "marginals": True, "ax": axes, "figsize": size, "textsize": 10}
                options |= {"scatter_kwargs": dots, "marginal_kwargs": {"color": color}}
                axes = arviz().plot_pair(as_arviz(tree), **options)
        figure = _detached(axes.viz["figure"].item() if is_version_1() else np.ravel(axes)[0].figure)
    return _with_legend(figure, trees, colors)


def posterior_predictive_check(tree: xr.DataTree) -> Figure:
    """The distribution of the observed values on those of several predictive draws.

    Args:
        tree: with the groups ``observed_data`` and ``posterior_predictive``.
    """
    generated = tree["posterior_predictive"]
    count = min(PREDICTIVE_CURVES, generated.sizes["chain"] * generated.sizes["draw"])
    with _contained():
        if is_version_1():
            drawn = arviz().plot_ppc_dist(tree, num_samples=count, kind="kde", backend="matplotlib")
            return _detached(drawn.viz["figure"].item())
        axes = arviz().plot_ppc(as_arviz(tree), num_pp_samples=count, figsize=(6, 4))
        return _detached(np.ravel(axes)[0].figure)


def pit_ecdf(values: np.ndarray, label: str) -> Figure:
    """How far the distribution of probability integral transforms is from the uniform one, with a band.

    Args:
        values: numbers in [0, 1], shape (M,).
        label: of the horizontal axis.
    """
    import xarray as xr

    with _contained():
        if is_version_1():
            pits = xr.DataTree.from_dict({"pit": xr.Dataset({"pit": ("sample", values)})})
            options = {"group": "pit", "sample_dims": ["sample"], "method": "pot_c", "backend": "matplotlib"}
            drawn = arviz().plot_ecdf_pit(pits, visuals={"xlabel": {"text": label}, "title": False}, **options)
            return _detached(drawn.viz["figure"].item())
        uniform = importlib.import_module("scipy.stats").uniform
        bands = {"cdf": uniform(0, 1).cdf, "difference": True, "confidence_bands": True, "npoints": 200}
        axes = arviz().plot_ecdf(values, rvs=uniform(0, 1).rvs, eval_points=np.linspace(0, 1, 201), **bands)
        axes.set_xlabel(label)
        axes.set_ylabel("ECDF difference")
        return _detached(axes.figure)


def _with_legend(figure: Figure, names: Iterable[str], colors: Sequence[str]) -> Figure:
    """With the names above all axes."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, marker="o", label=name) for name, color in zip(names, colors, strict=True)]
    figure.set_layout_engine("constrained")
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def _detached(figure: Figure) -> Figure:
    """A figure that pyplot no longer knows, so that no notebook shows it twice and none is kept in memory."""
    from matplotlib import pyplot

    pyplot.close(figure)
    return figure


@contextmanager
def _contained() -> Iterator[None]:
    """Keep to itself what ArviZ says of itself and of its use of matplotlib, and its use of NumPy's global state."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
            warnings.filterwarnings("ignore", message="Passing a dict or None as alias_mapping")
            yield
    finally:
        np.random.set_state(state)

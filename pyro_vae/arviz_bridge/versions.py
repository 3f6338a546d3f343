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

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

Kind = Literal["stats", "diagnostics", "all"]
PREDICTIVE_CURVES = 50
POINT_SIZE = 8.0  # of scattered draws, in square points


@cache
def is_version_1() -> bool:
    """Whether ArviZ is 1.0 or newer, without importing it."""
    return int(metadata.version("arviz").split(".")[0]) >= 1


def arviz() -> Any:
    """The module, imported now."""
    with contained():
        return importlib.import_module("arviz")


def arviz_psislw(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ArviZ's smoothed log weights and k-hats of rows of log weights, shape (N, S)."""
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
        kind: the kind of the statistics.
    """
    with contained():
        table = arviz().summary(as_arviz(tree), kind=kind, round_to="none")
    return table.astype(float)


def forest(trees: Mapping[str, xr.DataTree], colors: Sequence[str], size: tuple[float, float]) -> Figure:
    """Intervals of every number of one or several posteriors, whose chains and draws must be alike in number.

    Args:
        trees: by the name in the legend.
        colors: one a tree.
        size: in inches.
    """
    with contained():
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
    with contained():
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
    with contained():
        if is_version_1():
            drawn = arviz().plot_ppc_dist(tree, num_samples=count, kind="kde", backend="matplotlib")
            return _detached(drawn.viz["figure"].item())
        axes = arviz().plot_ppc(as_arviz(tree), num_pp_samples=count, figsize=(6, 4))
        return _detached(np.ravel(axes)[0].figure)


def pit_ecdf(values: np.ndarray, label: str) -> Figure:
    """How far the distribution of probability integral transforms is from the uniform one, with a band.

    Args:
        values: numbers in [0, 1], shape (M,).
        label: the label of the horizontal axis.
    """
    import xarray as xr

    with contained():
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
def contained() -> Iterator[None]:
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

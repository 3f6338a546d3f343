"""What ArviZ shows of a posterior tree, on 0.23 and 1.x alike, and what it does not: k-hat and the training trace.

Each function takes trees as ``arviz_bridge`` makes them; figures are matplotlib's and show themselves in a notebook.
``var_names`` chooses sites, the continuous ones by default; ``coords`` chooses by coordinate, as in ``{"datum": 3}``
or ``{"z_dim_0": [0, 1]}``.  Where ArviZ draws (forests, pairs, predictive checks, LOO-PIT) it lays out axes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from pyro_vae.arviz_bridge import versions
from pyro_vae.arviz_bridge.loo import leave_one_out, observed_site
from pyro_vae.arviz_bridge.versions import Kind
from pyro_vae.errors import InputError
from pyro_vae.figures.restarts import check_group
from pyro_vae.figures.style import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
)

MOST_PAIRED = 8
COLORS = (ORANGE, BLUE, GREEN, GRAY)
Names = Sequence[str] | None
Coords = Mapping[str, Any] | None


def summary(
    tree: xr.DataTree, var_names: Names = None, coords: Coords = None, kind: Kind | None = None
) -> pd.DataFrame:
    """ArviZ's table: means, standard deviations and intervals, and of Markov chains R-hat and ESS.

    Args:
        tree: the posterior.
        var_names: which sites.
        coords: which of their numbers.
        kind: stats, diagnostics or all; default: stats for a guide and all for chains.

    Raises:
        InputError: if diagnostics are asked of one guide: its draws are independent, whatever they are draws of.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit("linear_gaussian", data=torch.randn(40, 3), latent_dim=2, epochs=1, display=False)
        >>> table = figures.summary(run.to_arviz(num_draws=50), coords={"datum": [0, 1]})
        >>> list(table.index), "sd" in table, "r_hat" in table  # the draws of a guide are independent: no R-hat
        (['z[0, 0]', 'z[0, 1]', 'z[1, 0]', 'z[1, 1]'], True, False)
    """
    variational = tree.attrs.get("inference") == "variational"
    kind = kind or ("stats" if variational else "all")
    if variational and kind != "stats" and tree["posterior"].sizes["chain"] == 1:
        raise InputError(
            "chains that could disagree, for R-hat and ESS",
            "independent draws from one guide",
            'use kind="stats", or make a tree of several restarts',
        )
    return versions.summary(_tree(_selected(tree, var_names, coords)), kind)


def matched(trees: Mapping[str, xr.DataTree], var_names: Names = None, coords: Coords = None) -> dict[str, xr.DataTree]:
    """Posteriors with equally many draws in one chain each, which is what comparing figures need.

    Args:
        trees: by name.
        var_names: which sites; default: the continuous ones that all have.
        coords: which of their numbers; of those that all have.

    Raises:
        InputError: if they have no numbers in common.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit("linear_gaussian", data=torch.randn(40, 3), latent_dim=2, epochs=1, display=False)
        >>> trees = figures.matched({"many": run.to_arviz(num_draws=50), "few": run.to_arviz(num_draws=20)})
        >>> {name: tree["posterior"].sizes["draw"] for name, tree in trees.items()}
        {'many': 20, 'few': 20}
    """
    if not trees:
        raise InputError("at least one posterior", "none", 'give {"VI": tree}')
    common = None if var_names else [n for n in _continuous(next(iter(trees.values()))) if _all_have(trees, n)]
    selected = [_selected(tree, var_names or common, coords) for tree in trees.values()]
    aligned = xr.align(*selected, join="inner", exclude=["chain", "draw"])
    if not aligned[0].data_vars or not all(aligned[0].sizes.values()):
        raise InputError("sites and data that all posteriors have", "none in common", "make them of the same data")
    fewest = min(part.sizes["chain"] * part.sizes["draw"] for part in aligned)
    return {name: _tree(_one_chain(part, fewest)) for name, part in zip(trees, aligned, strict=True)}


def plot_forest(trees: Mapping[str, xr.DataTree], var_names: Names = None, coords: Coords = None) -> Figure:
    """Intervals of several posteriors, for example VI beside NUTS; draws are matched first.

    Args:
        trees: by the name in the legend.
        var_names: which sites.
        coords: which of their numbers.

    Example:
        >>> from pyro_vae import figures, fit
        >>> settings = {"data": torch.randn(40, 3), "latent_dim": 2, "epochs": 1, "display": False}
        >>> runs = {guide: fit("linear_gaussian", guide, **settings) for guide in ("mean_field", "full_rank")}
        >>> trees = {guide: run.to_arviz(num_draws=50) for guide, run in runs.items()}
        >>> figure = figures.plot_forest(trees, coords={"datum": [0, 1]})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['mean_field', 'full_rank']
    """
    trees = matched(trees, var_names, coords)
    posterior = next(iter(trees.values()))["posterior"]
    rows = sum(variable[0, 0].size for variable in posterior.data_vars.values())
    return versions.forest(trees, _colors(trees), (7, max(2.4, 0.8 + rows * (0.16 + 0.12 * len(trees)))))


def plot_pair(trees: Mapping[str, xr.DataTree], var_names: Names = None, coords: Coords = None) -> Figure:
    """Draws of every two numbers of several posteriors, one over the other: the reference first.

    Args:
        trees: by the name in the legend.
        var_names: which sites.
        coords: which of their numbers; one datum, where there are several.

    Raises:
        InputError: if there are fewer than 2 numbers, or more than 8.

    Example:
        >>> from pyro_vae import figures, fit
        >>> settings = {"data": torch.randn(40, 3), "latent_dim": 2, "epochs": 1, "display": False}
        >>> runs = {guide: fit("linear_gaussian", guide, **settings) for guide in ("mean_field", "full_rank")}
        >>> trees = {guide: run.to_arviz(num_draws=50) for guide, run in runs.items()}
        >>> figure = figures.plot_pair(trees, coords={"datum": 0})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['mean_field', 'full_rank']
    """
    trees = matched(trees, var_names, coords)
    posterior = next(iter(trees.values()))["posterior"]
    count = sum(variable[0, 0].size for variable in posterior.data_vars.values())
    if not 2 <= count <= MOST_PAIRED:
        raise InputError(
            f"from 2 to {MOST_PAIRED} numbers to pair", str(count), 'choose: coords={"datum": 0, "z_dim_0": [0, 1]}'
        )
    return versions.pair(trees, _colors(trees), (1.8 * count + 0.6, 1.8 * count + 0.6))


def plot_predictive_check(
    tree: xr.DataTree, site: str | None = None, statistic: Callable[[xr.DataArray], xr.DataArray] | None = None
) -> Figure:
    """A posterior predictive check: the distribution over data of a statistic, observed and generated.

    Args:
        tree: the posterior.
        site: the observed site; default: the only one.
        statistic: what is compared, a function of data of dimensions (…, datum, …) that keeps ``datum``; the mean over
            a datum's own dimensions (the share of bright pixels) by default, and the value of a datum of one number.

    Raises:
        InputError: if nothing was generated.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit("linear_gaussian", data=torch.randn(40, 3), latent_dim=2, epochs=1, display=False)
        >>> figure = figures.plot_predictive_check(run.to_arviz(num_draws=20))
        >>> len(figure.axes)
        1
    """
    site = observed_site(tree, site)
    check_group(tree, "posterior_predictive", site)
    observed, generated = (tree[g][site].astype(float) for g in ("observed_data", "posterior_predictive"))
    own = [dim for dim in observed.dims if str(dim).startswith(f"{site}_dim_")]
    if statistic is None:
        observed, generated = observed.mean(own), generated.mean(own)
    else:
        observed, generated = statistic(observed), statistic(generated)
    groups = {"observed_data": observed, "posterior_predictive": generated}
    return versions.posterior_predictive_check(
        xr.DataTree.from_dict({name: xr.Dataset({site: values}) for name, values in groups.items()})
    )


def plot_loo_pit(tree: xr.DataTree, site: str | None = None) -> Figure:
    """The distribution of the probability integral transforms p(x_i <= observed | other data), against the uniform.

    Args:
        tree: the posterior, with as many predictive draws as draws.
        site: the observed site, with continuous values; default: the only one.

    Raises:
        InputError: where leave-one-out cross-validation makes no sense (see ``leave_one_out``), or draws are missing.

    Example:
        >>> import pyro
        >>> from pyro.distributions import Normal
        >>> from pyro_vae import arviz_bridge, figures
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> def model(x):
        ...     mean = pyro.sample("mean", Normal(0.0, 10.0))
        ...     with pyro.plate("row", len(x)):
        ...         pyro.sample("x", Normal(mean, 1.0), obs=x)
        >>> x, guide = torch.randn(25), lambda x: pyro.sample("mean", Normal(x.mean(), 0.2))
        >>> tree = arviz_bridge.from_guide(Target(Pair(model, guide).probe(x), x), num_draws=100)
        >>> figures.plot_loo_pit(tree).axes[0].get_xlabel()
        'LOO-PIT'
    """
    return versions.pit_ecdf(loo_pit(tree, site), "LOO-PIT")


def loo_pit(tree: xr.DataTree, site: str | None = None) -> np.ndarray:
    """The probability integral transforms of ``plot_loo_pit``, shape (N,); arguments and errors as there.

    Example:
        >>> import pyro
        >>> from pyro.distributions import Normal
        >>> from pyro_vae import arviz_bridge, figures
        >>> from pyro_vae.pairs import Pair
        >>> from pyro_vae.posterior import Target
        >>> def model(x):
        ...     mean = pyro.sample("mean", Normal(0.0, 10.0))
        ...     with pyro.plate("row", len(x)):
        ...         pyro.sample("x", Normal(mean, 1.0), obs=x)
        >>> x, guide = torch.linspace(-2, 2, 25), lambda x: pyro.sample("mean", Normal(x.mean(), 0.2))
        >>> pits = figures.loo_pit(arviz_bridge.from_guide(Target(Pair(model, guide).probe(x), x), num_draws=100))
        >>> pits.shape, round(float(pits.mean()), 1)  # that of the uniform distribution
        ((25,), 0.5)
    """
    weights = leave_one_out(tree, site).log_weights.exp().numpy()
    site = observed_site(tree, site)
    check_group(tree, "posterior_predictive", site)
    observed = tree["observed_data"][site].to_numpy().reshape(-1)
    generated = tree["posterior_predictive"][site].transpose("chain", "draw", ...).to_numpy().reshape(-1, len(observed))
    if generated.shape != weights.shape or observed.dtype.kind != "f":
        raise InputError(
            f"a continuous number for each of {weights.shape[1]} data and {weights.shape[0]} draws",
            f"{observed.dtype} for {generated.shape[1]} data and {generated.shape[0]} draws",
            "make the tree with num_predictive=num_draws",
        )
    return (weights * (generated <= observed)).sum(0)


def _colors(trees: Mapping[str, xr.DataTree]) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(len(trees))]


def _continuous(tree: xr.DataTree) -> list[str]:
    return [str(name) for name, variable in tree["posterior"].data_vars.items() if variable.dtype.kind == "f"]


def _all_have(trees: Mapping[str, xr.DataTree], name: str) -> bool:
    return all(name in tree["posterior"].data_vars for tree in trees.values())


def _selected(tree: xr.DataTree, var_names: Names, coords: Coords) -> xr.Dataset:
    posterior = tree["posterior"].to_dataset()
    names = list(var_names) if var_names is not None else _continuous(tree)
    unknown = [name for name in names if name not in posterior]
    wrong = [dim for dim in coords or {} if dim not in posterior.dims]
    if unknown or wrong:
        got = repr((unknown or wrong)[0])
        known = ", ".join(map(str, posterior.data_vars if unknown else posterior.dims))
        raise InputError(f"a {'site' if unknown else 'dimension'} of the posterior", got, f"choose one of: {known}")
    chosen = posterior[names]
    return chosen.sel({dim: value for dim, value in (coords or {}).items() if dim in chosen.dims}, drop=True)


def _one_chain(part: xr.Dataset, num_draws: int) -> xr.Dataset:
    """So many draws of all chains, equally far apart, as one chain."""
    stacked = part.stack(sample=("chain", "draw"), create_index=False)
    picked = stacked.isel(sample=np.linspace(0, stacked.sizes["sample"] - 1, num_draws).round().astype(int))
    dropped = picked.drop_vars(["chain", "draw"], errors="ignore").rename(sample="draw")
    chain = dropped.assign_coords(draw=np.arange(num_draws)).expand_dims(chain=[0])
    return chain.transpose("chain", "draw", ...)


def _tree(posterior: xr.Dataset) -> xr.DataTree:
    return xr.DataTree.from_dict({"posterior": posterior})

"""Restarts of one configuration side by side: training traces, k-hat, and a table, from trees of ``arviz_bridge``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.arviz_bridge.pareto import GOOD_K_HAT, USABLE_K_HAT
from pyro_vae.errors import InputError
from pyro_vae.figures.style import CLASS_COLORS, GRAY, LINE_STYLES, ManyAxes, literal, many_axes, one_axes


def plot_training(tree: xr.DataTree, names: Sequence[str] | None = None, axes: ManyAxes | None = None) -> Figure:
    """The training trace and its components over the epochs, a line per run.

    Args:
        tree: with a group ``training``.
        names: the columns; default: the bound and its terms on the validation data, and the loss.
        axes: where to draw, one per column; default: a new figure.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit("linear_gaussian", data=torch.randn(40, 3), latent_dim=2, epochs=2, display=False)
        >>> figure = figures.plot_training(run.to_arviz(num_draws=20))
        >>> [ax.get_title() for ax in figure.axes]
        ['validation elbo', 'validation log likelihood', 'validation kl', 'train loss']
    """
    check_group(tree, "training", None)
    trace = tree["training"].to_dataset()
    usual = ["validation_elbo", "validation_log_likelihood", "validation_kl", "train_loss"]
    names = list(names or [name for name in usual if name in trace])
    columns = min(2, len(names))
    size = (3.6 * columns, 2.6 * -(-len(names) // columns))
    figure, panels = many_axes(axes, len(names), size, columns)
    for ax, name in zip(panels, names, strict=True):
        for run in range(trace.sizes["run"]):
            line = trace[name].isel(run=run)
            color, style = (
                CLASS_COLORS[run % len(CLASS_COLORS)],
                LINE_STYLES[run // len(CLASS_COLORS) % len(LINE_STYLES)],
            )
            label = f"seed {int(trace['seed'][run])}"
            ax.plot(trace["epoch"], line, color=color, linestyle=style, label=label, linewidth=1.2)
        settled = trace[name].isel(step=slice(trace.sizes["step"] // 10, None))
        low, high = float(settled.min()), float(settled.max())
        ax.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
        _dress(ax, name.replace("_", " "), "epoch", trace[name].attrs.get("units", ""))
    if trace.sizes["run"] > 1:
        panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def plot_k_hat(tree: xr.DataTree, ax: Axes | None = None) -> Figure:
    """k-hat of every datum in order of size, a line per run; above 0.7 its weights are not to be relied on.

    Args:
        tree: with a group ``importance``.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit(data=torch.rand(40, 1, 8, 8).round(), latent_dim=2, epochs=1, display=False)
        >>> figure = figures.plot_k_hat(run.to_arviz(num_draws=100))
        >>> figure.axes[0].get_xlabel(), len(figure.axes[0].lines[0].get_xdata())  # the four images of the test split
        ('data, in order of k-hat', 4)
    """
    check_group(tree, "importance", "k_hat")
    k_hat = tree["importance"]["k_hat"]
    values = np.sort(k_hat.to_numpy().reshape(k_hat.sizes["chain"], -1), -1)
    finite = np.where(np.isfinite(values), values, np.nan)
    figure, ax = one_axes(ax, (5.2, 3.2))
    for chain, row in enumerate(finite):
        ax.plot(
            np.arange(1, len(row) + 1),
            row,
            ".",
            markersize=4,
            color=CLASS_COLORS[chain % len(CLASS_COLORS)],
            label=f"run {chain}",
        )
    for bound, word in ((GOOD_K_HAT, "good"), (USABLE_K_HAT, "usable")):
        ax.axhline(bound, color=GRAY, linestyle=":", linewidth=1)
        at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 7, "va": "center", "ha": "left"}
        ax.annotate(f"{word} below {bound}", (1.01, bound), **at)  # beside the axes, where no datum is
    lost = int(np.isnan(finite).sum())
    title = f"{(values > USABLE_K_HAT).mean():.0%} above {USABLE_K_HAT}"
    title += f", {lost} without a finite k-hat" if lost else ""
    _dress(ax, title, "data, in order of k-hat", "k-hat")
    if len(finite) > 1:
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def compare_restarts(tree: xr.DataTree) -> pd.DataFrame:
    """A row per run: its best and last bound, and what its importance weights say of the data in the tree.

    ELBOs and the log evidence are nats per datum; k_hat is the median over data, and ``above_usable`` the share of data
    above 0.7.

    Example:
        >>> from pyro_vae import figures, fit
        >>> from pyro_vae.arviz_bridge import to_datatree
        >>> settings = {"data": torch.randn(40, 3), "latent_dim": 2, "epochs": 2, "display": False}
        >>> runs = [fit("linear_gaussian", seed=seed, **settings) for seed in (7, 8)]
        >>> table = figures.compare_restarts(to_datatree(runs, num_draws=20))
        >>> table[["seed", "epochs"]].to_numpy().tolist()
        [[7, 2], [8, 2]]
    """
    check_group(tree, "training", "validation_elbo")
    trace, importance = tree["training"].to_dataset(), tree["importance"].to_dataset()
    rows = []
    for run in range(trace.sizes["run"]):
        bound = trace["validation_elbo"].isel(run=run).dropna("step")
        best, of_run = int(np.argmax(bound.to_numpy())), importance.isel(chain=run)
        rows.append(
            {
                "seed": int(trace["seed"][run]),
                "epochs": bound.sizes["step"],
                "best_epoch": int(bound["epoch"][best]),
                "best_validation_elbo": float(bound[best]),
                "last_validation_elbo": float(bound[-1]),
                "elbo": float(of_run["elbo"].mean()),
                "log_evidence": float(of_run["log_evidence"].mean()),
                "k_hat": float(of_run["k_hat"].median()),
                "above_usable": float((of_run["k_hat"] > USABLE_K_HAT).mean()),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(trace["run"].to_numpy(), name="run"))


def check_group(tree: xr.DataTree, group: str, name: str | None) -> None:
    """Refuse a tree without a group, or without a variable there."""
    if group not in tree.children or (name is not None and name not in tree[group].data_vars):
        got = f"a tree with the groups {', '.join(tree.children)}"
        raise InputError(f"a group {group!r}" + (f" with {name!r}" if name else ""), got, "make it with run.to_arviz()")


def _dress(ax: Any, title: str, across: str, up: str) -> None:
    ax.set_title(literal(title), fontsize=10)
    ax.set_xlabel(literal(across))
    ax.set_ylabel(literal(up))
    ax.grid(alpha=0.25)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)

"""The figure of a training: the bound and its terms over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae.figures.style import (
    BLUE,
    CLASS_COLORS,
    GRAY,
    GREEN,
    LINE_STYLES,
    ORANGE,
    ManyAxes,
    as_drawn,
    dress_epochs,
    many_axes,
    one_axes,
)

PANEL = (3.5, 2.9)  # inches


def elbo_curves(history: pd.DataFrame, axes: ManyAxes | None = None) -> Figure:
    """The bound and its terms over the epochs, and the accuracy where there is one.

    Args:
        history: a run's history, one row per epoch.
        axes: where to draw: for the bound, and for each of KL and accuracy in the history; default: a new figure.

    Example:
        >>> from pyro_vae import figures, fit
        >>> run = fit(data=torch.rand(40, 1, 8, 8).round(), latent_dim=2, epochs=2, display=False)
        >>> [ax.get_title() for ax in figures.elbo_curves(run.history).axes]
        ['Validation bound', 'KL(q || p)']
    """
    columns = [name for name in ("validation_kl", "validation_accuracy") if name in history]
    count = 1 + len(columns)
    figure, (first, *others) = many_axes(axes, count, (PANEL[0] * count, PANEL[1]))
    epoch = history["epoch"]
    first.plot(epoch, history["validation_elbo"], color=BLUE, label="ELBO")
    if "validation_log_likelihood" in history:
        first.plot(epoch, history["validation_log_likelihood"], color=ORANGE, linestyle="--", label="E[log p(x|z)]")
    if history["validation_elbo"].notna().any():
        _mark_best(first, history)
    first.legend(frameon=False, fontsize=8, loc="lower right")
    dress_epochs(first, "Validation bound", "nats per datum")
    for ax, name in zip(others, columns, strict=True):
        if name == "validation_kl":
            ax.plot(epoch, history[name], color=GREEN)
            dress_epochs(ax, "KL(q || p)", "nats per datum")
            if history["beta"].nunique() > 1:
                twin = ax.twinx()
                twin.plot(epoch, history["beta"], color=GRAY, linestyle=":")
                twin.set_ylabel("beta", color=GRAY)
                twin.spines["top"].set_visible(False)
        else:
            ax.plot(epoch, 100 * history[name], color=ORANGE)
            dress_epochs(ax, "Validation accuracy of q(y|x)", "percent")
    return figure


def compare_curves(histories: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Figure:
    """The validation bound of several runs over their epochs.

    Args:
        histories: one row per epoch, by the name of the run.
        ax: where to draw; default: a new figure.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae import figures
        >>> history = pd.DataFrame({"epoch": [1, 2], "validation_elbo": [-90.0, -80.0]})
        >>> figure = figures.compare_curves({"one": history, "other": history})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['one', 'other']
    """
    figure, ax = one_axes(ax, (7.0, 3.8))
    for index, (name, history) in enumerate(histories.items()):
        color, line = (
            CLASS_COLORS[index % len(CLASS_COLORS)],
            LINE_STYLES[index // len(CLASS_COLORS) % len(LINE_STYLES)],
        )
        ax.plot(history["epoch"], history["validation_elbo"], color=color, linestyle=line, label=as_drawn(name))
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    dress_epochs(ax, "Validation ELBO", "nats per datum")
    return figure


def _mark_best(ax: Axes, history: pd.DataFrame) -> None:
    best = history.loc[history["validation_elbo"].idxmax()]
    ax.plot(best["epoch"], best["validation_elbo"], "o", color=BLUE, markersize=5)
    ax.annotate(
        f"{best['validation_elbo']:.2f}",
        (best["epoch"], best["validation_elbo"]),
        textcoords="offset points",
        xytext=(0, -14),
        ha="right",
        color=BLUE,
        fontsize=8,
    )

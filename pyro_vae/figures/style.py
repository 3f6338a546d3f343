"""Colours, axes and numbers as every figure has them.

No matplotlib at import: a training that keeps frames need not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import as_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ManyAxes: TypeAlias = "Sequence[Axes] | np.ndarray[Any, Any]"  # in any arrangement

# M. A. Petroff, "Accessible Color Sequences for Data Visualization", 2021: ten that colour-blind eyes tell apart
CLASS_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"
)  # fmt: skip
LINE_STYLES = ("-", "--", ":", "-.")
LONGEST_NAME, LONGEST_TITLE = 28, 120  # characters in a figure
BLUE, ORANGE, GREEN, GRAY = "#2f6db3", "#d9822b", "#3f8f5f", "#777777"


def as_drawn(name: str) -> str:
    """A name of any text as matplotlib draws it letter for letter: one line, not too long, and no mathematics."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    line = line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")


def literal(text: str) -> str:
    """A text that matplotlib shows as it is: dollar signs in the name of a class or a site are not a formula."""
    return as_text(text, LONGEST_TITLE).replace("$", r"\$")


def one_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The axes to draw on, with their figure: those of the caller, or new ones.

    Args:
        ax: the caller's.
        size: inches across and up, of a new figure.

    Raises:
        InputError: if these are not axes.
    """
    figure, (drawn_on, *_) = many_axes(None if ax is None else [ax], 1, size)
    return figure, drawn_on


def many_axes(
    axes: ManyAxes | None, count: int, size: tuple[float, float], columns: int | None = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """As many axes as are drawn on, with their figure: the first of the caller's, or new ones.

    Args:
        axes: the caller's, in any arrangement.
        count: how many are needed.
        size: inches across and up, of a new figure.
        columns: of a new figure; default: all in one row.
        options: for ``Figure.subplots``.

    Raises:
        InputError: if these are not axes, or too few.
    """
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    columns = min(count, columns or count)
    rows = -(-count // columns)
    if axes is None:
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
        for ax in panels[count:]:
            ax.remove()
        return figure, panels[:count]
    found = np.ravel(np.asarray(axes, dtype=object)).tolist()
    mend = "make them with figure.subplots(" + (f"{rows}, {columns})" if count > 1 else ")")
    strange = next((each for each in found if not isinstance(each, Axes)), None)
    if strange is not None or len(found) < count:
        got = f"{len(found)}" if strange is None else f"an object of type {type(strange).__name__}"
        raise InputError("matplotlib axes" if count == 1 else f"at least {count} matplotlib axes", got, mend)
    return whole_figure(found[0]), found[:count]


def whole_figure(ax: Axes) -> Figure:
    """The figure that axes lie in, also where it is in parts."""
    found = ax.figure
    while found is not None and getattr(found, "figure", found) is not found:
        found = found.figure
    return found  # type: ignore[return-value]


def dress_epochs(ax: Axes, title: str, unit: str) -> None:
    """Put names and the look of these figures on axes whose abscissa is the epoch."""
    from matplotlib.ticker import MaxNLocator

    ax.set_title(literal(title), fontsize=10)
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
    ax.grid(alpha=0.25)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)


def p_value_text(p: float) -> str:
    """A p-value as titles have it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def dress(ax: Axes, title: str, across: str, up: str) -> None:
    """Put names and the look of these figures on axes."""
    ax.set_title(literal(title), fontsize=10)
    ax.set_xlabel(literal(across), fontsize=9)
    ax.set_ylabel(literal(up), fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)

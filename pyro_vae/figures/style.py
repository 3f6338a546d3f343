"""Colours, axes and numbers as every figure has them.

No matplotlib at import: a training that keeps frames need not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae.files.bounded import as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    ax.set_ylabel(up, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)

"""Figures as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from pyro_vae.atomic_files import write_whole


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        InputError: if the place cannot be written.
    """
    write_whole(path, lambda aside: figure.savefig(aside, format="png", dpi=150, bbox_inches="tight"))

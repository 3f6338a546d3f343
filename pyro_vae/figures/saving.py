"""Figures as files."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from pyro_vae.files.whole import write_picture


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        InputError: if the place cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from pyro_vae import figures
        >>> path = Path("noise.png")
        >>> figures.save_figure(figures.image_grid(torch.rand(4, 1, 8, 8)), path)
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from", UserWarning
        )  # of names in any script: drawn as boxes
        write_picture(path, lambda aside: figure.savefig(aside, format="png", dpi=150, bbox_inches="tight"))

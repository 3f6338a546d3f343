"""Figures of images, side by side: samples, reconstructions, completions, classes.

Figures are made without pyplot, so nothing global changes and no window opens; in a notebook the returned figure shows
itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pyro_vae.figures.pictures import as_arrays, mosaic
from pyro_vae.figures.style import ORANGE, as_drawn, literal, one_axes

MOST_SHARES = 13  # named below an interpolation
CELL = 0.55  # inches per picture in a grid
CLASSES_TITLE = "Images from the model: one class per row, one style z per column"


def image_grid(images: Tensor, columns: int | None = None, title: str = "", ax: Axes | None = None) -> Figure:
    """Images side by side.

    Args:
        images: shape (N, C, H, W), values in [0, 1], with C = 1 or 3; or (N, D), drawn as squares where D is one.
        columns: how many per row; default: as many as rows.
        title: written above.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> figure = figures.image_grid(torch.rand(6, 1, 8, 8), columns=3, title="Noise")
        >>> figure.axes[0].get_title()
        'Noise'
        >>> figure.axes[0].images[0].get_array().shape  # two rows of three, with a pixel between them
        (19, 28)
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    return _grid(as_arrays(images), columns, title, ax)


def reconstructions(
    images: Tensor, means: Tensor, columns: int = 10, seen: Tensor | None = None, ax: Axes | None = None
) -> Figure:
    """Images above their reconstructions, row by row.

    Args:
        images: the originals, as for ``image_grid``.
        means: E[x | z] of the same shape.
        columns: how many images per row.
        seen: the images as the model saw them, of the same shape, where they differ from the originals; they stand
            between the two.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> images = torch.rand(6, 1, 8, 8).round()
        >>> figure = figures.reconstructions(images, torch.full((6, 1, 8, 8), 0.5), columns=3)
        >>> figure.axes[0].get_title()
        'Images and, below each, its reconstruction'
        >>> figure.axes[0].images[0].get_array().shape  # four rows of three, with a pixel between them
        (37, 28)
    """
    layers = [as_arrays(layer) for layer in (images, seen, means) if layer is not None]
    order = []
    for start in range(0, len(images), columns):
        for layer in layers:
            row = layer[start : start + columns]
            order += [*row, *[np.ones_like(row[0])] * (columns - len(row))]
    below = "its reconstruction" if seen is None else "what the model saw of it and its reconstruction"
    return _grid(np.stack(order), columns, f"Images and, below each, {below}", ax)


def completions(visible: Tensor, filled: Tensor, images: Tensor, ax: Axes | None = None) -> Figure:
    """A row per image: its visible part, what a model fills in, and the image itself.

    Args:
        visible: images with their hidden part blank, shape (N, C, H, W).
        filled: shape (M, N, C, H, W), M times filled in.
        images: the images, shape (N, C, H, W).
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> images = torch.rand(2, 1, 8, 8)
        >>> visible = images.clone()
        >>> visible[..., 4:, :] = 0  # the upper half
        >>> figure = figures.completions(visible, torch.rand(3, 2, 1, 8, 8), images)
        >>> figure.axes[0].images[0].get_array().shape  # rows of five: what is seen, three answers, the image
        (19, 46)
    """
    rows = torch.cat([visible.cpu().unsqueeze(0), filled.cpu(), images.cpu().unsqueeze(0)]).transpose(0, 1)
    title = "Left: what the model sees. Right: the image itself. Between: what the model fills in"
    return image_grid(rows.flatten(0, 1), columns=rows.shape[1], title=title, ax=ax)


def class_samples(
    images: Tensor, class_names: Sequence[str], title: str = CLASSES_TITLE, ax: Axes | None = None
) -> Figure:
    """Samples of each class, one row per class; a column shares its style z.

    Args:
        images: shape (K, M, C, H, W): M samples for each of K classes.
        class_names: the K names.
        title: written above.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> figure = figures.class_samples(torch.rand(2, 4, 1, 8, 8), ["cat", "dog"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['cat', 'dog']
    """
    rows, columns = images.shape[:2]
    figure = _grid(as_arrays(images.flatten(0, 1)), columns, title, ax)
    ax = ax or figure.axes[0]
    step = ax.get_ylim()[0] / rows
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([(row + 0.5) * step for row in range(rows)], [as_drawn(name) for name in class_names], fontsize=8)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure


def interpolation(
    starts: Tensor, between: Tensor, ends: Tensor, title: str = "From one image to another", ax: Axes | None = None
) -> Figure:
    """Rows that lead from one image to another, which stand framed at their two ends.

    Args:
        starts: the images on the left, shape (K, C, H, W).
        between: what a model makes of M points on the way between their latents, shape (K, M, C, H, W).
        ends: the images on the right, shape (K, C, H, W).
        title: written above.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> starts, ends = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
        >>> share = torch.linspace(0, 1, 5).reshape(5, 1, 1, 1)
        >>> figure = figures.interpolation(starts, torch.lerp(starts[:, None], ends[:, None], share), ends)
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['image', '0', '0.25', '0.5', '0.75', '1', 'image']
    """
    rows, steps = between.shape[:2]
    tiles = as_arrays(torch.cat([starts.cpu()[:, None], between.cpu(), ends.cpu()[:, None]], 1).flatten(0, 1))
    columns = steps + 2
    figure = _grid(tiles, columns, title, ax)
    ax = ax or figure.axes[0]
    gap = max(1, tiles.shape[1] // 14)
    high, broad = tiles.shape[1] + gap, tiles.shape[2] + gap
    start = gap / 2 - 0.5
    for row in range(rows):
        for column in (0, columns - 1):
            corner = (start + column * broad, start + row * high)
            ax.add_patch(Rectangle(corner, broad, high, fill=False, edgecolor=ORANGE, linewidth=1.5))
    shares = [f"{share:.3g}" for share in np.linspace(0, 1, steps)]
    shares = [share if steps <= MOST_SHARES or i in (0, steps - 1) else "" for i, share in enumerate(shares)]
    ax.set_axis_on()
    ax.set_yticks([])
    ax.set_xticks(start + (np.arange(columns) + 0.5) * broad, ["image", *shares, "image"], fontsize=7)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def show(ax: Axes, canvas: np.ndarray) -> None:
    """Put a mosaic on axes, pixel by pixel."""
    ax.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _grid(tiles: np.ndarray, columns: int, title: str, ax: Axes | None = None) -> Figure:
    canvas = mosaic(tiles, columns)
    wide = max(3.2, CELL * columns)
    figure, ax = one_axes(ax, (wide, wide * canvas.shape[0] / canvas.shape[1] + 0.4))
    show(ax, canvas)
    ax.set_title(literal(title), fontsize=9)
    ax.set_axis_off()
    return figure

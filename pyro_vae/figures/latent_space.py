"""Figures of the latent space, made as those of ``images``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pyro_vae.figures.images import CELL, show
from pyro_vae.figures.pictures import as_arrays, mosaic
from pyro_vae.figures.projection import plane
from pyro_vae.figures.style import BLUE, CLASS_COLORS, GRAY, ORANGE, as_drawn, dress, literal, one_axes

MAP_SIZE = 5.0  # inches per side
NUM_BINS = 40
MOST_NAMES = 14  # beside a bar of colours


def manifold(images: Tensor, values: Tensor, site: str = "z", title: str = "", ax: Axes | None = None) -> Figure:
    """The images of a grid over a latent plane.

    Args:
        images: shape (n^2, C, H, W), or (n^2, D), row by row from the top left.
        values: the coordinates of the columns, from the left, and of the rows, from below; shape (n,).
        site: the latent site, for the names of the axes.
        title: written above.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> figure = figures.manifold(torch.rand(9, 1, 8, 8), torch.linspace(-2, 2, 3))
        >>> ax = figure.axes[0]
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('z_0', 'z_1')
    """
    count = len(values)
    canvas = mosaic(as_arrays(images), count, gap=0)
    wide = min(7.0, max(3.2, 0.32 * count))
    figure, ax = one_axes(ax, (wide + 0.5, wide * canvas.shape[0] / canvas.shape[1] + 0.7))
    show(ax, canvas)
    high, broad = canvas.shape[0] / count, canvas.shape[1] / count  # of one image
    ax.hlines(np.arange(1, count) * high - 0.5, -0.5, canvas.shape[1] - 0.5, "white", linewidth=0.8)
    ax.vlines(np.arange(1, count) * broad - 0.5, -0.5, canvas.shape[0] - 0.5, "white", linewidth=0.8)
    quarter = (count - 1) // 4
    shown = np.unique([0, quarter, count - 1 - quarter, count - 1] + [count // 2] * (count % 2))
    names = [_number(values[i].item(), 1) for i in shown]
    ax.set_xticks((shown + 0.5) * broad - 0.5, names, fontsize=8)
    ax.set_yticks((count - shown - 0.5) * high - 0.5, names, fontsize=8)
    ax.set_xlabel(literal(f"{site}_0"), fontsize=9)
    ax.set_ylabel(literal(f"{site}_1"), fontsize=9)
    ax.set_title(literal(title), fontsize=9)
    _bare(ax)
    return figure


def traversal(
    images: Tensor,
    values: Tensor,
    row_names: Sequence[str],
    base: Tensor | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Rows of images, each along one latent dimension.

    Args:
        images: shape (K, M, C, H, W), or (K, M, D).
        values: what the coordinate is in each column, shape (M,).
        row_names: K names.
        base: what the coordinate of each row was before, shape (K,); the column next to it is framed.
        title: written above.
        ax: where to draw; default: a new figure.

    Example:
        >>> from pyro_vae import figures
        >>> images, names = torch.rand(2, 5, 1, 8, 8), ["z_0", "z_1"]
        >>> figure = figures.traversal(images, torch.linspace(0, 2, 5), names, base=torch.tensor([0.4, 1.0]))
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['0', '0.5', '1', '1.5', '2']
        >>> len(figure.axes[0].patches)  # one frame a row
        2
    """
    rows, columns = images.shape[:2]
    tiles = as_arrays(images.flatten(0, 1))
    gap = max(1, tiles.shape[1] // 14)
    canvas = mosaic(tiles, columns, gap)
    wide = max(3.2, CELL * columns)
    figure, ax = one_axes(ax, (wide + 1.1, wide * canvas.shape[0] / canvas.shape[1] + 0.7))
    show(ax, canvas)
    high, broad = tiles.shape[1] + gap, tiles.shape[2] + gap  # of one image and what parts it from the next
    start = gap / 2 - 0.5
    ax.set_yticks(start + (np.arange(rows) + 0.5) * high, [as_drawn(name) for name in row_names], fontsize=8)
    ax.set_xticks(start + (np.arange(columns) + 0.5) * broad, [_number(v, 2) for v in values.tolist()], fontsize=7)
    if base is not None:
        for row, value in enumerate(base.tolist()):
            corner = (start + int((values - value).abs().argmin()) * broad, start + row * high)
            ax.add_patch(Rectangle(corner, broad, high, fill=False, edgecolor=ORANGE, linewidth=1.5))
        ax.set_xlabel("standard deviations of the row's dimension; framed: nearest to the test image's own", fontsize=8)
    ax.set_title(literal(title), fontsize=9)
    _bare(ax)
    return figure


def latent_map(
    means: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str],
    site: str = "z",
    title: str = "",
    method: str = "pca",
    ax: Axes | None = None,
) -> Figure:
    """The places of the images in the latent space, coloured by class.

    One dimension makes a histogram, two make the plane itself, more are projected: on their first two principal
    components, or by t-SNE or UMAP, which keep neighbours together and whose distances and axes mean nothing.

    Args:
        means: posterior means, shape (N, D), N at least 2.
        labels: class indices of shape (N,), -1 where a row has none, drawn gray; or None.
        class_names: the classes; empty without labels.
        site: the latent site, for the names of the axes.
        title: written above.
        method: pca, tsne (scikit-learn's) or umap (the package umap-learn, where it is installed).
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if there is no such method, its package is not installed, or there are too few images for it.

    Example:
        >>> from pyro_vae import figures
        >>> labels = torch.arange(60) % 2
        >>> means = torch.randn(60, 2) + 3 * labels.unsqueeze(1)
        >>> ax = figures.latent_map(means, labels, ["cat", "dog"]).axes[0]
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('z_0', 'z_1')
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['cat', 'dog']
    """
    points, (across, up) = plane(means.detach().double().cpu().numpy(), site, method)
    classes = None if labels is None or not class_names else labels.cpu().numpy()
    wide, high = _map_size(points)
    figure, ax = one_axes(ax, (wide + 1.6 * (classes is not None), high + 0.5))
    dress(ax, title, across, up)
    palette = _palette(len(class_names))
    if points.shape[1] == 1:
        _histogram(ax, points[:, 0], classes, palette)
    else:
        _scatter(ax, points, classes, palette)
    if classes is not None:
        _key(ax, palette, class_names)
    return figure


def _map_size(points: np.ndarray) -> tuple[float, float]:
    """Inches across and up, as long or as high as the points lie, within reason."""
    if points.shape[1] == 1:
        return MAP_SIZE, 0.6 * MAP_SIZE
    across, up = np.ptp(points, axis=0) + 1e-9
    return MAP_SIZE * float(np.clip(across / up, 0.7, 1)), MAP_SIZE * float(np.clip(up / across, 0.6, 1))


def _scatter(ax: Axes, points: np.ndarray, classes: np.ndarray | None, palette: ListedColormap) -> None:
    size = float(np.clip(8000 / len(points), 4, 24))
    color: Any = BLUE
    if classes is not None:
        color = [palette(int(label)) if label >= 0 else to_rgba(GRAY, 0.35) for label in classes]
    ax.scatter(points[:, 0], points[:, 1], s=size, c=color, alpha=0.85, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")


def _histogram(ax: Axes, values: np.ndarray, classes: np.ndarray | None, palette: ListedColormap) -> None:
    """Counts, the classes stacked."""
    groups = [values] if classes is None else [values[classes == label] for label in range(palette.N)]
    colors: Any = [BLUE] if classes is None else [palette(label) for label in range(palette.N)]
    if classes is not None and (classes < 0).any():
        groups, colors = [*groups, values[classes < 0]], [*colors, GRAY]
    ax.hist(groups, bins=NUM_BINS, stacked=True, color=colors)


def _palette(num_classes: int) -> ListedColormap:
    """A colour per class: ten that are well apart, or as many as there are along a continuous map."""
    if num_classes <= len(CLASS_COLORS):
        return ListedColormap(CLASS_COLORS[: max(1, num_classes)])
    return ListedColormap(colormaps["viridis"](np.linspace(0, 1, num_classes)))


def _key(ax: Axes, palette: ListedColormap, class_names: Sequence[str]) -> None:
    """Which colour is which class: a legend, or a bar with some of the names where they are many."""
    count = len(class_names)
    if count <= len(CLASS_COLORS):
        marks = [Rectangle((0, 0), 1, 1, color=palette(label)) for label in range(count)]
        places = [str(label) for label in range(count)]  # in whose place names come, for one of "_" would be left out
        key = ax.legend(
            marks, places, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1, fontsize=9
        )
        for text, name in zip(key.get_texts(), class_names, strict=True):
            text.set_text(as_drawn(name))
        return
    shown = range(0, count, -(-count // MOST_NAMES))
    assert ax.figure is not None
    bar = ax.figure.colorbar(ScalarMappable(Normalize(-0.5, count - 0.5), palette), ax=ax, ticks=[*shown], pad=0.02)
    bar.ax.set_yticklabels([as_drawn(class_names[i]) for i in shown], fontsize=8)
    bar.outline.set_visible(False)


def _number(value: float, digits: int) -> str:
    """A number as short as it gets, with a minus sign as on matplotlib's axes."""
    return f"{round(value, digits) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _bare(ax: Axes) -> None:
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)

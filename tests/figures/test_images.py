from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.figures.images import class_samples, image_grid, reconstructions
from pyro_vae.figures.latent_space import latent_map, traversal
from pyro_vae.figures.pictures import is_picture
from pyro_vae.figures.training import elbo_curves


def drawn(figure) -> np.ndarray:
    """The pixels that a grid figure shows."""
    return np.asarray(figure.axes[0].images[0].get_array())


def test_image_grid_places_every_image():
    images = torch.zeros(5, 1, 8, 8)
    images[3] = 1.0
    canvas = drawn(image_grid(images, columns=3))
    assert canvas.shape == (2 * 9 + 1, 3 * 9 + 1)
    light = np.argwhere(canvas[10:18, 1:9] == 1) + np.array([10, 1])
    assert canvas[1:9, 1:9].max() == 0
    assert (light.min(0), light.max(0)) == (pytest.approx([10, 1]), pytest.approx([17, 8]))


def test_reconstructions_stand_below_their_images():
    images, means = torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
    canvas = drawn(reconstructions(images, means, columns=2))
    tops = [canvas[1 + 9 * row, 1] for row in range(4)]
    assert tops == [0, 1, 0, 1]
    assert canvas[1 + 9 * 3, 10] == 1, "the place beside the third pair is blank"


def test_classes_are_named_row_by_row():
    figure = class_samples(torch.zeros(3, 4, 1, 8, 8), ["a", "b", "c"])
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert len(set(np.diff(ax.get_yticks()).round(6))) == 1


def test_color_images_and_square_vectors():
    assert drawn(image_grid(torch.rand(4, 3, 8, 8))).shape[-1] == 3
    assert drawn(image_grid(torch.rand(4, 16))).shape == (11, 11)


@pytest.mark.parametrize("shape", [(2, 7), (2, 4), (2, 2, 8, 8)])
def test_what_is_no_picture_is_refused(shape):
    assert not is_picture(shape[1:])
    with pytest.raises(InputError, match="expected images of shape"):
        image_grid(torch.zeros(shape))


def test_elbo_curves_show_what_the_history_has():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "beta": [0.0, 0.5, 1.0],
            "validation_elbo": [-9.0, -5.0, -6.0],
            "validation_kl": [1.0, 2, 3],
        }
    )
    figure = elbo_curves(history)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["Validation bound", "KL(q || p)"]
    assert figure.axes[0].texts[0].get_text() == "-5.00"
    assert any(ax.get_ylabel() == "beta" for ax in figure.axes), "a beta that changes is drawn"
    assert len(elbo_curves(history[["epoch", "beta", "validation_elbo"]]).axes) == 1


def test_a_map_of_many_dimensions_shows_two_principal_components():
    points = torch.randn(500, 3) * torch.tensor([1.0, 9.0, 3.0])
    ax = latent_map(points, None, ()).axes[0]
    shown = np.asarray(ax.collections[0].get_offsets())
    assert abs(np.corrcoef(shown[:, 0], points[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(shown[:, 1], points[:, 2])[0, 1]) > 0.99
    share = 100 * points[:, 1].var() / points.var(0).sum()
    assert ax.get_xlabel().startswith("principal component 1, ")
    assert int(ax.get_xlabel().split(", ")[1].split("%")[0]) == pytest.approx(share.item(), abs=2)
    assert ax.get_legend() is None


def test_a_map_of_one_dimension_counts_the_classes():
    labels = torch.arange(90) % 3
    figure = latent_map(torch.randn(90, 1), labels, ["a", "b", "c"], "top")
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("top_0", "images")
    counts = [sum(bar.get_height() for bar in bars) for bars in ax.containers]
    assert counts == [30, 30, 30]


def test_many_classes_get_a_continuous_map():
    names = [f"class {i}" for i in range(26)]
    figure = latent_map(torch.randn(260, 2), torch.arange(260) % 26, names)
    assert len(np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0)) == 26
    shown = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert shown == [f"class {i}" for i in range(0, 26, 2)]


def test_rows_and_columns_of_a_traversal_are_named():
    images = torch.zeros(2, 3, 3, 8, 8)
    images[1, 2] = 0.5
    figure = traversal(images, torch.linspace(-3, 3, 3), ["z_4  var 0.90", "z_1  var 0.10"])
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["z_4  var 0.90", "z_1  var 0.10"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["\N{MINUS SIGN}3", "0", "3"]
    row, column = round(ax.get_yticks()[1]), round(ax.get_xticks()[2])
    assert drawn(figure)[row, column].tolist() == [0.5, 0.5, 0.5], "the ticks stand at the images"
    assert not ax.patches

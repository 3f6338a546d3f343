from __future__ import annotations

import pytest
import torch

from pyro_vae.data import load_data
from pyro_vae.data.sprites import PLACES, SHAPES, SIDE, SIZES, SPRITE_FACTORS, draw_sprites


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    return draw_sprites()


def of(drawn: tuple[torch.Tensor, torch.Tensor], **values: int) -> torch.Tensor:
    """The images whose factors have these values, as numbers, shape (n, side, side)."""
    images, factors = drawn
    chosen = torch.stack([factors[:, list(SPRITE_FACTORS).index(name)] == value for name, value in values.items()]).all(
        0
    )
    return images[chosen, 0].double()


def test_every_combination_of_the_factors_is_drawn_once(drawn):
    images, factors = drawn
    assert images.shape == (7200, 1, SIDE, SIDE)
    assert set(images.unique().tolist()) == {0, 1}
    assert len(factors.unique(dim=0)) == 7200
    assert factors.amax(0).tolist() == [number - 1 for number in SPRITE_FACTORS.values()]


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_shapes_have_the_area_of_their_formula(drawn, size):
    """The mean area over places and rotations is that of the plane figure to 1 %: pixels are counted 600 times."""
    exact = {"square": 1.6**2, "ellipse": torch.pi * 1.2 * 0.65, "heart": 3.6610}  # the heart's by numeric quadrature
    for index, shape in enumerate(SHAPES):
        area = of(drawn, shape=index, size=size).sum((1, 2)).mean().item()
        assert area == pytest.approx(exact[shape] * SIZES[size] ** 2, rel=0.01), shape


def test_a_shape_stands_where_its_place_says_and_is_whole(drawn):
    centres = torch.arange(SIDE).double() + 0.5
    for across, down in ((0, 0), (9, 4), (5, 9)):
        for shape in (0, 1):  # these have their middle at the origin
            images = of(drawn, shape=shape, across=across, down=down)
            mass = images.sum((1, 2))
            columns = (images.sum(1) @ centres / mass).mean().item()
            rows = (images.sum(2) @ centres / mass).mean().item()
            assert (columns, rows) == pytest.approx((PLACES[across], PLACES[down]), abs=0.15)
    smallest = of(drawn, shape=2, size=3, rotation=1).sum((1, 2))
    assert smallest.min() > 0.95 * smallest.max()  # nothing is cut off at an edge


def test_a_heart_points_down(drawn):
    heart = of(drawn, shape=2, size=3, rotation=0, across=5, down=5)[0]
    width = heart.sum(1)[heart.sum(1) > 0]
    assert width[-1] < width[1]


def test_the_source_has_the_shape_as_label():
    data = load_data("sprites")
    assert (len(data.train), len(data.validation), len(data.test)) == (6000, 600, 600)
    assert data.class_names == SHAPES
    assert data.kind == "binary"
    ellipse, square = (data.train.values()[data.train.labels == index].mean() for index in (1, 0))
    assert ellipse < square

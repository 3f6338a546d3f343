"""What the figures of the criticism show: the figures' own numbers."""

import math

import matplotlib.colors
import numpy as np
import pytest
import torch

from pyro_vae.diagnostics.aggregate import AggregatePosterior
from pyro_vae.diagnostics.classifier import confusion_matrix, reliability
from pyro_vae.diagnostics.latent_units import LatentUse, SiteUse
from pyro_vae.diagnostics.sbc import JOINT, check_exchangeable
from pyro_vae.diagnostics.two_sample import EnergyTest
from pyro_vae.figures.classifier import confusion, reliability_diagram
from pyro_vae.figures.latent_use import aggregate, unit_use
from pyro_vae.figures.sbc import coverage, ranks
from pyro_vae.figures.style import BLUE, GRAY, ORANGE


@pytest.fixture
def sbc():
    """Of three quantities the second lies high."""
    torch.manual_seed(0)
    values = torch.randn(100, 200, 3)
    values[1:, :, 1] += 1
    return check_exchangeable(values, ("z[0]", "z[1]", JOINT), 199)


def curves(ax, color):
    return [line for line in ax.lines if line.get_color() == color and len(line.get_xdata()) > 2]


def test_ranks_show_every_quantity_and_the_worst(sbc):
    left, right = ranks(sbc).axes
    (flagged,) = curves(left, ORANGE)
    share = (sbc.ranks[:, 1].numpy() < 50).mean()
    at = np.flatnonzero(np.isclose(flagged.get_xdata(), 0.5))[0]
    assert flagged.get_ydata()[at] == pytest.approx(share - 0.5)
    assert sorted(line.get_linestyle() for line in curves(left, BLUE)) == ["-", "--"]
    assert right.get_title() == "z[1], the worst: shifted up"
    assert sum(bar.get_height() for bar in right.patches if bar.get_facecolor()[3]) >= 200
    assert left.get_title() == "Ranks of the truth, p = 0.005"


def test_coverage_shows_coordinates_only(sbc):
    (ax,) = coverage(sbc).axes
    lines = [*curves(ax, BLUE), *curves(ax, ORANGE)]
    assert len(lines) == 2
    for line, observed in zip(lines, sbc.coverage[0].observed, strict=True):
        at = np.flatnonzero(np.isclose(line.get_xdata(), 0.5))[0]
        assert line.get_ydata()[at] == pytest.approx(observed.item())


def test_a_reliability_diagram_has_a_bar_a_bin():
    torch.manual_seed(0)
    probabilities = torch.randn(400, 3).softmax(-1)
    curve = reliability(probabilities, torch.randint(3, (400,)), num_bins=10)
    top, bottom = reliability_diagram(curve).axes
    full = curve.count > 0
    assert [bar.get_height() for bar in top.patches] == pytest.approx(curve.accuracy[full].tolist())
    assert [bar.get_height() for bar in bottom.patches] == curve.count.tolist()


def test_a_confusion_matrix_is_written_into_its_cells():
    probabilities = torch.eye(3)[torch.tensor([0, 0, 1, 2, 2, 2])]
    matrix = confusion_matrix(probabilities, torch.tensor([0, 0, 0, 2, 2, 1]))
    ax = confusion(matrix, ["a", "b", "long name"]).axes[0]
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "2"), ((1, 0), "1"), ((2, 1), "1"), ((2, 2), "2")
    }  # fmt: skip
    assert np.allclose(ax.images[0].get_array()[0], [2 / 3, 1 / 3, 0])
    assert ax.get_title() == "66.7 % of 6 right"
    many = confusion(torch.eye(90, dtype=torch.long), [str(i) for i in range(90)]).axes[0]
    assert len(many.get_xticks()) <= 40
    assert not many.texts


def test_units_are_ordered_and_coloured_by_activity():
    known = SiteUse("z", 1.5, 0.1, torch.tensor([0.5, 0.001, 0.2]), torch.tensor([0.5, 0.0, 1.0]), True)
    unknown = SiteUse("w", 1.5, 0.1, torch.tensor([0.5, 0.001, 0.7]), None, False)
    axes = unit_use(LatentUse((known, unknown), {}, 10)).axes
    assert [bar.get_height() for bar in axes[0].patches] == [1.0, 0.5, 0.0]
    colors = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes[0].patches]
    assert colors == [BLUE, BLUE, GRAY]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["2", "0", "1"]
    assert axes[1].get_title().startswith("2 of 3 units active")
    assert "not defined" in axes[2].texts[0].get_text()
    assert [label.get_text() for label in axes[3].get_xticklabels()] == ["2", "0", "1"]


@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_aggregate_shows_its_worst_coordinates_first(size):
    torch.manual_seed(0)
    prior, p_values = torch.randn(300, size).double(), torch.linspace(0.9, 0.001, size).double()
    names = tuple(f"z[{i}]" for i in range(size))
    found = AggregatePosterior(names, prior + 1, prior, EnergyTest(0.3, 0.1, 0.001), p_values)
    figure = aggregate(found)
    assert figure.axes[0].get_title().startswith(f"z[{size - 1}], p = ")
    plane = figure.axes[-1]
    if size > 1:
        assert (plane.get_xlabel(), plane.get_ylabel()) == (f"z[{size - 1}]", f"z[{size - 2}]")
        assert len(plane.collections[0].get_offsets()) == 300
    assert sum(ax.axison for ax in figure.axes) == min(size, 6) + (size > 1)
    assert "p = 0.001" in figure.get_suptitle()
    assert math.isfinite(figure.get_figwidth())

"""Figures of posteriors: what they draw, read back from the axes."""

import dataclasses

import numpy as np
import pytest
import torch

from pyro_vae.comparison.compare import Comparison
from pyro_vae.comparison.methods import Method
from pyro_vae.figures.comparison import forest, overlay


def method(name, covariance, is_normal=True):
    covariance = torch.as_tensor(covariance, dtype=torch.float64).expand(2, 3, 3)
    mean = torch.zeros(2, 3, dtype=torch.float64)
    u = torch.distributions.MultivariateNormal(mean, covariance).sample((4000,))
    return Method(name, u, mean, covariance, is_normal, 1.0)


@pytest.fixture
def comparison():
    torch.manual_seed(0)
    full = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]]
    methods = (method("narrow", np.eye(3) / 4), method("nuts", full, False), method("exact", full))
    return Comparison("toy", ("z[0]", "z[1]", "z[2]"), methods, "exact", (), None)


def test_the_overlay_shows_the_most_correlated_pair(comparison):
    (ax,) = overlay(comparison).axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("z[1]", "z[2]", "narrow")
    other = overlay(comparison, across=0, up=2).axes[0]
    assert (other.get_xlabel(), other.get_ylabel()) == ("z[0]", "z[2]")


def test_the_overlay_shows_a_bend_that_no_correlation_sees(comparison):
    exact = comparison.methods[-1]
    u = torch.randn(4000, 2, 3, dtype=torch.float64)
    u[..., 2] = u[..., 0].square() + 0.3 * u[..., 1]  # correlated 0.2 with z[1], and not at all with z[0]
    bent = dataclasses.replace(exact, u=u, covariance=torch.cov(u[:, 0].T).expand(2, 3, 3), is_normal=False)
    ax = overlay(dataclasses.replace(comparison, methods=(*comparison.methods[:2], bent))).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z[0]", "z[2]")


def test_contours_of_a_normal_hold_what_they_say(comparison):
    """The radius that holds a share of N(0, s^2 I) in two dimensions is s sqrt(-2 log(1 - share))."""
    guide, _ = (c for c in overlay(comparison).axes[0].collections if len(c.get_paths()) == 2)
    radii = [np.linalg.norm(path.vertices, axis=1).mean() for path in guide.get_paths()]
    expected = [0.5 * (-2 * np.log(1 - share)) ** 0.5 for share in (0.9, 0.5)]
    np.testing.assert_allclose(radii, expected, rtol=0.05)


def test_the_forest_has_a_line_a_method_and_coordinate(comparison):
    ax = forest(comparison).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["z[0]", "z[1]", "z[2]"]
    segments = np.array([c.get_segments()[0] for c in ax.collections])  # outer and inner, of nine
    assert len(segments) == 18
    narrow, exact = segments[0], segments[4]
    assert np.ptp(narrow[:, 0]) / np.ptp(exact[:, 0]) == pytest.approx(0.5, rel=0.1)


def test_draws_that_are_no_reference_are_marked(comparison):
    doubtful = dataclasses.replace(comparison, reasons=("1 of 10 transitions diverged",))
    for figure in (overlay, forest):
        words = [t.get_text() for f in [figure(doubtful)] for t in [f._suptitle, *(a.title for a in f.axes)] if t]
        assert any("not a reference" in text for text in words)
        calm = figure(comparison)
        assert not any("not a reference" in a.get_title() for a in calm.axes)


def test_one_latent_dimension_can_be_drawn(comparison):
    one = [dataclasses.replace(m, u=m.u[..., :1], mean=m.mean[..., :1], covariance=m.covariance[..., :1, :1])
           for m in comparison.methods]  # fmt: skip
    small = dataclasses.replace(comparison, methods=tuple(one), names=("z",))
    assert overlay(small).axes[0].get_xlabel() == "z"
    assert len(forest(small).axes[0].collections) == 6

"""Every figure on axes of the caller's own, text of the caller's letter for letter, and colours that all can tell."""

from __future__ import annotations

import inspect
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from pyro_vae import figures
from pyro_vae.arviz_bridge import from_guide
from pyro_vae.diagnostics import (
    aggregate_posterior,
    importance_sample,
    latent_use,
    reliability,
    simulation_based_calibration,
)
from pyro_vae.errors import InputError
from pyro_vae.figures.style import CLASS_COLORS
from pyro_vae.guides import MeanField
from pyro_vae.models import LinearGaussian
from pyro_vae.pairs import Pair
from pyro_vae.posterior import Target
from tests.figures.test_comparison import comparison  # noqa: F401

ARVIZ_LAYS_OUT = {"plot_forest", "plot_pair", "plot_predictive_check", "plot_loo_pit"}
DOLLARS = "$x_{"  # which matplotlib would refuse as mathematics


@pytest.fixture
def calls(comparison):  # noqa: F811
    """Arguments of every figure, by its name, and how many axes it draws on; names of the caller's have dollars."""
    torch.manual_seed(0)
    images, names = torch.rand(4, 1, 4, 4), [DOLLARS, "$y$"]
    labels = torch.tensor([0, 1, 0, 1])
    history = pd.DataFrame({"epoch": [1, 2], "beta": 1.0, "validation_elbo": [-9.0, -8.0], "validation_kl": [1, 2]})
    table = pd.DataFrame({DOLLARS: [1.0, 2.0, 3.0], "$y$": ["a$", "b$", "b$"]})
    model = LinearGaussian((4,), latent_dim=2)
    x = torch.randn(40, 4)
    probed = Pair(model, MeanField(model)).probe(x)
    target = Target(probed, x)
    weighted = importance_sample(target.first(6), num_samples=50)
    sbc = simulation_based_calibration(probed, x[:2], num_data=40, num_draws=19)
    use = latent_use(probed, x)
    tree = from_guide(target, num_draws=50)
    return {
        "image_grid": ((images, None, DOLLARS), 1),
        "reconstructions": ((images, images), 1),
        "completions": ((images, images[None], images), 1),
        "class_samples": ((images.unflatten(0, (2, 2)), names, DOLLARS), 1),
        "interpolation": ((images[:2], images.unflatten(0, (2, 2)), images[2:], DOLLARS), 1),
        "manifold": ((images, torch.tensor([-1.0, 1.0]), DOLLARS, DOLLARS), 1),
        "traversal": ((images.unflatten(0, (2, 2)), torch.tensor([-1.0, 1.0]), names, None, DOLLARS), 1),
        "latent_map": ((torch.randn(4, 3), labels, names, DOLLARS, DOLLARS), 1),
        "confusion": ((torch.eye(2, dtype=torch.long), names), 1),
        "reliability_diagram": ((reliability(torch.full((4, 2), 0.5), labels),), 2),
        "columns_compared": ((table, table, DOLLARS), 2),
        "elbo_curves": ((history,), 2),
        "compare_curves": (({DOLLARS: history, "_y$": history},), 1),
        "overlay": ((comparison,), 1),
        "forest": ((comparison,), 1),
        "weights": ((weighted,), 2),
        "worst_data": ((torch.rand(6, 1, 4, 4), weighted), 6),
        "unit_use": ((use,), 2),
        "aggregate": ((aggregate_posterior(target, num_permutations=19),), 3),
        "ranks": ((sbc,), 2),
        "coverage": ((sbc,), 1),
        "plot_k_hat": ((tree,), 1),
    }


@pytest.mark.exhaustive
def test_every_figure_draws_on_axes_of_the_callers(calls):
    makers = {n for n in figures.__all__ if callable(getattr(figures, n)) and _returns_figure(getattr(figures, n))}
    assert makers - ARVIZ_LAYS_OUT == set(calls) | {"plot_training"}, "figures that this test does not know"
    for name, (arguments, count) in calls.items():
        whole = Figure(figsize=(8, 8))
        part = whole.subfigures(1, 2)[0]
        given = part.subplots(1, count + 1)
        takes_one = "ax" in inspect.signature(getattr(figures, name)).parameters
        made = getattr(figures, name)(*arguments, **({"ax": given[0]} if takes_one else {"axes": given}))
        assert made is whole, name
        assert [ax.has_data() for ax in given] == [True] * count + [False], name
        assert whole._suptitle is None, name
        assert not whole.legends, name
        assert isinstance(getattr(figures, name)(*arguments), Figure), name


@pytest.mark.exhaustive
def test_text_of_the_callers_is_never_mathematics(calls):
    for name, (arguments, _) in calls.items():
        figure = getattr(figures, name)(*arguments)
        figure.draw_without_rendering()  # where bad mathematics raises
        shown = [text.get_text() for text in figure.findobj(Text)]
        drawn = [text.replace(r"\$", "") for text in shown if "mathdefault" not in text]  # numbers of logarithmic axes
        assert not [text for text in drawn if "$" in text], name


def test_two_figures_share_one_of_the_callers():
    whole = Figure(layout="constrained")
    left, right = whole.subplots(1, 2)
    assert figures.image_grid(torch.rand(4, 1, 4, 4), title="images", ax=left) is whole
    points = torch.randn(9, 2)
    assert figures.latent_map(points, torch.zeros(9, dtype=torch.long), ["one"], title="map", ax=right) is whole
    assert [ax.get_title() for ax in whole.axes] == ["images", "map"]


def test_axes_that_are_none_or_too_few_are_refused():
    images = torch.rand(4, 1, 4, 4)
    with pytest.raises(InputError, match="expected matplotlib axes; got an object of type Figure; make them with"):
        figures.image_grid(images, ax=Figure())
    curve = reliability(torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"at least 2 matplotlib axes; got 1; make them with figure.subplots\(2, 1\)"):
        figures.reliability_diagram(curve, axes=[Figure().subplots()])


def test_t_sne_keeps_clusters_apart_that_principal_components_lay_on_each_other():
    torch.manual_seed(0)
    labels = torch.arange(60) % 6
    centers = 10 * torch.eye(6)
    points = centers[labels] + 0.1 * torch.randn(60, 6)
    ax = figures.latent_map(points, labels, list("abcdef"), method="tsne").axes[0]
    shown = torch.as_tensor(np.asarray(ax.collections[0].get_offsets())).float()
    inside = (labels[:, None] == labels) & ~torch.eye(60, dtype=torch.bool)
    distances = torch.cdist(shown, shown)
    nearest = distances.masked_fill(torch.eye(60, dtype=torch.bool), torch.inf).argmin(1)
    assert (labels[nearest] == labels).all()
    assert distances[inside].mean() < 0.5 * distances[labels[:, None] != labels].mean()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t-SNE 1", "t-SNE 2")
    same = figures.latent_map(torch.ones(8, 3), None, (), method="tsne").axes[0].collections[0].get_offsets()
    assert np.isfinite(np.asarray(same)).all()


@pytest.mark.parametrize(
    ("method", "count", "message"),
    [
        ("tsn", 9, "a way to lay out latents; got 'tsn'; did you mean 'tsne'"),
        ("tsne", 3, "at least 4 points for tsne; got 3; use pca"),
        ("umap", 9, "the package umap-learn, for umap; got none; pip install umap-learn, or use tsne"),
    ],
)
def test_layouts_that_cannot_be_are_refused(monkeypatch, method, count, message):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(InputError, match=message):
        figures.latent_map(torch.randn(count, 3), None, (), method=method)


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB coordinates (D65) of a colour as somebody sees it."""
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = np.clip(seen @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_are_told_apart(deficiency):
    seen = np.array(DEFICIENCIES[deficiency])
    house = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.GRAY]
    for colors, least in ((house[:3], 20), (house, 12), (CLASS_COLORS[:5], 12)):  # differences of CIE 1976
        for one, other in combinations(colors, 2):
            assert np.linalg.norm(lab(one, seen) - lab(other, seen)) > least, (one, other)


def _returns_figure(function) -> bool:
    return inspect.signature(function).return_annotation in (Figure, "Figure")

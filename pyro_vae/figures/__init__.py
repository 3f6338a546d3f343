"""Every figure, one file per subject; each function returns a matplotlib ``Figure``, and shows nothing by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.figures.classifier import confusion, reliability_diagram
    from pyro_vae.figures.columns import columns_compared
    from pyro_vae.figures.comparison import forest, overlay
    from pyro_vae.figures.images import class_samples, completions, image_grid, interpolation, reconstructions
    from pyro_vae.figures.importance import weights, worst_data
    from pyro_vae.figures.latent_space import latent_map, manifold, traversal
    from pyro_vae.figures.latent_use import aggregate, unit_use
    from pyro_vae.figures.restarts import compare_restarts, plot_k_hat, plot_training
    from pyro_vae.figures.saving import save_figure
    from pyro_vae.figures.sbc import coverage, ranks
    from pyro_vae.figures.style import BLUE, GRAY, GREEN, ORANGE
    from pyro_vae.figures.training import compare_curves, elbo_curves
    from pyro_vae.figures.trees import (
        loo_pit,
        matched,
        plot_forest,
        plot_loo_pit,
        plot_pair,
        plot_predictive_check,
        summary,
    )

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "ORANGE",
    "aggregate",
    "class_samples",
    "columns_compared",
    "compare_curves",
    "compare_restarts",
    "completions",
    "confusion",
    "coverage",
    "elbo_curves",
    "forest",
    "image_grid",
    "interpolation",
    "latent_map",
    "loo_pit",
    "manifold",
    "matched",
    "overlay",
    "plot_forest",
    "plot_k_hat",
    "plot_loo_pit",
    "plot_pair",
    "plot_predictive_check",
    "plot_training",
    "ranks",
    "reconstructions",
    "reliability_diagram",
    "save_figure",
    "summary",
    "traversal",
    "unit_use",
    "weights",
    "worst_data",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "confusion": "classifier",
        "reliability_diagram": "classifier",
        "columns_compared": "columns",
        "forest": "comparison",
        "overlay": "comparison",
        "class_samples": "images",
        "completions": "images",
        "image_grid": "images",
        "interpolation": "images",
        "reconstructions": "images",
        "weights": "importance",
        "worst_data": "importance",
        "latent_map": "latent_space",
        "manifold": "latent_space",
        "traversal": "latent_space",
        "aggregate": "latent_use",
        "unit_use": "latent_use",
        "save_figure": "saving",
        "coverage": "sbc",
        "ranks": "sbc",
        "BLUE": "style",
        "GRAY": "style",
        "GREEN": "style",
        "ORANGE": "style",
        "elbo_curves": "training",
        "compare_curves": "training",
        "compare_restarts": "restarts",
        "loo_pit": "trees",
        "matched": "trees",
        "plot_forest": "trees",
        "plot_k_hat": "restarts",
        "plot_loo_pit": "trees",
        "plot_pair": "trees",
        "plot_predictive_check": "trees",
        "plot_training": "restarts",
        "summary": "trees",
    },
)

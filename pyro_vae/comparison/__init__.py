"""Guides beside NUTS and the exact posterior, on toy models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.comparison.compare import Comparison, compare_mcmc

__all__ = [
    "Comparison",
    "compare_mcmc",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "Comparison": "compare",
        "compare_mcmc": "compare",
    },
)

"""The exact posterior as a density: NUTS, annealing, bridge sampling, prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_vae import lazy

if TYPE_CHECKING:
    from pyro_vae.posterior.annealing import Annealing, annealed_bound, annealed_bracket
    from pyro_vae.posterior.mcmc import Chains, Sampling, nuts
    from pyro_vae.posterior.target import Target

__all__ = [
    "Annealing",
    "Chains",
    "Sampling",
    "Target",
    "annealed_bound",
    "annealed_bracket",
    "nuts",
]

__getattr__, __dir__ = lazy.attach(
    __name__,
    {
        "Annealing": "annealing",
        "annealed_bound": "annealing",
        "annealed_bracket": "annealing",
        "Chains": "mcmc",
        "Sampling": "mcmc",
        "nuts": "mcmc",
        "Target": "target",
    },
)

"""Many draws in one run: the programs under a plate over draws, outside of all their own."""

from __future__ import annotations

import pyro
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import Pair
from pyro_vae.pairs.structure import DATA_PLATE, Structure


def need_data_plate(structure: Structure) -> None:
    """Refuse programs whose likelihood does not come apart into data.

    Raises:
        InputError: if a site lies outside the plate "data".
    """
    if structure.data_dim is None:
        raise InputError(
            f"every sample site inside pyro.plate({DATA_PLATE!r}, …)",
            "one outside it",
            "put the sites of each datum into that plate to get likelihoods per datum",
        )


def draw_guide(pair: Pair, structure: Structure, x: Tensor, y: Tensor | None, num_samples: int) -> Trace:
    """The trace of a run of the guide with S draws, the labels of x enumerated where y is None."""
    need_data_plate(structure)
    enumeration = poutine.enum(first_available_dim=-structure.nesting - 2)
    with samples_plate(structure, num_samples), poutine.trace() as guided, enumeration:
        pair.guide(*pair.arguments(x, y))
    return prune_subsample_sites(guided.trace)


def score_model(pair: Pair, structure: Structure, x: Tensor, y: Tensor | None, num_samples: int, q: Trace) -> Trace:
    """The trace of a run of the model with the latents of a trace of the guide."""
    with samples_plate(structure, num_samples), poutine.trace() as generated, poutine.replay(trace=q):
        pair.model(*pair.arguments(x, y))
    return prune_subsample_sites(generated.trace)


def samples_plate(structure: Structure, num_samples: int) -> pyro.plate:
    """The plate over draws, outside of all plates of the programs."""
    return pyro.plate("_samples", num_samples, dim=-structure.nesting - 1)

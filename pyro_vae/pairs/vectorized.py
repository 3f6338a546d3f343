"""One run of a program for many draws: under a plate over draws, outside of all plates of its own.

Whatever the package asks of a pair comes from such runs: draws from the guide, the model's score of them, data that the
model generates.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.pairs.pair import ProbedPair, Program
from pyro_vae.pairs.structure import DATA_PLATE, Structure
from pyro_vae.shapes import Shaped


def run(
    program: Program,
    probed: ProbedPair,
    x: Tensor,
    y: Shaped[Tensor, "N"] | None,
    num_samples: int | None,
) -> Trace:
    r"""The trace of one run of a program.

    Args:
        program: the model or the guide of the pair, inside whatever handlers.
        probed: the pair.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None.
        num_samples: S; None for one draw without a plate, which any program can make.
    """
    with samples_plate(probed, num_samples), poutine.trace() as traced:
        program(*probed.pair.arguments(x, y))
    return prune_subsample_sites(traced.trace)


def run_guide(probed: ProbedPair, x: Tensor, y: Shaped[Tensor, "N"] | None, num_samples: int | None) -> Trace:
    """The trace of S draws from the guide, under each joint value of its enumerated sites; arguments as for ``run``."""
    guide = poutine.enum(probed.pair.guide, first_available_dim=-probed.nesting - 2)
    return run(guide, probed, x, y, num_samples)


def run_model(
    probed: ProbedPair,
    x: Tensor,
    y: Shaped[Tensor, "N"] | None,
    num_samples: int | None,
    guided: Trace,
) -> Trace:
    """The trace of the model at the latents of a trace of the guide; arguments as for ``run``."""
    return run(poutine.replay(probed.pair.model, trace=guided), probed, x, y, num_samples)


def samples_plate(structure: Structure, num_samples: int | None) -> AbstractContextManager[Any]:
    """The plate over draws, outside of all plates of the programs; nothing for None."""
    if num_samples is None:
        return nullcontext()
    return pyro.plate("_samples", num_samples, dim=-structure.nesting - 1)


def check_data_plate(structure: Structure) -> None:
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

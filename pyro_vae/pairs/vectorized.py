"""One run of a program for many draws.

Whatever the package asks of a pair comes from such runs: draws from the guide, the model's score of them, data that the
model generates.  Draws lie side by side in a plate outside of all plates of the program, which most programs bear.
Where one does not, because it joins a latent to x or feeds it to an LSTM, for example, the draws lie among the data, as
rows of their own: S N of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Literal, cast

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.pairs.handlers import unscaled
from pyro_vae.pairs.layout import Layout
from pyro_vae.pairs.pair import ProbedPair, Program
from pyro_vae.pairs.structure import Structure
from pyro_vae.pairs.traces import distribution_at, log_prob_at, value_at
from pyro_vae.shapes import Shaped

Placing = Literal["beside", "rows", "alone"]
COMPARED_ROWS, COMPARED_DRAWS = 3, 2


def run(
    program: Program,
    probed: ProbedPair,
    x: Tensor,
    y: Shaped[Tensor, "N"] | None,
    num_samples: int | None,
    scaled: bool = False,
) -> Trace:
    r"""The trace of one run of a program.

    Args:
        program: the model or the guide of the pair, inside whatever handlers.
        probed: the pair.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None.
        num_samples: S; None for one draw without a plate, which any program can make.
        scaled: whether log-probabilities keep the scales of the program and of the handlers around it.
    """
    with ExitStack() as around:
        if not scaled:
            around.enter_context(unscaled())
        elif probed.plate_size is not None:  # a plate of which the rows are said to be a sample
            around.enter_context(poutine.scale(scale=len(x) / probed.plate_size))
        around.enter_context(samples_plate(probed, num_samples))
        traced = around.enter_context(poutine.trace())
        program(*probed.pair.arguments(x, y))
    return prune_subsample_sites(traced.trace)


def run_guide(
    probed: ProbedPair, x: Tensor, y: Shaped[Tensor, "N"] | None, num_samples: int | None, scaled: bool = False
) -> Trace:
    """The trace of S draws from the guide, under each joint value of its enumerated sites; arguments as for ``run``."""
    guide = poutine.enum(probed.pair.guide, first_available_dim=-probed.nesting - 2)
    return run(guide, probed, x, y, num_samples, scaled)


def run_model(
    probed: ProbedPair,
    x: Tensor,
    y: Shaped[Tensor, "N"] | None,
    num_samples: int | None,
    guided: Trace,
    scaled: bool = False,
) -> Trace:
    """The trace of the model at the latents of a trace of the guide; other arguments as for ``run``.

    Sites that the model sums out take all their values, each site in a dimension left of those of the guide.
    """
    if not probed.marginal:
        return run(poutine.replay(probed.pair.model, trace=guided), probed, x, y, num_samples, scaled)
    guided = guided.copy()
    for name, site in guided.nodes.items():  # which a run of the model notes its dimensions in
        if site["type"] == "sample":
            noted: dict[str, Any] = {k: v for k, v in (site["infer"] or {}).items() if k != "_dim_to_id"}
            guided.nodes[name] = cast(Any, site | {"infer": noted})
    left = -probed.nesting - 2 - max(1, len(probed.enumerated))  # as ``Layout`` has the labels
    model = poutine.enum(probed.pair.model, first_available_dim=left)  # inside: it notes what each site depends on
    return run(poutine.replay(model, trace=guided), probed, x, y, num_samples, scaled)


def samples_plate(structure: Structure, num_samples: int | None) -> AbstractContextManager[Any]:
    """The plate over draws, outside of all plates of the programs; nothing for None."""
    if num_samples is None:
        return nullcontext()
    return pyro.plate("_samples", num_samples, dim=-structure.nesting - 1)


def repeated(x: Tensor, num_samples: int) -> Tensor:
    """The rows of x for each of S draws, (S N, …), those of the first draw first."""
    return x.repeat(num_samples, *(1,) * (x.dim() - 1))


def draws_lie(probed: ProbedPair, x: Tensor, y: Tensor | None) -> Placing:
    """Where the programs can have several draws: ``beside`` each other, as more ``rows``, or each run ``alone``.

    Side by side each draw must have the densities that it has alone.  Found once for a pair, on the first rows that it
    is asked for, without a trace in the random state.
    """
    known, labelled = probed.pair.draws_lie, y is not None
    if labelled not in known:
        rows = x[:COMPARED_ROWS] if probed.any_rows and x.dim() else x
        with probed.pair.looked_at(0), poutine.block():
            bears = _runs_alike(probed, rows, None if y is None else y[: len(rows)])
        known[labelled] = "beside" if bears else "rows" if probed.any_rows and not probed.shared else "alone"
    return known[labelled]


def _runs_alike(probed: ProbedPair, x: Tensor, y: Tensor | None) -> bool:
    try:
        q = run_guide(probed, x, y, COMPARED_DRAWS)
        p = run_model(probed, x, y, COMPARED_DRAWS, q)
        together = _densities(probed, p, q, x, COMPARED_DRAWS)
    except PyroVAEError:
        raise
    except Exception:  # of whatever kind: the program was not written for a dimension more
        return False
    for draw in range(COMPARED_DRAWS):
        alone = q.copy()
        for name in probed.latent:
            alone.nodes[name] = alone.nodes[name] | {"value": _draw_of(q, name, draw, probed)}
        one = run(poutine.replay(probed.pair.guide, trace=alone), probed, x, y, None)
        density = _densities(probed, run_model(probed, x, y, None, alone), one, x, 1)
        if not torch.allclose(together[:, draw : draw + 1], density, rtol=1e-3, atol=1e-3, equal_nan=True):
            return False
    return True


def _densities(probed: ProbedPair, p: Trace, q: Trace, x: Tensor, num_samples: int) -> Tensor:
    """Log-densities of all sites of both programs, each on its own, per draw and datum: (sites, S, N)."""
    layout, found = Layout(probed.by_row, q, num_samples, x), []
    skipped = {True: probed.own_draws_only, False: ()}  # by whether it is the guide's trace
    for trace in (p, q):
        scored = [n for n in (*trace.stochastic_nodes, *trace.observation_nodes) if n not in skipped[trace is q]]
        trace.compute_log_prob(_among(scored))
        for name in scored:
            log_prob = log_prob_at(trace, name)
            while log_prob.dim() > layout.num_dims:  # of values that the model sums out
                log_prob = log_prob.sum(0)
            found.append(layout.total([log_prob]).flatten(0, -3).sum(0))
    return torch.stack(found)


def _among(names: list[str]) -> Callable[[str, Any], bool]:
    return lambda name, _: name in names


def _draw_of(q: Trace, name: str, draw: int, probed: ProbedPair) -> Tensor:
    """One draw of a site without the dimension of draws, which is kept, of size 1, where labels lie left of it."""
    value, axis = value_at(q, name), value_at(q, name).dim() - distribution_at(q, name).event_dim - probed.nesting - 1
    if axis < 0 or value.shape[axis] == 1:
        return value
    return value.select(axis, draw) if axis == 0 else value.narrow(axis, draw, 1)


def check_densities(structure: Structure) -> None:
    """Refuse guides without a density, of which no importance weight, and no likelihood, can be had.

    Raises:
        InputError: if the guide puts a latent of each datum into one point.
    """
    if structure.points:
        raise InputError(
            f"a guide with a density at the site {structure.points[0]!r}",
            "Delta, which is one point",
            "give it a width, for example by Normal; encode, sample and reconstruct take it as it is",
        )


def check_data_plate(structure: Structure) -> None:
    """Refuse programs whose likelihood does not come apart into data.

    Raises:
        InputError: if a latent or an observation lies outside the plate over data.
    """
    if structure.data_dim is None:
        inside = structure.plate_dim is not None
        summed = [name for name in (*structure.enumerated, *structure.marginal) if name in structure.shared]
        if inside and summed:
            raise InputError(
                "discrete sites inside pyro.plate(…, len(x)), the plate over data",
                f"{summed[0]!r} outside it, which is summed out, so that all rows are one datum",
                "ask to_arviz and criticise, which take all rows together",
            )
        got = f"{structure.shared[0]!r} outside it" if inside and structure.shared else "one outside it"
        raise InputError(
            "every sample site inside pyro.plate(…, len(x)), the plate over data",
            got,
            "put the sites of each datum into that plate to get likelihoods per datum",
        )

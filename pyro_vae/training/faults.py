"""Where a loss that is not a finite number comes from: the first site of a pair whose value or density is not one."""

from __future__ import annotations

import warnings

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_vae.files.bounded import first_line
from pyro_vae.pairs.pair import Pair
from pyro_vae.pairs.traces import distribution_at, value_at

MAX_ROWS_NAMED = 10


def find_fault(pair: Pair, x: Tensor, y: Tensor | None, rows: Tensor, may_miss: bool = False) -> str:
    r"""Run a pair once more on a batch whose loss was not a finite number, and say what is wrong first.

    The order is that of the computation: data, parameters, the guide's sites, the model's.

    Args:
        pair: the model and the guide.
        x: the batch, shape (B, \*event_shape).
        y: its labels, shape (B,), or None.
        rows: which training rows these are, shape (B,).
        may_miss: whether NaN in x is a missing value.

    Returns:
        A clause without a capital or a full stop; empty where this run shows nothing wrong.
    """
    holed = bool(x.isnan().any())  # what is missing, in programs that take it
    if x.isinf().any() or (holed and not may_miss):
        return f"the data are not finite{_of_rows(x, rows)}"
    broken = [name for name, value in pair.trained().items() if not value.isfinite().all()]
    if broken:
        return f"the parameter {broken[0]!r} is not finite"
    try:
        with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(), poutine.block(), pair.scope():
            warnings.simplefilter("ignore")
            with pyro.validation_enabled(False):
                q = poutine.trace(pair.guide).get_trace(*pair.arguments(x, y))
                p = poutine.trace(poutine.replay(pair.model, q)).get_trace(*pair.arguments(x, y))
                traces = [(role, prune_subsample_sites(trace)) for role, trace in (("guide", q), ("model", p))]
                return next(filter(None, (_fault_of(role, trace, rows, holed) for role, trace in traces)), "")
    except (ValueError, RuntimeError) as error:  # a program that refuses what it was given says it best itself
        return f"the programs say: {str(error).strip().splitlines()[0]}"


def brief(error: ValueError) -> ValueError:
    """An error of a support without the numbers that torch lists, and without the error that Pyro made it of."""
    error.args = (first_line(error).removesuffix(", but found invalid values:"),)
    error.__cause__ = None
    return error


def _fault_of(role: str, trace: poutine.Trace, rows: Tensor, holed: bool) -> str:
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        value = value_at(trace, name)
        if value.isinf().any() if holed and site["is_observed"] else not value.isfinite().all():
            return f"the {role}'s site {name!r} has values that are not finite{_of_rows(value, rows)}"
        density = distribution_at(trace, name).log_prob(value)
        if not density.isfinite().all():
            return f"the {role}'s site {name!r} has a log-density that is not finite{_of_rows(density, rows)}"
    return ""


def _of_rows(value: Tensor, rows: Tensor) -> str:
    """Which rows of the batch are concerned, where the value has one entry or more per row."""
    if value.dim() == 0 or len(value) != len(rows):
        return ""
    bad = rows[~value.isfinite().flatten(1).all(1)] if value.dim() > 1 else rows[~value.isfinite()]
    named = ", ".join(map(str, bad[:MAX_ROWS_NAMED].tolist()))
    more = ", …" if len(bad) > MAX_ROWS_NAMED else ""
    return f" for {len(bad)} of the batch's {len(rows)} rows (training rows {named}{more})"

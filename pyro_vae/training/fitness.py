"""What a program must be to be trained on batches of any rows; said before anything is written."""

from __future__ import annotations

import warnings

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.objectives import Objective, PyroObjective
from pyro_vae.pairs.classes import LABEL_SITE
from pyro_vae.pairs.handlers import Number
from pyro_vae.pairs.pair import ProbedPair
from pyro_vae.pairs.probing import said, traced
from pyro_vae.pairs.structure import Traces
from pyro_vae.pairs.traces import value_at
from pyro_vae.training.schedules import Constant, Schedule


def check_batches(probed: ProbedPair, num_steps: int) -> None:
    """Refuse programs that are not the same for every batch of rows.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        num_steps: the steps of an epoch.

    Raises:
        InputError: if they run on one number of rows only, observe nothing, or sum out a latent that all rows share,
            of which a batch has no part.
    """
    if not probed.any_rows:
        raise InputError(
            "programs that take any number of rows",
            "ones that fail on another number of them than they ran on first",
            "read it off x, as in pyro.plate('data', len(x)), and let an encoder of x make what belongs to a row",
        )
    if not (probed.observed or probed.factors):
        raise InputError(
            "a model that observes x", "one without an observation", 'write pyro.sample("x", …, obs=x) in it'
        )
    summed = [name for name in (*probed.enumerated, *probed.marginal) if name in probed.shared]
    if summed and num_steps > 1:
        raise InputError(
            f"all rows in one batch, for the discrete site {summed[0]!r} that they share and that is summed out",
            f"{num_steps} batches",
            f"use batch_size={probed.num_rows}",
        )


def check_labels(probed: ProbedPair, x: Tensor, y: Tensor) -> None:
    r"""Refuse programs that read labels by something else than a label site.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them, without a latent label site.
        x: some rows, shape (N, \*event_shape).
        y: their labels, shape (N,).

    Raises:
        InputError: if a site is another where the labels are given.
    """
    pair, runs = probed.pair, []
    for labels in (None, y):
        with pair.looked_at(0), poutine.block():
            run = traced(pair, x, labels)
            run.p.compute_log_prob()
            runs.append({name: site["log_prob"] for name, site in run.p.nodes.items() if "log_prob" in site})
    without, given = runs
    if without.keys() != given.keys() or not all(torch.equal(without[n], given[n]) for n in given):
        raise InputError(
            "programs that take labels at a site 'y'",
            "ones that read them otherwise",
            "put what they read among the columns of x, one-hot for classes, and observe the other columns",
        )


def check_classes(probed: ProbedPair, num_classes: int) -> None:
    """Refuse a label site with fewer classes than the data.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        num_classes: the classes of the data.

    Raises:
        InputError: if it has fewer.
    """
    if probed.classes is not None and len(probed.classes) < num_classes:
        raise InputError(
            f"a label site {LABEL_SITE!r} of {num_classes} classes, as the data have",
            f"one of {len(probed.classes)}",
            f"write dist.Categorical(…) with {num_classes} probabilities in model and guide",
        )


def check_beta(probed: ProbedPair, objective: Objective, beta: Schedule) -> None:
    """Refuse a weight of the latent terms where they are part of a sum over values.

    Raises:
        InputError: if the model sums a site out, and beta is not 1 all along.
    """
    if (
        probed.marginal
        and isinstance(objective, PyroObjective)
        and not (isinstance(beta, Constant) and beta.final == 1)
    ):
        raise InputError(
            f"beta 1, for a model that sums out {probed.marginal[0]!r}",
            str(beta),
            "leave out --beta, or use --objective iwae:num_samples=1, which can weigh its latents",
        )


def rehearse(probed: ProbedPair, objective: Objective, x: Tensor, beta: Number) -> None:
    r"""Run a pair and its loss once, checked by Pyro, leaving everything as it was.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        objective: what is to be trained.
        x: some rows, shape (N, \*event_shape).
        beta: the weight of the latent terms.

    Raises:
        InputError: if a site needs a plate that it does not have, or the loss cannot be computed.
    """
    pair = probed.pair
    with pair.scope(), pair.evaluating(), torch.random.fork_rng(), poutine.block():
        with pyro.validation_enabled(False), torch.no_grad():
            check_plates(traced(pair, _one_more(x), None), traced(pair, x, None))
            check_factors(probed, x)
        try:
            with pyro.validation_enabled(True), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                objective(x, beta=beta)
        except PyroVAEError:
            raise
        except Exception as error:  # Pyro's word for a mistake in a program, or the program's own
            if "to satisfy the constraint" in str(error):  # numbers, which the trainer traces to their rows
                return
            raise InputError(
                "programs whose loss can be computed", said(error), "mend what it names, or try pyro.infer.SVI on it"
            ) from error


def _one_more(x: Tensor) -> Tensor:
    """The same rows, and the first of them again."""
    return torch.cat([x, x[:1]])


def check_plates(run: Traces, shorter: Traces) -> None:
    """Refuse sites with more densities than their plates have, and latents of the rows outside of any plate.

    Args:
        run: a run on some rows.
        shorter: a run on fewer.

    Raises:
        InputError: if there is such a site.
    """
    for trace, other in ((run.p, shorter.p), (run.q, shorter.q)):
        trace.compute_log_prob()
        for name, site in trace.nodes.items():
            if site["type"] != "sample":
                continue
            if name not in other.nodes:
                raise InputError(
                    "the same sites for any number of rows",
                    f"the site {name!r}, which is there for {len(run.x)} rows and not for {len(shorter.x)}",
                    'write "with pyro.plate("data", len(x)):" once for all rows, instead of a loop over them',
                )
            shape = site["log_prob"].shape
            dims = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
            bare = [dim for dim in range(-len(shape), 0) if shape[dim] > 1 and dim not in dims]
            if bare:
                raise _without_plate(name, f"densities of shape {tuple(shape)} without a plate at dimension {bare[-1]}")
            grows = value_at(trace, name).shape != value_at(other, name).shape
            if grows and not dims and not site["is_observed"]:
                raise _without_plate(name, "a value for each row, and one density for all")


def check_factors(probed: ProbedPair, x: Tensor) -> None:
    r"""Refuse factors outside of the plate over the rows that depend on them: no batch has its part of such a factor.

    Args:
        probed: the model and the guide, with what ``pair.probe`` said of them.
        x: some rows, shape (N, \*event_shape).

    Raises:
        InputError: if one is another for other rows, or other latents of the rows.
    """
    outside = [name for name in probed.factors if name in probed.shared]
    if not outside:
        return
    first = traced(probed.pair, x, None)
    held = first.q.copy()
    for name in [name for name in held.nodes if name not in probed.shared_latents]:
        held.remove_node(name)
    again = traced(probed.pair.with_guide(poutine.replay(probed.pair.guide, trace=held)), _one_more(x), None)
    for trace in (first.p, again.p):
        trace.compute_log_prob(lambda name, _: name in outside)
    for name in outside:
        if not torch.allclose(first.p.nodes[name]["log_prob"], again.p.nodes[name]["log_prob"]):
            raise InputError(
                f"the factor {name!r} inside of the plate over the rows",
                "one outside of it that depends on them",
                "give it one number per row, inside of the plate",
            )


def _without_plate(name: str, got: str) -> InputError:
    return InputError(
        f"the site {name!r} inside of a plate over the rows",
        got,
        'write "with pyro.plate("data", len(x)):" around it, and .to_event(…) for what belongs to one row',
    )

"""What a fitted pair says of a row, whatever rows come with it.

scikit-learn's estimators answer for each row alike, alone, in any order and among any others.  Matrix products round
by the number of their rows, so deterministic answers are made for a fixed number of rows at a time, the last of them
padded.  What is estimated with noise is made for one row at a time, each with the same noise.

Networks say nothing of rows far from all that they were fitted on: their scales are exponentials, which overflow.  A
row that is more than ten times as large as the largest of those is encoded and classified as the row of that size in
the same direction.  Its likelihood is estimated by draws from the prior in the place of the guide,

    log p(x) >= E log mean_s p(x | z_s),  z_s ~ p(z),

and that of a row between one and ten times as large by the higher of the two bounds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.data.binarization import binarize_once
from pyro_vae.data.images import Images
from pyro_vae.diagnostics.evaluation import nll_per_datum
from pyro_vae.pairs import turns
from pyro_vae.pairs.draws import draw_means
from pyro_vae.pairs.labels import label_distribution
from pyro_vae.posterior import Target
from pyro_vae.posterior.predictive import generate, log_likelihood, model_sites
from pyro_vae.runs.run import Run

ROWS_AT_ONCE = 128
DRAWS = 100  # of a posterior mean that the guide does not know
SEED, OTHER_SEED = 0, 1
FAR = 10.0  # times the largest number that a run was fitted on
one_at_a_time = threading.RLock()  # so that threads, which a grid search may have, wait for each other


def posterior_means(run: Run, x: Tensor) -> Tensor:
    r"""E_q[z | x] of the rows x, shape (N, D), of the last continuous site; x has the shape (N, \*event_shape)."""
    x = within_reach(run, x)
    site = run.latent_site(None)
    draws = DRAWS if run.structure.shared_latents else 1

    def means(rows: Tensor, draws: int) -> Tensor:
        return draw_means(run.probed.by_row, rows, draws)[site]

    if draws == 1:
        one, other = (_answer(run, lambda rows: means(rows, 1), x[:1], seed) for seed in (SEED, OTHER_SEED))
        if torch.allclose(one, other, equal_nan=True):  # the same for any noise: the guide knows its mean
            return by_chunks(run, lambda rows: means(rows, 1), x)
    return torch.cat([_answer(run, lambda rows: means(rows, DRAWS), row) for row in x.split(1)])


def class_probabilities(run: Run, x: Tensor) -> Tensor:
    r"""q(y | x) of the rows x, shape (N, K); x has the shape (N, \*event_shape)."""
    x = within_reach(run, x)
    return by_chunks(run, lambda rows: label_distribution(run.pair, rows).probs, x)


def sizes(run: Run, x: Tensor) -> Tensor:
    r"""How many times as large as the largest number that the run was fitted on that of each row is, shape (N,).

    Args:
        run: the fitted pair.
        x: shape (N, \*event_shape); missing values are not numbers, and not counted.
    """
    fitted = max(1.0, abs(run.facts.low or 0.0), abs(run.facts.high or 0.0))
    return x.abs().nan_to_num(0.0).flatten(1).amax(1) / fitted


def within_reach(run: Run, x: Tensor) -> Tensor:
    """Rows as networks may see them; arguments and shape as for ``sizes``."""
    finite = x.nan_to_num(torch.nan)
    shrunk = FAR / sizes(run, finite).clamp(min=FAR)
    return finite * shrunk.reshape(-1, *[1] * (x.dim() - 1))


def log_likelihoods(run: Run, x: Tensor, num_samples: int) -> Tensor:
    r"""Importance-weighted log p(x) of the rows x in the programs' units, nats, shape (N,).

    Args:
        run: the fitted pair.
        x: shape (N, \*event_shape); grey pixels are drawn as bits where the run trains on such draws.
        num_samples: importance samples per row.
    """
    images = Images(x.to(run.device))
    with one_at_a_time, turns.looking():
        if run.binarization != "none":  # each row by the same noise
            rows = [binarize_once(images[slice(i, i + 1)], run.binarization, SEED).x() for i in range(len(x))]
            images = Images(torch.cat(rows))
        times = sizes(run, x)
        near = times <= FAR
        found = torch.full((len(x),), -torch.inf, dtype=torch.float64)
        if near.any():
            found[near] = -nll_per_datum(run.probed, images[near], num_samples, SEED, by_itself=True)
    for row in ((times > 1) | ~found.isfinite()).nonzero()[:, 0].tolist():
        by_prior = _by_prior(run, images[slice(row, row + 1)].x(), num_samples)
        found[row] = by_prior if found[row].isnan() else max(found[row].item(), by_prior)
    return found


def _by_prior(run: Run, x: Tensor, num_samples: int) -> float:
    r"""Log p(x) of one row, shape (1, \*event_shape), by draws from the prior; minus infinity where it overflows."""

    def bound(x: Tensor) -> Tensor:
        target = Target(run.probed.by_row, x)
        latents = [name for name, site in model_sites(target).items() if not site.is_observed]
        given = log_likelihood(target, generate(target, latents, num_samples=num_samples))
        per_draw = sum(values.double().flatten(1).sum(1) for values in given.values())
        return torch.logsumexp(torch.as_tensor(per_draw), 0) - math.log(num_samples)

    value = _answer(run, bound, x).item()
    return value if math.isfinite(value) else -math.inf


def by_chunks(run: Run, answer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Deterministic answers for rows, from chunks of one size; each has a first dimension as x has."""
    answers = []
    for rows in x.split(ROWS_AT_ONCE):
        missing = ROWS_AT_ONCE - len(rows)
        padded = torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
        answers.append(_answer(run, answer, padded)[: len(rows)])
    return torch.cat(answers)


def _answer(run: Run, answer: Callable[[Tensor], Tensor], x: Tensor, seed: int = SEED) -> Tensor:
    with one_at_a_time, turns.looking(), run.pair.looked_at(seed):
        return answer(x.to(run.device)).cpu()

"""What a fitted pair says of a row, whatever rows come with it.

scikit-learn's estimators answer for each row alike, alone, in any order and among any others.  Matrix products round
by the number of their rows, so deterministic answers are made for a fixed number of rows at a time, the last of them
padded.  What is estimated with noise is made for one row at a time, each with the same noise.
"""

from __future__ import annotations

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
from pyro_vae.runs.run import Run

ROWS_AT_ONCE = 128
DRAWS = 100  # of a posterior mean that the guide does not know
SEED, OTHER_SEED = 0, 1
one_at_a_time = threading.RLock()  # so that threads, which a grid search may have, wait for each other


def posterior_means(run: Run, x: Tensor) -> Tensor:
    r"""E_q[z | x] of the rows x, shape (N, D), of the last continuous site; x has the shape (N, \*event_shape)."""
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
    return by_chunks(run, lambda rows: label_distribution(run.pair, rows).probs, x)


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
        return -nll_per_datum(run.probed, images, num_samples, SEED, by_itself=True)


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

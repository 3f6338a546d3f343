r"""Digits with some of their pixels hidden: how well the hidden ones are guessed, and what the seen ones are worth.

    python benchmarks/imputation.py                      # 30 % hidden, 3 seeds
    python benchmarks/imputation.py --hidden 0.5 --seeds 1

The rows and their splits are those of ``from_arrays``; training rows have holes too.  Errors are root mean squares over
the hidden pixels of the test rows, whose values are from 0 to 1.  Log-likelihoods are nats per test image of the pixels
that are seen, and of the hidden ones given them, log p(x) - log p(seen): exact for PPCA, by importance sampling for the
VAEs, for normal pixels alone.  Beside the mean of each pixel and scikit-learn's ``IterativeImputer`` stands
probabilistic PCA, fitted by expectation maximization to what is seen (Tipping and Bishop 1999; with z standard normal
and x = W z + b + s e),

    E-step, with the seen pixels o of a row:  M = W_o^T W_o + s^2 I,  E[z] = M^{-1} W_o^T (x_o - b_o),  cov = s^2 M^-1,
    M-step, for a pixel d over the rows that show it:  [W_d, b_d] = (sum x_d E[z'])^T (sum E[z' z'^T])^{-1},

with z' = [z, 1], its number of dimensions chosen by the log-likelihood of the validation rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from torch.distributions import MultivariateNormal

import pyro_vae
from pyro_vae.data import Dataset, Images, Reading, from_data
from pyro_vae.diagnostics import nll_per_datum

DIMENSIONS = (5, 10, 15, 20, 25)
STEPS = 150
COMPLETIONS, SAMPLES = 50, 2000
SMALL = {"latent_dim": 16, "hidden": (128,)}
NORMAL = {"likelihood": "gaussian:scale=0.2"}
VAES: dict[str, dict[str, Any]] = {
    "vae, normal pixels, the defaults": {"likelihood": "gaussian"},
    "vae, normal pixels, 128-16": SMALL | NORMAL,
    "the same by iwae of 10": SMALL | NORMAL | {"objective": "iwae:num_samples=10"},
    "vae, binomial pixels, 128-16": SMALL | {"likelihood": "binomial:trials=16"},
}


@dataclass(frozen=True)
class PPCA:
    """Probabilistic PCA: x = W z + b + s e."""

    w: Tensor
    b: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, x: Tensor, size: int, steps: int = STEPS) -> PPCA:
        """By expectation maximization on rows of shape (N, D), NaN where a value is hidden."""
        torch.manual_seed(0)
        seen = (~x.isnan()).double()
        found = cls(0.1 * torch.randn(x.shape[1], size, dtype=x.dtype), x.nanmean(0), x.new_tensor(0.1))
        for _ in range(steps):
            found = found._step(x.nan_to_num(0.0), seen)
        return found

    def latents(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """E[z | seen] of shape (N, Q) and cov[z | seen] of shape (N, Q, Q)."""
        eye = torch.eye(self.w.shape[1], dtype=x.dtype)
        precision = torch.einsum("nd,dq,dr->nqr", seen, self.w, self.w) + self.variance * eye
        inverse = torch.linalg.inv(precision)
        return torch.einsum("nqr,nr->nq", inverse, (seen * (x - self.b)) @ self.w), self.variance * inverse

    def _step(self, x: Tensor, seen: Tensor) -> PPCA:
        mean, covariance = self.latents(x, seen)
        z = torch.cat([mean, torch.ones_like(mean[:, :1])], 1)
        moments = z.unsqueeze(2) * z.unsqueeze(1)
        moments[:, :-1, :-1] += covariance
        totals = torch.einsum("nd,nqr->dqr", seen, moments) + 1e-6 * torch.eye(z.shape[1], dtype=x.dtype)
        both = torch.linalg.solve(totals, torch.einsum("nd,nq->dq", seen * x, z))
        w, b = both[:, :-1], both[:, -1]
        spread = torch.einsum("dq,nqr,dr->nd", w, covariance, w)
        error = ((x - mean @ w.T - b).square() + spread) * seen
        return PPCA(w, b, error.sum() / seen.sum())

    def complete(self, x: Tensor) -> Tensor:
        """Rows with what is hidden filled in by its mean given the rest."""
        seen = (~x.isnan()).double()
        mean, _ = self.latents(x.nan_to_num(0.0), seen)
        return torch.where(x.isnan(), mean @ self.w.T + self.b, x)

    def log_likelihood(self, x: Tensor) -> float:
        """Log p of what is seen, nats per row."""
        covariance = self.w @ self.w.T + self.variance * torch.eye(len(self.b), dtype=x.dtype)
        total = 0.0
        for row in x:
            o = ~row.isnan()
            total += MultivariateNormal(self.b[o], covariance[o][:, o]).log_prob(row[o]).item()
        return total / len(x)


@dataclass(frozen=True)
class Digits:
    """The digits, and which of their pixels are hidden; test rows as they are and with holes, shape (N, 64)."""

    data: Dataset
    x: Tensor
    holed: Tensor

    @classmethod
    def hide(cls, share: float, seed: int) -> Digits:
        """Hide a share of the pixels at random."""
        from sklearn.datasets import load_digits

        counts = load_digits().images.astype(np.uint8)
        hidden = np.random.default_rng(seed).random(counts.shape) < share
        data = from_data({"x": counts, "missing": hidden}, "digits", Reading(scale=16, missing="mask"))
        whole = from_data({"x": counts}, "digits", Reading(scale=16))  # the same permutation
        return cls(data, flat(whole.test), flat(data.test))

    def error(self, filled: Tensor) -> float:
        """The root mean squared error over the hidden pixels of the test rows."""
        holes = self.holed.isnan()
        return (filled.flatten(1).double() - self.x)[holes].square().mean().sqrt().item()


def flat(images: Images) -> Tensor:
    """Rows of shape (N, D), double."""
    return images.values().flatten(1).double()


def of_imputer(digits: Digits) -> list[float]:
    """The error of scikit-learn's imputer, which has no likelihood."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(max_iter=30, random_state=0, min_value=0.0, max_value=1.0, keep_empty_features=True)
    imputer.fit(flat(digits.data.train).numpy())
    return [digits.error(torch.from_numpy(imputer.transform(digits.holed.numpy())))]


def of_mean(digits: Digits) -> list[float]:
    """The error of the mean of each pixel."""
    mean = flat(digits.data.train).nanmean(0)
    return [digits.error(torch.where(digits.holed.isnan(), mean, digits.holed))]


def of_ppca(digits: Digits) -> list[float]:
    """Probabilistic PCA of as many dimensions as the validation rows want."""
    train, validation = flat(digits.data.train), flat(digits.data.validation)
    found = max((PPCA.fit(train, size) for size in DIMENSIONS), key=lambda each: each.log_likelihood(validation))
    seen, both = found.log_likelihood(digits.holed), found.log_likelihood(digits.x)
    return [digits.error(found.complete(digits.holed)), seen, both - seen]


def of_vae(digits: Digits, settings: dict[str, Any], seed: int) -> list[float]:
    """A VAE by ``fit``, on what is seen."""
    asked: dict[str, Any] = {"model": "vae", "labels": "none", "missing": "mask", "seed": seed, "display": False}
    run = pyro_vae.fit(data=digits.data, **(asked | settings))
    shape = (-1, *run.facts.event_shape)
    holed, whole = (rows.reshape(shape).float() for rows in (digits.holed, digits.x))
    found = [digits.error(run.complete(holed, COMPLETIONS).mean(0))]
    if "binomial" in run.config.likelihood:
        return found
    seen, both = (-nll_per_datum(run.probed, Images(rows), SAMPLES).mean().item() for rows in (holed, whole))
    return [*found, seen, both - seen]


@click.command()
@click.option("--hidden", default=0.3, show_default=True, help="the share of the pixels that is hidden")
@click.option("--seeds", default=3, show_default=True)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="change a setting of the VAEs")
def main(hidden: float, seeds: int, changes: tuple[str, ...]) -> None:
    """Hide pixels of the digits, guess them in several ways, and print the errors and log-likelihoods."""
    settings: dict[str, Any] = dict(change.split("=", 1) for change in changes)
    found: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        digits = Digits.hide(hidden, seed)
        for name, of in {"mean": of_mean, "IterativeImputer": of_imputer, "PPCA": of_ppca}.items():
            found.setdefault(name, []).append(of(digits))
        for name, own in VAES.items():
            found.setdefault(name, []).append(of_vae(digits, own | settings, seed))
    columns = (Column("", no_wrap=True), "error", "log p(seen)", "log p(hidden | seen)")
    table = Table(*columns, title=f"{100 * hidden:g} % hidden, {seeds} seeds")
    for name, rows in found.items():
        means = [*np.mean(rows, 0), math.nan, math.nan][:3]
        table.add_row(name, f"{means[0]:.4f}", *("" if math.isnan(nats) else f"{nats:.2f}" for nats in means[1:]))
    Console().print(table)


if __name__ == "__main__":
    main()

r"""A guide by one word beside Pyro's AutoNormal, and on Pyro's own examples.

    python benchmarks/amortize.py                        # 10,000 rows; some minutes
    python benchmarks/amortize.py --quick                # 1,000 rows
    python benchmarks/amortize.py --pyro PATH            # a guide for the models of the examples of a checkout of Pyro

The first two fit the item response and the Poisson factors of the folder ``examples`` by ``pyro_vae.fit``, start to
finish, and then let stock Pyro's SVI with ``AutoNormal`` over all rows run until it has the same held-out
log-likelihood, or its time is over.  That log-likelihood is a function of what all rows share alone (how hard the
questions are; the loadings), the latents of the held-out rows being summed out by quadrature, so that it is exact and
favours neither.  ``AutoNormal`` has the best of three rates; its time is that of its steps, without the looks at the
log-likelihood, while that of the fit has everything in it, the making of the guide and the first evaluation too.  The
cases take turns, and the ratio is the median over the rounds.  Then a thousand rows are encoded, which ``AutoNormal``
cannot without being fitted anew.

The third makes a guide for each model from the model alone and trains it for some steps, or gives the line that says
why not.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import PyroOptim
from rich.console import Console
from rich.table import Table
from torch import Tensor

import pyro_vae
from examples import item_response, poisson_factors

RATES = (0.01, 0.03, 0.1)
LOOK_EVERY = 10
HELD_OUT = 200
ROW_VISITS = 60_000  # rows that a fit sees, each as often as there are epochs
NEAR = 0.01  # nats per row below what the fit has counts as the same


@dataclass(frozen=True)
class Case:
    """A model with data, and what its held-out rows are worth given what all rows share.

    Args:
        model: the program.
        family: the guide by name.
        make: data of so many rows.
        score: the mean log-likelihood of held-out rows, nats, from the shared values.
        of_run: the shared values of a run.
        of_auto: those of an ``AutoNormal``.
        settings: of the fit.
    """

    model: Callable[..., Any]
    family: str
    make: Callable[[int], np.ndarray]
    score: Callable[[Tensor, Tensor], float]
    of_run: Callable[[pyro_vae.Run], Tensor]
    of_auto: Callable[[AutoNormal], Tensor]
    settings: dict[str, Any]


def _answers(hard: Tensor, x: Tensor) -> float:
    return item_response.by_people(hard.double(), x)[1].logsumexp(1).mean().item()


def _counts(loadings: Tensor, x: Tensor) -> float:
    return poisson_factors.exact(x, loadings)[1].mean().item()


def _loadings(_: Any) -> Tensor:
    return pyro.param("loadings").detach().clone()


def _loadings_of_run(run: pyro_vae.Run) -> Tensor:
    with run.pair.scope():
        return _loadings(run)


def _hard_of_run(run: pyro_vae.Run) -> Tensor:
    with run.pair.scope(), torch.no_grad():
        draws: Tensor = run.guide.posterior(run.data.train.values()[:10])["hard"].sample((500,))
    return draws.mean(0)


CASES = {
    "item response": Case(
        item_response.model,
        "mean_field",
        lambda rows: item_response.make(rows),
        _answers,
        _hard_of_run,
        lambda guide: guide.median()["hard"].detach(),
        {"hidden": (32,), "lr": 0.02, "lr_schedule": "cosine"},
    ),
    "Poisson factors": Case(
        poisson_factors.model,
        "mean_field",
        lambda rows: poisson_factors.make(rows)[0],
        _counts,
        _loadings_of_run,
        _loadings,
        {"hidden": (32,), "lr": 0.02, "lr_schedule": "cosine"},
    ),
}


@dataclass(frozen=True)
class Race:
    """What one round of a case showed: seconds, log-likelihoods in nats per row, and seconds to encode a thousand."""

    ours: float
    reached: float
    theirs: float
    their_best: float
    encoding: float


def race(case: Case, rows: int, seed: int, longest: float) -> Race:
    """One round: the fit, then AutoNormal at each rate until it has what the fit has."""
    x = torch.as_tensor(case.make(rows + HELD_OUT), dtype=torch.float32)
    train, held = x[:-HELD_OUT], x[-HELD_OUT:]
    begin = time.perf_counter()
    settings = {**case.settings, "epochs": -(-ROW_VISITS // rows)}
    run = pyro_vae.fit(case.model, case.family, data=train.numpy(), seed=seed, display=False, **settings)
    ours = time.perf_counter() - begin
    reached = case.score(case.of_run(run), held)
    begin = time.perf_counter()
    run.encode(held[:1].expand(1000, -1).numpy())
    encoding = time.perf_counter() - begin
    found = [auto_normal(case, run.data.train.values(), held, reached - NEAR, rate, longest) for rate in RATES]
    theirs, best = min(found, key=lambda each: (each[1] < reached - NEAR, each[0]))
    return Race(ours, reached, theirs, best, encoding)


def auto_normal(
    case: Case, train: Tensor, held: Tensor, wanted: float, rate: float, longest: float
) -> tuple[float, float]:
    """Seconds of stock SVI over all rows until a log-likelihood is reached or its time is over, and the best found."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        guide = AutoNormal(case.model)
        svi = SVI(case.model, guide, PyroOptim(torch.optim.Adam, {"lr": rate}), Trace_ELBO())
        spent, best = 0.0, -np.inf
        while spent < longest and best < wanted:
            begin = time.perf_counter()
            for _ in range(LOOK_EVERY):
                svi.step(train)
            spent += time.perf_counter() - begin
            best = max(best, case.score(case.of_auto(guide), held))
    return spent, best


def compare(rows: int, rounds: int, longest: float) -> Table:
    """Both cases in turn, so many rounds, as a table."""
    columns = ("", "fit, s", "AutoNormal, s", "ratio", "held out, fit", "held out, AutoNormal", "1,000 rows encoded, s")
    table = Table(*columns, title=f"{rows:,} rows, {rounds} rounds, medians; nats per held-out row")
    found: dict[str, list[Race]] = {name: [] for name in CASES}
    for index in range(rounds):
        for name, case in CASES.items():
            found[name].append(race(case, rows, index, longest))
    for name, races in found.items():
        ratio = statistics.median(each.theirs / each.ours for each in races)
        late = any(each.their_best < each.reached - NEAR for each in races)
        middle = {
            field: statistics.median(getattr(each, field) for each in races) for field in Race.__dataclass_fields__
        }
        table.add_row(
            name,
            f"{middle['ours']:.1f}",
            f"{'over ' if late else ''}{middle['theirs']:.1f}",
            f"{'over ' if late else ''}{ratio:.1f}",
            f"{middle['reached']:.3f}",
            f"{middle['their_best']:.3f}",
            f"{middle['encoding']:.2f}",
        )
    return table


@click.command()
@click.option("--rows", default=10_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--longest", default=120.0, show_default=True, help="seconds that AutoNormal has at each rate")
@click.option("--quick", is_flag=True, help="1,000 rows, one round")
@click.option("--pyro", "checkout", type=click.Path(exists=True, path_type=Path), help="a checkout of Pyro")
def main(rows: int, rounds: int, longest: float, quick: bool, checkout: Path | None) -> None:
    """Print how long a guide by one word takes beside AutoNormal, or what it makes of Pyro's examples."""
    torch.set_num_threads(1)
    if checkout is not None:
        from benchmarks.amortized_examples import tried

        table = tried(checkout)
    else:
        table = compare(1000 if quick else rows, 1 if quick else rounds, 20.0 if quick else longest)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()

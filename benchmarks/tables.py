r"""Tables of scikit-learn: what held-out rows are worth under a VAE with a likelihood per column, and under rivals.

    python benchmarks/tables.py                  # 5 seeds, 20 minutes on a quiet core
    python benchmarks/tables.py --quick          # 1 seed, a tenth of the epochs: that it runs

Wine has 13 columns and 178 rows, breast cancer 30 columns and 569 rows.  A seed shuffles the rows before they are cut
into train, validation and test, and starts the networks.  Everything is compared in one measure, nats per test row: a
density in the columns' original units, times a probability where there are categories.

- *Continuous columns*: ``vae`` with normal columns (importance-weighted, 1,000 samples, a lower bound on average),
  beside scikit-learn's ``FactorAnalysis`` of as many latents, fitted to the same standardized training rows, its
  log-density less the logarithms of the standard deviations: exact.
- *Mixed columns*: the class as text and the first column in four bands of equal shares, its quartiles those of the
  training rows, beside the other columns.  A factor analysis has no categories, so its rivals are factor analysis of
  the continuous columns times each category's probability, by its frequency among the training rows, or by a logistic
  regression on the continuous columns and the categories before it, log p(x) + log p(c_1 | x) + log p(c_2 | x, c_1),
  its penalty chosen by the validation rows.

The settings of the VAE were chosen on validation rows, the same for all tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import LogisticRegression

import pyro_vae
from pyro_vae.data import table_of
from pyro_vae.diagnostics import nll_per_datum

Numbers = NDArray[Any]
LATENTS = {"wine": 4, "breast cancer": 6}
SETTINGS: dict[str, Any] = {
    "guide": "full_rank",
    "network": "mlp:hidden=32,activation=tanh",
    "lr": 5e-3,
    "epochs": 300,
    "labels": "none",
    "display": False,
}
SAMPLES = 1000
BANDS = ("lowest", "low", "high", "highest")
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


def shuffled(name: str, seed: int) -> pd.DataFrame:
    """The rows of a data set in an order of their own, its class by name in the last column."""
    found = (load_wine if name == "wine" else load_breast_cancer)(as_frame=True)
    classes = np.asarray(found.target_names, dtype=object)[found.target]
    return found.data.assign(kind=classes).sample(frac=1, random_state=seed).reset_index(drop=True)


@dataclass(frozen=True)
class Split:
    """The rows that a run was trained on, chosen on and tested on, as tables."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame

    @classmethod
    def of_run(cls, run: pyro_vae.Run) -> Split:
        """The splits of a run."""
        return cls(*(table_of(part.values(), run.facts.columns) for part in run.data.splits))


def factor_analysis(train: Numbers, test: Numbers, num_latents: int) -> Numbers:
    """The log-density of each test row in the columns' own units, by a factor analysis of standardized rows."""
    mean, spread = train.mean(0), train.std(0)
    found = FactorAnalysis(num_latents, max_iter=5000, tol=1e-6, svd_method="lapack").fit((train - mean) / spread)
    return np.asarray(found.score_samples((test - mean) / spread) - np.log(spread).sum())


def frequencies(train: pd.Series, test: pd.Series) -> Numbers:
    """The log-probability of each category by its frequency among the training rows, one added to each."""
    counts = train.value_counts()
    return np.log([(counts.get(each, 0) + 1) / (len(train) + len(counts)) for each in test])


def regression(split: Split, given: list[str], column: str) -> Numbers:
    """The log-probability of each test row's category given other columns, by a logistic regression."""
    parts = [pd.get_dummies(part[given], dtype=float) for part in (split.train, split.validation, split.test)]
    train, validation, test = (part.reindex(columns=parts[0].columns, fill_value=0.0).to_numpy() for part in parts)
    mean, spread = train.mean(0), train.std(0) + 1e-12
    train, validation, test = ((each - mean) / spread for each in (train, validation, test))
    y = [part[column].astype(str) for part in (split.train, split.validation, split.test)]
    fitted = [LogisticRegression(C=c, max_iter=5000).fit(train, y[0]) for c in PENALTIES]
    best = max(fitted, key=lambda each: _scores(each, validation, y[1]).mean())
    return _scores(best, test, y[2])


def _scores(model: LogisticRegression, x: Numbers, y: pd.Series) -> Numbers:
    places = {name: place for place, name in enumerate(model.classes_)}
    with np.errstate(divide="ignore"):
        scores = model.predict_log_proba(x)
    return np.asarray(scores[np.arange(len(y)), [places[each] for each in y]])


def in_bands(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with a column in four bands, at the quartiles of what a fit takes for training rows."""
    from pyro_vae.data import from_data

    train = from_data(frame[[column]]).train.values().squeeze(1).numpy()
    edges = [-np.inf, *np.quantile(train, [0.25, 0.5, 0.75]), np.inf]
    return frame.assign(**{column: pd.cut(frame[column], edges, labels=BANDS).astype(object)})


def compare(name: str, seed: int, mixed: bool, quick: bool) -> dict[str, Numbers]:
    """The log-likelihood of each test row, nats, by each method."""
    frame, latents = shuffled(name, seed), LATENTS[name]
    first = str(frame.columns[0])
    frame = in_bands(frame, first) if mixed else frame.drop(columns="kind")
    settings = SETTINGS | ({"epochs": SETTINGS["epochs"] // 10} if quick else {})
    run = pyro_vae.fit("vae", data=frame, likelihood="mixed", latent_dim=latents, seed=seed, **settings)
    split, samples = Split.of_run(run), 500 if quick else SAMPLES
    found = {"vae": -nll_per_datum(run.probed, run.split("test"), samples, seed).numpy()}
    numbers = [column for column in frame if column not in ((first, "kind") if mixed else ())]
    density = factor_analysis(split.train[numbers].to_numpy(), split.test[numbers].to_numpy(), latents)
    if not mixed:
        return found | {"factor analysis": density}
    by_frequency = sum(frequencies(split.train[column], split.test[column]) for column in ("kind", first))
    by_regression = regression(split, numbers, "kind") + regression(split, [*numbers, "kind"], first)
    return found | {
        "factor analysis and frequencies": density + by_frequency,
        "factor analysis and regressions": density + by_regression,
    }


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--table", "tables", multiple=True, type=click.Choice([*LATENTS]), help="one of them  [default: both]")
@click.option("--quick", is_flag=True, help="one seed, a tenth of the epochs")
def main(seeds: int, tables: tuple[str, ...], quick: bool) -> None:
    """Compare on held-out rows and print a table; a margin is over the seeds, each of them the mean of its rows."""
    shown = Table("table", "method", "nats per test row", "less than vae by", "seeds below vae")
    for name in tables or LATENTS:
        for mixed in (False, True):
            each = [compare(name, seed, mixed, quick) for seed in range(1 if quick else seeds)]
            for method in each[0]:
                means = np.array([found[method].mean() for found in each])
                behind = np.array([(found["vae"] - found[method]).mean() for found in each])
                title = f"{name}, {'mixed' if mixed else 'continuous'}, {LATENTS[name]} latents"
                ahead = "" if method == "vae" else f"{(behind > 0).sum()} of {len(behind)}"
                shown.add_row(title, method, _said(means), "" if method == "vae" else _said(behind), ahead)
                Console(stderr=True).print(title, method, means.round(2).tolist())
    Console(width=120).print(shown)


def _said(values: Numbers) -> str:
    spread = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


if __name__ == "__main__":
    main()

"""Semi-supervised accuracy, beside classifiers that see the same labels.

    python benchmarks/semi_supervised.py digits            # the default command's settings, 100 labels, 5 seeds
    python benchmarks/semi_supervised.py mnist             # 100 labels (needs PYRO_VAE_DATA)
    python benchmarks/semi_supervised.py mnist --labels 3000

Prints one row per seed and the mean; k-nearest neighbours and logistic regression are scikit-learn's, on the same
labelled gray images.  The figure to beat on MNIST is that of Pyro's own tutorial: an accuracy of 0.932 with 100
labels, 0.958 with 3,000 (test errors 6.81 % and 4.18 %).
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import pyro_vae
from pyro_vae.data import Dataset, labelled_rows, load_data

DATA = ("digits", "mnist")
TUTORIAL = {100: 0.932, 3000: 0.958}


def peers(data: Dataset, labels: int, seed: int) -> tuple[float, float]:
    """Test accuracies of a nearest-neighbour and a logistic-regression classifier on the labels of this seed."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rows = labelled_rows(data.train, labels, data.num_classes, seed)
    assert data.train.labels is not None
    assert data.test.labels is not None
    x, y = data.train[rows].values().flatten(1).numpy(), data.train.labels[rows].numpy()
    x_test, y_test = data.test.values().flatten(1).numpy(), data.test.labels.numpy()
    scores = [
        classifier.fit(x, y).score(x_test, y_test)
        for classifier in (KNeighborsClassifier(n_neighbors=1), LogisticRegression(max_iter=2000))
    ]
    return scores[0], scores[1]


@click.command()
@click.argument("name", type=click.Choice(DATA))
@click.option("--labels", default=100, show_default=True)
@click.option("--seeds", default=5, show_default=True)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="change a setting, to see what it does")
def main(name: str, labels: int, seeds: int, changes: tuple[str, ...]) -> None:
    """Fit ss_vae on NAME over several seeds and print the accuracies."""
    settings: dict[str, Any] = dict(change.split("=", 1) for change in changes)
    data = load_data(name)
    table = Table("seed", "ss_vae", "1-NN", "logistic", "ELBO", "ECE", "seconds", title=f"{name}, {labels} labels")
    rows = []
    for seed in range(seeds):
        begin = time.perf_counter()
        run = pyro_vae.fit("ss_vae", data=data, labels=labels, seed=seed, **settings)
        seconds = time.perf_counter() - begin
        figures = run.evaluate(num_samples=1)
        rows.append([figures["accuracy"], *peers(data, labels, seed), figures["elbo"], figures["ece"], seconds])
        table.add_row(str(seed), *_cells(rows[-1]))
    table.add_section()
    table.add_row("mean", *_cells(list(np.mean(rows, 0))))
    Console().print(table)
    if name == "mnist" and labels in TUTORIAL:
        print(f"Pyro's tutorial with {labels} labels: {TUTORIAL[labels]}")


def _cells(row: list[float]) -> list[str]:
    return [f"{row[0]:.4f}", f"{row[1]:.4f}", f"{row[2]:.4f}", f"{row[3]:.2f}", f"{row[4]:.3f}", f"{row[5]:.1f}"]


if __name__ == "__main__":
    main()

"""How long ``VAETransformer.fit`` takes beside an autoencoder of the same widths by scikit-learn's ``MLPRegressor``.

    python benchmarks/scikit_learn.py                       # digits, 256-256-32-256-256, 60 epochs, 5 rounds
    python benchmarks/scikit_learn.py --threads 1 --json

Both are fitted to the 1,797 digits in float32 in batches of 100 with Adam, for the same number of epochs, and take
turns in one process; the first fit of each, which loads and warms up what the others find ready, is not counted.  The
VAE draws its latents, has the encoder's second output and scores 179 rows after each epoch, which the autoencoder has
not.  ``one epoch`` is what ``VAETransformer.fit`` takes whatever the number of epochs: structure, recording, findings.
"""

from __future__ import annotations

import json
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.timing import cores, machine, timed, use_threads

BATCH, RATE = 100, 2e-3
WIDTHS, LATENT = (256, 256), 32


def contenders(epochs: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name: each call is a whole fit."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPRegressor

    from pyro_vae.sklearn import VAETransformer

    x = load_digits().data.astype(np.float32)
    centred = (x - x.mean(0)) / (x - x.mean(0)).std()
    widths = (*WIDTHS, LATENT, *reversed(WIDTHS))
    shared = {"batch_size": BATCH, "learning_rate_init": RATE, "random_state": 0}

    def autoencoder() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            mlp = MLPRegressor(hidden_layer_sizes=widths, max_iter=epochs, tol=0.0, n_iter_no_change=epochs, **shared)
            return mlp.fit(centred, centred)

    def vae(max_iter: int) -> object:
        settings = {"batch_size": BATCH, "lr": RATE, "patience": "none"}
        return VAETransformer(LATENT, WIDTHS, max_iter, settings=settings, random_state=0).fit(x)

    return {"MLPRegressor": autoencoder, "VAETransformer": lambda: vae(epochs), "one epoch": lambda: vae(1)}


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, one number per round, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for index in range(rounds + 1):
        names = list(work)[index % len(work) :] + list(work)[: index % len(work)]
        for name in names:
            turn = timed(lambda steps, run=work[name]: run() and None, 1)  # type: ignore[misc]
            if index:
                taken[name].append(turn.seconds)
    return taken


@click.command()
@click.option("--epochs", default=60, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=cores(), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def main(epochs: int, rounds: int, threads: int, as_json: bool) -> None:
    """Print the medians and their ratio."""
    use_threads(threads)
    import logging

    logging.getLogger("pyro_vae").setLevel(logging.ERROR)  # findings of fits that are too short
    taken = interleaved(contenders(epochs), rounds)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    ratio = medians["VAETransformer"] / medians["MLPRegressor"]
    if as_json:
        click.echo(json.dumps({"epochs": epochs, "seconds": taken, "medians": medians, "ratio": ratio}))
        return
    for name, median in medians.items():
        low, high = min(taken[name]), max(taken[name])
        click.echo(f"{name:15} {median:7.2f} s  ({low:.2f} to {high:.2f})")
    click.echo(f"ratio of medians {ratio:.2f}, {epochs} epochs, {rounds} rounds")
    click.echo(machine(threads, ("sklearn", "torch", "pyro")))


if __name__ == "__main__":
    main()

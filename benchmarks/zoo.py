"""What a better prior, a second layer or a better guide brings: negative log-likelihoods on MNIST.

    python benchmarks/zoo.py [--epochs 25] [--images 2000] [--samples 500]      # needs PYRO_VAE_DATA

Four runs that differ in one part: ``vae`` + ``normal`` + ``mean_field``; ``hvae``; ``iaf``; ``vampprior``.  Width,
latent dimension, epochs, optimizer and seed are the same, pixels are binarized dynamically, and the likelihood is
estimated by importance weighting on the first test images, the same for all.  The difference to the first run is of
pairs of images, with its standard error.
"""

from __future__ import annotations

import argparse
import time

from rich.console import Console
from rich.table import Table

import pyro_vae
from pyro_vae.diagnostics import nll_per_datum

RUNS: dict[str, dict[str, str]] = {
    "vae + normal + mean_field": {},
    "hvae": {"model": "hvae"},
    "iaf": {"guide": "iaf"},
    "vampprior": {"prior": "vampprior:num_components=100"},
}


def main() -> None:
    """Train the four, and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--hidden", default="256,256")
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warm-up", type=float, default=5, help="epochs over which beta rises from 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one of the runs, by the start of its name")
    given = parser.parse_args()
    settings = {
        "data": "mnist",
        "labels": "none",
        "hidden": given.hidden,
        "latent_dim": given.latent_dim,
        "lr": given.lr,
        "lr_schedule": "cosine",
        "beta": f"linear:0:1:{given.warm_up:g}",
        "batch_size": 100,
        "epochs": given.epochs,
        "seed": given.seed,
        "display": False,
    }
    title = f"MNIST, {given.images:,} test images, {given.samples} importance samples, {given.epochs} epochs"
    table = Table("run", "NLL", "against the first", "ELBO", "seconds", title=title)
    first = None
    for name, parts in RUNS.items():
        if given.only and not name.startswith(given.only):
            continue
        begin = time.perf_counter()
        run = pyro_vae.fit(**(settings | parts))
        seconds = time.perf_counter() - begin
        images = run.split("test")[slice(0, given.images)]
        nll = nll_per_datum(run.probed, images, given.samples)
        first = nll if first is None else first
        difference = nll - first
        error = difference.std() / len(nll) ** 0.5
        elbo = run.history["validation_elbo"].max()
        change = "" if first is nll else f"{difference.mean():+.2f} ± {error:.2f}"
        table.add_row(name, f"{nll.mean():.2f}", change, f"{elbo:.2f}", f"{seconds:.0f}")
        print(f"{name}: NLL {nll.mean():.2f} {change}; best validation ELBO {elbo:.2f}, {seconds:.0f} s", flush=True)
    Console().print(table)


if __name__ == "__main__":
    main()

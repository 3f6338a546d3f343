"""Whether latents come to mean one thing each: MIG, SAP and DCI of four objectives on sprites of known factors.

    python benchmarks/disentanglement.py --quick                      # one seed, a few epochs: whether it runs at all
    python benchmarks/disentanglement.py --out disentanglement.jsonl  # seeds 0 to 4; goes on from what is there
    python benchmarks/disentanglement.py --figure sprites.png         # and a walk along each latent of the best

The objectives differ in nothing but themselves and beta.  A code is the mean of q(z | x) of each of the 7,200 sprites,
which are all there are; bound, KL and active units are of the 600 test images.  Training sees no factor.  The beta of
``beta`` and ``beta_tc`` was chosen by the MIG of seeds 10 and 11, which are not among those reported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np
import torch

import pyro_vae
from benchmarks.kept import Figures, Kept, markdown, spread
from pyro_vae import figures
from pyro_vae.data.sprites import SPRITE_FACTORS, draw_sprites
from pyro_vae.diagnostics import disentanglement
from pyro_vae.diagnostics.evaluation import ACTIVE_VARIANCE

SETTINGS: dict[str, Any] = {
    "model": "vae",
    "data": "sprites",
    "labels": "none",
    "likelihood": "bernoulli",
    "latent_dim": 6,
    "network": "mlp:hidden=256,256",
    "epochs": 60,
    "patience": "none",
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "vae": {"beta": 1.0},
    "beta": {"beta": 6.0},
    "beta_tc": {"objective": "beta_tc", "beta": 10.0},
    "capacity": {"objective": "capacity:nats=8,epochs=40", "beta": 50.0},
}
QUICK = {"epochs": 2, "network": "mlp:hidden=32"}
QUICK_STRIDE = 24  # between the sprites that a quick run is scored on
SCORES = ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")
BOUNDS = ("elbo", "kl", "active_units")
COLUMNS = ("objective", "MIG", "SAP", "D", "C", "I", "test ELBO", "KL", "active units", "seconds")
STEPS = 9


def fitted(settings: Mapping[str, Any]) -> pyro_vae.Run:
    """A run of these settings."""
    return pyro_vae.fit(display=False, **settings)


def scored(run: pyro_vae.Run, stride: int = 1) -> Figures:
    """The scores of a run's code, how much of each factor each unit knows, and its figures on the test set."""
    images, factors = (every[::stride] for every in draw_sprites())
    found = disentanglement(run.encode(images.float()), factors, tuple(SPRITE_FACTORS), nominal=("shape",))
    evaluation = run.evaluate(num_samples=100)
    known = found.mutual_information / found.entropy
    return found.as_dict() | {name: evaluation[name] for name in BOUNDS} | {"known": known.round(3).tolist()}


def measure(settings: Mapping[str, Any], stride: int) -> Figures:
    """Fit, timed, and score."""
    start = time.perf_counter()
    run = fitted(settings)
    return {"seconds": time.perf_counter() - start} | scored(run, stride)


def row(name: str, found: Sequence[Figures]) -> list[str]:
    """A row of the table: means over the seeds and their spread."""
    cells = [spread([each[score] for each in found], 2) for score in SCORES]
    cells += [spread([each[bound] for each in found], 1) for bound in BOUNDS]
    return [f"`{name}`", *cells, f"{mean(each['seconds'] for each in found):.0f}"]


def walk(run: pyro_vae.Run, known: Sequence[Sequence[float]], title: str) -> Any:
    """A row of images along each active unit, the others at the mean, named by the factor that it knows most of.

    Args:
        run: the run.
        known: the share of each factor's entropy that each unit knows, shape (D, K).
        title: written above.
    """
    z = run.encode(draw_sprites()[0].float())
    units = [unit for unit in range(z.shape[1]) if z[:, unit].var() > ACTIVE_VARIANCE]
    steps, middle = torch.linspace(-1.8, 1.8, STEPS), z.mean(0)
    points = middle.repeat(len(units), STEPS, 1)
    for line, unit in enumerate(units):
        points[line, :, unit] = steps
    images = run.decode(points.flatten(0, 1)).unflatten(0, (len(units), STEPS))
    factors = list(SPRITE_FACTORS)
    names = [f"z_{unit}, {factors[int(np.argmax(known[unit]))]} {max(known[unit]):.2f}" for unit in units]
    return figures.traversal(images, steps, names, title=title)


@click.command()
@click.option("--quick", is_flag=True, help="one seed, two epochs, a small network, scored on some of the sprites")
@click.option("--objective", "names", multiple=True, type=click.Choice(list(OBJECTIVES)), help="may be given again")
@click.option("--seeds", type=click.IntRange(1), help="how many, from 0  [default: 5]")
@click.option("--out", type=click.Path(path_type=Path), help="a file of results to write, and to go on from")
@click.option("--figure", type=click.Path(path_type=Path), help="where to draw the seed of median MIG of the best")
def main(quick: bool, names: tuple[str, ...], seeds: int | None, out: Path | None, figure: Path | None) -> None:
    """Fit each objective for each seed, and print one table."""
    kept, numbers = Kept(out), range(seeds or (1 if quick else 5))
    stride = QUICK_STRIDE if quick else 1
    found: dict[str, list[Figures]] = {}
    for name in names or tuple(OBJECTIVES):
        settings = SETTINGS | OBJECTIVES[name] | (QUICK if quick else {})
        for seed in numbers:
            of = settings | {"seed": seed}
            found.setdefault(name, []).append(kept(of | {"stride": stride}, measure, of, stride))
    print(markdown(COLUMNS, [row(name, each) for name, each in found.items()]))
    if figure is not None:
        best = max(found, key=lambda name: mean(each["mig"] for each in found[name]))
        order = sorted(numbers, key=lambda seed: found[best][seed]["mig"])
        seed = order[len(order) // 2]
        chosen = found[best][seed]
        run = fitted(SETTINGS | OBJECTIVES[best] | (QUICK if quick else {}) | {"seed": seed})
        figures.save_figure(walk(run, chosen["known"], f"{best}, seed {seed}: MIG {chosen['mig']:.2f}"), figure)


if __name__ == "__main__":
    main()

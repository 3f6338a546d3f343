"""The time that training takes to the test bound at which stock Pyro's VAE example ends, beside that example.

    python benchmarks/time_to_quality.py --quick     # the digits, a few epochs: whether it runs at all
    python benchmarks/time_to_quality.py             # MNIST (needs PYRO_VAE_DATA), seeds 0 to 2, half an hour

Three contenders, one after the other for each seed, on the same 60,000 images: Pyro's example by stock ``SVI`` for its
100 epochs; its model and guide, as they are, through ``pyro_vae.fit`` with the same optimizer, rate and batch; and
``pyro_vae.fit("vae")`` with its networks of the same size and everything else at its default.  After each epoch the
bound of all test images is taken, by a draw of z for each; nothing is chosen by it.  The clock counts everything from
the first line on: compiling, epochs and bounds.  The ratio is that of the time at which a contender's bound is first
that of the example's last epoch, to the time of the example's 100 epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam  # type: ignore[attr-defined]

import pyro_vae
from benchmarks.headlines import machine
from benchmarks.kept import Figures, Kept, markdown, spread
from benchmarks.peers.pyro_vae_example import BATCH_SIZE, HIDDEN, LATENT_DIM, LEARNING_RATE, Example
from pyro_vae.data import Dataset, Images, load_data
from pyro_vae.data.binarization import binarize, binarize_once

EPOCHS, QUICK_EPOCHS = 100, 3
STOCK = "Pyro's example, stock"
ALIKE: dict[str, Any] = {
    "labels": "none",
    "beta": 1.0,
    "lr": LEARNING_RATE,
    "lr_schedule": "constant",
    "batch_size": BATCH_SIZE,
    "patience": "none",
}
DEFAULT: dict[str, Any] = {
    "labels": "none",
    "likelihood": "bernoulli",
    "latent_dim": LATENT_DIM,
    "network": f"mlp:hidden={HIDDEN}",
}
COLUMNS = ("trained by", "last bound", "its epochs", "seconds in all", "seconds to the example's bound", "of its time")


@dataclass
class Curve:
    """The bounds of the test images, nats per image, and the seconds at which each was known."""

    bounds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def begin(self, start: Any) -> None:
        """Nothing to do: the clock runs from when this was made (see ``pyro_vae.trackers``)."""

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Note the bound of an epoch."""
        self.bounds.append(metrics["validation_elbo"])
        self.seconds.append(time.perf_counter() - self.start)

    def figures(self) -> Figures:
        """As they are kept."""
        return {"bounds": self.bounds, "seconds": self.seconds}


def stock(dataset: Dataset, epochs: int, seed: int) -> Figures:
    """Pyro's example by stock ``SVI``."""
    curve = Curve()
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    example = Example(dataset.train.values()[0].numel())
    svi = SVI(example.model, example.guide, Adam({"lr": LEARNING_RATE}), Trace_ELBO())
    gray, test = dataset.train.values(), dataset.validation.values()
    for number in range(1, epochs + 1):
        with pyro.validation_enabled(False):
            for rows in torch.randperm(len(gray)).split(BATCH_SIZE):
                svi.step(binarize(gray[rows], "dynamic"))
            losses = [svi.evaluate_loss(x) for x in test.split(1000)]
        curve.epoch(number, {"validation_elbo": -sum(losses) / len(test)})
    return curve.figures()


def same_programs(dataset: Dataset, epochs: int, seed: int) -> Figures:
    """The example's programs through ``fit``."""
    curve = Curve()
    torch.manual_seed(seed)
    pyro.clear_param_store()
    example = Example(dataset.train.values()[0].numel())
    settings: dict[str, Any] = {"binarization": "dynamic", "epochs": epochs, "seed": seed} | ALIKE
    pyro_vae.fit(example.model, example.guide, data=dataset, trackers=[curve], display=False, **settings)
    return curve.figures()


def default(dataset: Dataset, epochs: int, seed: int) -> Figures:
    """``vae`` at its defaults, which has its own number of epochs but where these are few."""
    curve = Curve()
    settings = DEFAULT | {"seed": seed} | ({"epochs": epochs} if epochs < EPOCHS else {})
    pyro_vae.fit("vae", data=dataset, trackers=[curve], display=False, **settings)
    return curve.figures()


CONTENDERS: dict[str, Callable[[Dataset, int, int], Figures]] = {
    STOCK: stock,
    "its programs through fit": same_programs,
    'fit("vae"), defaults': default,
}


def images(name: str) -> Dataset:
    """The data set with all its training images to train on, and the test images, binarized once, to watch."""
    dataset = load_data(name)
    pixels = torch.cat([dataset.train.values(), dataset.validation.values()])
    test = Images(binarize_once(dataset.test, "dynamic").x())  # the pixels themselves, for who takes them as they are
    return replace(dataset, name=f"{name}, test images watched", train=Images(pixels), validation=test, test=test)


def reached(found: Figures, bound: float) -> float | None:
    """The seconds at which a bound was first reached; None where it never was."""
    return next((at for value, at in zip(found["bounds"], found["seconds"], strict=True) if value >= bound), None)


def row(name: str, found: list[Figures], examples: list[Figures]) -> list[str]:
    """A row of the table: means over the seeds, and the median ratio."""
    times = [reached(each, example["bounds"][-1]) for each, example in zip(found, examples, strict=True)]
    known = [at for at in times if at is not None]
    ratios = [at / example["seconds"][-1] for at, example in zip(times, examples, strict=True) if at is not None]
    never = f" ({len(times) - len(known)} never)" if len(known) < len(times) else ""
    return [
        name,
        spread([each["bounds"][-1] for each in found], 2),
        spread([float(len(each["bounds"])) for each in found], 0),
        spread([each["seconds"][-1] for each in found], 0),
        (spread(known, 0) if known else "-") + never,
        f"{median(ratios):.2f}" if ratios else "-",
    ]


@click.command()
@click.option("--quick", is_flag=True, help="the digits, a few epochs, one seed")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="how many seeds")
@click.option("--out", type=click.Path(path_type=Path), help="where figures are kept, so that it can be stopped")
def main(quick: bool, seeds: int, out: Path | None) -> None:
    """Train all three, seed by seed, and print the table."""
    name, epochs = ("digits", QUICK_EPOCHS) if quick else ("mnist", EPOCHS)
    dataset, kept = images(name), Kept(out)
    found: dict[str, list[Figures]] = {contender: [] for contender in CONTENDERS}
    for seed in range(1 if quick else seeds):
        for contender, train in CONTENDERS.items():
            of = {"data": name, "by": contender, "epochs": epochs, "seed": seed}
            found[contender].append(kept(of, train, dataset, epochs, seed))
    print(markdown(COLUMNS, [row(contender, each, found[STOCK]) for contender, each in found.items()]))
    print(f"\n{machine()}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()

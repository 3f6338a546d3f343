"""What drawing rare images more often does for a group that training has little of, and was never told of.

    python benchmarks/debiasing.py --quick                # the digits, one seed, a few epochs: whether it runs at all
    python benchmarks/debiasing.py --out debiasing.jsonl  # MNIST (needs PYRO_VAE_DATA), seeds 0 to 4; can be resumed
    python benchmarks/debiasing.py --faces faces.png      # which of the AT&T faces are rare; nothing else

Of the training images, 2 % are inverted, dark on bright.  `db_vae` sees images and digits; nobody tells it which are
inverted.  It is fitted with every image drawn alike, which is the limit of a large alpha, and at several alpha.  The
test images are shown both as they are and inverted, so that there are 20 groups, a digit in an appearance each; their
accuracies, in per cent, have the mean and the (population) variance that are printed, as in Amini et al. 2019.
Alpha was chosen on seed 10 with ``--split validation``: training images that no fit sees, shown both ways.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae
from benchmarks.kept import Figures, Kept, markdown, spread
from pyro_vae import figures
from pyro_vae.data import Dataset, Images, load_data
from pyro_vae.data.base import data_folder
from pyro_vae.training.resampling import LatentHistogram, effective_rows

SHARE = 0.02  # of the images, inverted
SETTINGS: dict[str, Any] = {
    "model": "db_vae",
    "labels": "all",
    "likelihood": "bernoulli",
    "augmentation": "none",
    "latent_dim": 6,
    "network": "mlp:hidden=256",
    "beta": 1.0,
    "epochs": 10,
    "patience": "none",
}
RESAMPLED = {"every image alike": "uniform"} | {
    f"alpha {alpha:g}": f"latent_histogram:alpha={alpha:g}" for alpha in (1.0, 0.3, 0.1, 0.05, 0.01)
}
ROWS, HELD_OUT = 20_000, 5_000  # of the training images: for fit, which validates on a tenth, and for our choices
QUICK = {"epochs": 3, "network": "mlp:hidden=32"}
COLUMNS = (
    "drawn",
    "mean over groups",
    "variance over groups",
    "as they are",
    "inverted",
    "worst group",
    "effective rows",
    "seconds",
)
FACES: dict[str, Any] = {
    "model": "vae",
    "labels": "none",
    "likelihood": "gaussian",
    "latent_dim": 6,
    "network": "mlp:hidden=256",
    "resampling": "latent_histogram:alpha=0.1",
    "epochs": 400,
    "patience": "none",
    "seed": 0,
}
SIZE, SHOWN = "size=56x46", 20  # of a face; faces a row


def drawn(data: str, seed: int) -> tuple[Dataset, Images, Images]:
    """The data to fit, some of them inverted; images held out for choices, and test images, none inverted."""
    source = load_data(data)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source.train), generator=generator)
    rows = min(ROWS, len(order) * 4 // 5)
    chosen, held_out = order[:rows], order[rows : rows + HELD_OUT]
    images = source.train[chosen]
    inverted = torch.randperm(rows, generator=generator)[: round(SHARE * rows)]
    values = images.values()
    values[inverted] = 1 - values[inverted]
    assert images.labels is not None
    cut = rows // 10
    splits = (Images(values[cut:], images.labels[cut:]), Images(values[:cut], images.labels[:cut]))
    name = f"{data}, {SHARE:.0%} inverted"
    return Dataset(name, *splits, source.test, source.class_names, "intensities"), source.train[held_out], source.test


def accuracies(run: pyro_vae.Run, images: Images) -> Tensor:
    """The percentage of each group that is told right: as they are and inverted, by class, shape (2, K)."""
    values, labels = images.values(), images.labels
    assert labels is not None
    right = torch.stack([run.classify(shown) == labels for shown in (values, 1 - values)]).double()
    return 100 * torch.stack([right[:, labels == label].mean(1) for label in labels.unique()], 1)


def measure(settings: Mapping[str, Any], data: str, split: str) -> Figures:
    """Fit, timed, and tell the accuracies of the groups."""
    dataset, held_out, test = drawn(data, settings["seed"])
    start = time.perf_counter()
    run = pyro_vae.fit(data=dataset, display=False, **settings)
    seconds = time.perf_counter() - start
    groups = accuracies(run, test if split == "test" else held_out)
    effective = run.history.get("effective_rows")
    return {
        "mean": groups.mean().item(),
        "variance": groups.var(correction=0).item(),
        "appearances": groups.mean(1).tolist(),
        "worst": groups.min().item(),
        "effective_rows": len(dataset.train) if effective is None else float(effective.iloc[-1]),
        "seconds": seconds,
    }


def row(name: str, found: Sequence[Figures]) -> list[str]:
    """A row of the table: means over the seeds and their spread."""
    columns = [[each[figure] for each in found] for figure in ("mean", "variance")]
    columns += [[each["appearances"][which] for each in found] for which in (0, 1)]
    columns += [[each["worst"] for each in found]]
    counts = [f"{mean(each[figure] for each in found):.0f}" for figure in ("effective_rows", "seconds")]
    return [name, *(spread(column, 2) for column in columns), *counts]


def rare_faces(folder: Path, **settings: Any) -> tuple[Figure, Tensor]:
    """The faces that are drawn most and least often, and how often each is, 1 being the mean, shape (N,)."""
    run = pyro_vae.fit(data=f"{folder}:{SIZE}", display=False, **FACES | settings)
    images = load_data(f"{folder}:{SIZE}")
    splits = (images.train, images.validation, images.test)
    x = torch.cat([split.values() for split in splits])
    rarity = LatentHistogram(alpha=0.1).rarity(run.encode(x)) * len(x)
    order = rarity.argsort(descending=True)
    shown = torch.cat([order[:SHOWN], order[-SHOWN:]])
    often = (
        f"{rarity[order[:SHOWN]].mean():.1f} and {rarity[order[-SHOWN:]].mean():.2f} times as often as the mean face"
    )
    title = f"The faces drawn most often and least often: {often}"
    return figures.image_grid(x[shown], columns=SHOWN // 2, title=title), rarity


@click.command()
@click.option("--quick", is_flag=True, help="the digits, one seed, three epochs and a small network")
@click.option("--only", multiple=True, type=click.Choice(list(RESAMPLED)), help="may be given again")
@click.option("--seed", "seeds", multiple=True, type=int, help="may be given again  [default: 0 to 4]")
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="a file of results to write, and to go on from")
@click.option("--faces", type=click.Path(path_type=Path), help="draw rare and common AT&T faces there; nothing else")
def main(
    quick: bool, only: tuple[str, ...], seeds: tuple[int, ...], split: str, out: Path | None, faces: Path | None
) -> None:
    """Fit each way to draw for each seed, and print one table."""
    if faces is not None:
        figure, often = rare_faces(data_folder() / "orl_faces")
        figures.save_figure(figure, faces)
        quantiles = ", ".join(f"{often.quantile(q):.2f}" for q in (0.0, 0.25, 0.5, 0.75, 1.0))
        print(f"{len(often)} faces, drawn this often, the mean being 1: {quantiles} (quartiles)")
        print(f"effective rows: {effective_rows(often):.0f}")
        return
    kept, data = Kept(out), "digits" if quick else "mnist"
    found: dict[str, list[Figures]] = {}
    for name in only or tuple(RESAMPLED):
        settings = SETTINGS | {"resampling": RESAMPLED[name]} | (QUICK if quick else {})
        for seed in seeds or ((0,) if quick else tuple(range(5))):
            of = settings | {"seed": seed}
            found.setdefault(name, []).append(kept(of | {"on": data, "split": split}, measure, of, data, split))
    print(markdown(COLUMNS, [row(name, each) for name, each in found.items()]))


if __name__ == "__main__":
    main()

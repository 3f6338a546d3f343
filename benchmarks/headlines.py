"""The figures that the project is judged by, each measured by one command that is printed with it.

    python benchmarks/headlines.py --quick            # every row on the digits, a few epochs: whether it runs at all
    python benchmarks/headlines.py vae-mlp            # a row as it is meant, on MNIST (needs PYRO_VAE_DATA); hours
    python benchmarks/headlines.py --list             # the rows, their commands and what they are to beat

A row is fitted for several seeds, chosen by the validation rows alone, and measured on the whole test set.  The runs
and their figures are kept in ``--out``, so that a row that was stopped goes on where it stopped and one that is
measured is not measured again.  The table holds what was measured and nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch

import pyro_vae
from benchmarks.kept import spread
from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError
from pyro_vae.option_types import shown
from pyro_vae.presets import preset

MLP = {
    "network": "mlp:hidden=500,500,activation=gated",
    "latent_dim": 40,
    "batch_size": 200,
    "lr": 2e-3,
    "beta": "linear:0:1:15",
    "epochs": 300,
}
BINARY = {"data": "mnist", "labels": "none", "likelihood": "bernoulli", "patience": "none", "ema": 0.999}
REALNVP = {"prior": "realnvp:num_blocks=20", "latent_dim": 40, "lr_warmup": 1000}
LABELLED = {
    "data": "mnist",
    "labels": 100,
    "likelihood": "bernoulli",
    "lr_schedule": "cosine",
    "epochs": 40,
    "patience": "none",
}
QUICK = {"data": "digits", "epochs": 2, "lr_warmup": 4, "batch_size": 100, "network": "mlp:hidden=32", "latent_dim": 8}
QUICK_PRIOR = {"prior": "realnvp:num_blocks=3,hidden=16"}
COLUMNS = ("row", "what", "figure", "mean ± spread", "seeds", "ELBO", "hours", "to beat")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        what: what is fitted, in words.
        figure: which figure of ``Run.evaluate`` counts, lower is better.
        beat: what is to beat, and whose it is.
        settings: those of ``fit``.
        num_samples: importance samples per image.
        num_seeds: how many seeds it takes.
    """

    what: str
    figure: str
    beat: str
    settings: Mapping[str, Any]
    num_samples: int = 5000
    num_seeds: int = 1

    def quick(self) -> Row:
        """The same parts, small, on the digits."""
        small = QUICK | (QUICK_PRIOR if "realnvp" in str(self.settings.get("prior")) else {})
        return Row(f"{self.what}; digits", self.figure, "nothing: a trial", {**self.settings, **small}, num_samples=20)

    def command(self, seed: int, run: str) -> str:
        """The command line that fits it and the one that measures it."""
        flags = " ".join(f"--{name.replace('_', '-')} {shown(value)}" for name, value in self.settings.items())
        fit = f"python cli.py fit {flags} --seed {seed} --out {run}"
        return f"{fit} && python cli.py evaluate {run} --samples {self.num_samples}"


ROWS = {
    "vae-mlp": Row(
        "MLP, one layer of 40, N(0, I)",
        "nll",
        "84.45 (Norouzi et al. 2020)",
        BINARY | MLP | {"model": "vae"},
    ),
    "vae-mlp-realnvp": Row(
        "MLP, one layer of 40, RealNVP",
        "nll",
        "82.09 (exemplar prior, Norouzi et al. 2020)",
        preset("vae_mnist"),
    ),
    "vae-mlp-mixture": Row(
        "MLP, RealNVP, guide of 20 components",
        "nll",
        "82.09 (exemplar prior, Norouzi et al. 2020)",
        preset("vae_mnist") | {"guide": "mixture:num_components=20,shared=true"},
    ),
    "vae-resnet-realnvp": Row(
        "residual, one layer of 40, RealNVP",
        "nll",
        "78.49 (Xu et al. 2019)",
        BINARY | REALNVP | {"model": "vae", "network": "resnet", "optimizer": "adamax", "epochs": 300},
    ),
    "hvae-mlp-realnvp": Row(
        "MLP, two layers beside x, RealNVP",
        "nll",
        "81.22 (Norouzi et al. 2020)",
        preset("vae_mnist") | {"model": "hvae:skip=true"},
    ),
    "ss_vae-100": Row(
        "ss_vae, 100 labels",
        "error_percent",
        "6.81 (Pyro's tutorial)",
        preset("ss_mnist_100"),
        num_samples=50,
        num_seeds=5,
    ),
    **{
        f"{model}-100": Row(
            f"{model}, 100 labels", "error_percent", beat, LABELLED | {"model": model}, num_samples=50, num_seeds=5
        )
        for model, beat in {"sdgm": "1.32 (Maaloe et al. 2016)", "adgm": "0.96 (Maaloe et al. 2016)"}.items()
    },
}


@dataclass(frozen=True)
class Measured:
    """The figures of one run.

    Args:
        command: what measured them.
        figure: the one that counts.
        elbo: the bound, nats per image.
        seconds: the wall time of the fit; None where it was stopped and resumed.
        machine: where.
    """

    command: str
    figure: float
    elbo: float
    seconds: float | None
    machine: str = field(default_factory=lambda: machine())


def machine() -> str:
    """The machine in words."""
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    return f"{where}, torch {torch.__version__}"


def measure(row: Row, seed: int, path: Path) -> Measured:
    """Fit a row for a seed, or go on with its run, and measure it on the test set."""
    begun, seconds = path.exists(), None
    start = time.perf_counter()
    if begun:
        run = pyro_vae.load(path)
        wanted = FitConfig.from_settings(**row.settings, seed=seed)
        other = [name for name in (*row.settings, "seed") if getattr(wanted, name) != getattr(run.config, name)]
        if other:
            raise InputError(
                f"a run of this row at {path}", f"one with another {other[0]}", "use another --out, or remove it"
            )
        if len(run.history) < run.config.num_epochs:
            run = pyro_vae.resume(path)
    else:
        run = pyro_vae.fit(**row.settings, seed=seed, out=path)
        seconds = time.perf_counter() - start
    figures = run.evaluate("test", num_samples=row.num_samples)
    return Measured(row.command(seed, str(path)), figures[row.figure], figures["elbo"], seconds)


def kept_or_measured(row: Row, seed: int, path: Path) -> Measured:
    """What was measured already by the same command, or now."""
    kept = path.with_suffix(".json")
    if kept.exists():
        found = Measured(**json.loads(kept.read_text()))
        if found.command == row.command(seed, str(path)):
            return found
    found = measure(row, seed, path)
    kept.write_text(json.dumps(asdict(found)))
    return found


def table(measured: Mapping[str, Sequence[Measured]], rows: Mapping[str, Row]) -> str:
    """The rows that were measured, in Markdown, and their commands."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, found in measured.items():
        row, values = rows[name], [each.figure for each in found]
        times = [each.seconds for each in found]
        hours = "in parts" if None in times else f"{mean(filter(None, times)) / 3600:.2f}"
        figure = "test error, %" if row.figure == "error_percent" else f"NLL, {row.num_samples} samples"
        elbo = mean(each.elbo for each in found)
        lines.append(
            f"| `{name}` | {row.what} | {figure} | {spread(values, 2)} | {len(values)} | {elbo:.2f} | {hours} |"
            f" {row.beat} |"
        )
    commands = [f"# {name}\n{found[0].command}" for name, found in measured.items()]
    machines = sorted({each.machine for found in measured.values() for each in found})
    return "\n".join([*lines, "", *machines, "", "```sh", *commands, "```"])


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(ROWS)))
@click.option("--quick", is_flag=True, help="every row, or those named, small and on the digits")
@click.option("--list", "listing", is_flag=True, help="print the rows and their commands, and measure nothing")
@click.option("--seeds", type=click.IntRange(1), help="how many seeds  [default: as many as the row takes]")
@click.option("--out", type=click.Path(path_type=Path), help="where runs are kept  [default: runs/headlines]")
def main(names: tuple[str, ...], quick: bool, listing: bool, seeds: int | None, out: Path | None) -> None:
    """Measure rows, and print the table of what is measured."""
    rows = {name: row.quick() if quick else row for name, row in ROWS.items()}
    out = out or Path("runs/headlines-quick" if quick else "runs/headlines")
    if listing:
        for name, row in rows.items():
            print(f"# {name}: {row.what}; to beat: {row.beat}\n{row.command(0, f'{out}/{name}-0')}")
        return
    if not (names or quick):
        raise click.UsageError(f"name a row, such as {next(iter(ROWS))}, or use --quick or --list")
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, list[Measured]] = {}
    for name in names or tuple(ROWS):
        for seed in range(seeds or rows[name].num_seeds):
            measured.setdefault(name, []).append(kept_or_measured(rows[name], seed, out / f"{name}-{seed}"))
        print(table({name: measured[name]}, rows), flush=True)
    if len(measured) > 1:
        print(table(measured, rows))


if __name__ == "__main__":
    main()

"""Why the defaults are what they are: bound, KL, active units and accuracy under other settings of training.

    python benchmarks/defaults.py                          # vae, hvae, cvae and ss_vae on digits, 5 seeds
    python benchmarks/defaults.py --model vae --data mnist --seeds 1 --only constant    # needs PYRO_VAE_DATA
    python benchmarks/defaults.py --out defaults.jsonl     # keeps what was measured, and goes on from there

Each row changes the settings named from the default command's; its figures are means over the seeds, on the test set,
with the lowest active units and accuracy of any seed in parentheses.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import pyro_vae
from pyro_vae.config import FitConfig
from pyro_vae.data import load_data
from pyro_vae.training.automatic import settle

MODELS = ("vae", "hvae", "cvae", "ss_vae")
WITH_LABELS, LABELS = ("ss_vae", "db_vae"), 100
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "beta 1 from the start": {"beta": 1.0},
    "warm-up over a tenth": {},
    "warm-up over a half": {},
    "constant rate": {"lr_schedule": "constant"},
    "cosine rate": {"lr_schedule": "cosine"},
    "twice the rate": {"lr": 4e-3},
    "half the rate": {"lr": 1e-3},
    "weight decay": {"weight_decay": 0.1},
    "dropout": {"network": "mlp:dropout=0.1"},
    "narrow first posteriors": {"guide": "mean_field:init_scale=0.1"},
    "bernoulli, binarized by draws": {"likelihood": "bernoulli"},
    "and beta 1 from the start": {"likelihood": "bernoulli", "beta": 1.0},
}
SHARES = {"warm-up over a tenth": 0.1, "warm-up over a half": 0.5}  # of the epochs
FIGURES = ("elbo", "kl", "nll", "active_units", "accuracy")


@click.command()
@click.option("--model", "models", multiple=True, default=MODELS, help="a model; may be given again")
@click.option("--data", default="digits", show_default=True)
@click.option("--seeds", default=5, show_default=True)
@click.option("--only", multiple=True, help="a part of a variant's name; may be given again")
@click.option("--out", type=click.Path(path_type=Path), help="a file of results to write, and to go on from")
def main(models: tuple[str, ...], data: str, seeds: int, only: tuple[str, ...], out: Path | None) -> None:
    """Fit the models under each variant and print one table per model."""
    lines = out.read_text().splitlines() if out is not None and out.exists() else []
    done = {tuple(row["key"]): row for row in map(json.loads, lines)}
    chosen = [name for name in VARIANTS if not only or any(part in name for part in only)]
    for model in models:
        table = Table("variant", *FIGURES, "seconds", title=f"{model} on {data}, {seeds} seeds")
        for name in chosen:
            rows = []
            for seed in range(seeds):
                key = (model, data, name, seed)
                if key not in done:
                    done[key] = {"key": key} | _fit(model, data, name, seed)
                    if out is not None:
                        with out.open("a") as file:
                            file.write(json.dumps(done[key]) + "\n")
                rows.append(done[key])
            table.add_row(name, *(_cell(figure, rows) for figure in (*FIGURES, "seconds")))
        Console().print(table)


def _fit(model: str, data: str, name: str, seed: int) -> dict[str, float]:
    settings = {"labels": LABELS if model in WITH_LABELS else "none", "seed": seed} | VARIANTS[name]
    begin = time.perf_counter()
    dataset = load_data(data)
    if name in SHARES:
        rows = len(dataset.train) - (LABELS if model in WITH_LABELS else 0)
        settled = settle(
            FitConfig.from_settings(), math.ceil(rows / FitConfig.from_settings().batch_size), model in WITH_LABELS
        )
        settings["beta"] = f"linear:0:1:{SHARES[name] * settled.num_epochs:g}"
    run = pyro_vae.fit(model, data=dataset, display=False, **settings)
    seconds = time.perf_counter() - begin
    figures = run.evaluate(num_samples=100)
    return {figure: figures[figure] for figure in FIGURES if figure in figures} | {"seconds": seconds}


def _cell(figure: str, rows: list[dict[str, float]]) -> str:
    values = [row[figure] for row in rows if figure in row]
    if not values:
        return ""
    if figure == "active_units":
        return f"{np.mean(values):.0f} ({min(values):.0f})"
    return f"{np.mean(values):.3f} ({min(values):.3f})" if figure == "accuracy" else f"{np.mean(values):.2f}"


if __name__ == "__main__":
    main()

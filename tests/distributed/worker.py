"""What two processes run, and one: fits by name, whose losses, step by step, and histories go into a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch

import pyro_vae
from pyro_vae.training.trainer import Trainer

torch.set_num_threads(1)
SMALL = {"hidden": (16,), "latent_dim": 3}
ROWS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def bare_model(x):
    """A mean that all rows share, and a parameter of no module."""
    width = pyro.param("width", torch.tensor(1.0), constraint=dist.constraints.positive)
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, width).to_event(1), obs=x)


def subsampled_model(x):
    """The same, whose plate says of how many rows these are a sample."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(ROWS), subsample=torch.arange(len(x))):
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def bare_guide(x):
    loc = pyro.param("loc", torch.zeros(3))
    pyro.sample("mean", dist.Normal(loc, 0.3).to_event(1))


def gamma_model(x):
    """A rate per row, whose draws no process can make for its rows alone."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.ones(len(x)), 1.0))
        pyro.sample("x", dist.Normal(0.0, rate.unsqueeze(-1).expand(-1, 3)).to_event(1), obs=x)


def gamma_guide(x):
    shape = pyro.param("shape", torch.tensor(2.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(shape.expand(len(x)), 1.0))


EXACT: dict[str, dict[str, Any]] = {
    "an odd batch": {"data": "toy", "batch_size": 99, "epochs": 1, **SMALL},
    "replayed": {"data": "toy", "epochs": 30, **SMALL},
    "binarized": {"data": "digits", "likelihood": "bernoulli", "epochs": 1, **SMALL},
    "two streams": {
        "model": "ss_vae",
        "guide": "iaf",
        "data": "digits",
        "labels": 30,
        "epochs": 2,
        "marginal_weight": 5.0,
        **SMALL,
    },
    "resampled": {"model": "db_vae", "data": "digits", "epochs": 2, "batch_size": 300, **SMALL},
    "many draws": {"data": "toy", "objective": "iwae:num_samples=3", "epochs": 1, **SMALL},
    "bare": {"model": bare_model, "guide": bare_guide, "data": ROWS, "batch_size": 20, "epochs": 4},
    "subsampled": {"model": subsampled_model, "guide": bare_guide, "data": ROWS, "batch_size": 20, "epochs": 4},
}
APART: dict[str, dict[str, Any]] = {
    "gamma": {"model": gamma_model, "guide": gamma_guide, "data": ROWS, "batch_size": 20, "epochs": 2},
    "free bits": {"data": "toy", "objective": "free_bits:floor=1", "epochs": 1, **SMALL},
    "batch norm": {"data": "toy", "network": "mlp:batch_norm=true", "epochs": 1, "latent_dim": 3},
}


def traced(settings: dict[str, Any]) -> dict[str, Any]:
    """The losses of a fit, its history, and a number that its last weights make."""
    losses, settle = [], Trainer._settle

    def note(trainer, pending):
        losses.extend(loss.item() for _, loss, _ in pending)
        settle(trainer, pending)

    Trainer._settle = note
    try:
        run = pyro_vae.fit(display=False, **({"labels": "none"} | settings))
    finally:
        Trainer._settle = settle
    weights = sum(value.double().abs().sum().item() for value in run.pair.state_dict().values())
    return {"losses": losses, "history": run.history.to_dict("list"), "weights": weights}


if __name__ == "__main__":
    chosen = {name: (EXACT | APART)[name] for name in sys.argv[2:]}
    found = {name: traced(settings) for name, settings in chosen.items()}
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps(found))

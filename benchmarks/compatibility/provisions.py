"""What programs would download, where it lies, or made up in the same form.

MNIST is read from the folder of ``PYRO_VAE_DATA``.  Three small data sets are made up, so that the programs that read
them run as they are: chorales of random chords, nations with a terrain and an income, and counts of sunspots.
Everything else that is not there makes a program fail, with stock Pyro as well, and the table says so.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

NATIONS = 170
YEARS = 320
CHORALES = {"train": 229, "valid": 76, "test": 77}
NOTES = 88


def provide(folder: Path) -> None:
    """Let programs find their data.

    Args:
        folder: an empty folder, in which programs keep data, too.
    """
    import pyro.contrib.examples.util as util

    def directory(filepath: str | None = None) -> str:
        return str(folder)

    util.get_data_directory = directory
    _provide_mnist()
    (folder / "jsb_chorales.pkl").write_bytes(pickle.dumps(chorales()))
    _provide_tables(folder)


def _provide_mnist() -> None:
    root = os.environ.get("PYRO_VAE_DATA")
    if root is None or not (Path(root) / "MNIST").is_dir():
        return
    from torchvision import datasets

    original = datasets.MNIST.__init__

    def init(self: Any, given: Any = None, *args: Any, **kwargs: Any) -> None:
        original(self, root, *args, **{**{key: kwargs[key] for key in kwargs if key != "root"}, "download": False})

    datasets.MNIST.__init__ = init


def _provide_tables(folder: Path) -> None:
    try:
        import pandas as pd
    except ModuleNotFoundError:
        return
    original = pd.read_csv
    tables = {
        "rugged_data.csv": _write_nations,
        "SN_y_tot_V2.0.csv": _write_sunspots,
    }

    def read_csv(source: Any, *args: Any, **kwargs: Any) -> Any:
        name = str(source).rsplit("/", 1)[-1]
        if str(source).startswith("http") and name in tables:
            tables[name](folder / name)
            source = folder / name
        return original(source, *args, **kwargs)

    pd.read_csv = read_csv


def chorales() -> dict[str, dict[str, Any]]:
    """Random chords that change slowly, in the form that Pyro's loader keeps its chorales in."""
    rng = np.random.default_rng(0)
    found = {}
    for split, number in CHORALES.items():
        lengths = rng.integers(25, 130, number)
        sequences = []
        for length in lengths:
            roll = np.zeros((length, NOTES), dtype=np.float32)
            chord = rng.integers(20, 70, 4)
            for moment in roll:
                chord = np.where(rng.random(4) < 0.3, np.clip(chord + rng.integers(-4, 5, 4), 0, NOTES - 1), chord)
                moment[chord] = 1
            sequences.append(torch.from_numpy(roll))
        found[split] = {"sequence_lengths": torch.from_numpy(lengths), "sequences": sequences}
    return found


def _write_nations(path: Path) -> None:
    rng = np.random.default_rng(0)
    africa, rugged = rng.integers(0, 2, NATIONS), rng.gamma(1.2, 1.1, NATIONS)
    income = np.exp(9.2 - 1.8 * africa - 0.2 * rugged + 0.35 * africa * rugged + rng.normal(0, 0.9, NATIONS))
    rows = [f"Nation {i},{africa[i]},{rugged[i]:.3f},{income[i]:.2f}" for i in range(NATIONS)]
    path.write_text("\n".join(["country,cont_africa,rugged,rgdppc_2000", *rows]))


def _write_sunspots(path: Path) -> None:
    rng = np.random.default_rng(0)
    year = np.arange(YEARS)
    counts = rng.poisson(np.exp(4 + 1.2 * np.sin(2 * np.pi * year / 11)))
    path.write_text("\n".join(f"{1700.5 + i};{counts[i]:.1f};-1;-1;1" for i in year))

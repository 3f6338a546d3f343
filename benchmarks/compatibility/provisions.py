"""What programs would download, where it lies, or made up in the same form.

MNIST and the faces of AT&T are read from the folder of ``PYRO_VAE_DATA``.  Three small data sets are made up, so that
the programs that read them run as they are: chorales of random chords, nations with a terrain and an income, and counts
of sunspots.  ``visdom``, which some import and use on demand alone, is an empty module where it is not installed.
Everything else that is not there makes a program fail, with stock Pyro as well, and the table says so.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

NATIONS = 170
YEARS = 320
CHORALES = {"train": 229, "valid": 76, "test": 77}
NOTES = 88
FACES, SIDE = 320, 64


def provide(folder: Path, text: str) -> None:
    """Let a program find its data.

    Args:
        folder: an empty folder, in which programs keep data, too.
        text: of the program and of the modules beside it; only what it speaks of is provided.
    """
    if importlib.util.find_spec("visdom") is None:
        sys.modules["visdom"] = types.ModuleType("visdom")
    if "read_csv" in text:
        _provide_tables(folder)
    if "contrib.examples" in text:
        _provide_folder(folder)
        (folder / "jsb_chorales.pkl").write_bytes(pickle.dumps(chorales()))
    if "faces_training" in text:
        _provide_faces(folder)
    if "mnist" in text.lower():
        _provide_mnist()


def _provide_folder(folder: Path) -> None:
    import pyro.contrib.examples.util as util

    def directory(filepath: str | None = None) -> str:
        return str(folder)

    util.get_data_directory = directory


def _provide_mnist() -> None:
    root = os.environ.get("PYRO_VAE_DATA")
    if root is None or not (Path(root) / "MNIST").is_dir():
        return
    from torchvision import datasets

    original = datasets.MNIST.__init__

    def init(self: Any, given: Any = None, *args: Any, **kwargs: Any) -> None:
        original(self, root, *args, **{**{key: kwargs[key] for key in kwargs if key != "root"}, "download": False})

    datasets.MNIST.__init__ = init


def _provide_faces(folder: Path) -> None:
    faces = sorted(Path(os.environ.get("PYRO_VAE_DATA", "")).glob("orl_faces/s*/*.pgm"))
    if not faces:
        return
    from PIL import Image

    pixels = [np.asarray(Image.open(face).resize((SIDE, SIDE))).reshape(-1) for face in faces[:FACES]]
    np.savetxt(folder / "faces_training.csv", np.stack(pixels), fmt="%d", delimiter=",")


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

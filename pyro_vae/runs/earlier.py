"""Run directories of format 1: a folder each for ``last`` and ``best``, replaced by two renames.

A process that was killed between the two left the new folder whole, but aside; one that was killed later left the old
one lying about.  They are read as they are, and a run that is resumed is written anew in today's format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.runs.checkpoint import DamagedError, read_training, read_weights
from pyro_vae.runs.current import CHECKPOINTS

WEIGHTS, TRAINING = "weights.safetensors", "training.pt"


def weights_of(folder: Path, checkpoint: str) -> dict[str, Tensor]:
    """The weights of checkpoint ``best`` or ``last``.

    Raises:
        InputError: if they are missing or damaged.
    """
    path = _checkpoint(folder, checkpoint) / WEIGHTS
    try:
        return read_weights(path)
    except FileNotFoundError:
        raise DamagedError(path, "no such file") from None


def training_of(folder: Path) -> dict[str, Any]:
    """The state to resume from; errors are those of ``weights_of``."""
    path = _checkpoint(folder, "last") / TRAINING
    try:
        return read_training(path)
    except FileNotFoundError:
        raise DamagedError(path, "no such file") from None


def _checkpoint(folder: Path, name: str) -> Path:
    path, aside, old = (folder / CHECKPOINTS / f"{name}{ending}" for ending in ("", ".new", ".old"))
    if path.exists() or not old.exists():
        return path
    return aside if aside.exists() else old

"""Checkpoints: a folder with ``weights.safetensors`` and, to resume from, ``training.pt``.

Both files hold numbers and text alone.  ``training.pt`` is read with torch's ``weights_only`` unpickler, which refuses
anything that would run code.  A folder is written aside and moved into place, and ``recover`` mends the one moment in
between, so a process that is killed leaves either the old checkpoint or the new one.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyro_vae.atomic_files import whole_folder
from pyro_vae.errors import InputError

WEIGHTS, TRAINING = "weights.safetensors", "training.pt"


def save_checkpoint(folder: Path, weights: dict[str, Tensor], training: dict[str, Any] | None = None) -> None:
    """Write a checkpoint, replacing the one that is there.

    Args:
        folder: where it shall lie, for example ``checkpoints/last``.
        weights: what ``Pair.state_dict`` gave.
        training: what ``Trainer.state_dict`` gave, or None for a checkpoint that only evaluates.
    """
    with whole_folder(folder, folder.with_suffix(".new"), folder.with_suffix(".old")) as aside:
        # clones, because safetensors refuses two names for one piece of memory, which tied weights are
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, aside / WEIGHTS)
        if training is not None:
            torch.save(training, aside / TRAINING)


def recover(folder: Path) -> None:
    """Finish what a killed ``save_checkpoint`` began: between its two moves the new checkpoint is whole, but aside."""
    aside, old = folder.with_suffix(".new"), folder.with_suffix(".old")
    if not folder.exists() and old.exists():
        (aside if aside.exists() else old).rename(folder)


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint.

    Raises:
        InputError: if they are missing or cut off.
    """
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _broken(path, error) from None


def load_training(folder: Path) -> dict[str, Any]:
    """The training state of a checkpoint.

    Raises:
        InputError: if it is missing, cut off, or would run code.
    """
    path = folder / TRAINING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the pickle protocol of files that are refused anyway
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise _broken(path, error) from None
    return state


def _broken(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(
        f"a whole checkpoint file at {path}",
        f"one that cannot be read ({reason[0]})",
        "restore the file, use the run's other checkpoint, or fit again with --overwrite",
    )

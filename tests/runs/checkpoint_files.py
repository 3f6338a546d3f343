"""Where the files of a run's checkpoints lie, for tests that look at them or damage them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from pyro_vae.runs.checkpoint import checksum, write_weights
from pyro_vae.runs.current import CHECKPOINTS, Current


def weights_file(run: Path, checkpoint: str) -> Path:
    return run / CHECKPOINTS / getattr(Current.read(run), checkpoint).weights


def training_file(run: Path) -> Path:
    return run / CHECKPOINTS / Current.read(run).last.training


def weights(run: Path, checkpoint: str) -> dict[str, torch.Tensor]:
    return load_file(weights_file(run, checkpoint))


def change_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the best weights, as if they had been saved so."""
    current, path = Current.read(run), weights_file(run, "best")
    values = load_file(path)
    change(values)
    file = io.BytesIO()
    write_weights(values, current.identity(current.best), file)
    content = file.getvalue()
    path.write_bytes(content)
    best = dataclasses.replace(current.best, weights_crc32=checksum(content))
    last = current.last
    if last.weights == best.weights:
        last = dataclasses.replace(last, weights_crc32=best.weights_crc32)
    dataclasses.replace(current, best=best, last=last).replace(run / CHECKPOINTS, current)

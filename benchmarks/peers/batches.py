"""Batches for the contenders in torch: gathered from uint8 pixels and binarized anew each time, as pyro_vae does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import torch
from torch import Tensor

from benchmarks.peers import settings
from pyro_vae.data.binarization import binarize


def batches(batch_size: int, event_shape: tuple[int, ...] = (settings.NUM_PIXELS,)) -> Iterator[Tensor]:
    r"""Binary images without end, float32 of shape (batch_size, \*event_shape)."""
    pixels = torch.from_numpy(settings.images()).view(-1, *event_shape)
    for rows in cycle(torch.from_numpy(settings.order(batch_size))):
        yield binarize(pixels[rows].float() / 255, "dynamic")

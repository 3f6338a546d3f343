r"""Turning gray pixels into binary ones, which a Bernoulli likelihood is a density for.

``dynamic`` draws every pixel anew from Bernoulli(x) each time a batch is made (Salakhutdinov and Murray 2008, as
Burda et al. 2016 use it), ``threshold`` asks x >= 0.5, and ``none`` passes x on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pyro_vae.data.images import Dataset, Images
from pyro_vae.errors import InputError

Binarization = Literal["dynamic", "threshold", "none"]


def binarize(x: Tensor, how: Binarization, generator: torch.Generator | None = None) -> Tensor:
    """Binarize pixels in [0, 1], keeping shape and dtype.

    Args:
        x: pixels of any shape.
        how: ``dynamic``, ``threshold`` or ``none``.
        generator: the source of the draws; torch's own unless given.
    """
    if how == "dynamic":
        noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return (noise < x).to(x.dtype)  # several times faster than torch.bernoulli on a CPU
    return (x >= 0.5).to(x.dtype) if how == "threshold" else x


def binarize_once(images: Images, how: Binarization, seed: int = 0) -> Images:
    """Binarize a split for good, into ``images.binary``, so that every evaluation sees the same pixels.

    Args:
        images: the rows.
        how: the binarization; ``none`` gives the rows back as they are.
        seed: draws the pixels of ``dynamic``, by row, whatever the device.
    """
    if how == "none":
        return images
    generator = torch.Generator().manual_seed(seed)
    parts = [binarize(chunk.to("cpu").values(), how, generator).to(torch.uint8) for chunk in images.chunks(1000)]
    return replace(images, binary=torch.cat(parts).to(images.pixels.device))


def check_range(data: Dataset, how: Binarization, binary: bool) -> None:
    """Refuse pixels that the binarization cannot take, or the likelihood is no density for.

    Args:
        data: the data set.
        how: the binarization asked for.
        binary: whether the likelihood is a density over {0, 1}.

    Raises:
        InputError: if pixels lie outside [0, 1], or gray ones would meet a binary likelihood.
    """
    for images in (data.train, data.validation, data.test):
        low, high = images.pixels.min().item() / images.scale, images.pixels.max().item() / images.scale
        if (how != "none" or binary) and not 0 <= low <= high <= 1:
            raise InputError(
                f"pixels of {data.name} in [0, 1], to binarize or for a Bernoulli likelihood",
                f"values from {low:g} to {high:g}",
                "scale x to [0, 1], or use --likelihood gaussian --binarization none",
            )
        if how == "none" and binary and not torch.isin(images.pixels, _ends(images.pixels, images.scale)).all():
            raise InputError(
                f"pixels of {data.name} that are 0 or 1, for a Bernoulli likelihood",
                "gray values",
                "use --binarization dynamic or threshold, or --likelihood gaussian",
            )


def _ends(pixels: Tensor, scale: float) -> Tensor:
    return torch.tensor([0, scale], dtype=pixels.dtype, device=pixels.device)

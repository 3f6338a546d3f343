r"""Turning gray pixels into binary ones, which a Bernoulli likelihood is a density for.

``dynamic`` draws every pixel anew from Bernoulli(x) each time a batch is made (Salakhutdinov and Murray 2008, as
Burda et al. 2016 use it), ``threshold`` asks x >= 0.5, and ``none`` passes x on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

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
        return _below(x, generator).to(x.dtype)
    return (x >= 0.5).to(x.dtype) if how == "threshold" else x


def _below(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Whether a uniform number lies below each pixel, in a way that is many times faster than torch.bernoulli.

    On the CPU, where torch draws one number after another, four pixels share the 64 bits of one draw: the probability
    is then x rounded to a multiple of 2^-16.
    """
    if x.device.type != "cpu":
        return torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator) < x
    words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 3) // 4,), generator=generator)
    high, low = words.view(torch.uint8)[: 2 * x.numel()].view(2, *x.shape).to(x.dtype)
    return high * 256 + low < x * 2**16 - 0.5


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


def check_range(data: Dataset, how: Binarization, support: Constraint | None) -> None:
    """Refuse pixels that the binarization cannot take, or the likelihood is no density for.

    Args:
        data: the data set.
        how: the binarization asked for.
        support: the values that the likelihood is a density for; None leaves it open.

    Raises:
        InputError: if pixels lie outside [0, 1] and are to be binarized, or outside the support.
    """
    fits = constraints.unit_interval if how != "none" else support
    if fits is None:
        return
    for images in (data.train, data.validation, data.test):
        if not all(bool(fits.check(chunk.values()).all()) for chunk in images.chunks(1000)):
            low, high = images.pixels.min().item() / images.scale, images.pixels.max().item() / images.scale
            purpose = "to binarize" if how != "none" else "which the likelihood is a density for"
            gray = how == "none" and support is constraints.boolean and 0 <= low <= high <= 1
            mend = "use --binarization dynamic or threshold" if gray else "scale x to fit"
            raise InputError(
                f"pixels of {data.name} {_SUPPORTS.get(fits, f'in the support {fits}')}, {purpose}",
                "gray values between" if gray else f"values from {low:g} to {high:g}",
                f"{mend}, or use --likelihood gaussian --binarization none",
            )


_SUPPORTS = {constraints.boolean: "that are 0 or 1", constraints.unit_interval: "in [0, 1]"}

r"""Turning gray pixels into binary ones, which a Bernoulli likelihood is a density for.

``dynamic`` draws every pixel anew from Bernoulli(x) each time a batch is made (Salakhutdinov and Murray 2008, as
Burda et al. 2016 use it), ``threshold`` asks x >= 0.5, and ``none`` passes x on.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_vae.data.images import Dataset, Images
from pyro_vae.data.pixels import DARK
from pyro_vae.distributed import Part
from pyro_vae.errors import InputError, nearest

FAR = 10.0  # from which on numbers are better standardized
Binarization = Literal["dynamic", "threshold", "none"]


def binarize(
    x: Tensor, how: Binarization, generator: torch.Generator | None = None, part: Part | None = None
) -> Tensor:
    """Binarize pixels in [0, 1], keeping shape and dtype.

    Args:
        x: pixels of any shape.
        how: ``dynamic``, ``threshold`` or ``none``.
        generator: the source of the draws; default: torch's own.
        part: of which batch the rows of x are a part, and get their draws; default: of none.

    Raises:
        InputError: if there is no such binarization.

    Example:
        >>> from pyro_vae.data import binarize
        >>> binarize(torch.tensor([0.2, 0.5, 0.9]), "threshold")
        tensor([0., 1., 1.])
        >>> drawn = binarize(torch.full((10_000,), 0.3), "dynamic")
        >>> drawn.unique(), round(drawn.mean().item(), 1)
        (tensor([0., 1.]), 0.3)
    """
    if how not in get_args(Binarization):
        raise InputError("a binarization", repr(how), nearest(how, get_args(Binarization)))
    if how == "dynamic":
        return _below(x, generator, part).to(x.dtype)
    return (x >= 0.5).to(x.dtype) if how == "threshold" else x


def _below(x: Tensor, generator: torch.Generator | None, part: Part | None) -> Tensor:
    """Whether a uniform number lies below each pixel, in a way that is many times faster than torch.bernoulli.

    On the CPU, where torch draws one number after another, four pixels share the 64 bits of one draw: the probability
    is then x rounded to a multiple of 2^-16.
    """
    whole, mine = (x.shape, ...) if part is None else ((part.total, *x.shape[1:]), part.rows)
    if x.device.type != "cpu":
        return torch.rand(whole, dtype=x.dtype, device=x.device, generator=generator)[mine] < x
    numbers = math.prod(whole)
    words = torch.randint(-(2**63), 2**63 - 1, ((numbers + 3) // 4,), generator=generator)
    high, low = words.view(torch.uint8)[: 2 * numbers].view(2, *whole)[:, mine].to(x.dtype)
    return high * 256 + low < x * 2**16 - 0.5


def binarize_once(images: Images, how: Binarization, seed: int = 0) -> Images:
    """Binarize a split for good, into ``images.binary``, so that every evaluation sees the same pixels.

    Args:
        images: the rows.
        how: the binarization; ``none`` gives the rows back as they are.
        seed: draws the pixels of ``dynamic``, by row, whatever the device.

    Example:
        >>> from pyro_vae.data import binarize_once, load_data
        >>> images = binarize_once(load_data("digits").test, "dynamic")
        >>> images.x().unique()
        tensor([0., 1.])
        >>> torch.equal(images.x(), images.x()), images.values().max()  # the gray pixels are kept
        (True, tensor(1.))
    """
    if how == "none":
        return images
    images.check_in_memory()
    generator = torch.Generator().manual_seed(seed)
    parts = [binarize(chunk.to("cpu").values(), how, generator).to(torch.uint8) for chunk in images.chunks(1000)]
    return replace(images, binary=torch.cat(parts).to(images.pixels.device))


def check_range(data: Dataset, how: Binarization, support: Constraint | None) -> None:
    """Refuse pixels that the binarization cannot take, or that the likelihood has no density for.

    Args:
        data: the data set.
        how: the binarization asked for.
        support: the values that the likelihood is a density for; None leaves it open.

    Raises:
        InputError: if pixels lie outside [0, 1] and are to be binarized, or outside the support.

    Example:
        >>> from torch.distributions import constraints
        >>> from pyro_vae.data import Dataset, Images, check_range
        >>> rows = Images(torch.tensor([[0.0, 2.0]]))
        >>> try:
        ...     check_range(Dataset("mine", rows, rows, rows), "none", constraints.unit_interval)
        ... except ValueError as error:
        ...     print(error)
        expected pixels of mine in [0, 1], which the likelihood is a density for;
        got 1 other values from 2 to 2; use --likelihood gaussian --binarization none
    """
    fits = constraints.unit_interval if how != "none" else support
    if fits is None:
        return
    for images in data.splits:
        if _are_inside(images.witnesses, fits):
            continue
        outside = [_outside(chunk, fits) for chunk in images.chunks(1000)]
        found = torch.cat(outside)
        if len(found):
            purpose = "to binarize" if how != "none" else "which the likelihood is a density for"
            mend = f"use --likelihood {fitting_likelihood(data)} --binarization none"
            if found.abs().max() > FAR:
                mend += " --standardize"
            if _is_of_codes(fits) and found.min() >= 0 and (found == found.round()).all():
                mend = f"use --likelihood categorical:values={found.max().item() + 1:g}"
            if data.reading and data.train.scale == 1 and found.min() >= 0:
                mend += f", or --scale {255 if DARK <= found.max() <= 255 else found.max().item():g} to divide them"
            if how == "none" and fits is constraints.boolean and constraints.unit_interval.check(found).all():
                mend = f"use --binarization dynamic or threshold, or {mend.removeprefix('use ')}"
            raise InputError(
                f"pixels of {data.name} {_described(fits)}, {purpose}",
                f"{found.numel():,} other values from {found.min():g} to {found.max():g}",
                mend,
            )


def _are_inside(witnesses: Images | None, support: Constraint) -> bool:
    """Whether all rows are in a support, as far as some rows can tell; of bounds per pixel they cannot."""
    is_interval = not support.event_dim and all(isinstance(each, int | float) for each in vars(support).values())
    return witnesses is not None and is_interval and not len(_outside(witnesses, support))


def _outside(images: Images, support: Constraint) -> Tensor:
    """The values outside a support, but for those that are missing."""
    values = images.values()
    try:
        fits = support.check(values).expand_as(values)
    except RuntimeError:  # its bounds are those of the rows that the programs were looked at with
        return values[:0].flatten()
    return values[~(fits if images.missing is None else fits | images.missing)]


def fitting_likelihood(data: Dataset) -> str:
    """The likelihood that fits what the pixels of a data set are, as it is chosen by text.

    Example:
        >>> from pyro_vae.data import fitting_likelihood, load_data
        >>> fitting_likelihood(load_data("digits"))
        'binomial:trials=16'
        >>> fitting_likelihood(load_data("toy"))
        'gaussian'
    """
    if data.columns:
        return "mixed"
    if data.kind == "counts":
        return f"binomial:trials={data.train.scale:g}"
    return "gaussian" if data.kind == "numbers" else "bernoulli"


def describe_pixels(data: Dataset) -> str:
    """The pixels of a data set in words.

    Example:
        >>> from pyro_vae.data import describe_pixels, load_data
        >>> describe_pixels(load_data("digits"))
        'pixels that count from 0 to 16'
    """
    if data.reading:
        return data.reading
    return {
        "counts": f"pixels that count from 0 to {data.train.scale:g}",
        "intensities": "gray pixels from 0 to 1",
        "binary": "pixels that are 0 or 1",
        "numbers": "numbers of any size",
    }[data.kind]


def _is_of_codes(support: Constraint) -> bool:
    return isinstance(support, type(constraints.integer_interval(0, 1)))


def _described(support: Constraint) -> str:
    if _is_of_codes(support):
        return f"that are codes from {support.lower_bound} to {support.upper_bound}"  # type: ignore[attr-defined]
    return _SUPPORTS.get(support, f"that are {support}")


_SUPPORTS = {
    constraints.boolean: "that are 0 or 1",
    constraints.unit_interval: "in [0, 1]",
    constraints.nonnegative_integer: "that are counts, 0, 1, 2, …",
}

"""What a file of many rows holds, found in one pass: its digest, its range, and what decides how it is to be read.

The rule by which numbers become pixels (``data.pixels``) asks for the smallest and the largest number, whether all are
whole, and whether they are but two.  A few values say that as well as all do: the two ends, one that is not whole, and
three that differ.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae.data.npy_files import NpyFile, new_digest
from pyro_vae.data.pixels import MOST_LOST, Array
from pyro_vae.errors import InputError

MOST_DIFFERENT = 3


@dataclass(frozen=True)
class Survey:
    """What was found in a file.

    Args:
        digest: a digest of its numbers as they lie in it.
        values: numbers of it that are read as all of it is: the smallest, the largest, and others.
        identity: which file it was, and as of when, on this machine.
    """

    digest: str
    values: tuple[float, ...]
    identity: tuple[int, ...]

    @property
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        return min(self.values), max(self.values)

    def like(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Two rows or more of these values, of a row's shape and of a type."""
        count = max(2, -(-len(self.values) // math.prod(shape)))
        return np.resize(np.array(self.values).astype(dtype), (count, *shape))


def identity_of(path: Path) -> tuple[int, ...]:
    """Which file lies at a path, and when it was changed last."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def survey(file: NpyFile, name: str) -> Survey:
    """Look through a file once.

    Args:
        file: the file, of rows that lie as torch computes with them.
        name: what to call the data.

    Raises:
        InputError: if a number is missing or infinite, or single precision does not tell the numbers apart.
    """
    identity = identity_of(file.path)
    digest = new_digest()
    ends, others = [math.inf, -math.inf], dict[str, Any]()
    different: list[Any] = []
    precision = _Precision() if _is_rounded(file.dtype) else None
    for block in file.blocks():
        digest.update(block.reshape(-1).view(np.uint8).data)
        low, high = block.min().item(), block.max().item()
        ends = [min(ends[0], low), max(ends[1], high)]
        if not (math.isfinite(low) and math.isfinite(high)):
            found = "one that is missing (NaN) or infinite"
            raise InputError(f"finite numbers in {name} for --memory", found, "fill them, or leave out --memory")
        if "fraction" not in others and block.dtype.kind == "f" and (odd := block[block != np.rint(block)]).size:
            others["fraction"] = odd[0].item()
        while len(different) < MOST_DIFFERENT and (new := _other_than(block, different)) is not None:
            different.append(new)
        if precision is not None:
            precision.see(block)
    if precision is not None:
        precision.check(name, max(map(abs, ends)))
    values = [*ends, *others.values(), *different]
    return Survey(digest.hexdigest(), tuple(map(float, values)), identity)


def _other_than(block: Array, known: Iterable[Any]) -> Any:
    """A number of a block that is none of those known, or None."""
    is_new = np.ones(block.shape, bool)
    for value in known:
        is_new &= block != value
    place = int(is_new.argmax())
    return block.reshape(-1)[place].item() if is_new.reshape(-1)[place] else None


def _is_rounded(dtype: np.dtype[Any]) -> bool:
    """Whether the programs see less of the numbers than the file has."""
    return dtype.itemsize > 4 and torch.get_default_dtype() != torch.float64


class _Precision:
    """What rounding to single precision does to each number of a row, beside how it varies over rows."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = self._lost = np.zeros(())

    def see(self, block: Array) -> None:
        """Add rows (the means and squares of two lots as Chan et al. 1979 add them)."""
        x = block.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are refused at the end
            self._see(x)

    def _see(self, x: Array) -> None:
        self._lost = np.maximum(self._lost, np.abs(x.astype(np.float32) - x).max(0))
        mean, count = x.mean(0), len(x)
        shift, total = mean - self._mean, self._count + len(x)
        self._squares = self._squares + ((x - mean) ** 2).sum(0) + shift**2 * (self._count * count / total)
        self._mean, self._count = self._mean + shift * (count / total), total

    def check(self, name: str, largest: float) -> None:
        """Refuse numbers that are too large for single precision, or differ too little for their size."""
        if not np.isfinite(self._lost).all():
            raise InputError(f"numbers of up to 3e38 in x of {name}", f"{largest:g}", "divide x by a number")
        spread = np.sqrt(self._squares / self._count)
        lost = (self._lost > MOST_LOST * spread) & (spread > 0)
        if lost.any():
            raise InputError(
                f"numbers in x of {name} that single precision tells apart",
                f"{int(lost.sum())} columns or pixels whose values differ too little for their size, {largest:g}",
                "subtract their means, or call torch.set_default_dtype(torch.float64) first",
            )

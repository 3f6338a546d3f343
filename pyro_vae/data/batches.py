"""Minibatches: index tensors into a window on the images, one gather a batch.

Labelled and unlabelled rows are two streams, so that each step sees some of both however few labels there are.  A
stream is shuffled passes laid end to end and cut into full batches, so every batch of a run has the same shape.  An
epoch is one pass over the longer stream; the last batch is filled up from the next pass.  With ``weights``, of shape
(N,) and known up to a factor, the rows are drawn by them instead, with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from pyro_vae.data.binarization import Binarization, binarize
from pyro_vae.data.images import Images
from pyro_vae.distributed import ALONE, Part, World
from pyro_vae.errors import InputError

MOST_WEIGHED = 1 << 24  # categories that torch.multinomial takes


@dataclass(frozen=True)
class Rows:
    r"""Some rows of the data.

    Args:
        x: what the programs see, binarized where the likelihood wants it, shape (B, \*event_shape).
        pixels: the same rows as they are, shape (B, \*event_shape).
        y: their labels, shape (B,), or None.
        part: which rows of the whole batch they are; None: all.

    Example:
        >>> from pyro_vae.data import Rows, binarize
        >>> pixels = torch.tensor([[0.2, 0.9]])
        >>> rows = Rows(binarize(pixels, "threshold"), pixels)
        >>> rows.x, rows.pixels, rows.y
        (tensor([[0., 1.]]), tensor([[0.2000, 0.9000]]), None)
    """

    x: Tensor
    pixels: Tensor
    y: Tensor | None = None
    part: Part | None = None


@dataclass(frozen=True)
class Batch:
    """The rows of one training step; None where there are none of a kind.

    Example:
        >>> from pyro_vae.data import Batches, load_data
        >>> unlabelled = torch.empty(0, dtype=torch.int64)
        >>> batch = next(Batches(load_data("toy").train, unlabelled, 100, "none", seed=0).epoch())
        >>> batch.unlabelled.x.shape
        torch.Size([100, 5])
        >>> batch.labelled is None
        True
    """

    unlabelled: Rows | None
    labelled: Rows | None


@dataclass(frozen=True)
class Indices:
    """Where the rows of a step lie, each int64 of shape (B,); None where there are none.

    Args:
        unlabelled: the places of rows without a label, until the next step is asked for.
        labelled: those of rows with one.
        rows: which training rows these and those are, for ``Batches.again``.
    """

    unlabelled: Tensor | None
    labelled: Tensor | None
    rows: tuple[Tensor | None, Tensor | None] = (None, None)

    def tensors(self) -> list[Tensor]:
        """The index tensors that are there."""
        return [rows for rows in (self.unlabelled, self.labelled) if rows is not None]


class Batches:
    """The minibatches of a training set.

    Args:
        images: the training rows, on the device that trains.
        labelled: the rows whose label may be seen, int64 of shape (L,).
        batch_size: rows a stream and step; a stream with fewer rows gives all it has.
        binarization: applied to every batch.
        seed: the order of the rows.
        world: the processes that share each batch, every one of which has its own part of the rows of either stream.

    Raises:
        InputError: if there are more processes than rows in a batch.

    Example:
        >>> from pyro_vae.data import Batches, labelled_rows, load_data
        >>> data = load_data("digits")
        >>> labelled = labelled_rows(data.train, 50, data.num_classes, seed=0)
        >>> batches = Batches(data.train, labelled, batch_size=100, binarization="none", seed=0)
        >>> batches.num_steps
        12
        >>> [(len(batch.unlabelled.x), len(batch.labelled.y)) for batch in batches.epoch()][:2]
        [(100, 50), (100, 50)]
    """

    def __init__(
        self,
        images: Images,
        labelled: Tensor,
        batch_size: int,
        binarization: Binarization,
        seed: int,
        world: World = ALONE,
    ) -> None:
        self.images = images
        self.binarization = binarization
        hidden = torch.ones(len(images), dtype=torch.bool)
        hidden[labelled] = False
        self.unlabelled_rows, self.labelled_rows = hidden.nonzero().squeeze(1), labelled
        streams = {False: self.unlabelled_rows, True: self.labelled_rows}
        count = sum(len(rows) > 0 for rows in streams.values())
        self._windows = {key: images.window(rows, batch_size, count) for key, rows in streams.items() if len(rows)}
        self.batch_size = batch_size
        self.num_steps = math.ceil(max(len(self.unlabelled_rows), len(labelled)) / batch_size)
        self.generator = torch.Generator().manual_seed(seed)
        self.weights: Tensor | None = None
        self._parts = {
            False: _own(world, len(self.unlabelled_rows), batch_size, "row"),
            True: _own(world, len(labelled), batch_size, "labelled row"),
        }

    @property
    def groups(self) -> Tensor:
        """The class of each row whose label is seen and -1 for the others, int64 of shape (N,) on the CPU."""
        groups = torch.full((len(self.images),), -1)
        if self.images.labels is not None:
            groups[self.labelled_rows] = self.images.labels.cpu()[self.labelled_rows]
        return groups

    @property
    def labelled_fraction(self) -> float:
        """The share of rows with a label, N_l / N."""
        return len(self.labelled_rows) / len(self.images)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; advances ``generator`` when it begins.

        Args:
            start: the first step to give, for an epoch that was cut off.
        """
        return map(self.batch, self.indices(start))

    def indices(self, start: int = 0) -> Iterator[Indices]:
        """This process's rows of these batches; ``batch`` makes them."""
        unlabelled, labelled = (self._steps(is_labelled, start) for is_labelled in (False, True))
        for _ in range(start, self.num_steps):
            (first, rows), (second, others) = next(unlabelled), next(labelled)
            yield Indices(first, second, (rows, others))

    def again(self, indices: Indices, part: Part | None = None) -> Batch:
        """The rows of a step that is past; the epoch cannot go on after that."""
        streams = zip((False, True), indices.rows, strict=True)
        first, second = (None if rows is None else self._windows[key].placed(rows) for key, rows in streams)
        return self.batch(Indices(first, second), part)

    def example(self, part: Part) -> Batch:
        """A part of a small batch of the first rows of either stream."""
        wanted = torch.arange(part.start, part.stop)
        streams = (self.unlabelled_rows, self.labelled_rows)
        first, second = (rows[wanted % len(rows)] if len(rows) else None for rows in streams)
        return self.again(Indices(None, None, (first, second)), part)

    def batch(self, indices: Indices, part: Part | None = None) -> Batch:
        """The rows themselves, binarized anew.

        Args:
            indices: which they are.
            part: of which batch of either stream; default: of those of ``indices``.
        """
        streams = ((False, indices.unlabelled), (True, indices.labelled))
        return Batch(*(None if at is None else self._rows(is_labelled, at, part) for is_labelled, at in streams))

    def _steps(self, is_labelled: bool, start: int) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """This process's places and rows of each step of a stream, which is drawn at once; None where it has none."""
        if (window := self._windows.get(is_labelled)) is None:
            return repeat((None, None))
        size = min(self.batch_size, len(window.rows))
        count, length = self.num_steps * size, len(window.rows)
        if self.weights is not None:
            drawn = window.rows[draw_rows(self.weights[window.rows], count, self.generator)]
            order, length = window.arranged(drawn, self.generator), count
        else:
            order = torch.cat([window.shuffled(self.generator) for _ in range(math.ceil(count / length))])
        steps, mine = order[:count].view(-1, size), self._parts[is_labelled].rows
        return zip(window.following(steps, mine, start, length), steps[start:, mine], strict=True)

    def _rows(self, is_labelled: bool, at: Tensor, part: Part | None) -> Rows:
        part = part or self._parts[is_labelled]
        images = self._windows[is_labelled].images[at]
        pixels = images.values()
        x = binarize(pixels, self.binarization, part=part)
        if images.missing is not None and self.binarization != "none":
            x = x.masked_fill(images.missing, torch.nan)
        return Rows(x, pixels, images.labels if is_labelled else None, part)


def draw_rows(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices drawn by weights, with replacement, int64 of shape (count,).

    Args:
        weights: the frequency of each index, up to a factor, shape (N,).
        count: how many to draw.
        generator: draws them.
    """
    if len(weights) <= MOST_WEIGHED:
        return torch.multinomial(weights, count, True, generator=generator)
    bounds = weights.double().cumsum(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * bounds[-1]
    return torch.searchsorted(bounds, drawn, right=True).clamp(max=len(weights) - 1)


def _own(world: World, num_rows: int, batch_size: int, what: str) -> Part:
    """The rows of this process in each batch of a stream.

    Raises:
        InputError: if there are more processes than rows.
    """
    rows = min(batch_size, num_rows)
    if rows and rows < world.size:
        most = "1 process" if rows == 1 else f"{rows} processes"
        mend = "a larger --batch-size" if num_rows > rows else f"--nproc-per-node {rows}"
        raise InputError(f"at most {most}, one per {what} of a batch", str(world.size), f"use {mend}")
    return world.part(rows)

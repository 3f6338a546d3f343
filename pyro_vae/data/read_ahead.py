"""A window on the rows of a file: those of the steps that come next, read by a thread while the steps before are made.

A pass goes through blocks, runs of rows that lie together, in a random order, with as many in hand as the window has
room for, whose rows it shuffles among each other.  The window has two halves: steps take their rows from one, while
what the steps after them need is read into the other.  A stream that has no more rows than are in hand is read once.

The file is read and not mapped: the system maps up to megabytes around each row that is touched, and ends a process
that touches a row of a file that was cut off meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.images import Images
from pyro_vae.data.window import Window

if TYPE_CHECKING:
    from pyro_vae.data.mapped import MappedRows

BLOCKS = 64  # in hand at a time, where there are so many


class ReadAhead(Window):
    """A window on the rows of a stream that lie in a file.

    Args:
        source: the rows of the file.
        rows: which of them are those of the stream, int64 of shape (M,), ascending.
        batch_size: how many rows a step has at most.
        in_hand: how many rows may be in hand.
    """

    def __init__(self, source: MappedRows, rows: Tensor, batch_size: int, in_hand: int) -> None:
        self._source = source
        self._block = max(1, in_hand // BLOCKS)
        self._is_whole = len(rows) <= self._block * BLOCKS
        self._half = len(rows) if self._is_whole else self._block * BLOCKS + batch_size
        room = self._half if self._is_whole else 2 * self._half
        self._buffer = np.empty((room, *source.file.shape[1:]), source.file.dtype)
        labels = None if source.labels is None else torch.empty(room, dtype=torch.int64)
        super().__init__(Images(torch.from_numpy(source.shaped(self._buffer)), labels, scale=source.scale), rows)
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._is_read = False

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """A pass over the rows, shuffled by blocks."""
        return self._by_blocks(self.rows, generator)

    def arranged(self, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Rows that were drawn, shuffled by blocks: the same rows, each as often."""
        return self._by_blocks(drawn.sort().values, generator)

    def placed(self, rows: Tensor) -> Tensor:
        """The places of a few rows, which are read for it."""
        return self._thread.submit(self._load, rows, 0).result()

    def following(self, steps: Tensor, mine: slice, start: int, length: int) -> Iterator[Tensor]:
        """The places of each step, with what the steps in the next hand need read meanwhile."""
        steps = steps[start:]
        hands = steps[:, mine].split(self._steps_in_hand(start, len(steps), steps.shape[1], length))
        ahead = self._thread.submit(self._load, hands[0], 0) if hands else None
        for number in range(1, len(hands) + 1):
            assert ahead is not None
            places = ahead.result()
            if number < len(hands):
                ahead = self._thread.submit(self._load, hands[number], number % 2)
            yield from places

    def _by_blocks(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        blocks = torch.randperm(math.ceil(len(rows) / self._block), generator=generator)
        places = (blocks[:, None] * self._block + torch.arange(self._block)).flatten()
        places = places[places < len(rows)]
        hands = places.split(self._block * BLOCKS)
        return rows[torch.cat([hand[torch.randperm(len(hand), generator=generator)] for hand in hands])]

    def _steps_in_hand(self, start: int, count: int, batch_size: int, length: int) -> list[int]:
        """How many steps one after the other begin in the same hand of a pass."""
        first = torch.arange(start, start + count) * batch_size
        in_hand = self._block * BLOCKS
        hand = first // length * math.ceil(length / in_hand) + first % length // in_hand
        counts: list[int] = hand.unique_consecutive(return_counts=True)[1].tolist()
        return counts

    def _load(self, rows: Tensor, half: int) -> Tensor:
        """Read some rows into a half of the buffer, unless they are there; gives their places, of the same shape."""
        if self._is_whole:
            if not self._is_read:
                self._fill(self.rows, 0)
                self._is_read = True
            return torch.searchsorted(self.rows, rows.contiguous())
        wanted, places = rows.unique(return_inverse=True)
        self._fill(wanted, half * self._half)
        return places + half * self._half

    def _fill(self, rows: Tensor, begin: int) -> None:
        end = begin + len(rows)
        self._source.file.fill(self._source.at[rows].numpy(), self._buffer[begin:end])
        if self.images.labels is not None and self._source.labels is not None:
            self.images.labels[begin:end] = self._source.labels[rows]

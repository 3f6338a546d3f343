"""Windows: what the steps of training take the rows of a stream from.

Of images in memory a window is all of them.  Of a file it is some of its rows, those of the steps that come next, which
are read while the steps before them are made; a graph that was recorded sees one tensor, and places in it, either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro_vae.data.images import Images


class Window:
    """A window on the rows of a stream, which are all in memory.

    Args:
        images: images that rows are taken from.
        rows: which of them are those of the stream, int64 of shape (M,), ascending.
    """

    def __init__(self, images: Images, rows: Tensor) -> None:
        self.images, self.rows = images, rows

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """The rows in a random order, int64 of shape (M,)."""
        return self.rows[torch.randperm(len(self.rows), generator=generator)]

    def arranged(self, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Rows that were drawn independently, in an order that suits where they lie."""
        return drawn

    def placed(self, rows: Tensor) -> Tensor:
        """The places in ``images`` of a few rows, until others are asked for."""
        return rows.to(self.images.pixels.device)

    def following(self, steps: Tensor, mine: slice, start: int, length: int) -> Iterator[Tensor]:
        """The places in ``images`` of the rows of each step that one process has; each until the next is asked for.

        Args:
            steps: the rows of all steps of an epoch, of all processes, int64 of shape (T, B).
            mine: which of the B rows of a step this process has.
            start: the first step.
            length: how many rows make a pass that was shuffled, or arranged, as a whole.
        """
        return iter(self.placed(steps[start:])[:, mine])

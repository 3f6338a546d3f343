"""Images in memory: one tensor a split, rows taken by index, pixels as float only a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pyro_vae.columns import Column
from pyro_vae.data.window import Window

if TYPE_CHECKING:
    from pyro_vae.data.arguments import Argument
    from pyro_vae.data.survey import Survey

PixelKind = Literal["counts", "intensities", "binary", "numbers"]
CHUNK = 4096  # rows that are looked at together


@dataclass(frozen=True)
class Images:
    r"""The rows of one split of a data set.

    Args:
        pixels: shape (N, \*event_shape); uint8 where the source has whole numbers (a quarter of the memory), else
            float32.
        labels: class indices of shape (N,), int64, -1 where a row has none; or None.
        scale: the pixel value that means 1.
        binary: the same pixels binarized for good, uint8, where an evaluation wants them so.
        missing: which pixels are missing, bool of their shape, or None; they are NaN for the programs.

    Example:
        >>> from pyro_vae.data import Images
        >>> images = Images(torch.tensor([[0, 8], [16, 4]], dtype=torch.uint8), torch.tensor([1, 0]), scale=16.0)
        >>> images.values()
        tensor([[0.0000, 0.5000],
                [1.0000, 0.2500]])
        >>> len(images), images[:1].labels
        (2, tensor([1]))
    """

    pixels: Tensor
    labels: Tensor | None = None
    scale: float = 1.0
    binary: Tensor | None = None
    missing: Tensor | None = None

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Images:
        """The rows of an index tensor of shape (M,), or of a slice."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Images:
        """These images on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def values(self) -> Tensor:
        r"""The images as they are, in torch's default dtype, shape (N, \*event_shape), NaN where a pixel is missing."""
        values = self.pixels.to(torch.get_default_dtype())
        return self._holed(values / self.scale if self.scale != 1.0 else values)

    def x(self) -> Tensor:
        r"""The images as the programs see them, binary where they are to be; shape and dtype as of ``values``."""
        return self.values() if self.binary is None else self._holed(self.binary.to(torch.get_default_dtype()))

    def window(self, rows: Tensor, batch_size: int, streams: int = 1) -> Window:
        """A window on the rows of a stream, which the steps of training take them from.

        Args:
            rows: the rows of the stream, int64 of shape (M,), ascending.
            batch_size: how many of them a step has at most.
            streams: how many streams of rows are under way at a time.
        """
        return Window(self, rows)

    def extent(self) -> tuple[float, float]:
        """The smallest and the largest number among the pixels as they are stored."""
        bounds = [(chunk.pixels.min().item(), chunk.pixels.max().item()) for chunk in self.chunks(CHUNK)]
        return min(low for low, _ in bounds), max(high for _, high in bounds)

    def digested(self) -> hashlib.blake2b:
        """A digest that has been fed with all pixels."""
        digest = hashlib.blake2b(digest_size=16)
        for chunk in self.chunks(CHUNK):
            digest.update(chunk.pixels.cpu().contiguous().numpy().data)
        return digest

    def check_in_memory(self) -> None:
        """Refuse rows that are too many to be all in memory; those here are.

        Raises:
            InputError: if they are.
        """

    @property
    def surveyed(self) -> Survey | None:
        """Findings in the file that the rows lie in; None where they lie in memory."""
        return None

    @property
    def witnesses(self) -> Images | None:
        """Some rows that lie in an interval, and are whole, only if all rows do; None where none are known."""
        return None

    def tensors(self) -> list[Tensor]:
        """The tensors that are there, pixels first."""
        return [tensor for tensor in (self.pixels, self.labels, self.binary, self.missing) if tensor is not None]

    def chunks(self, size: int) -> Iterator[Images]:
        """Runs of at most ``size`` rows, in order."""
        for start in range(0, len(self), size):
            yield self[slice(start, start + size)]

    def labelled(self) -> Images | None:
        """The rows that have a label: all of them as they are, or None where there is none."""
        if self.labels is None or not (known := self.labels >= 0).any():
            return None
        return self if known.all() else self[known.nonzero().squeeze(1)]

    def with_holes(self) -> Images:
        """These images, with NaN among the pixels as missing ones."""
        if not (self.pixels.is_floating_point() and (holes := self.pixels.isnan()).any()):
            return self
        missing = holes if self.missing is None else holes | self.missing
        return replace(self, pixels=self.pixels.masked_fill(holes, 0.0), missing=missing)

    def _holed(self, values: Tensor) -> Tensor:
        return values if self.missing is None else values.masked_fill(self.missing, torch.nan)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Images:
        labels, binary, missing = (
            None if tensor is None else change(tensor) for tensor in (self.labels, self.binary, self.missing)
        )
        return replace(self, pixels=change(self.pixels), labels=labels, binary=binary, missing=missing)


@dataclass(frozen=True)
class Dataset:
    """A named data set with its fixed splits.

    Args:
        name: what the command line calls it.
        train: the rows to fit on.
        validation: the rows that choose the best epoch.
        test: the rows that nothing but an evaluation sees.
        class_names: the classes in the order of their indices; empty where there are no labels.
        split: one line that says where the splits come from.
        kind: what the pixels are: ``counts`` from 0 to ``scale``; ``intensities`` in [0, 1] that the literature
            binarizes by draws, such as MNIST's; ``binary``, 0 or 1; ``numbers`` of any other kind.
        reading: how they were read off arrays, in words; empty where they were not.
        channels_last: whether the channels of these arrays were last.
        columns: what the columns of a table are, where each has a likelihood of its own or some are covariates, which
            are the last.
        arguments: what a program is called with, where that is several arrays; x holds their columns side by side.

    Example:
        >>> from pyro_vae.data import Dataset, Images
        >>> rows = Images(torch.rand(30, 1, 8, 8), torch.arange(30) % 2)
        >>> data = Dataset("mine", rows[:20], rows[20:25], rows[25:], class_names=("even", "odd"))
        >>> data.event_shape, data.num_classes, len(data.of_split("test"))
        ((1, 8, 8), 2, 5)
    """

    name: str
    train: Images
    validation: Images
    test: Images
    class_names: tuple[str, ...] = ()
    split: str = ""
    kind: PixelKind = "numbers"
    reading: str = ""
    channels_last: bool = False
    columns: tuple[Column, ...] = ()
    arguments: tuple[Argument, ...] = ()

    @property
    def splits(self) -> tuple[Images, Images, Images]:
        """Train, validation and test rows."""
        return self.train, self.validation, self.test

    @property
    def has_missing(self) -> bool:
        """Whether any pixel is missing."""
        return any(part.missing is not None for part in self.splits)

    def with_holes(self) -> Dataset:
        """This data set, with NaN among the pixels of a split as missing ones."""
        train, validation, test = (part.with_holes() for part in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum, (C, H, W) or (D,)."""
        return tuple(self.train.pixels.shape[1:])

    @property
    def num_classes(self) -> int | None:
        """The number of classes, or None where there are no labels."""
        return len(self.class_names) or None

    def of_split(self, name: str) -> Images:
        """The split of that name: train, validation or test."""
        images: Images = getattr(self, name)
        return images

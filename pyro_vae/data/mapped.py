"""Data larger than memory: one ``.npy`` file, of which the training sees some blocks at a time.

The rows that validate and test are chosen by one fixed permutation, as of every file, and copied into memory; they are
a tenth each, but no more than an eighth of the memory allowed.  The others stay in the file, and an epoch goes through
it by blocks (``data.read_ahead``): three eighths of the memory hold the rows in hand, and as much those that are read
ahead.  Labelled and unlabelled rows are two streams, each with half of that.  Rows that are drawn by weights are drawn
for the whole epoch and then taken block by block as well.

Of several processes each has the memory allowed, takes the epoch in the same order, and reads its own rows of a batch.
``data.large_sources`` says what can be such a file, or is made one in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.columns import Column
from pyro_vae.data.cache import forget_rows
from pyro_vae.data.classes import read_classes
from pyro_vae.data.columns import Moments, describe_columns
from pyro_vae.data.images import Dataset, Images
from pyro_vae.data.large_files import LargeFile
from pyro_vae.data.npy_files import NpyFile, new_digest
from pyro_vae.data.pixels import LARGEST_BYTE, Array, Pixels, Reading, read_pixels
from pyro_vae.data.read_ahead import ReadAhead
from pyro_vae.data.survey import Survey, identity_of, survey
from pyro_vae.data.window import Window
from pyro_vae.errors import InputError

MIN_ROWS = 10
IN_HAND = (3, 8)  # the share of the memory for rows in hand; as much is read ahead


@dataclass(frozen=True)
class MappedRows(Images):
    """Rows of a file; those that are asked for are read.

    Its ``pixels`` are all rows of the file, mapped, for their shape and type: training touches none of them.

    Args:
        file: the file.
        at: the places of the rows in the file, int64 of shape (N,), ascending.
        shaped: makes images of rows as they lie in the file, without a copy.
        in_hand: how many rows may be in hand at a time.
        survey: what is known of all rows of the file.
    """

    file: NpyFile = field(default_factory=lambda: NpyFile(Path(), (0,), np.dtype(np.uint8), False, 0))
    at: Tensor = field(default_factory=lambda: torch.arange(0))
    shaped: Callable[[Array], Array] = lambda rows: rows
    in_hand: int = 1
    survey: Survey = field(default_factory=lambda: Survey("", (0.0,), ()))

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, rows: Tensor | slice) -> Images:
        labels = None if self.labels is None else self.labels[rows]
        return Images(_read(self.file, self.at[rows], self.shaped), labels, scale=self.scale)

    def to(self, device: torch.device | str) -> Images:
        """These rows, for the CPU alone."""
        if torch.device(device).type != "cpu":
            raise InputError("rows in memory for a GPU", "a mapped file (--memory)", "use --device cpu, or no --memory")
        return self

    def values(self) -> Tensor:
        """Refused: they would be all in memory."""
        self.check_in_memory()
        return super().values()

    def check_in_memory(self) -> None:
        """Refuse what would have all rows in memory."""
        found = "the training rows of a mapped file (--memory)"
        raise InputError("rows that are all in memory", found, "use validation or test rows, or leave out --memory")

    def with_holes(self) -> Images:
        """These rows: none of their values is missing."""
        return self

    @property
    def surveyed(self) -> Survey:
        """What is known of all rows of the file."""
        return self.survey

    def extent(self) -> tuple[float, float]:
        """The smallest and the largest number in the file."""
        return self.survey.extent

    def digested(self) -> hashlib.blake2b:
        """A digest that has been fed with that of the whole file."""
        digest = new_digest()
        digest.update(self.survey.digest.encode())
        return digest

    @property
    def witnesses(self) -> Images:
        """Some rows that lie in an interval, and are whole, only if all rows of the file do."""
        values = self.survey.like(tuple(self.pixels.shape[1:]), self.pixels[:0].numpy().dtype)
        return Images(torch.from_numpy(values), scale=self.scale)

    def window(self, rows: Tensor, batch_size: int, streams: int = 1) -> Window:
        """A window that reads ahead; arguments as for images in memory."""
        return ReadAhead(self, rows, batch_size, self.in_hand // streams)


@dataclass(frozen=True)
class _Opened:
    """A large file that has been looked through.

    Args:
        large: the file.
        survey: what was found in it.
        looks: a few values of it, read as all of it is.
    """

    large: LargeFile
    survey: Survey
    looks: Pixels


def load_mapped(open_rows: Callable[[], LargeFile], reading: Reading, name: str) -> Dataset:
    """A data set of a file, or of a folder, that is larger than the memory that it may take.

    Args:
        open_rows: gives the rows as one file, which ``data.large_sources`` knows of a path.
        reading: how it is to be read, with the memory allowed, in bytes.
        name: what to call it.

    Raises:
        InputError: if it is something else, is damaged, holds missing values, or the memory is too small for it.
    """
    assert reading.memory is not None
    large = _checked(open_rows(), reading, name)
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    if large.y is not None:
        labels, class_names = read_classes(large.y, len(large.file), name, large.class_names)
    held = _held(large.file, reading.memory, name)
    opened = _look(open_rows, large, reading, name)
    train, validation, test = _cut(opened, labels, held, reading.memory)
    looks, said = opened.looks, opened.looks.said
    columns = opened.large.columns
    if columns:
        columns = reading.known or _with_moments(opened.large, train.at, name)
        said = describe_columns(columns)
    return Dataset(
        name,
        train,
        validation,
        test,
        class_names,
        f"{len(train)} train, {held} validation and {held} test rows of one fixed permutation, by blocks",
        "numbers" if columns else looks.kind,
        f"{said}, from a mapped file",
        looks.channels_last,
        columns,
    )


def _with_moments(large: LargeFile, at: Tensor, name: str) -> tuple[Column, ...]:
    """The columns of a table with the moments of the rows that train, which takes a pass over the file."""
    moments, trains, start = Moments(large.columns), np.zeros(len(large.file), bool), 0
    trains[at.numpy()] = True
    for block in large.file.blocks():
        moments.see(block[trains[start : start + len(block)]])
        start += len(block)
    return moments.of(name)


def _cut(opened: _Opened, labels: Tensor | None, held: int, memory: int) -> tuple[MappedRows, Images, Images]:
    """The rows that train, and copies of those that validate and of those that test."""
    file, looks = opened.large.file, opened.looks
    order = torch.randperm(len(file), generator=torch.Generator().manual_seed(0))
    at, *apart = (part.sort().values for part in order.split([len(file) - 2 * held, held, held]))

    def shaped(rows: Array) -> Array:
        rows = rows.view(np.uint8) if rows.dtype == bool else rows
        return np.moveaxis(rows, -1, 1) if looks.channels_last else rows.reshape(len(rows), *looks.values.shape[1:])

    def labels_of(part: Tensor) -> Tensor | None:
        return None if labels is None else labels[part]

    train = MappedRows(
        torch.from_numpy(shaped(file.map()[0])),
        labels_of(at),
        looks.scale,
        file=file,
        at=at,
        shaped=shaped,
        in_hand=memory * IN_HAND[0] // IN_HAND[1] // file.row_bytes,
        survey=opened.survey,
    )
    validation, test = (Images(_read(file, part, shaped), labels_of(part), looks.scale) for part in apart)
    return train, validation, test


def _read(file: NpyFile, places: Tensor, shaped: Callable[[Array], Array]) -> Tensor:
    """Some rows of a file, copied into memory as images."""
    return torch.from_numpy(np.ascontiguousarray(shaped(file.rows(places.numpy()))))


def check_mapped(images: Images, batch_size: int, streams: int = 1) -> None:
    """Refuse a training whose batches are larger than the memory that rows may take.

    Args:
        images: the training rows.
        batch_size: the rows of a batch of a stream.
        streams: how many streams there are.

    Raises:
        InputError: if they are.
    """
    if isinstance(images, MappedRows) and images.in_hand < streams * batch_size:
        row, (part, whole) = images.file.row_bytes, IN_HAND
        least = -(-streams * batch_size * row * whole // (part * 1_000_000))
        both = " of either stream" if streams > 1 else ""
        raise InputError(
            f"--memory for a batch of {batch_size} rows{both}",
            f"room for {images.in_hand // streams}",
            f"use --memory {least}MB or more, or a smaller --batch-size",
        )


def _checked(large: LargeFile, reading: Reading, name: str) -> LargeFile:
    """Refuse rows of a shape or type that cannot be read, and what only tables have."""
    shape, dims = large.file.shape, range(2, 5) if reading.one_channel else range(2, 9)
    if len(shape) not in dims or shape[0] < MIN_ROWS or 0 in shape or large.dtype.kind not in "buif":
        raise InputError(
            f"numbers x of shape (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C), {MIN_ROWS} rows or more, in {name}",
            f"{large.dtype} of shape {shape}",
            "save them so, or leave out --memory",
        )
    if large.columns and reading.scale not in (None, 1.0):
        found = f"--scale {reading.scale:g}"
        raise InputError(f"columns of {name} as they are", found, "leave out --scale: columns are standardized inside")
    if not large.columns and (reading.likelihood == "mixed" or reading.covariates or reading.columns):
        raise InputError(f"a table, whose columns have names, in the place of {name}", "an array", "leave out --memory")
    if reading.label_column not in ("auto", "none") and not large.is_table:
        wanted = f"a table with a column {reading.label_column!r} of labels"
        raise InputError(wanted, "data without columns", "leave out --label-column")
    return large


def _held(file: NpyFile, memory: int, name: str) -> int:
    """How many rows validate, and how many test."""
    row = file.row_bytes
    if memory // 4 < row:
        raise InputError(f"memory for a row of {name}", f"--memory {memory}", f"use --memory {4 * row} or more")
    return min(len(file) // 10, max(1, memory // 16 // row))


def _look(open_rows: Callable[[], LargeFile], large: LargeFile, reading: Reading, name: str) -> _Opened:
    """Look through a file once, and find out how it is to be read; one in the cache that is damaged is made anew."""
    found = _surveyed(large, reading, name)
    if large.digest not in ("", found.digest):
        forget_rows(large.file)
        large = open_rows()
        found = _surveyed(large, reading, name)
    if large.columns:
        reading = replace(reading, scale=1.0, pictures=False)
    if large.are_images:
        reading = Reading(None if found.extent[1] <= 1 else float(LARGEST_BYTE), "first")
    few = found.like(large.file.shape[1:], large.dtype)
    return _Opened(large, found, read_pixels(few, None, name, reading))


def _surveyed(large: LargeFile, reading: Reading, name: str) -> Survey:
    """What is in a file, of which another process may have told."""
    known = reading.survey
    is_known = known is not None and known.identity == identity_of(large.file.path)
    return known if known is not None and is_known else survey(large.file, name)

"""From image files to one array of bytes.

Every picture becomes 8 bits a channel: turned as its EXIF tag says, 16 bits scaled to 8, what is transparent black,
colors RGB; gray where every file of the lot is stored as gray.  A size is reached by a centre crop to its aspect ratio
and antialiased bilinear resampling.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pyro_vae.errors import InputError

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height and width

SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # by content; others may start programs
MAX_BYTES = 4 << 30  # for images at their own size, where a forgotten size would fill the memory
_CHUNK = 64


@dataclass(frozen=True)
class Decoded:
    """Image files, decoded.

    Args:
        pixels: shape (N, C, H, W), C 1 or 3, of the N files that could be read.
        rows: which files those are, of shape (N,).
        unreadable: a line for each of the others, "cats/7.jpg (why)".
    """

    pixels: Pixels
    rows: NDArray[np.int64]
    unreadable: tuple[str, ...]


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image: by its ending, unless it is hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def decode(path: Path, size: Size | None = None) -> Pixels:
    """The first frame of an image file, of shape (C, H, W), C 1 where it is gray, else 3.

    Args:
        path: the file.
        size: the height and width to bring it to; default: its own.

    Raises:
        Exception: whatever a decoder raises about a damaged file.
    """
    with (
        path.open("rb") as stream,
        Image.open(stream, formats=FORMATS) as file,
    ):  # by path, PIL maps a turned TIFF wrongly
        if size is not None:
            file.draft(None, (2 * max(size), 2 * max(size)))  # a large JPEG decodes faster
        image = _in_bytes(ImageOps.exif_transpose(file))
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


class Keep(Protocol):
    """Where decoded images go, one after the other."""

    def append(self, rows: Pixels) -> None:
        """Add images of shape (N, C, H, W), of the shape of those before."""

    def widen(self) -> None:
        """Give the images so far, which have one channel, three that are alike."""


class InMemory:
    """Images in one array, which is made for the first of them.

    Args:
        count: how many there may be.
    """

    def __init__(self, count: int) -> None:
        self._count, self._rows = count, 0
        self._pixels: Pixels = np.empty((0, 1, 0, 0), np.uint8)

    @property
    def pixels(self) -> Pixels:
        """The images so far, shape (N, C, H, W)."""
        return self._pixels[: self._rows]

    def append(self, rows: Pixels) -> None:
        if not self._rows:
            self._pixels = np.empty((self._count, *rows.shape[1:]), np.uint8)
        self._pixels[self._rows : self._rows + len(rows)] = rows
        self._rows += len(rows)

    def widen(self) -> None:
        self._pixels = np.repeat(self._pixels, 3, axis=1)


def decode_all(root: Path, files: Sequence[Path], size: Size | None = None) -> Decoded:
    """Decode files into one array, in threads, with a bar on standard error where that is a terminal.

    Args:
        root: the folder that they lie in, for messages.
        files: the files.
        size: the height and width to bring them to; default: their own, which must be one for all then.

    Raises:
        InputError: if no size is given and theirs differ, or they would fill the memory.
    """
    keep = InMemory(len(files))
    rows, unreadable = decode_into(keep, root, files, size)
    return Decoded(keep.pixels, np.array(rows, np.int64), tuple(unreadable))


def decode_into(
    keep: Keep, root: Path, files: Sequence[Path], size: Size | None = None, memory: int | None = None
) -> tuple[list[int], list[str]]:
    """Decode files in threads, a few at a time; the arguments beside these are those of ``decode_all``.

    Args:
        keep: where the images go.
        root: the folder that the files lie in.
        files: the files.
        size: the height and width to bring them to.
        memory: the bytes that images may take at a time; default: as much as they take.

    Returns:
        Which files could be read, and a line for each of the others.
    """

    def attempt(path: Path) -> Pixels | Exception:
        try:
            return decode(path, size)
        except Exception as error:  # a decoder raises whatever the bytes led it to
            return error

    stack = _Stack(root, files, size, keep, memory)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, _bar() as bar:
        warnings.simplefilter("ignore")  # of odd tags and large pictures, which do no harm
        task = bar.add_task(f"decoding {escape(root.name)}", total=len(files))
        row = 0
        while row < len(files):  # so that an early end does not wait for all of them
            for image in list(pool.map(attempt, files[row : row + stack.at_once])):
                stack.take(row, image)
                row += 1
                bar.advance(task)
    return stack.rows, stack.unreadable


class _Stack:
    """Images as they come, which must be of one size."""

    def __init__(self, root: Path, files: Sequence[Path], size: Size | None, keep: Keep, memory: int | None) -> None:
        self.root, self.files, self.size, self.keep, self.memory = root, files, size, keep, memory
        self.shape: tuple[int, ...] = ()
        self.rows: list[int] = []
        self.unreadable: list[str] = []

    @property
    def at_once(self) -> int:
        """How many files to decode next."""
        if self.memory is None:
            return _CHUNK
        return max(1, min(_CHUNK, self.memory // 2 // math.prod(self.shape))) if self.shape else 1

    def take(self, row: int, image: Pixels | Exception) -> None:
        if isinstance(image, Exception):
            self.unreadable.append(f"{self.files[row].relative_to(self.root).as_posix()} ({_reason(image)})")
            return
        if not self.shape:
            self._begin(image.shape)
        if image.shape[1:] != self.shape[1:]:
            first = f"{_by(self.shape)} ({self.files[self.rows[0]].relative_to(self.root).as_posix()})"
            other = f"{_by(image.shape)} ({self.files[row].relative_to(self.root).as_posix()})"
            raise InputError(f"images of one size in {self.root}", f"{first} and {other}", self._mend())
        if len(image) > self.shape[0]:
            self.keep.widen()  # for this is the first one in color
            self.shape = image.shape
        self.keep.append(np.broadcast_to(image, self.shape)[None])
        self.rows.append(row)

    def _begin(self, shape: tuple[int, ...]) -> None:
        needed = len(self.files) * math.prod(shape)
        if self.size is None and self.memory is None and needed > MAX_BYTES:
            raise InputError(
                f"at most {MAX_BYTES / 2**30:.3g} GiB of images at their own size in {self.root}",
                f"{len(self.files):,} of {shape[1]}x{shape[2]}, {needed / 2**30:.3g} GiB",
                f"{self._mend()}, or --memory 1GB to leave them on the disk",
            )
        self.shape = shape

    def _mend(self) -> str:
        return f"use {self.root}:size=64, for example, to bring all to 64x64"


def _in_bytes(image: Image.Image) -> Image.Image:
    """An image of mode L or RGB."""
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("pixels of more than 16 bits")
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    mode = "L" if _is_gray(image) else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image.convert(mode)


def _is_gray(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        colors = np.asarray(image.convert("RGB"))
        return bool((colors == colors[..., :1]).all())
    return image.mode in ("1", "L", "LA")


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]}x{shape[-1]}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format"
    return (str(error) or type(error).__name__).splitlines()[0]


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

"""From image files to one array of bytes.

Every picture becomes 8 bits a channel: turned as its EXIF tag says, 16 bits scaled to 8, what is transparent black,
colors RGB; gray where every file of the lot is stored as gray.  A size is reached by a centre crop to its aspect ratio
and antialiased bilinear resampling.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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


def decode_all(root: Path, files: Sequence[Path], size: Size | None = None) -> Decoded:
    """Decode files into one array, in threads, with a bar on standard error where that is a terminal.

    Args:
        root: the folder that they lie in, for messages.
        files: the files.
        size: the height and width to bring them to; default: their own, which must be one for all then.

    Raises:
        InputError: if no size is given and theirs differ, or they would fill the memory.
    """

    def attempt(path: Path) -> Pixels | Exception:
        try:
            return decode(path, size)
        except Exception as error:  # a decoder raises whatever the bytes led it to
            return error

    stack = _Stack(root, files, size)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, _bar() as bar:
        warnings.simplefilter("ignore")  # of odd tags and large pictures, which do no harm
        task = bar.add_task(f"decoding {escape(root.name)}", total=len(files))
        for start in range(0, len(files), _CHUNK):  # so that an early end does not wait for all of them
            for row, image in enumerate(pool.map(attempt, files[start : start + _CHUNK]), start):
                stack.take(row, image)
                bar.advance(task)
    return Decoded(stack.pixels[: len(stack.rows)], np.array(stack.rows, np.int64), tuple(stack.unreadable))


class _Stack:
    """Images as they come, put into one array that is made for the first of them."""

    def __init__(self, root: Path, files: Sequence[Path], size: Size | None) -> None:
        self.root, self.files, self.size = root, files, size
        self.pixels: Pixels = np.empty((0, 1, 0, 0), np.uint8)
        self.rows: list[int] = []
        self.unreadable: list[str] = []

    def take(self, row: int, image: Pixels | Exception) -> None:
        if isinstance(image, Exception):
            self.unreadable.append(f"{self.files[row].relative_to(self.root).as_posix()} ({_reason(image)})")
            return
        if not self.rows:
            self._allocate((len(self.files), *image.shape))
        if image.shape[1:] != self.pixels.shape[2:]:
            first = f"{_by(self.pixels)} ({self.files[self.rows[0]].relative_to(self.root).as_posix()})"
            other = f"{_by(image)} ({self.files[row].relative_to(self.root).as_posix()})"
            raise InputError(f"images of one size in {self.root}", f"{first} and {other}", self._mend())
        if len(image) > self.pixels.shape[1]:
            self.pixels = np.repeat(self.pixels, 3, axis=1)  # the first one in color
        self.pixels[len(self.rows)] = image
        self.rows.append(row)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        needed = int(np.prod(shape, dtype=np.int64))
        if self.size is None and needed > MAX_BYTES:
            raise InputError(
                f"at most {MAX_BYTES / 2**30:.3g} GiB of images at their own size in {self.root}",
                f"{shape[0]:,} of {shape[2]}x{shape[3]}, {needed / 2**30:.3g} GiB",
                self._mend(),
            )
        self.pixels = np.empty(shape, np.uint8)

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


def _by(image: Pixels) -> str:
    return f"{image.shape[-2]}x{image.shape[-1]}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format"
    return (str(error) or type(error).__name__).splitlines()[0]


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

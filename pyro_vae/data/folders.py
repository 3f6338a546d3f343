"""A folder of images as a data set: class folders one level below are the labels, a flat folder has none."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.arrays import MIN_ROWS, from_arrays
from pyro_vae.data.cache import cached, fingerprint_of
from pyro_vae.data.decoding import SUFFIXES, decode_all, decode_into, is_image
from pyro_vae.data.images import Dataset
from pyro_vae.data.large_files import LargeFile, kept
from pyro_vae.data.npy_files import NpyWriter
from pyro_vae.data.pixels import Array, Reading
from pyro_vae.errors import InputError
from pyro_vae.option_types import SizeOrNone
from pyro_vae.registry import read_options


def load_folder(path: Path, strict: bool = False, name: str | None = None, size: SizeOrNone = None) -> Dataset:
    """Read a folder of images, decoded once and kept under ``data_folder()/cache``.

    Hidden files, other files and folders without images are passed over.  A tenth of the rows validates, a tenth tests.

    Args:
        path: the folder.
        strict: whether an image that cannot be read is refused; else it is left out, and that is said.
        name: what to call the data; default: the path.
        size: the height and width to bring every image to, by a centre crop; default: their own.

    Raises:
        InputError: if there is no such folder, it holds too few images, one class folder only, or images beside class
            folders; if the images differ in size and none is given; if one cannot be read and ``strict`` is on.
    """
    files = _image_files(path)
    arrays = cached(
        os.path.basename(os.path.realpath(path)),
        f"{os.path.realpath(path)} size={size}",
        fingerprint_of(path, files),
        lambda: _decoded(path, files, size),
    )
    _report(path, arrays["unreadable"].tolist(), len(files), strict)
    _check_enough(path, len(arrays["x"]), "images that can be read")
    classes = _classes(path, arrays["classes"])
    reading = Reading(None if arrays["x"].max() <= 1 else 255.0, "first")  # bytes, of however dark images
    return from_arrays(arrays["x"], classes, name or str(path), reading=reading)


def open_large_folder(path: Path, strict: bool, memory: int, size: SizeOrNone = None) -> LargeFile:
    """The images of a folder as rows of one file, decoded once into the cache.

    Args:
        path: the folder.
        strict: as for ``load_folder``.
        memory: the bytes that images may take while they are decoded.
        size: as for ``load_folder``.

    Raises:
        InputError: as ``load_folder`` does.
    """
    files = _image_files(path)

    def make(writer: NpyWriter) -> dict[str, Array]:
        rows, unreadable = decode_into(writer, path, files, size, memory)
        _check_enough(path, len(rows), "images that can be read")
        return _beside(path, files, rows, unreadable)

    large = kept(path, fingerprint_of(path, files), make, np.dtype(np.uint8), options=f" size={size}")
    _report(path, large.beside["unreadable"].tolist(), len(files), strict)
    return replace(large, y=_classes(path, large.beside["classes"]), are_images=True)


def folder_options(path: Path, given: dict[str, str]) -> dict[str, Any]:
    """The options of a folder, as they were typed after its path.

    Raises:
        InputError: if it takes no such option, or the value is not what it should be.
    """
    size = inspect.signature(load_folder, eval_str=True).parameters["size"]
    return read_options(f"the folder {path}", {"size": size}, given)


def _image_files(path: Path) -> list[Path]:
    """The images of a folder, or of its class folders, sorted.

    Raises:
        InputError: if there are too few, or they lie both ways.
    """
    try:
        children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
        flat = [child for child in children if is_image(child) and child.is_file()]
        folders = {child.name: _images_in(child) for child in children if child.is_dir()}
    except OSError as error:
        reason = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise InputError(f"a folder of images at {path}", reason, "check the path") from None
    classes = {name: files for name, files in folders.items() if files}
    if flat and classes:
        raise InputError(
            f"images in {path} or in class folders below it, not both",
            f"{_count(len(flat), 'image')} beside {_count(len(classes), 'class folder')}",
            "move the images into class folders, or into one folder of their own",
        )
    if classes:
        _check_classes(path, list(classes))
    files = flat or [file for files in classes.values() for file in files]
    _check_enough(path, len(files), f"images ({' '.join(sorted(SUFFIXES))})")
    return files


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if is_image(file) and file.is_file())


def _decoded(path: Path, files: list[Path], size: tuple[int, int] | None) -> dict[str, Array]:
    decoded = decode_all(path, files, size)
    return {"x": decoded.pixels} | _beside(path, files, decoded.rows.tolist(), decoded.unreadable)


def _beside(path: Path, files: list[Path], rows: list[int], unreadable: Sequence[str]) -> dict[str, Array]:
    """What is kept beside the pixels: the class folder of each row, and a line for each file that cannot be read."""
    with_classes = files[0].parent != path
    classes = [files[row].parent.name for row in rows] if with_classes else []
    return {"classes": np.array(classes, dtype=np.str_), "unreadable": np.array(unreadable, dtype=np.str_)}


def _classes(path: Path, classes: Array) -> Array | None:
    """The class folder of each row, two different ones at least, or None where there are none."""
    if not len(classes):
        return None
    _check_classes(path, sorted(set(classes.tolist())))
    return classes


def _report(path: Path, unreadable: list[str], total: int, strict: bool) -> None:
    if not unreadable:
        return
    if strict:
        raise InputError(
            f"images that can be read in {path}",
            f"{len(unreadable)} of {total:,} that cannot, the first: {unreadable[0]}",
            "mend or delete them, or leave out --unreadable refuse",
        )
    print(
        f"Left out {_count(len(unreadable), 'image')} of {total:,} in {path} that cannot be read, "
        f"the first: {unreadable[0]}; --unreadable refuse stops at such",
        file=sys.stderr,
    )


def _check_enough(path: Path, number: int, what: str) -> None:
    if number < MIN_ROWS:
        raise InputError(
            f"at least {MIN_ROWS} {what} in {path}, or in class folders one level below it",
            str(number) if number else "none",
            "give a folder with more" if number else "give the folder that holds them",
        )


def _check_classes(path: Path, classes: list[str]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"at least two classes in {path}",
            f"one with images, {classes[0]!r}",
            "move the images up one level or add a class",
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

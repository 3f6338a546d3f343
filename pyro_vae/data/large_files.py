"""Rows that are larger than memory, from whatever they lie in, as one row-major ``.npy`` file.

An ``.npy`` file whose rows lie together is that file.  Shards, column-major files, other byte orders and archives are
written block by block to such a file in the cache, anew when one of them changes.

Labels lie beside the rows: of ``x.npy`` in ``x.labels.npy``, of a folder of shards in ``labels.npy`` or ``y.npy`` for
all of them in order, or beside each shard; rows of a shard without have none.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.columns import Column
from pyro_vae.data.base import data_folder
from pyro_vae.data.cache import fingerprint_of, kept_rows
from pyro_vae.data.npy_files import BLOCK, SUFFIX, NpyFile, NpyWriter, plain, read_header
from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line

LABELS = f".labels{SUFFIX}"  # what the name of a file of labels ends with
ALL_LABELS = ("labels.npy", "y.npy")  # of a folder


@dataclass(frozen=True)
class LargeFile:
    """Rows in one file, and what lies beside them.

    Args:
        file: the file.
        dtype: the type that the numbers had where they come from.
        y: their labels, as people have them, or None.
        digest: the digest that the rows have if they are whole; empty where that is not known.
        beside: what else is kept in the cache beside the rows.
        are_images: whether they are images of 8 bits per channel, with channels first.
        is_table: whether they are the rows of a table, whose columns have names.
        class_names: names of the classes, where labels are their numbers.
        columns: what the columns of a table are, where each has a likelihood of its own.
    """

    file: NpyFile
    dtype: np.dtype[Any]
    y: Array | None = None
    digest: str = ""
    beside: dict[str, Array] = field(default_factory=dict)
    are_images: bool = False
    is_table: bool = False
    class_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()


def open_large(path: Path, memory: int) -> LargeFile:
    """The rows of an ``.npy`` or ``.npz`` file, or of a folder of shards.

    Args:
        path: the file or the folder.
        memory: the bytes that may be used to write a file, where that is needed.

    Raises:
        InputError: if it is something else, is damaged, or shards differ.
    """
    if path.is_dir():
        return _of_shards(path, memory)
    if path.suffix.lower() == ".npz":
        return _of_archive(path)
    if path.suffix.lower() != SUFFIX:
        expected = f"an {SUFFIX}, .npz or .parquet file, a Zarr store, or a folder of shards or images, for --memory"
        raise InputError(expected, str(path), "write it so, or leave out --memory")
    file = NpyFile.open(path)
    y = read_labels(beside) if (beside := labels_beside(path)) else None
    if file.is_plain:
        return LargeFile(file, file.dtype, y)
    return _copied(path, [path], [file], y, memory)


def labels_beside(path: Path) -> Path | None:
    """The file of labels of an ``.npy`` file, if there is one."""
    beside = path.with_name(path.name[: -len(path.suffix)] + LABELS)
    return beside if beside.exists() and not path.name.endswith(LABELS) else None


def read_labels(path: Path) -> Array:
    """The labels in a file.

    Raises:
        InputError: if they are neither numbers nor text, or the file is damaged.
    """
    try:
        check_ordinary(path)
        return np.load(path, allow_pickle=False)
    except Exception as error:  # of any kind, from the parser of headers
        mend = "write them with numpy.save, as whole numbers or text, -1 or '' for no label"
        raise InputError(f"labels in {path}", f"a file that numpy refuses ({first_line(error)})", mend) from None


def shards_of(folder: Path) -> list[Path]:
    """The ``.npy`` files of a folder that hold rows, in the order of their names; hidden ones are passed over."""
    return [path for path in _npy_files(folder) if not _is_of_labels(path)]


def _npy_files(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and not path.name.startswith("."))
    return sorted(path for path in files if not path.is_dir())


def _is_of_labels(path: Path) -> bool:
    return path.name in ALL_LABELS or path.name.endswith(LABELS)


def _of_shards(folder: Path, memory: int) -> LargeFile:
    shards = shards_of(folder)
    if not shards:
        raise InputError(f"a folder of {SUFFIX} files for --memory", f"none in {folder}", "leave out --memory")
    files = [NpyFile.open(shard) for shard in shards]
    for file in files:
        if (file.shape[1:], file.dtype) != (files[0].shape[1:], files[0].dtype):
            raise InputError(
                f"shards of one shape and type in {folder}, {files[0].dtype} rows of shape {files[0].shape[1:]}, as in "
                f"{shards[0].name}",
                f"{file.dtype} rows of shape {file.shape[1:]} in {file.path.name}",
                "save them alike",
            )
    y = _labels_of_shards(folder, files)
    return _copied(folder, shards, files, y, memory)


def _labels_of_shards(folder: Path, files: Sequence[NpyFile]) -> Array | None:
    """The labels of all shards in order, or None where there are none."""
    whole = [folder / name for name in ALL_LABELS if (folder / name).exists()]
    each = [labels_beside(file.path) for file in files]
    if len(whole) + any(each) > 1:
        found = [path.name for path in (*whole, *each) if path][:2]
        raise InputError(f"labels of the rows in {folder} in one place", " and ".join(found), "delete one of them")
    if whole:
        _check_order(folder, [file.path.name for file in files], whole[0].name)
        return read_labels(whole[0])
    if not any(each):
        return None
    parts = [None if path is None else _one_for_each(path, file) for path, file in zip(each, files, strict=True)]
    kinds = {part.dtype.kind for part in parts if part is not None}
    if len(kinds) > 1 and not kinds <= set("iu"):
        expected = f"labels of one type beside the shards in {folder}"
        raise InputError(expected, "text and numbers, or numbers of several types", "save them alike")
    blank: Any = "" if kinds <= set("US") else -1
    filled = [np.full(len(file), blank) if part is None else part for part, file in zip(parts, files, strict=True)]
    return np.concatenate(filled)


def _one_for_each(path: Path, file: NpyFile) -> Array:
    labels = read_labels(path)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(file),):
        raise InputError(
            f"one label for each of the {len(file):,} rows of {file.path.name} in {path}",
            f"shape {labels.shape}",
            "save as many, -1 or '' for no label",
        )
    return labels


def _check_order(folder: Path, names: list[str], labels: str) -> None:
    """Refuse shards whose order is not sure, where the labels of all of them lie in one file."""

    def by_number(name: str) -> list[tuple[bool, int, str]]:
        return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]

    ordered = sorted(names, key=by_number)
    if ordered != sorted(names):
        first, second = next(pair for pair in zip(sorted(names), ordered, strict=True) if pair[0] != pair[1])
        raise InputError(
            f"shards in {folder} whose names have one order, for the labels in {labels}",
            f"{first}, which sorts before {second} as text and after it by its number",
            f"name them {names[0][:-4]}, … with leading zeros, or give each its labels, as {names[0][:-4]}{LABELS}",
        )


def _copied(path: Path, sources: Sequence[Path], files: Sequence[NpyFile], y: Array | None, memory: int) -> LargeFile:
    """The rows of some files as one in the cache."""
    dtype = plain(files[0].dtype)
    size = max(BLOCK, memory // 2) if files[0].is_fortran else BLOCK

    def make(writer: NpyWriter) -> dict[str, Array]:
        for file in files:
            for block in file.blocks(size):
                writer.append(block.astype(dtype, copy=False))
        if not writer.rows:
            writer.append(np.empty((0, *files[0].shape[1:]), dtype))
        return {}

    root = path if path.is_dir() else path.parent
    return kept(path, fingerprint_of(root, sources), make, files[0].dtype, y)


def kept(
    path: Path,
    fingerprint: str,
    make: Callable[[NpyWriter], dict[str, Array]],
    dtype: np.dtype[Any],
    y: Array | None = None,
    options: str = "",
) -> LargeFile:
    """Rows that are made once and kept in the cache.

    Args:
        path: what they are made from.
        fingerprint: what that is now.
        make: writes the rows, and returns arrays to be kept beside them.
        dtype: the type that the numbers had.
        y: their labels, or None.
        options: what they are read with, which is another copy.
    """
    place = os.path.realpath(path)

    def make_and_say(writer: NpyWriter) -> dict[str, Array]:
        arrays = make(writer)
        where = f"{data_folder() / 'cache'}, which may be deleted"
        print(f"Wrote the {writer.rows:,} rows of {path} to one file in {where}", file=sys.stderr)
        return arrays

    file, arrays = kept_rows(os.path.basename(place), place + options, fingerprint, make_and_say)
    return LargeFile(file, dtype, y, str(arrays["digest"]), arrays)


def _of_archive(path: Path) -> LargeFile:
    """The arrays x and y of an ``.npz`` file, x read block by block."""
    what = f"an .npz file with an array x at {path}"
    mend = "write one with numpy.savez(path, x=images, y=labels)"
    try:
        check_ordinary(path)
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if "x" not in names:
                raise InputError(what, f"a file with {', '.join(names) or 'nothing'}", mend)
            if "missing" in names and archive["missing"].any():
                raise InputError(f"every value of x of {path} for --memory", "some missing", "leave out --memory")
            y = archive["y"] if "y" in names else None
            assert archive.zip is not None
            with archive.zip.open("x.npy") as member:
                dtype = read_header(member)[2]
        return kept(path, fingerprint_of(path.parent, [path]), lambda writer: _unpacked(path, writer), dtype, y)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(what, "no such file", mend) from None
    except Exception as error:  # of any kind, from zip, zlib and the parser of headers
        raise InputError(what, f"a file that numpy refuses ({first_line(error)})", mend) from None


def _unpacked(path: Path, writer: NpyWriter) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive, archive.open("x.npy") as member:
        shape, is_fortran, dtype = read_header(member)
        if is_fortran and len(shape) > 1:
            raise InputError(f"rows that lie together in x of {path}", "columns", "save numpy.ascontiguousarray(x)")
        for block in _read_rows(member, shape, dtype):
            writer.append(block.astype(plain(dtype), copy=False))
    return {}


def _read_rows(member: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Array]:
    row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    step = max(1, BLOCK // max(1, row))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        content = member.read(count * row)
        if len(content) < count * row:
            raise ValueError(f"x ends after {start:,} rows of {shape[0]:,}")
        yield np.frombuffer(content, dtype).reshape(count, *shape[1:])

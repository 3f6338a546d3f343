"""Zarr arrays and groups that are larger than memory, read chunk by chunk: rows, or a group with x and y."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.cache import fingerprint_of
from pyro_vae.data.large_files import LargeFile, kept, labels_beside, read_labels
from pyro_vae.data.npy_files import BLOCK, NpyWriter, plain
from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import first_line

MARKS = ("zarr.json", ".zarray", ".zgroup")  # of a folder that is a store, by version 3 and 2 of the format
LABELS = ("y", "labels")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in MARKS)


def open_large_zarr(path: Path, memory: int) -> LargeFile:
    """The rows of a Zarr array, or of the array x of a group, as one file, and their labels.

    Args:
        path: the folder of the store.
        memory: the bytes that may be read at a time.

    Raises:
        InputError: if zarr is not installed, the store is damaged or holds no such array, or a chunk is too large.
    """
    x, y = _arrays(path)
    step = _step(x, path, memory)

    def make(writer: NpyWriter) -> dict[str, Array]:
        dtype = plain(x.dtype)
        for start in range(0, x.shape[0], step):
            try:
                block = np.asarray(x[start : start + step])
            except Exception as error:  # of any kind, from the codecs and the store
                found = f"rows from {start:,} on that zarr cannot read ({first_line(error)})"
                raise InputError(f"whole chunks of x in {path}", found, "write the store again") from None
            writer.append(block.astype(dtype, copy=False))
        return {}

    files = sorted(file for file in path.rglob("*") if file.is_file())
    return kept(path, fingerprint_of(path, files), make, x.dtype, y)


def _arrays(path: Path) -> tuple[Any, Array | None]:
    """The array of rows, which is not read yet, and the labels."""
    try:
        import zarr  # late: it is an extra
    except ImportError:
        mend = "pip install zarr, or pip install 'pyro-vae[zarr]'"
        raise InputError(f"zarr, to read {path}", "none installed", mend) from None
    what = f"a Zarr array, or a group with an array x, at {path}"
    try:
        store: Any = zarr.open(str(path), mode="r")
        if isinstance(store, zarr.Array):
            beside = labels_beside(path)
            return _with_rows(store, what), None if beside is None else read_labels(beside)
        names = sorted(store.array_keys())
        labels = [name for name in LABELS if name in names]
        if "x" not in names or len(labels) > 1:
            mend = "name the rows x and their labels y"
            raise InputError(what, f"a group of {', '.join(names) or 'nothing'}", mend)
        y = np.asarray(store[labels[0]][:]) if labels else None
        return _with_rows(store["x"], what), y if y is None or y.dtype.kind in "biufUS" else y.astype(str)
    except InputError:
        raise
    except Exception as error:  # of any kind, from the parser of what describes the store
        raise InputError(what, f"one that zarr cannot open ({first_line(error)})", "write the store again") from None


def _with_rows(array: Any, what: str) -> Any:
    if not array.shape or array.dtype.kind not in "buif":
        mend = "write rows of numbers"
        raise InputError(what, f"one of {array.dtype} of shape {array.shape}", mend)
    return array


def _step(array: Any, path: Path, memory: int) -> int:
    """The rows to read at a time: whole chunks, or shards of chunks."""
    chunks: Sequence[int] = getattr(array, "shards", None) or array.chunks
    row = math.prod(array.shape[1:]) * array.dtype.itemsize
    if (needed := chunks[0] * row) > memory:
        raise InputError(
            f"--memory for the rows of a chunk of {path}, {chunks[0]:,} of {row:,} bytes",
            f"--memory {memory}",
            f"use --memory {needed} or more, or write smaller chunks",
        )
    return chunks[0] * max(1, min(BLOCK, memory) // max(1, needed))

"""Files of one array, ``.npy``, that are larger than memory: their header, their rows by blocks, and their writing.

A file is row-major, or column-major as Fortran has it, in any byte order.  Rows are read by blocks of some megabytes,
which is the speed of the disk; of a column-major file a block is a run of every column.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from pyro_vae.data.pixels import Array
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line

BLOCK = 16 << 20  # bytes that are read together
NEAR = 16  # rows between two that are read together
SUFFIX = ".npy"
_MEND = "write one with numpy.save(path, x)"
_WIDER = {"u2": np.int32, "u4": np.int64, "u8": np.float64}  # what torch computes with, of what it does not


@dataclass(frozen=True)
class NpyFile:
    """An ``.npy`` file whose header has been read.

    Args:
        path: where it lies.
        shape: the shape of its array, (N, …).
        dtype: its type.
        is_fortran: whether columns lie together, not rows.
        begin: the byte where the numbers begin.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    begin: int

    @classmethod
    def open(cls, path: Path) -> NpyFile:
        """Read the header of a file.

        Raises:
            InputError: if there is no such file, it is something else, or is cut off.
        """
        try:
            check_ordinary(path)
            with path.open("rb") as file:
                shape, is_fortran, dtype = read_header(file)
                begin = file.tell()
                needed = begin + math.prod(shape) * dtype.itemsize
                if (found := file.seek(0, 2)) < needed:
                    raise ValueError(f"it is cut off: {found:,} bytes of {needed:,}")
        except FileNotFoundError:
            raise InputError(f"an {SUFFIX} file at {path}", "no such file", _MEND) from None
        except Exception as error:  # of any kind, from the parser of headers
            found_words = f"one that cannot be mapped ({first_line(error)})"
            raise InputError(f"an {SUFFIX} file at {path}", found_words, _MEND) from None
        return cls(path, shape, dtype, is_fortran and len(shape) > 1, begin)

    @property
    def is_plain(self) -> bool:
        """Whether the rows lie as torch computes with them."""
        return not self.is_fortran and self.dtype == plain(self.dtype)

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def blocks(self, size: int = BLOCK) -> Iterator[Array]:
        r"""The rows by blocks, in order.

        Args:
            size: the bytes of a block; one row at least.

        Raises:
            InputError: if the file ends before its rows do.
        """
        step = max(1, size // max(1, self.row_bytes))
        if self.is_fortran:
            yield from self._columns(step)
            return
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.begin)
            for start in range(0, len(self), step):
                block = np.empty((min(step, len(self) - start), *self.shape[1:]), self.dtype)
                _fill(file, block.reshape(-1).view(np.uint8).data, self.path)
                yield block

    def rows(self, places: Array) -> Array:
        """Some rows, read and not mapped.

        Args:
            places: which rows, int64 of shape (M,), in any order.

        Raises:
            InputError: if the file ends before its rows do.
        """
        ordered, back = np.unique(places, return_inverse=True)
        found = np.empty((len(ordered), *self.shape[1:]), self.dtype)
        self.fill(ordered, found)
        return found[back]

    def fill(self, places: Array, rows: Array) -> None:
        r"""Read some rows, those that lie near each other together.

        Args:
            places: which rows, int64 of shape (M,), ascending.
            rows: where they are put, of shape (M, \*row_shape) and this file's type, in one piece.

        Raises:
            InputError: if the file ends before its rows do.
        """
        bounds = np.flatnonzero(np.diff(places) > NEAR) + 1
        most = max(1, BLOCK // max(1, self.row_bytes) // NEAR)
        with self.path.open("rb", buffering=0) as file:
            for start, stop in pairwise((0, *bounds.tolist(), len(places))):
                for begin in range(start, stop, most):
                    self._fill_near(
                        file, places[begin : min(stop, begin + most)], rows[begin : min(stop, begin + most)]
                    )

    def __len__(self) -> int:
        return self.shape[0]

    def map(self) -> tuple[Array, mmap.mmap]:
        """The array, mapped into memory that is never written to the file, and that memory."""
        with self.path.open("rb") as file:
            count = math.prod(self.shape)
            memory = mmap.mmap(file.fileno(), self.begin + count * self.dtype.itemsize, access=mmap.ACCESS_COPY)
        flat = np.frombuffer(memory, self.dtype, count, self.begin)
        return flat.reshape(self.shape, order="F" if self.is_fortran else "C"), memory

    def _fill_near(self, file: BinaryIO, places: Array, rows: Array) -> None:
        """Read rows that lie near each other, by way of what lies between."""
        first, last = int(places[0]), int(places[-1])
        file.seek(self.begin + first * self.row_bytes)
        if last - first + 1 == len(places):
            _fill(file, rows.reshape(-1).view(np.uint8).data, self.path)
            return
        span = np.empty((last - first + 1, *self.shape[1:]), self.dtype)
        _fill(file, span.reshape(-1).view(np.uint8).data, self.path)
        np.take(span, places - first, axis=0, out=rows, mode="clip")

    def _columns(self, step: int) -> Iterator[Array]:
        array, memory = self.map()
        for start in range(0, len(self), step):
            yield np.ascontiguousarray(array[start : start + step])
            forget(memory)


def read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether columns lie together, and the type that the header of an open file says.

    Raises:
        ValueError: if it is no such header, or one of objects, which may run code.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects: save numbers, or text")
    return shape, is_fortran, dtype


def plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that torch computes with, of the same numbers or of more."""
    native = dtype.newbyteorder("=")
    if native.kind == "f" and native.itemsize > 8:
        return np.dtype(np.float64)
    return np.dtype(_WIDER.get(f"{native.kind}{native.itemsize}", native))


def new_digest() -> hashlib.blake2b:
    """A digest that rows can be fed to."""
    return hashlib.blake2b(digest_size=16)


def forget(memory: mmap.mmap) -> None:
    """Let the system take back the pages of a mapped file, where it can be told."""
    if hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            memory.madvise(mmap.MADV_DONTNEED)


class NpyWriter:
    """Rows that are written to an ``.npy`` file one block after the other; its header counts them at the end.

    Args:
        file: the file, open for writing and reading, at its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._row, self._begin = file, np.empty((0,)), 0
        self._digest = new_digest()
        self.rows = 0

    @property
    def digest(self) -> str:
        """The digest of the rows so far, as a ``Survey`` has it."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write_header()

    def append(self, rows: Array) -> None:
        """Add rows of the shape and type of those before."""
        if not self._begin:
            self._row = np.empty((0, *rows.shape[1:]), rows.dtype)
            self._write_header()
            self._begin = self._file.tell()
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        self._digest.update(content)
        self._file.write(content)
        self.rows += len(rows)

    def widen(self) -> None:
        """Give the rows so far, images of one channel, three that are alike; from the last to the first, in place."""
        before = self._row.shape[1:]
        self._row = np.empty((0, 3, *before[1:]), self._row.dtype)
        size, begin = math.prod(before) * self._row.itemsize, self._begin
        step = max(1, BLOCK // size)
        for start in reversed(range(0, self.rows, step)):
            count = min(step, self.rows - start)
            self._file.seek(begin + start * size)
            block = np.frombuffer(self._file.read(count * size), self._row.dtype).reshape(count, *before)
            self._file.seek(begin + 3 * start * size)
            self._file.write(np.repeat(block, 3, axis=1).data)
        self._digest = new_digest()
        self._file.seek(begin)
        for start in range(0, self.rows, step):
            self._digest.update(self._file.read(3 * min(step, self.rows - start) * size))

    def _write_header(self) -> None:
        """Write the header, which is as long for any number of rows."""
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._row.dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._row.shape[1:]),
            },
        )


def _fill(file: Any, buffer: memoryview, path: Path) -> None:
    """Read as many bytes as there is room for."""
    while buffer:
        if not (count := file.readinto(buffer)):
            raise InputError(f"an {SUFFIX} file at {path}", "one that was cut off while it was read", _MEND)
        buffer = buffer[count:]

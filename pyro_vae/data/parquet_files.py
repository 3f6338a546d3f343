"""Parquet tables that are larger than memory: described column by column, then read by batches of rows.

What becomes of the columns is what becomes of those of a table in memory (``data.tables``): numbers, truth values, text
and categories with likelihoods of their own, covariates, labels; or pixels, where a table is one of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pyro_vae.columns import Column
from pyro_vae.data.cache import fingerprint_of
from pyro_vae.data.columns import codes_of, columns_of
from pyro_vae.data.large_files import LargeFile, kept
from pyro_vae.data.npy_files import BLOCK, NpyWriter
from pyro_vae.data.pixels import LARGEST_BYTE, Array, Reading, are_pixels, are_whole
from pyro_vae.data.tables import label_column, labels_of_table, numbers_of_table, told_by_columns
from pyro_vae.errors import InputError
from pyro_vae.files.bounded import check_ordinary, first_line

SUFFIXES = (".parquet", ".pq")


def tables_in(folder: Path) -> list[Path]:
    """The parquet files of a folder, in the order of their names; hidden ones are passed over."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in files if not path.is_dir())


def open_large_parquet(path: Path, reading: Reading, name: str) -> LargeFile:
    """The rows of a parquet file, or of a folder of such, as one file, with their labels and columns.

    Args:
        path: the file or the folder.
        reading: how it is to be read, with the memory allowed, in bytes.
        name: what to call it.

    Raises:
        InputError: if pyarrow is not installed, a file is damaged, the files differ, or a column is larger than the
            memory.
    """
    table = _open(path, reading.memory or 0)
    place = label_column(table.columns, name, reading)
    y, class_names = (None, ()) if place is None else labels_of_table(table[table.columns[place]])
    table = replace(table, columns=[column for i, column in enumerate(table.columns) if i != place])
    if not table.columns:
        raise InputError(f"columns of numbers in {name}", "none", "give a table with features")
    if table.is_of_columns(reading, name):
        columns = columns_of(table, name, reading)
        large = _kept(path, table, columns, np.dtype(np.float64), name)
        return replace(large, y=y, class_names=class_names, columns=columns, is_table=True)
    large = _kept(path, table, (), table.numbers_dtype(name), name)
    return replace(large, y=y, class_names=class_names, is_table=True)


@dataclass(frozen=True)
class _Table:
    """Some columns of parquet files of one schema.

    Args:
        files: the files, open.
        columns: the names of the columns.
        memory: the bytes that may be read at a time.
    """

    files: Sequence[Any]
    columns: list[str]
    memory: int

    def __getitem__(self, column: str) -> Any:
        """All values of a column."""
        import pyarrow

        size = sum(_bytes_of(file, column) for file in self.files)
        if size > self.memory:
            raise InputError(
                f"--memory for the column {column!r}, which is looked at as a whole",
                f"--memory {self.memory}",
                f"use --memory {math.ceil(size / 1e6)}MB or more, or leave it out: --columns '{column}=drop'",
            )
        read = [file.read(columns=[column], use_threads=False) for file in self.files]
        return pyarrow.concat_tables(read, promote_options="permissive").to_pandas().infer_objects()[column]

    def batches(self) -> Iterator[pd.DataFrame]:
        """The rows, some at a time."""
        width = 16 * len(self.columns)  # bytes of a row as numbers, and as what pyarrow has of them
        size = max(1, min(BLOCK, self.memory // 2) // width)
        for file in self.files:
            for batch in file.iter_batches(size, columns=self.columns, use_threads=False):
                yield batch.to_pandas()[self.columns]

    def is_of_columns(self, reading: Reading, name: str) -> bool:
        """Whether each column is looked at by itself, as ``data.tables`` decides it."""
        told = told_by_columns(reading)
        if told is not None:
            return told
        if not all(_is_of_numbers(self.files[0].schema_arrow.field(column).type) for column in self.columns):
            return True
        low, high, is_whole, is_binary = math.inf, -math.inf, True, True
        for frame in self.batches():
            values = numbers_of_table(frame, name)
            seen = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            if seen.size:
                low, high = min(low, seen.min()), max(high, seen.max())
                is_whole, is_binary = is_whole and are_whole(seen), is_binary and bool(np.isin(seen, (0, 1)).all())
        if is_binary:
            return False
        return not (are_pixels((len(self.columns),)) and low >= 0 and (high <= 1 or is_whole))

    def numbers_dtype(self, name: str) -> np.dtype[Any]:
        """The type of the numbers of a table of pixels."""
        kinds = {numbers_of_table(frame, name).dtype for frame in self.batches()}
        return np.result_type(*kinds)


def _open(path: Path, memory: int) -> _Table:
    try:
        from pyarrow import parquet  # late: it is an extra
    except ImportError:
        mend = "pip install pyarrow, or pip install 'pyro-vae[tables]'"
        raise InputError(f"pyarrow, to read {path}", "none installed", mend) from None
    files = []
    for source in tables_in(path) if path.is_dir() else [path]:
        try:
            check_ordinary(source)
            files.append(parquet.ParquetFile(source))
        except Exception as error:  # of any kind, from the parser of what describes the file
            found = f"one that pyarrow cannot open ({first_line(error)})"
            raise InputError(f"a parquet file at {source}", found, "write one with frame.to_parquet(path)") from None
        if files[-1].schema_arrow.names != files[0].schema_arrow.names:
            raise InputError(
                f"parquet files of the same columns in {path}",
                f"{', '.join(files[-1].schema_arrow.names[:8])} in {source.name}",
                "write them alike",
            )
    schema = files[0].schema_arrow
    indices = (schema.pandas_metadata or {}).get("index_columns", [])
    return _Table(files, [column for column in schema.names if column not in indices], memory)


def _kept(path: Path, table: _Table, columns: tuple[Column, ...], dtype: np.dtype[Any], name: str) -> LargeFile:
    """The numbers of a table as one file: whole numbers that fit into bytes as such, others as torch computes."""
    sources = tables_in(path) if path.is_dir() else [path]
    codes = [(column.name, column.categories) for column in columns]
    wide = np.float64 if torch.get_default_dtype() == torch.float64 or not columns else np.float32

    def make(writer: NpyWriter) -> dict[str, Array]:
        narrow = not columns and dtype.kind in "bui" and all(map(_fits_bytes, map(numbers, table.batches())))
        as_it_is = dtype.kind == "f" and not columns
        kind = np.dtype(np.uint8) if narrow else dtype if as_it_is else np.dtype(wide)
        for frame in table.batches():
            values = numbers(frame)
            if values.dtype.kind == "f" and np.isnan(values).any():
                found = "some that are missing"
                raise InputError(f"every value of {name} for --memory", found, "fill them, or leave out --memory")
            writer.append(values.astype(kind))
        return {}

    def numbers(frame: pd.DataFrame) -> Array:
        return codes_of(frame, columns, name) if columns else numbers_of_table(frame, name)

    root = path if path.is_dir() else path.parent
    return kept(path, fingerprint_of(root, sources), make, dtype, options=f" {table.columns} {codes} {wide.__name__}")


def _fits_bytes(values: Array) -> bool:
    return not len(values) or bool(values.min() >= 0 and values.max() <= LARGEST_BYTE)


def _is_of_numbers(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _bytes_of(file: Any, column: str) -> int:
    """The bytes that a column takes, as numbers of 64 bits or as it is stored, whichever is more."""
    stored = 0
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        parts = map(group.column, range(group.num_columns))
        stored += sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)
    return max(stored, 8 * file.metadata.num_rows)

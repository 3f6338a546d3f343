"""``history.csv``: one row per epoch, appended, and rewritten while a run trains only where somebody removed it.

How many rows count is said by the run's pointer, with their checksum; what stands behind them is of an epoch whose
checkpoint was not written.  Floats are written as ``repr`` has them, so that they are read back to the bit.  Where a
resumed run changes settings, they stand in columns to the right of those that the training writes.  A table is what
people open and save in other programs: the state to resume from has a copy, from which the file is read, and written
anew, where it was harmed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import read_bounded
from pyro_vae.files.whole import sync, write_all, write_whole
from pyro_vae.runs.checkpoint import checksum
from pyro_vae.runs.current import HistoryMark

HISTORY = "history.csv"
COPY = "history_text"  # its name in the state to resume from
MAX_BYTES = 1 << 30
Row = dict[str, float]


class HistoryFile:
    """The history of a run that is being written.

    Args:
        folder: the run directory.
        mark: how much of the file counts.
        settings: the settings that stand in columns of their own, with what they are now.
    """

    def __init__(self, folder: Path, mark: HistoryMark, settings: Row | None = None) -> None:
        self.path, self.mark, self._settings = folder / HISTORY, mark, dict(settings or {})
        self._written, self._size = list[str](), 0  # what the file holds, and its bytes

    @property
    def text(self) -> str:
        """What the file holds, or should."""
        return "".join(self._written)

    def append(self, row: Row) -> HistoryMark:
        """Write a row, on the disk; it counts when the pointer says so, which is the caller's to write."""
        names = list(row)
        text = "" if self.mark.rows else _line([*names, *self._settings])
        text += _line([*map(_shown, row.values()), *map(_shown, self._settings.values())])
        if self._is_as_written():
            self._extend(text)
        else:
            write_whole(self.path, (self.text + text).encode())
        self._keep(text)
        self.mark = _marked(self.mark, row)
        return self.mark

    def _is_as_written(self) -> bool:
        try:
            return os.stat(self.path).st_size == self._size
        except FileNotFoundError:
            return self._size == 0

    def _keep(self, text: str) -> None:
        self._written.append(text)
        self._size += len(text.encode())

    def _extend(self, text: str) -> None:
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, text.encode())
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync(self.path.parent)

    def trim(self, text: str, before: Row | None = None) -> None:
        """Drop rows that do not count, and make room for settings that were not there.

        Args:
            text: what the file holds, or, where it was harmed, its copy.
            before: what the settings were in the rows that have no column for them.
        """
        lines = counted_lines(text, self.mark)
        names = lines[0].split(",") if lines else []
        known = names[self.mark.columns :]
        added = [name for name in self._settings if name not in known]
        self._settings = {name: self._settings.get(name, math.nan) for name in [*known, *added]}
        heads = [",".join([lines[0], *added])] if lines else []
        values = [_shown((before or {}).get(name, math.nan)) for name in added]
        trimmed = "".join(f"{line}\n" for line in [*heads, *(",".join([line, *values]) for line in lines[1:])])
        if trimmed.encode() != _content(self.path):
            write_whole(self.path, trimmed.encode())
        self._keep(trimmed)


def mark_of(rows: list[Row]) -> HistoryMark:
    """The mark of a history that holds these rows."""
    mark = HistoryMark()
    for row in rows:
        mark = _marked(mark, row)
    return mark


def _marked(mark: HistoryMark, row: Row) -> HistoryMark:
    """The mark of a history with one row more."""
    counted = ("" if mark.rows else _line(row)) + _line(map(_shown, row.values()))
    return HistoryMark(mark.rows + 1, len(row), checksum(counted.encode(), mark.crc32))


def changed_settings(text: str, mark: HistoryMark) -> list[str]:
    """The settings that have a column of their own in a history."""
    lines = counted_lines(text, mark)
    return lines[0].split(",")[mark.columns :] if lines else []


def read_history(folder: Path, mark: HistoryMark | None) -> str:
    """The history of a run as text.

    Args:
        folder: the run directory.
        mark: how much of the file counts; None: all of it.

    Raises:
        ValueError: if the file is another than was written.
        OSError: if it cannot be read.
    """
    if mark is not None and mark.rows == 0:
        return ""
    try:
        text = _as_text(read_bounded(folder / HISTORY, MAX_BYTES))
    except FileNotFoundError:
        if mark is None:
            return ""
        raise
    table_of(text, mark)
    return text


def copied(state: Callable[[], dict[str, Any]], mark: HistoryMark | None) -> str | None:
    """The copy of a history in a state to resume from, if it can be read, has one, and that is what is marked."""
    with contextlib.suppress(InputError, OSError, ValueError, LookupError):
        text = str(state()[COPY])
        table_of(text, mark)
        return text
    return None


def table_of(text: str, mark: HistoryMark | None) -> pd.DataFrame:
    """The history of a run, in full precision.

    Raises:
        ValueError: if the text is not a table of numbers, or not the one that is marked.
    """
    kept = text.splitlines() if mark is None else counted_lines(text, mark)
    if not kept:
        return pd.DataFrame()
    names, rows = kept[0].split(","), [line.split(",") for line in kept[1:]]
    if len(set(names)) != len(names) or "epoch" not in names or any(len(row) != len(names) for row in rows):
        raise ValueError("it is not a table with a column epoch")
    columns = {name: [_number(row[i]) for row in rows] for i, name in enumerate(names)}
    return pd.DataFrame(columns, columns=names).astype({"epoch": int})


def _content(path: Path) -> bytes | None:
    with contextlib.suppress(OSError, ValueError):
        return read_bounded(path, MAX_BYTES)
    return None


def _as_text(content: bytes) -> str:
    """Content as text, also where an editor or a version control gave it a mark or the line ends of another system."""
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def counted_lines(text: str, mark: HistoryMark) -> list[str]:
    """The heading and the rows that count, if they are as they were written."""
    if mark.rows == 0:
        return []
    lines = text.split("\n", mark.rows + 1)[: mark.rows + 1]
    counted = "".join(_line(line.split(",")[: mark.columns]) for line in lines)
    if len(lines) <= mark.rows or checksum(counted.encode()) != mark.crc32:
        raise ValueError("its checksum is another: it was changed or damaged after it was written")
    return lines


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _shown(value: float | int) -> str:
    return str(value) if type(value) is int else "" if math.isnan(value) else repr(float(value))


def _line(cells: Iterable[str]) -> str:
    return ",".join(cells) + "\n"

"""The pointer of a run: one small file that says which checkpoint files and how much of the history count.

``checkpoints/current.json`` is replaced in one step.  What it names was synced before, under names that were never
used, and what it names no longer is removed after.  A process that dies at any moment leaves the old pointer or the new
one, and with either a whole run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.files.bounded import read_json_object
from pyro_vae.files.whole import NewFile, remove_tree, sync, write_whole
from pyro_vae.runs.checkpoint import Identity, write_training, write_weights

CHECKPOINTS, CURRENT = "checkpoints", "current.json"
MAX_BYTES = 1 << 20
_NAME = re.compile(r"\d{5,}-[0-9a-f]{8}\.(safetensors|pt)")
_EARLIER = re.compile(r"(last|best)(\.new|\.old)?")  # the folders of format 1


@dataclass(frozen=True)
class Saved:
    """One checkpoint.

    Args:
        epoch: completed epochs.
        step: completed steps of the epoch under way.
        weights: the name of a file under ``checkpoints``.
        weights_crc32: its checksum.
        training: the name of the file to resume from, or empty for a checkpoint that only evaluates.
        training_crc32: its checksum.
    """

    epoch: int
    step: int
    weights: str
    weights_crc32: int
    training: str = ""
    training_crc32: int = 0

    def without_training(self) -> Saved:
        """The same, to evaluate alone."""
        return replace(self, training="", training_crc32=0)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files."""
        return (self.weights, self.training) if self.training else (self.weights,)


@dataclass(frozen=True)
class HistoryMark:
    """How much of ``history.csv`` counts.

    Args:
        rows: the number of epochs.
        columns: the number of columns that the training wrote; settings that were changed stand to their right.
        crc32: the checksum of these rows and columns.
    """

    rows: int = 0
    columns: int = 0
    crc32: int = 0


@dataclass(frozen=True)
class Current:
    """What counts of a run directory.

    Args:
        run: a name that no other run has.
        settings: the checksum of the settings that cannot change.
        last: the checkpoint to resume from.
        best: the checkpoint of the best epoch.
        history: how much of the history counts.
    """

    run: str
    settings: int
    last: Saved
    best: Saved
    history: HistoryMark = field(default_factory=HistoryMark)

    def identity(self, saved: Saved) -> Identity:
        """Of what the files of a checkpoint have to be."""
        return Identity(self.run, saved.epoch, saved.step)

    @property
    def files(self) -> set[str]:
        """The names of all files under ``checkpoints`` that count."""
        return {CURRENT, *self.last.files, *self.best.files}

    def replace(self, folder: Path, before: Current | None) -> None:
        """Make this what counts, in one step, and remove the files that count no longer.

        Args:
            folder: the folder ``checkpoints``, where the files that this names are synced.
            before: what counted until now.

        Raises:
            OSError: if that fails; what counted before counts then, and the new files are gone.
        """
        kept = before.files if before else {CURRENT}
        try:
            sync(folder)  # the names of the files
            write_whole(folder / CURRENT, (json.dumps(asdict(self), indent=2) + "\n").encode())
        except OSError:
            if self._read_or_none(folder.parent) != self:
                _remove(folder, self.files - kept)
            raise
        _remove(folder, kept - self.files)

    def clear(self, folder: Path) -> None:
        """Remove the checkpoint files of this package that do not count, of earlier formats as well."""
        for entry in list(os.scandir(folder)):
            if entry.name in self.files:
                continue
            if _EARLIER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            elif _NAME.fullmatch(entry.name):
                _remove(folder, {entry.name})

    @classmethod
    def _read_or_none(cls, folder: Path) -> Current | None:
        with contextlib.suppress(OSError, ValueError):
            return cls.read(folder)
        return None

    @classmethod
    def read(cls, folder: Path) -> Current | None:
        """The pointer of a run directory, or None of one that has none, as those of format 1.

        Raises:
            ValueError: if the file is damaged.
            OSError: if it cannot be read.
        """
        try:
            content = read_json_object(folder / CHECKPOINTS / CURRENT, most=MAX_BYTES)
        except FileNotFoundError:
            return None
        try:
            parts = {"last": Saved, "best": Saved, "history": HistoryMark}
            return _checked(cls(**{name: parts[name](**v) if name in parts else v for name, v in content.items()}))
        except TypeError as error:
            raise ValueError(f"not a pointer to checkpoints: {error}") from None


def write_checkpoint(folder: Path, run: str, weights: dict[str, Tensor], training: dict[str, Any]) -> Saved:
    """Write the files of a checkpoint, synced, under names that were never used; nothing is left where that fails.

    Args:
        folder: the folder ``checkpoints``.
        run: the name of the run.
        weights: what ``Pair.state_dict`` gave.
        training: what ``Trainer.state_dict`` gave; the rows of its history are left out, which are a file of their own.
    """
    progress = {name: value for name, value in training["progress"].items() if name != "history"}
    identity = Identity(run, progress["epoch"], progress["step"])
    name = f"{identity.epoch:05}-{secrets.token_hex(4)}"
    first, second = f"{name}.safetensors", f"{name}.pt"
    try:
        with NewFile(folder / first) as file:
            write_weights(weights, identity, file)
        with NewFile(folder / second) as state:
            write_training(training | {"progress": progress}, identity, state)
    except BaseException:
        _remove(folder, {first, second})
        raise
    return Saved(identity.epoch, identity.step, first, file.crc32, second, state.crc32)


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(folder / name)


def _checked(current: Current) -> Current:
    saved = (current.last, current.best)
    numbers: list[Any] = [current.settings, *vars(current.history).values()]
    for each in saved:
        numbers += [each.epoch, each.step, each.weights_crc32, each.training_crc32]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("not a pointer to checkpoints: a number in it is not one")
    names = [current.run, *(name for each in saved for name in (each.weights, each.training))]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("not a pointer to checkpoints: a name in it is not text")
    if not all(_NAME.fullmatch(name) for each in saved for name in each.files) or not current.last.training:
        raise ValueError("not a pointer to checkpoints: a name in it is not that of a checkpoint file")
    if current.history.rows != current.last.epoch:
        raise ValueError("not a pointer to checkpoints: the history has not as many rows as there were epochs")
    return current

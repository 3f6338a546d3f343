"""The run directory: files, and nothing but files.

    config.json                the configuration, what the data looked like, ``format_version``, the name of the run
    history.csv                one row per epoch
    checkpoints/current.json   which of the other files there count
    checkpoints/…              weights (.safetensors) and states to resume from (.pt), under names never used before
    evaluation.json            the metrics of the last evaluation
    diagnosis.json             what the last diagnosis found, with posterior.nc and figures/diagnosis/
    figures/                   PNG files, and GIF
    frames/0000.png, …         one small picture per epoch, of runs of pictures
    .lock                      who writes it, while somebody does

It appears whole or not at all, and stays whole: see ``placing``, ``current`` and ``writer_lock``.  Reading it writes
nothing.  Nothing in it is a pickle that could run code.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from pyro_vae.config import FitConfig
from pyro_vae.diagnostics.findings import Finding
from pyro_vae.errors import InputError
from pyro_vae.files.whole import clear_leftovers, make_folders, write_new, write_whole
from pyro_vae.runs import config_file, earlier, history_file, placing
from pyro_vae.runs.checkpoint import read_training, read_weights
from pyro_vae.runs.config_file import CONFIG, broken, fixed
from pyro_vae.runs.current import CHECKPOINTS, CURRENT, Current, HistoryMark, Saved, write_checkpoint
from pyro_vae.runs.data_facts import DataFacts
from pyro_vae.runs.history_file import COPY, HISTORY, HistoryFile, copied, read_history, table_of
from pyro_vae.runs.overtaken import read_current, read_together
from pyro_vae.runs.placing import Place
from pyro_vae.runs.refusals import going_on_with, no_checkpoint, no_place
from pyro_vae.runs.writer_lock import WriterLock

logger = logging.getLogger(__name__)
EVALUATION, DIAGNOSIS = "evaluation.json", "diagnosis.json"


class RunFolder:
    """An open run directory.

    Args:
        path: where it lies; it must hold a run (see ``create`` and ``open``).
    """

    def __init__(self, path: Path) -> None:
        self._lie_at(path)
        self._lock: WriterLock | None = None
        self._history: HistoryFile | None = None
        self._content: dict[str, Any] = {}
        self._current: Current | None = None
        self.evaluated: dict[str, Any] = {}  # the metrics of this process's last evaluation, saved or not

    @classmethod
    def create(
        cls,
        path: Path,
        config: FitConfig,
        facts: DataFacts,
        weights: dict[str, Tensor],
        training: dict[str, Any],
        overwrite: bool = False,
    ) -> RunFolder:
        """Make a run directory with its first checkpoint, and hold the right to write into it.

        Raises:
            InputError: if something is there already and ``overwrite`` is off, somebody is writing it, or the place
                cannot be written.
            StorageError: if the disk is full or fails.
        """
        placing.check_free(path, overwrite)
        content = config_file.new_content(secrets.token_hex(16), config, facts)
        try:
            with placing.placed(path, overwrite) as (aside, lock):
                folder = cls(aside)
                folder._lock, folder._content = lock, content
                write_new(aside / CONFIG, config_file.to_bytes(content))
                os.mkdir(aside / CHECKPOINTS)
                folder._write_checkpoint(weights, training, best=True)
        except OSError as error:
            raise no_place(path, error) from None
        folder._lie_at(path)
        folder._history = HistoryFile(path.absolute(), HistoryMark())
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run directory at ``path`` to read it, at any time, and without changing anything in it.

        Raises:
            InputError: if there is none, it is damaged, or a newer version of this package wrote it.
        """
        folder = cls(path)
        if not (folder._at / CONFIG).is_file():
            raise InputError(
                f"a run directory at {path}",
                "no config.json there" if path.exists() else "no such folder",
                "give the folder that fit wrote",
            )
        folder._refresh()
        return folder

    @classmethod
    def open_to_write(cls, path: Path) -> RunFolder:
        """Open the run directory at ``path`` with the right to write into it, which is ``release``'s to give back.

        Raises:
            InputError: if somebody else has that right, or ``open`` would refuse it.
        """
        folder = cls.open(path)
        with contextlib.suppress(OSError):
            placing.put_back(path)
        with going_on_with(path):
            folder._lock = WriterLock(placing.found_at(path))
        try:
            folder._refresh()
        except BaseException:
            folder.release()
            raise
        placing.clear_beside(path)
        return folder

    def _lie_at(self, path: Path) -> None:
        self.path, self._place, self._found = path, Place(path), Place(placing.found_at(path))

    @property
    def _at(self) -> Path:
        return self._found.now

    def release(self) -> None:
        """Give back the right to write checkpoints."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def config(self) -> FitConfig:
        """The run's configuration."""
        content = self._content
        was = {"scale": content["data"]["scale"], "channels": "first"}  # how arrays were read before it could be said
        return FitConfig.from_settings(**((was if "scale" not in content["config"] else {}) | content["config"]))

    @property
    def facts(self) -> DataFacts:
        """What the run remembers of its data.

        Raises:
            InputError: if that is not in its configuration.
        """
        try:
            return DataFacts.from_dict(self._content["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise broken(self.path / CONFIG, error) from None

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, in full precision; settings that a resumed run changed stand in the last columns.

        Raises:
            InputError: if the file is not the table that was written, and the checkpoint has no copy.
        """
        return table_of(self._history_text(), self._mark)

    @property
    def _mark(self) -> HistoryMark | None:
        return self._current.history if self._current else None

    def _history_text(self) -> str:
        try:
            return read_current(lambda: read_history(self._at, self._mark), self._refresh, self.path / HISTORY)
        except InputError:
            text = copied(self._training, self._mark)
            if text is None:
                raise
            logger.warning(f"{self.path / HISTORY} is not as it was written: it is read from the checkpoint")
            return text

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The metrics of the last evaluation, if there was one.

        Raises:
            InputError: if the file is not as it was written.
        """
        return config_file.read_evaluation(self._at / EVALUATION)

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self._at / "figures"

    @property
    def frames(self) -> dict[int, Path]:
        """The pictures of the training, by epoch."""
        paths = sorted((self._at / "frames").glob("*.png"), key=lambda path: (len(path.stem), path.stem))
        return {int(path.stem): path for path in paths if path.stem.isascii() and path.stem.isdecimal()}

    def weights(self, checkpoint: str) -> dict[str, Tensor]:
        """The weights of checkpoint ``best`` or ``last``.

        Raises:
            InputError: if they are missing, damaged, or of another run or epoch.
        """

        def read() -> dict[str, Tensor]:
            current = self._current
            if current is None:
                return earlier.weights_of(self._at, checkpoint)
            saved: Saved = getattr(current, checkpoint)
            return read_weights(self._at / CHECKPOINTS / saved.weights, saved.weights_crc32, current.identity(saved))

        return read_current(read, self._refresh, self.path / CHECKPOINTS)

    def training(self) -> dict[str, Any]:
        """The state to resume from.

        Raises:
            InputError: if it is missing, damaged, would run code or is something else.
        """
        state = self._training()
        if not {"optimizer", "order", "progress"} <= state.keys() or not isinstance(state["progress"], dict):
            raise broken(self.path / CHECKPOINTS, KeyError("without optimizer, order or progress"))
        if self._current is not None:
            state[COPY] = self._history_text()
            rows = table_of(state[COPY], self._current.history).to_dict("records")
            state["progress"]["history"] = [{str(name): value for name, value in row.items()} for row in rows]
        return state

    def _training(self) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            current = self._current
            if current is None:
                return earlier.training_of(self._at)
            path = self._at / CHECKPOINTS / current.last.training
            return read_training(path, current.last.training_crc32, current.identity(current.last))

        return read_current(read, self._refresh, self.path / CHECKPOINTS)

    def begin(self, config: FitConfig, training: dict[str, Any]) -> None:
        """Go on writing a run, for example with more epochs: its configuration, its history as far as it counts.

        Args:
            config: the configuration from now on.
            training: the state that ``training`` gave; that of an earlier format is written anew in this one.

        Raises:
            InputError: if the run cannot be written.
            StorageError: if the disk is full or fails.
        """
        with going_on_with(self.path):
            self._begin(config, training)

    def _begin(self, config: FitConfig, training: dict[str, Any]) -> None:
        before = self.config
        if self._current is None:
            self._upgrade(training)
        assert self._current is not None
        self._clear()
        mark = self._current.history
        changed = [name for name in config_file.RECORDED if getattr(config, name) != getattr(before, name)]
        text = training.get(COPY) or self._history_text()
        names = dict.fromkeys([*history_file.changed_settings(text, mark), *changed])
        self._history = HistoryFile(
            self._at.absolute(),
            mark,
            {name: config_file.recorded(config, name) for name in names if name in config_file.RECORDED},
        )
        self._history.trim(text, {name: config_file.recorded(before, name) for name in changed})
        content = config_file.changed_content(self._content, self._current.run, config)
        if content != self._content:
            write_whole(self._at / CONFIG, config_file.to_bytes(content))
            self._content = content

    def save(self, weights: dict[str, Tensor], training: dict[str, Any], best: bool) -> None:
        """Write a checkpoint, and the rows of the history that are new; with it the run stands at this moment.

        Args:
            weights: what ``Pair.state_dict`` gave.
            training: what ``Trainer.state_dict`` gave.
            best: whether this is the best epoch so far.

        Raises:
            TrainingError: if that fails; the checkpoint before is kept.
        """
        assert self._history is not None
        assert self._lock is not None
        try:
            self._lock.check()
            for row in training["progress"]["history"][self._history.mark.rows :]:
                self._history.append(row)
            self._write_checkpoint(weights, training, best)
        except OSError as error:
            kept = self._current.last.epoch if self._current else 0
            raise no_checkpoint(self.path, training["progress"]["epoch"], kept, self._reason(error)) from None

    def _reason(self, error: OSError) -> OSError:
        """Why something could not be written: perhaps the directory has gone meanwhile."""
        assert self._lock is not None
        try:
            self._lock.check()
        except OSError as gone:
            return gone
        return error

    def save_frame(self, epoch: int, png: bytes) -> None:
        """Write or replace the picture of an epoch; 0 is before training."""
        path = self._frame(epoch)
        make_folders(path.parent)
        write_whole(path, png)

    def drop_frames(self, epochs: Iterable[int]) -> None:
        """Remove the pictures of these epochs."""
        for epoch in epochs:
            self._frame(epoch).unlink(missing_ok=True)

    def save_evaluation(self, metrics: dict[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
        """Replace the last evaluation: its metrics, and what was found wrong with the run; returns what was written.

        Raises:
            OSError: if it cannot be written.
        """
        self.evaluated = content = metrics | {"findings": [asdict(finding) for finding in findings]}
        write_whole(self._at / EVALUATION, config_file.to_bytes(content))
        return content

    def save_diagnosis(self, findings: dict[str, Any]) -> Path:
        """Replace the findings of the last diagnosis, and say where they are.

        Raises:
            OSError: if they cannot be written.
        """
        write_whole(self._at / DIAGNOSIS, config_file.to_bytes(findings))
        return self.path / DIAGNOSIS

    def _frame(self, epoch: int) -> Path:
        return self._at / "frames" / f"{epoch:04}.png"

    def _write_checkpoint(self, weights: dict[str, Tensor], training: dict[str, Any], best: bool) -> None:
        """Write the files of a checkpoint under new names, then the pointer to them, then remove what it left."""
        training = training | {COPY: self._history.text if self._history else ""}
        saved = write_checkpoint(self._at / CHECKPOINTS, self._content["run"], weights, training)
        kept = self._current.best if self._current and not best else saved.without_training()
        mark = self._history.mark if self._history else HistoryMark()
        self._point_to(Current(self._content["run"], fixed(self._content), saved, kept, mark))

    def _point_to(self, current: Current) -> None:
        current.replace(self._at / CHECKPOINTS, self._current)
        self._current = current

    def _upgrade(self, training: dict[str, Any]) -> None:
        """Write the checkpoints of a run of format 1 anew in this one; its configuration comes after."""
        run, folder, progress = secrets.token_hex(16), self._at / CHECKPOINTS, training["progress"]
        best = {"progress": {"epoch": progress["best_epoch"], "step": 0}}
        kept = write_checkpoint(folder, run, self.weights("best"), best).without_training()
        saved = write_checkpoint(folder, run, self.weights("last"), training)
        mark = history_file.mark_of(progress["history"])
        self._point_to(Current(run, fixed(self._content), saved, kept, mark))

    def _clear(self) -> None:
        """Remove what does not count and what killed processes left."""
        assert self._current is not None
        self._current.clear(self._at / CHECKPOINTS)
        for each in (self._at, self._at / CHECKPOINTS, self._at / "frames", self.figures, self.figures / "diagnosis"):
            clear_leftovers(each)

    def _read_current(self) -> Current | None:
        try:
            return Current.read(self._at)
        except ValueError as error:
            raise broken(self.path / CHECKPOINTS / CURRENT, error) from None

    def _refresh(self) -> bool:
        """Read anew what counts: the configuration, and the pointer that belongs to it; whether that is another now."""

        def read() -> tuple[dict[str, Any], Current | None]:
            self._found = Place(placing.found_at(self._place.now))
            content, current = config_file.read_content(self._at), self._read_current()
            if content["format_version"] > 1 and current is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(self._at / CHECKPOINTS / CURRENT))
            if current is not None:
                config_file.check_together(content, current.run, current.settings)
            return content, current

        before = self._current
        self._content, self._current = read_together(
            read, lambda: [self._at / CONFIG, self._at / CHECKPOINTS / CURRENT]
        )
        return self._current != before

"""The run directory: files, and nothing but files.

    config.json              the configuration, what the data looked like, ``format_version``
    history.csv              one row per epoch
    checkpoints/last, best   weights, and in ``last`` what it takes to resume
    evaluation.json          the figures of the last evaluation
    diagnosis.json           what the last diagnosis found, with posterior.nc and figures/diagnosis/
    figures/                 PNG files, and GIF
    frames/0000.png, …       one small picture per epoch, of runs of pictures

It appears whole or not at all: it is written aside with a first checkpoint and moved into place, and every file after
that is written aside and moved too.  Nothing in it is a pickle that could run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from pyro_vae.atomic_files import whole_file, whole_folder
from pyro_vae.config import FitConfig
from pyro_vae.diagnostics.findings import Finding
from pyro_vae.errors import InputError
from pyro_vae.runs.checkpoint import load_training, load_weights, recover, save_checkpoint
from pyro_vae.runs.data_facts import DataFacts

FORMAT_VERSION = 1
CONFIG, HISTORY, EVALUATION, DIAGNOSIS = "config.json", "history.csv", "evaluation.json", "diagnosis.json"


class RunFolder:
    """An open run directory.

    Args:
        path: where it lies; it must hold a run (see ``create`` and ``open``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
        """Make a run directory with its first checkpoint.

        Raises:
            InputError: if something is there already and ``overwrite`` is off, or the place cannot be written.
        """
        cls.check_free(path, overwrite)
        content = {"format_version": FORMAT_VERSION, "config": config.model_dump(), "data": asdict(facts)}
        new, old = (path.with_name(f".{path.name}.{ending}") for ending in ("new", "old"))
        try:
            with whole_folder(path, new, old) as aside:
                _write(aside / CONFIG, json.dumps(content, indent=2) + "\n")
                for name in ("last", "best"):
                    save_checkpoint(aside / "checkpoints" / name, weights, training if name == "last" else None)
        except OSError as error:
            raise _unwritable(path, error) from None
        return cls(path)

    @staticmethod
    def check_free(path: Path, overwrite: bool) -> None:
        """Refuse a place that is taken or cannot be written, before any work is done for it.

        Raises:
            InputError: as ``create`` would.
        """
        if path.exists() and not (overwrite and (path / CONFIG).exists()):
            what = "a run" if (path / CONFIG).exists() else "something that is no run"
            mend = "use --overwrite to replace it, --resume to go on with it" if what == "a run" else "choose another"
            raise InputError(
                f"a new folder for --out {path}", f"{what} that is there already", f"{mend}, or another --out"
            )
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise _unwritable(path, PermissionError(f"{parent} is not a folder that you may write to"))

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the run directory at ``path``.

        Raises:
            InputError: if there is none, or a newer version of this package wrote it.
        """
        if not (path / CONFIG).is_file():
            raise InputError(
                f"a run directory at {path}",
                "no config.json there" if path.exists() else "no such folder",
                "give the folder that fit wrote",
            )
        folder = cls(path)
        version = folder._content().get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(
                f"a run of format {FORMAT_VERSION} or older at {path}",
                f"format {version!r}",
                "install a newer pyro-vae to read it",
            )
        for name in ("last", "best"):
            recover(path / "checkpoints" / name)
        return folder

    @property
    def config(self) -> FitConfig:
        """The run's configuration."""
        return FitConfig.from_settings(**self._content()["config"])

    @property
    def facts(self) -> DataFacts:
        """What the run remembers of its data.

        Raises:
            InputError: if that is not in its configuration.
        """
        data = self._content()["data"]
        try:
            lists = {name: tuple(data[name]) for name in ("event_shape", "class_names", "num_data")}
            return DataFacts(**(data | lists))
        except (KeyError, TypeError) as error:
            raise _broken(self.path / CONFIG, error) from None

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, in full precision.

        Raises:
            InputError: if the file is not a table of numbers.
        """
        path = self.path / HISTORY
        if not path.exists():
            return pd.DataFrame()
        try:
            return pd.read_csv(path, dtype=str).astype(float).astype({"epoch": int})  # float() rounds as repr() does
        except (OSError, ValueError, KeyError) as error:
            raise _broken(path, error) from None

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The figures of the last evaluation, if there was one.

        Raises:
            InputError: if the file is no JSON.
        """
        path = self.path / EVALUATION
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise _broken(path, error) from None

    @property
    def figures(self) -> Path:
        """The folder of figures, made when first asked for."""
        path = self.path / "figures"
        path.mkdir(exist_ok=True)
        return path

    @property
    def frames(self) -> dict[int, Path]:
        """The pictures of the training, by epoch."""
        paths = sorted((self.path / "frames").glob("*.png"), key=lambda path: (len(path.stem), path.stem))
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}

    def weights(self, checkpoint: str) -> dict[str, Tensor]:
        """The weights of checkpoint ``best`` or ``last``."""
        return load_weights(self.path / "checkpoints" / checkpoint)

    def training(self) -> dict[str, Any]:
        """The state to resume from.

        Raises:
            InputError: if it is missing, cut off, would run code or is something else.
        """
        state = load_training(self.path / "checkpoints" / "last")
        if not {"optimizer", "order", "progress"} <= state.keys():
            raise _broken(self.path / "checkpoints" / "last", KeyError("without optimizer, order or progress"))
        return state

    def save_checkpoint(self, name: str, weights: dict[str, Tensor], training: dict[str, Any] | None = None) -> None:
        """Replace checkpoint ``best`` or ``last``."""
        save_checkpoint(self.path / "checkpoints" / name, weights, training)

    def save_config(self, config: FitConfig) -> None:
        """Replace the configuration, for example of a run that is resumed with more epochs."""
        _write(self.path / CONFIG, json.dumps(self._content() | {"config": config.model_dump()}, indent=2) + "\n")

    def save_history(self, rows: list[dict[str, float]]) -> None:
        """Replace the history."""
        if rows:
            _write(self.path / HISTORY, pd.DataFrame(rows).to_csv(index=False))

    def save_frame(self, epoch: int, png: bytes) -> None:
        """Write or replace the picture of an epoch; 0 is before training."""
        path = self._frame(epoch)
        path.parent.mkdir(exist_ok=True)
        _write(path, png)

    def drop_frames(self, epochs: Iterable[int]) -> None:
        """Remove the pictures of these epochs."""
        for epoch in epochs:
            self._frame(epoch).unlink(missing_ok=True)

    def save_evaluation(self, figures: dict[str, Any], findings: Iterable[Finding]) -> dict[str, Any]:
        """Replace the last evaluation: its figures, and what was found wrong with the run; returns what was written."""
        content = figures | {"findings": [asdict(finding) for finding in findings]}
        _write(self.path / EVALUATION, json.dumps(content, indent=2) + "\n")
        return content

    def save_diagnosis(self, findings: dict[str, Any]) -> Path:
        """Replace the findings of the last diagnosis, and say where they are."""
        path = self.path / DIAGNOSIS
        _write(path, json.dumps(findings, indent=2) + "\n")
        return path

    def _frame(self, epoch: int) -> Path:
        return self.path / "frames" / f"{epoch:04}.png"

    def _content(self) -> dict[str, Any]:
        path = self.path / CONFIG
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            if not {"format_version", "config", "data"} <= content.keys():
                raise ValueError("without format_version, config or data")
        except (OSError, ValueError, AttributeError) as error:
            raise _broken(path, error) from None
        return content


def _write(path: Path, content: str | bytes) -> None:
    with whole_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"a place that can be written for --out {path}", str(error), "choose another --out")


def _broken(path: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"a file that fit wrote at {path}", reason, "restore it, or fit again with --overwrite")

"""Trackers, which follow a run while it trains: anything with two methods, such as TensorBoard.

A tracker is told where a run begins, or goes on, and then each epoch's row of the history.  One that raises does not
cost the run: that is said once, and it is told nothing more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pyro_vae.errors import InputError, nearest


@dataclass(frozen=True)
class Start:
    """The point at which a run begins, or goes on.

    Args:
        settings: everything that it is made from, by name; ``auto`` has become what it means.
        epoch: the first epoch to come: 1, or of a run that is resumed the one after its last.
        path: the run directory; None for a run that is kept in memory.

    Example:
        >>> from pyro_vae.trackers import Start
        >>> Start({"lr": 0.002}, epoch=1).path is None
        True
    """

    settings: Mapping[str, Any]
    epoch: int
    path: Path | None = None


class Tracker(Protocol):
    """Protocol of a thing that follows a run.

    Example:
        >>> import pyro_vae
        >>> class Memory:
        ...     def begin(self, start):
        ...         self.seen = [start.epoch]
        ...     def epoch(self, number, metrics):
        ...         self.seen.append((number, sorted(metrics)[0]))
        >>> memory = Memory()
        >>> settings = {"latent_dim": 2, "hidden": (4,), "epochs": 1, "batch_size": 800, "display": False}
        >>> run = pyro_vae.fit(data="toy", labels="none", trackers=[memory], **settings)
        >>> memory.seen
        [1, (1, 'beta')]
    """

    def begin(self, start: Start) -> None:
        """Training begins, or goes on."""

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """An epoch is over, and saved: its row of the history, nats per datum where they are nats."""


class TensorBoard:
    """Writer of what TensorBoard shows: curves of every metric, and the settings as text.

    A run that is resumed goes on at its epoch; what a killed one wrote beyond its last checkpoint is taken back.

    Args:
        folder: where to write; default: ``tensorboard`` in the run's directory.

    Raises:
        InputError: if TensorBoard is not installed.

    Example:
        >>> from pyro_vae.trackers import TensorBoard
        >>> TensorBoard("boards").folder
        PosixPath('boards')
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise InputError(
                "the package tensorboard, to log to it", "no such package", "pip install 'pyro-vae[tensorboard]'"
            )
        self.folder = None if folder is None else Path(folder)

    def begin(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self.folder is None and start.path is None:
            raise InputError("a folder for TensorBoard", "a run in memory, which has none", "use TensorBoard(folder)")
        folder = self.folder or Path(str(start.path)) / "tensorboard"
        again = {"purge_step": start.epoch} if start.epoch > 1 else {}
        self._writer = SummaryWriter(str(folder), **again)
        lines = [f"| {name} | {value} |" for name, value in start.settings.items()]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]), start.epoch - 1)
        self._writer.flush()

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            split, _, rest = name.partition("_")
            tag = f"{split}/{rest}" if split in ("train", "validation") else name
            self._writer.add_scalar(tag, value, number)
        self._writer.flush()


BY_NAME = {"tensorboard": TensorBoard}


def tracker_by_name(name: str) -> Tracker:
    """A tracker that the command line can ask for.

    Raises:
        InputError: if there is none of that name, or its package is missing.

    Example:
        >>> from pyro_vae.trackers import tracker_by_name
        >>> try:
        ...     tracker_by_name("tensorbord")
        ... except ValueError as error:
        ...     print(error)
        expected a tracker; got 'tensorbord'; did you mean 'tensorboard'?
    """
    if name not in BY_NAME:
        raise InputError("a tracker", repr(name), nearest(name, BY_NAME))
    return BY_NAME[name]()

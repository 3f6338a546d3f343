"""Trackers beside the display: both are told of a run by the same calls."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pyro_vae.errors import InputError
from pyro_vae.files.bounded import first_line
from pyro_vae.pairs.seeding import undisturbed
from pyro_vae.runs.display import Bar, Display, Plain, Silent
from pyro_vae.trackers import Start, Tracker

if TYPE_CHECKING:
    from pyro_vae.training.trainer import Progress, Trainer
    from pyro_vae.training.validation_rows import Row


_OURS = (Bar, Plain, Silent)  # which draw nothing: what they cost at every step counts


class Followed:
    """A display, and trackers that follow the same run; one that raises is left out from then on.

    Whatever they draw, the training draws as if nobody looked on, so that a run that is resumed without them is the
    same.

    Args:
        display: what a person sees.
        trackers: what else is told.
        path: the run directory, or None.
    """

    def __init__(self, display: Display, trackers: Sequence[Tracker], path: Path | None) -> None:
        self.display, self.trackers, self.path = display, list(trackers), path

    def __enter__(self) -> Self:
        self.display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.__exit__(kind, error, trace)

    def start(self, trainer: Trainer) -> None:
        with self._looking():
            self.display.start(trainer)
        start = Start(trainer.config.model_dump(), trainer.progress.epoch + 1, self.path)
        self._tell(lambda tracker: tracker.begin(start))

    def step(self, progress: Progress) -> None:
        with self._looking():
            self.display.step(progress)

    def epoch(self, row: Row) -> None:
        with self._looking():
            self.display.epoch(row)
        metrics = {name: float(value) for name, value in row.items() if name != "epoch" and _is_number(value)}
        self._tell(lambda tracker: tracker.epoch(int(row["epoch"]), dict(metrics)))

    def say(self, line: str) -> None:
        self.display.say(line)

    def _looking(self) -> AbstractContextManager[None]:
        return nullcontext() if type(self.display) in _OURS else undisturbed()

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                with undisturbed():
                    tell(tracker)
            except Exception as error:  # of any kind: a run is not lost to who looks on
                self.trackers.remove(tracker)
                name = type(tracker).__name__
                self.say(f"The tracker {name} is left out from here on, {type(error).__name__}: {first_line(error)}")


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuse what cannot be told of a run.

    Raises:
        InputError: if there are no such two methods.
    """
    for tracker in trackers:
        if not all(callable(getattr(tracker, name, None)) for name in ("begin", "epoch")):
            kind = tracker.__name__ if isinstance(tracker, type) else type(tracker).__name__
            raise InputError(
                "trackers with the methods begin(start) and epoch(number, metrics)",
                kind,
                "see docs/trackers.md for some to start from",
            )
        if isinstance(tracker, type):
            raise InputError("trackers", f"the class {tracker.__name__}", f"make one: {tracker.__name__}()")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)

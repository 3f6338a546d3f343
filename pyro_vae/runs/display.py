"""What a person sees while a run trains: a live bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from pyro_vae.training.trainer import Progress, Trainer
    from pyro_vae.training.validation_rows import Row


REFRESH = 0.1  # seconds

Item = TypeVar("Item")


class Display(Protocol):
    """Shows a run; entered while it trains."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, trainer: Trainer) -> None:
        """Training begins, or goes on."""

    def step(self, progress: Progress) -> None:
        """A step is done."""

    def epoch(self, row: Row) -> None:
        """An epoch is done, with this row of the history."""

    def say(self, line: str) -> None:
        """Something a person should know."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def start(self, trainer: Trainer) -> None:
        return None

    def step(self, progress: Progress) -> None:
        return None

    def epoch(self, row: Row) -> None:
        return None

    def say(self, line: str) -> None:
        return None


class Plain(Silent):
    """For a log: no bar, but what has to be said."""

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody may be listening
            print(line, file=sys.stderr)


class Bar(Silent):
    """A live bar on standard error: epoch, ELBO, KL, beta, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            expand=True,
        )
        self._figures: Row = {}
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, trainer: Trainer) -> None:
        self._epochs, self._trainer = trainer.config.num_epochs, trainer
        self._steps = trainer.batches.num_steps
        self._figures = trainer.progress.history[-1] if trainer.progress.history else {}
        self._task = self._bar.add_task("", total=self._epochs * self._steps, metrics="")
        self._show(trainer.progress)

    def step(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._shown >= REFRESH or progress.step == self._steps:
            self._shown = now
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        done = progress.epoch * self._steps + progress.step
        beta = self._trainer.beta.at(done / self._steps)
        shown = [f"{label} {self._figures[name]:.2f}" for name, label in _SHOWN.items() if name in self._figures]
        if "validation_accuracy" in self._figures:
            shown.append(f"accuracy {100 * self._figures['validation_accuracy']:.1f}%")
        self._bar.update(
            self._task,
            completed=done,
            description=f"epoch {min(progress.epoch + 1, self._epochs)}/{self._epochs}",
            metrics="  ".join([*shown, f"beta {beta:.3g}"]),
        )

    def epoch(self, row: Row) -> None:
        self._figures = row

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)


_SHOWN = {"validation_elbo": "ELBO", "validation_kl": "KL"}


@contextmanager
def listening(say: Callable[[str], None]) -> Iterator[None]:
    """Hand on what this package logs, for a while: from level INFO up, or from DEBUG where that is its logger's level.

    Handlers of loggers above, such as those of ``logging.basicConfig``, are given what they would be given otherwise:
    a handler does not look at the level that is set beside it.

    Args:
        say: takes each line.
    """
    logger = logging.getLogger("pyro_vae")
    level, propagate = logger.level, logger.propagate
    handlers: list[logging.Handler] = [_Saying(say, logging.DEBUG if level == logging.DEBUG else logging.INFO)]
    if propagate and logger.getEffectiveLevel() > logging.INFO:
        handlers.append(_Upwards(logger.getEffectiveLevel()))
        logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Upwards(logging.Handler):
    """Propagation from a level up."""

    def emit(self, record: logging.LogRecord) -> None:
        parent = logging.getLogger("pyro_vae").parent
        if parent is not None and parent.hasHandlers():
            parent.callHandlers(record)


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


def is_terminal() -> bool:
    """Whether somebody watches standard error."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def choose_display(display: Display | bool) -> Display:
    """The display that is asked for: itself, or for True a bar on a terminal and lines elsewhere, for False nothing."""
    if isinstance(display, bool):
        if not display:
            return Silent()
        return Bar() if is_terminal() else Plain()
    return display


def track(items: Iterable[Item], total: int) -> Iterable[Item]:
    """The items, ``total`` in number, with a bar and the time left on a terminal."""
    if not is_terminal():
        return items
    from rich.console import Console
    from rich.progress import track as with_bar

    return with_bar(items, "evaluating", total=total, console=Console(stderr=True), transient=True)

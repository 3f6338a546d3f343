r"""Timing things side by side: contenders that take turns, round by round, and ratios of what they took.

A *contender* is a name and some work, "do n steps", either in this process (``Here``) or in a process of another
interpreter (``Worker``).  All are built and warmed up first.  Then, in every round, each has one turn: a few steps that
are not timed, so that the caches are its own again, and n steps that are.  One contender works at a time, the others
wait without taking any processor time, and every round begins with another one.  What the machine does meanwhile (a
slower clock, a neighbour) so falls on all alike, and ratios are steadier than the times themselves:

    ratio of medians  med_r a_r / med_r b_r,        paired ratio  med_r (a_r / b_r),     r = 1, …, rounds.

A worker is a module run as ``python -m MODULE …`` that ends in ``serve(build)``.  It speaks lines of text: once it is
warm ``ready`` and its versions, or ``cannot`` and why not; then, for each number n on its standard input, the seconds
that n steps took, measured inside, and their mean loss if they have one; ``quit`` ends it.

Only the standard library is imported here, so that any interpreter can be a worker.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).parent.parent
WARM_UP = 10  # steps after building
LEAD_IN = 2  # steps before each turn
LIMIT = 600.0  # seconds that a worker may take to answer

Work = Callable[[int], float | None]  # does n steps and waits for them; their mean loss, or None if they have none


class ContenderError(RuntimeError):
    """A contender that cannot start, or that ended too early; says why in one line."""


@dataclass(frozen=True)
class Turn:
    """One turn.

    Args:
        seconds: what the steps took together.
        loss: their mean loss, None where there is none.
    """

    seconds: float
    loss: float | None = None


class Contender(ABC):
    """Something to time.  Making one costs nothing, ``start`` is what builds it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def start(self) -> str:
        """Build and warm up.

        Returns:
            Versions worth telling that are not this process's own, or nothing.
        """

    @abstractmethod
    def run(self, steps: int) -> Turn:
        """Do so many steps."""

    @abstractmethod
    def stop(self) -> None:
        """Let go of everything; may be called at any time."""


class Here(Contender):
    """A contender in this process.

    Args:
        name: what tables call it.
        build: makes the work.
    """

    def __init__(self, name: str, build: Callable[[], Work]) -> None:
        super().__init__(name)
        self.build = build
        self._work: Work | None = None

    def start(self) -> str:
        self._work = self.build()
        self._work(WARM_UP)
        return ""

    def run(self, steps: int) -> Turn:
        assert self._work is not None
        return timed(self._work, steps)

    def stop(self) -> None:
        self._work = None


class Worker(Contender):
    """A contender in a process of its own, from the root of this checkout.

    Args:
        name: what tables call it.
        words: what follows the interpreter: ``("-m", "benchmarks.peers.…", …)``.
        python: the interpreter, a path or a command.
    """

    def __init__(self, name: str, words: Sequence[str], python: str = sys.executable) -> None:
        super().__init__(name)
        found = shutil.which(python)
        self.command = [os.path.abspath(found) if found else python, *words]  # it is started from another folder
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def start(self) -> str:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                self.command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=self._errors, text=True
            )
        except OSError as error:
            raise ContenderError(f"no interpreter {self.command[0]} ({error.strerror})") from None
        word, _, rest = self._answer().partition(" ")
        if word != "ready":
            raise ContenderError(f"{word} {rest}" if word == "cannot" else f"answered {word!r} instead of 'ready'")
        return rest

    def run(self, steps: int) -> Turn:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            print(steps, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it is dead, which its missing answer will say
        answer = self._answer()
        try:
            return Turn(*map(float, answer.split()))
        except (ValueError, TypeError):  # no numbers, or not one or two of them
            raise ContenderError(f"answered {answer!r} instead of seconds") from None

    def stop(self) -> None:
        if self._process is not None:
            try:
                self._process.communicate("quit\n", timeout=10)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()

    def _answer(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
            if not line:
                raise ContenderError(f"ended with status {process.wait()}: {self._last_words()}")
        finally:
            timer.cancel()
        return line.strip()

    def _last_words(self) -> str:
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def timed(work: Work, steps: int) -> Turn:
    """One turn of some work."""
    begin = time.perf_counter()
    loss = work(steps)
    return Turn(time.perf_counter() - begin, loss)


def repeat(step: Callable[[], Any]) -> Work:
    """The work of a step that is called n times; it returns its loss, a number or a scalar tensor, or None."""

    def work(steps: int) -> float | None:
        losses = [step() for _ in range(steps)]
        return None if losses[0] is None else float(sum(losses)) / steps  # a tensor is waited for here, once

    return work


def serve(build: Callable[[], Work], packages: Sequence[str] = ()) -> None:
    """Be a worker: build, warm up, say ``ready``, then answer numbers until told to quit.

    Args:
        build: makes the work; an ``ImportError`` is answered by ``cannot``.
        packages: whose versions to tell.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # so that what a library prints is no answer
        try:
            work = build()
            work(WARM_UP)
        except ImportError as error:
            print(f"cannot start in {sys.executable}: {error}", file=answers)
            return
        print("ready", versions(packages), file=answers)
        for line in sys.stdin:
            if line.strip() == "quit":
                return
            turn = timed(work, int(line))
            print(turn.seconds, "" if turn.loss is None else turn.loss, file=answers)


@dataclass
class Timing:
    """What a contender took.

    Args:
        name: of the contender.
        rounds: milliseconds per step, one number per round.
        losses: the mean loss of each round, where there is one.
        about: versions, as the contender told them.
        problem: why it was not timed to the end, or empty.
    """

    name: str
    rounds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    about: str = ""
    problem: str = ""

    @property
    def median(self) -> float:
        """Milliseconds per step."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile, milliseconds per step."""
        if len(self.rounds) < 2:
            return self.rounds[0], self.rounds[0]
        first, _, third = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return first, third


def ratio(a: Timing, b: Timing) -> float:
    """The ratio of the medians, a / b."""
    return a.median / b.median


def paired_ratio(a: Timing, b: Timing) -> float:
    """The median over the rounds of a / b."""
    return statistics.median(ours / theirs for ours, theirs in zip(a.rounds, b.rounds, strict=True))


Result = TypeVar("Result")


def measure(
    contenders: Sequence[Contender], rounds: int, steps: int, on_turn: Callable[[str], None] = lambda name: None
) -> dict[str, Timing]:
    """Time contenders side by side.

    Args:
        contenders: of different names.
        rounds: turns each of them has.
        steps: timed steps a turn.
        on_turn: called with a contender's name before it starts and before each of its turns.

    Returns:
        The timings by name, in the order of the contenders; one that failed has its problem said and no rounds.
    """
    timings = {contender.name: Timing(contender.name) for contender in contenders}
    assert len(timings) == len(contenders), "two contenders have the same name"

    def attempt(contender: Contender, action: Callable[[Contender], Result]) -> Result | None:
        on_turn(contender.name)
        try:
            return action(contender)
        except ContenderError as error:
            problem = str(error)
        except Exception as error:  # one that fails must not cost the others their figures
            problem = f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
        timings[contender.name] = Timing(contender.name, problem=problem)
        return None

    def turn(contender: Contender) -> Turn:
        contender.run(LEAD_IN)
        return contender.run(steps)

    with ExitStack() as stack:
        for contender in contenders:
            stack.callback(contender.stop)
            timings[contender.name].about = attempt(contender, lambda it: it.start()) or ""
        for index in range(rounds):
            first = index % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                timing = timings[contender.name]
                if not timing.problem and (taken := attempt(contender, turn)):
                    timing.rounds.append(1e3 * taken.seconds / steps)
                    timing.losses += [] if taken.loss is None else [taken.loss]
    return timings


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Keep this process, and all that it starts, to so many cores, and the libraries to so many threads.

    Libraries size their thread pools by the cores that they may use, so this is one rule for all of them.  Call it
    before they are imported.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])  # the first core has the interrupts


def versions(packages: Sequence[str]) -> str:
    """The versions of packages, imported already, in one line."""
    return ", ".join(f"{name} {sys.modules[name].__version__}" for name in packages)


def machine(threads: int, packages: Sequence[str]) -> str:
    """The line under a figure: processor, cores, threads, Python, and the versions of these packages."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        names = [
            line.partition(":")[2].strip() for line in listing.read_text().split("\n") if line[:10] == "model name"
        ]
        model = names[0] if names else model
    python = f"Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {threads} used, {python}, {versions(packages)}"

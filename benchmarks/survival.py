"""What keeping a run safe costs: how long training waits for a checkpoint, and an epoch with and without a directory.

Run it as ``python benchmarks/survival.py``.  For each size of weights and optimizer's state together, a table has

- the wait: what a checkpoint keeps the training from going on for, between the last step of an epoch and the first of
  the next, beside a validation of 0.2 s; and without any validation, when the copy has to be waited for;
- the slowest of the steps, of products of matrices, while it is written, beside the slowest without;
- the time until it is on the disk, and the disk's own: that of writing and syncing as many bytes into three files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pyro_vae
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.saving import Saver

SIZES = (10.0, 30.0, 200.0)  # megabytes of weights and optimizer's state
VALIDATION = 0.2  # seconds
LEAST_EPOCHS = 3  # the first records the step, and the time between two others is taken


@dataclass
class Times:
    """Seconds of checkpoints of one size."""

    waits: list[float] = field(default_factory=list)
    unhidden: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)


def checkpoints(megabytes: float, repeats: int) -> Times:
    """Checkpoints of a size, several times."""
    values = [torch.randn(int(megabytes * 2**20 / 12)) for _ in range(3)]
    weights, moments = {"model.w": values[0]}, {"exp_avg": values[1], "exp_avg_sq": values[2]}
    times = Times()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        pyro_vae.fit("vae", data="toy", labels="none", epochs=1, batch_size=400, out=path, display=False)
        folder = RunFolder.open_to_write(path)
        training = folder.training()
        folder.begin(folder.config, training)
        training |= {"optimizer": moments}
        with Saver(folder) as saver:
            for number in range(repeats + 1):  # the first makes room for the copy
                _measure(times, saver, values, (weights, training))
                times.disk.append(_seconds(partial(_write, Path(place), number, values)))
        folder.release()
    return times


def _measure(
    times: Times, saver: Saver, values: list[torch.Tensor], state: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """One checkpoint beside a validation, and one without."""
    times.alone.append(max(_seconds(_step) for _ in range(20)))
    begun = _seconds(lambda: saver.copy(values))
    deadline = time.perf_counter() + VALIDATION
    while time.perf_counter() < deadline:
        _step()
    begin = time.perf_counter()
    times.waits.append(begun + _seconds(lambda: saver.save(*state, True)))
    steps = [0.0]
    while saver._writing is not None and not saver._writing.done():
        steps.append(_seconds(_step))
    times.steps.append(max(steps))
    saver.wait()
    times.whole.append(time.perf_counter() - begin)
    times.unhidden.append(_seconds(partial(saver.copy, values)) + _seconds(partial(saver.save, *state, True)))
    saver.wait()


_matrix = torch.randn(512, 512)


def _step() -> None:
    torch.mm(_matrix, _matrix)


def _write(place: Path, number: int, values: list[torch.Tensor]) -> None:
    for part, tensor in enumerate(values):
        descriptor = os.open(place / f"{number}-{part}", os.O_WRONLY | os.O_CREAT, 0o666)
        os.write(descriptor, tensor.numpy().data.cast("B"))
        os.fsync(descriptor)
        os.close(descriptor)
        os.unlink(place / f"{number}-{part}")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def epoch(repeats: int, epochs: int) -> tuple[float, float]:
    """Seconds of an epoch of ``ss_vae`` on the digits with a run directory and without, smallest of several."""
    kept: list[float] = []
    bare: list[float] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            for seconds, out in ((kept, Path(place) / "run"), (bare, None)):
                clock = Clock()
                pyro_vae.fit("ss_vae", data="digits", epochs=epochs, out=out, display=clock)
                seconds.append(clock.per_epoch())
    return min(kept), min(bare)


class Clock:
    """A display that takes the time between epochs, but for the first, which records the step."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def start(self, trainer: object) -> None:
        return None

    def step(self, progress: object) -> None:
        return None

    def epoch(self, row: object) -> None:
        self._ends.append(time.perf_counter())

    def say(self, line: str) -> None:
        return None

    def per_epoch(self) -> float:
        """Seconds, the median."""
        return statistics.median(later - sooner for sooner, later in zip(self._ends[1:], self._ends[2:], strict=False))


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=SIZES, help="of weights and optimizer's state")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=8, help=f"at least {LEAST_EPOCHS}; 0: no epochs")
    given = parser.parse_args()
    if given.epochs and given.epochs < LEAST_EPOCHS:
        parser.error(f"--epochs of at least {LEAST_EPOCHS}, of which the first records the step; got {given.epochs}")
    if given.repeats < 1 or min(given.megabytes) <= 0:
        parser.error("--repeats and --megabytes above 0")
    torch.set_num_threads(1)
    print("milliseconds; the median, then the largest\n")
    print(
        "| MB | wait | wait without validation | slowest step meanwhile | slowest step alone | written in | the disk |"
    )
    print("|---|---|---|---|---|---|---|")
    for megabytes in given.megabytes:
        times = checkpoints(megabytes, given.repeats)
        columns = [sorted(1e3 * value for value in values[1:]) for values in vars(times).values()]
        cells = " | ".join(f"{statistics.median(values):.1f}, {values[-1]:.1f}" for values in columns)
        print(f"| {megabytes:g} | {cells} |", flush=True)
    if given.epochs:
        kept, bare = epoch(3, given.epochs)
        longer = 100 * (kept / bare - 1)
        print(f"\nepoch of ss_vae on the digits: {1e3 * kept:.0f} ms, {longer:.1f} % longer than in memory")


if __name__ == "__main__":
    main()

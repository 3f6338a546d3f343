"""What keeping a run safe costs: a checkpoint beside the disk's own time, and an epoch with and without a directory.

Run it as ``python benchmarks/survival.py``.  The disk's own time is that of writing and syncing the same number of
bytes into three files, in the same folder, one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import pyro_vae
from pyro_vae.runs.folder import RunFolder


def checkpoint(megabytes: float, repeats: int) -> tuple[float, float]:
    """Seconds of a checkpoint of weights of a size, and of the disk alone, medians."""
    size = int(megabytes * 2**20 / 4)
    values = torch.randn(size)
    weights = {"model.w": values}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "run"
        run = pyro_vae.fit("vae", data="toy", labels="none", epochs=1, batch_size=400, out=path, display=False)
        assert run.folder is not None
        folder = RunFolder.open_to_write(path)
        training = folder.training()
        folder.begin(folder.config, training)
        training |= {"optimizer": {"exp_avg": values.clone(), "exp_avg_sq": values.clone()}}
        whole, disk = [], []
        for number in range(repeats):
            begin = time.perf_counter()
            folder.save(weights, training, best=True)
            whole.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            for part in range(3):
                descriptor = os.open(Path(place) / f"{number}-{part}", os.O_WRONLY | os.O_CREAT, 0o666)
                os.write(descriptor, values.numpy().tobytes())
                os.fsync(descriptor)
                os.close(descriptor)
            disk.append(time.perf_counter() - begin)
        folder.release()
    return statistics.median(whole), statistics.median(disk)


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
    parser.add_argument("--megabytes", type=float, default=10, help="of weights; the state of Adam has twice that")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole, disk = checkpoint(given.megabytes, given.repeats)
    own = 1e3 * (whole - disk)
    print(f"checkpoint of {given.megabytes:g} MB: {1e3 * whole:.0f} ms, {own:.0f} ms beside the disk's own")
    kept, bare = epoch(3, given.epochs)
    print(f"epoch of ss_vae on the digits: {1e3 * kept:.0f} ms, {100 * (kept / bare - 1):.1f} % longer than in memory")


if __name__ == "__main__":
    main()

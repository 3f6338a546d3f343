"""Data larger than memory: what they take of it, how fast they are, and what shuffling by blocks costs.

Run it as ``python benchmarks/large_data.py`` (a quarter of an hour; 6 GB of disk for a while, below ``--place``):

- a file of 6 GB is trained on with ``--memory 512MB``: the peak of memory above that of the imports, and the rows per
  second of its second epoch of training beside those of a set of the same rows that is in memory;
- MNIST, as it is and sorted by class, with blocks of a twentieth of it in hand and all in hand: the test ELBO.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyro_vae
from pyro_vae.data import Dataset, Reading, load_data
from pyro_vae.data.mapped import MappedRows
from pyro_vae.runs.display import Display

ROW = (1, 32, 32)  # bytes of an image
SETTINGS: dict[str, Any] = {"labels": "none", "latent_dim": 8, "hidden": (100,), "batch_size": 512, "lr": 1e-3}


def write(path: Path, rows: int) -> None:
    """A file of images, no two of which are alike."""
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, *ROW))
    noise = rng.integers(0, 256, size=(1 << 14, *ROW), dtype=np.uint8)
    for start in range(0, rows, len(noise)):
        part = file[start : start + len(noise)]
        part[:] = np.roll(noise, start // len(noise), axis=-1)[: len(part)]
        part[:, 0, 0, :4] = np.arange(start, start + len(part), dtype=np.uint32).view(np.uint8).reshape(-1, 4)
    file.flush()


class Speed:
    """A display that counts steps of the training and the seconds that they take, but for the first hundred."""

    def __init__(self, steps: int) -> None:
        self._most, self._steps, self._begin, self.per_second = steps, 0, 0.0, 0.0
        self._trainer: Any = None

    def __enter__(self) -> Speed:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def start(self, trainer: Any) -> None:
        self._trainer = trainer

    def step(self, progress: object) -> None:
        self._steps += 1
        if self._steps == 100:
            self._begin = time.perf_counter()
        if self._steps == self._most:
            self.per_second = (self._steps - 100) / (time.perf_counter() - self._begin)
            self._trainer.stop_requested = True

    def epoch(self, row: object) -> None:
        return None

    def say(self, line: str) -> None:
        return None


def peak() -> float:
    """The most memory that this process had so far, in megabytes; not what those that started it had."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(path: Path, memory: str, steps: int) -> dict[str, float]:
    """Train on a file for some steps; the rows per second, and the peak of memory above that before."""
    pyro_vae.fit("vae", data="toy", epochs=1, display=False, **SETTINGS | {"batch_size": 100})  # loads all that is late
    before, clock = peak(), Speed(steps)
    shown: Display = clock
    try:
        pyro_vae.fit("vae", data=path, memory=memory, epochs=99, display=shown, compile="off", **SETTINGS)
    except pyro_vae.Interrupted:
        pass
    return {"rows": clock.per_second * SETTINGS["batch_size"], "memory": peak() - before}


def apart(*arguments: object) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--only", *map(str, arguments)]
    found: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


def shuffled(place: Path, epochs: int, seeds: int) -> None:
    """The test ELBO on MNIST with all rows in hand and a twentieth of them, as the file is and sorted by class."""
    mnist = load_data("mnist")
    assert mnist.train.labels is not None
    orders = {"as it is": torch.arange(len(mnist.train)), "sorted by class": mnist.train.labels.argsort(stable=True)}
    print("\n| MNIST | rows in hand | test ELBO, nats |\n|---|---|---|")
    for name, order in orders.items():
        path = place / "mnist.npy"
        np.save(path, mnist.train.pixels[order].numpy())
        rows = load_data(path, reading=Reading(memory=1 << 30)).train
        assert isinstance(rows, MappedRows)
        for share in (1.0, 0.05):
            hand = replace(rows, at=order.sort().values, in_hand=int(share * len(order)))
            bare = [replace(images, labels=None) for images in (mnist.validation, mnist.test)]
            data = replace(mnist, train=hand, validation=bare[0], test=bare[1], class_names=())
            found = [_elbo(data, epochs, seed) for seed in range(seeds)]
            print(f"| {name} | {share:.0%} | {np.mean(found):.2f} ± {np.std(found) / max(1, seeds - 1) ** 0.5:.2f} |")


def _elbo(data: Dataset, epochs: int, seed: int) -> float:
    settings: dict[str, Any] = {"labels": "none", "latent_dim": 20, "hidden": (200,), "seed": seed}
    run = pyro_vae.fit("vae", data=data, epochs=epochs, display=False, **settings)
    return float(run.evaluate(num_samples=1)["elbo"])


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=10, help="of MNIST; 0: none of it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--only", nargs=3, metavar=("PATH", "MEMORY", "STEPS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only:
        print(json.dumps(train(Path(given.only[0]), given.only[1], int(given.only[2]))))
        return
    with tempfile.TemporaryDirectory(dir=given.place) as place:
        path, few = Path(place) / "large.npy", Path(place) / "few.npy"
        rows = int(given.gigabytes * 10**9 / np.prod(ROW))
        write(path, rows)
        write(few, min(rows, 200_000))
        large, small = apart(path, given.memory, given.steps), apart(few, "all", min(given.steps, 3000))
        print(f"{given.gigabytes:g} GB with --memory {given.memory}: {large['memory']:.0f} MB above the imports")
        speeds = f"{large['rows']:,.0f} rows per second, {small['rows']:,.0f} of a set in memory"
        print(f"{speeds}: {large['rows'] / small['rows']:.2f}", flush=True)
        path.unlink()
        if given.epochs:
            shuffled(Path(place), given.epochs, given.seeds)


if __name__ == "__main__":
    main()

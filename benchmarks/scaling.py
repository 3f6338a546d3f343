r"""Several processes beside one: the same losses, seconds per epoch, the share of communication, and kills.

    python benchmarks/scaling.py                       # all rows on MNIST, some minutes on a quiet machine
    python benchmarks/scaling.py --only losses --quick  # on a few random images: that it runs

- *losses*: two processes of one thread beside one process of two, the same batches: the largest relative difference
  of the first 50 losses (at most 1e-5), and the ratio of their seconds per epoch (at most 1.1).
- *communication*: four processes of one thread; the part of an eager step that a process spends in the reduction,
  waiting for the others included.  What P processes would take with a ring of a bandwidth W is then a model, not a
  measurement: 2 (P - 1) / P bytes / W.
- *kills*: one of two processes is killed at random moments; each run is resumed, and its weights are compared with
  those of the run that was left alone, to the bit.

The exit status is 1 where a figure is missed.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyro_vae
from pyro_vae.distributed import Group
from pyro_vae.runs.display import Silent
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training import Trainer

ROOT = Path(__file__).parent.parent
COMPARED, TOLERANCE, SLOWEST = 50, 1e-5, 1.1
EPOCHS = 4
SETTINGS: dict[str, dict[str, Any]] = {
    "vae": {"model": "vae", "labels": "none", "hidden": (400,), "latent_dim": 50, "batch_size": 128},
    "ss_vae": {"model": "ss_vae", "labels": 100, "latent_dim": 50, "batch_size": 200},
}
BANDWIDTHS = {"NVLink, 300 GB/s": 300e9, "25 Gbit/s": 25e9 / 8}  # of the model
GPUS = 8


class Watching(Silent):
    """Notes when each epoch ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, row: Any) -> None:
        self.ends.append(time.perf_counter())


def work(out: str, name: str, quick: bool, compiled: str) -> None:
    """One process: fit, and write what was seen of it."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    losses: list[float] = []
    reductions: list[float] = []
    settle, reduced = Trainer._settle, Group._reduced

    def note(trainer: Trainer, pending: Any) -> None:
        losses.extend(loss.item() for _, loss, _ in pending)
        settle(trainer, pending)

    def timed(group: Group, parts: list[Tensor]) -> Tensor:
        begin = time.perf_counter()
        result = reduced(group, parts)
        reductions.append(time.perf_counter() - begin)
        return result

    setattr(Trainer, "_settle", note)  # noqa: B010, for mypy
    setattr(Group, "_reduced", timed)  # noqa: B010
    watching = Watching()
    begin = time.perf_counter()
    run = pyro_vae.fit(data=_data(quick), epochs=EPOCHS, compile=compiled, display=watching, **_settings(name, quick))
    if int(os.environ.get("RANK", "0")) == 0:
        ends = watching.ends or [begin, time.perf_counter()]
        epochs = [b - a for a, b in itertools.pairwise(ends)]
        size = sum(value.numel() * value.element_size() for value in run.pair.trained().values())
        found = {"losses": losses, "epoch": statistics.median(epochs), "bytes": size, "steps": len(losses) // EPOCHS}
        Path(out).write_text(json.dumps(found | {"reductions": reductions}))


def _data(quick: bool) -> str:
    return "toy" if quick else "mnist"


def _settings(name: str, quick: bool) -> dict[str, Any]:
    return {"labels": "none", "hidden": (16,), "batch_size": 200} if quick else SETTINGS[name]


def seen(processes: int, threads: int, name: str, quick: bool, compiled: str = "auto") -> dict[str, Any]:
    """What so many processes with so many threads each do."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/found"
        words = [str(Path(__file__).resolve()), "--worker", out, name, compiled, *(["--quick"] if quick else [])]
        done = subprocess.run(_start(processes, words), env=_threads(threads), capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(done.stderr.strip().splitlines()[0])
        found: dict[str, Any] = json.loads(Path(out).read_text())
        return found


def _start(processes: int, words: list[str]) -> list[str]:
    if processes == 1:
        return [sys.executable, *words]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]


def _threads(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}


def losses(quick: bool, kills: int) -> bool:
    """Two processes of one thread beside one of two."""
    fine = True
    for name in ["vae"] if quick else SETTINGS:
        one, two = seen(1, 2, name, quick), seen(2, 1, name, quick)
        difference = _difference(one, two)
        ratio, number = two["epoch"] / one["epoch"], len(one["losses"][:COMPARED])
        fine = fine and difference <= TOLERANCE and (quick or ratio <= SLOWEST)
        click.echo(
            f"{name}: first {number} losses differ by {difference:.1e} at most (target {TOLERANCE:g}); "
            f"epoch {two['epoch']:.2f} s beside {one['epoch']:.2f} s, ratio {ratio:.2f} (target {SLOWEST})"
        )
        if difference > TOLERANCE:
            threads = _difference(one, seen(1, 1, name, quick))
            click.echo(f"  those of one process differ by {threads:.1e} between one thread and two")
    return fine


def _difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest relative difference of the first losses."""
    pairs = list(zip(one["losses"], other["losses"], strict=True))[:COMPARED]
    return max(abs(a - b) / abs(a) for a, b in pairs)


def communication(quick: bool, kills: int) -> bool:
    """The share of an eager step of four processes that is communication."""
    for name in ["vae"] if quick else SETTINGS:
        found = seen(4, 1, name, quick, compiled="off")
        step = found["epoch"] / found["steps"]
        share = statistics.median(found["reductions"]) / step
        click.echo(
            f"{name}: 4 processes, {1e3 * step:.2f} ms per step, of which the reduction of {found['bytes']:,} bytes "
            f"takes {100 * share:.0f} %"
        )
        for ring, bandwidth in BANDWIDTHS.items():
            seconds = 2 * (GPUS - 1) / GPUS * found["bytes"] / bandwidth
            click.echo(f"  by the model, {GPUS} processes with {ring}: {1e3 * seconds:.3f} ms per step")
    return True


def kills(quick: bool, kills: int) -> bool:
    """Runs of which one process is killed, resumed, beside the one that was left alone."""
    chance, equal = random.Random(0), 0
    with tempfile.TemporaryDirectory() as folder:
        fit = ["-m", "pyro_vae", "fit", "--data", "toy", "--labels", "none", "--hidden", "16"]
        fit += ["--epochs", "40", "--patience", "none", "--compile", "off"]

        def start(*words: str) -> subprocess.Popen[bytes]:
            quiet, command = subprocess.DEVNULL, _start(2, [*fit[:3], *words])
            return subprocess.Popen(command, cwd=folder, env=_threads(1), stdout=quiet, stderr=quiet)

        begin = time.perf_counter()
        start(*fit[3:], "--out", "whole").wait()
        whole, lasted = RunFolder.open(Path(folder) / "whole").weights("last"), time.perf_counter() - begin
        for number in range(kills):
            process = start(*fit[3:], "--out", str(number))
            time.sleep(chance.uniform(0.3, 0.95) * lasted)
            for pid in _ranks(process.pid)[chance.randrange(2) :][:1]:
                os.kill(pid, signal.SIGKILL)
            process.wait()
            run = Path(folder) / str(number)
            again = ["--resume", str(number)] if run.exists() else [*fit[3:], "--out", str(number)]
            start(*again).wait()  # refused where it was done already
            weights = RunFolder.open(run).weights("last")
            equal += all(torch.equal(weights[key], whole[key]) for key in whole)
    click.echo(f"killed {kills} times: {equal} runs resumed to the bit")
    return equal == kills


def _ranks(agent: int) -> list[int]:
    """The processes that ``torchrun`` has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(pid) for pid in children if b"\0RANK=" in Path(f"/proc/{pid}/environ").read_bytes()]


ROWS: dict[str, Callable[[bool, int], bool]] = {"losses": losses, "communication": communication, "kills": kills}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(ROWS)), help="some rows  [default: all]")
@click.option("--quick", is_flag=True, help="on a few rows of numbers, with small networks: that it runs")
@click.option("--kills", "num_kills", default=20, show_default=True, type=click.IntRange(1), help="how many")
@click.option("--worker", nargs=3, hidden=True)
def main(only: tuple[str, ...], quick: bool, num_kills: int, worker: tuple[str, str, str] | None) -> None:
    """Compare several processes with one, and print a line per row."""
    if worker:
        work(worker[0], worker[1], quick, worker[2])
        return
    missed = [name for name, row in ROWS.items() if (not only or name in only) and not row(quick, num_kills)]
    if missed:
        click.echo(f"missed: {', '.join(missed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()

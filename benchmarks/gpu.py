"""What a GPU brings: one table, in under eight minutes on a machine with CUDA.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --only step --only epoch

The rows are the tests that need a GPU, the training step beside stock Pyro's on the same GPU, in float32 and bfloat16,
an epoch of 60,000 images through ``fit`` with its checkpoint and validation, its peak memory, ``evaluate`` with 5,000
importance samples, and NUTS on 64 data.  The exit status is 1 where a row fails or misses its target, 2 on a machine
without CUDA.  ``--device cpu --quick`` runs every row but the tests in small, to see that the script works.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyro_vae
from benchmarks import timing
from benchmarks.own import EVENT_SHAPE, MLP, own_step
from benchmarks.peers import settings
from benchmarks.peers.pyro_stock import pyro_stock
from benchmarks.scaling import Watching
from benchmarks.timing import Contender, Timing
from pyro_vae.diagnostics import evaluate
from pyro_vae.posterior import Target, nuts

ROOT = Path(__file__).parent.parent
ROUNDS, STEPS = 10, 100
LOCAL = 64  # data whose posterior NUTS draws from


@dataclass(frozen=True)
class Where:
    """Where the rows run.

    Args:
        device: cuda, or cpu to try the script.
        quick: whether everything is small.
    """

    device: str
    quick: bool

    def of(self, whole: int, small: int) -> int:
        """A size, as it is or small."""
        return small if self.quick else whole

    def wait(self) -> float:
        """The time, once the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Found:
    """A line of the table: what was found, and whether that is good enough."""

    figure: str
    value: str
    target: str = ""
    fine: bool = True


def tests(where: Where) -> list[Found]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/compiled/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = next((line for line in reversed(done.stdout.splitlines()) if " in " in line), done.stderr.strip()[-100:])
    return [Found("CUDA tests", said.strip("= "), "all pass", done.returncode == 0)]


def step(where: Where) -> list[Found]:
    """The training step beside stock Pyro's."""
    contenders: list[Contender] = [
        own_step("float32", device=where.device, **MLP),
        own_step("bfloat16", device=where.device, precision="bf16", **MLP),
        pyro_stock(device="cuda" if where.device == "cuda" else "cpu"),
    ]
    timings = timing.measure(contenders, where.of(ROUNDS, 1), where.of(STEPS, 2))
    for found in timings.values():
        if found.problem:
            raise RuntimeError(found.problem)
    ours, halved, stock = (timings[contender.name] for contender in contenders)
    ratio = timing.ratio(ours, stock)
    return [
        Found("step of vae, batch 128", f"{ours.median:.3f} ms, stock Pyro {stock.median:.3f} ms"),
        Found("  over stock Pyro's", f"{ratio:.3f}", "0.05", ratio <= 0.05),
        Found("  in bfloat16", _beside(halved, ours)),
    ]


def _beside(one: Timing, other: Timing) -> str:
    return f"{one.median:.3f} ms, {timing.ratio(one, other):.2f} of float32"


def _fitted(where: Where, epochs: int, **given: Any) -> tuple[pyro_vae.Run, list[float]]:
    """A fit of random ellipses, and the seconds of its epochs but the first two, in which graphs are compiled."""
    watching = Watching()
    images = settings.images()[: where.of(60_000, 2_000)].reshape(-1, *EVENT_SHAPE)
    fixed = MLP | {"binarization": "dynamic", "likelihood": "bernoulli", "device": where.device, "epochs": epochs}
    run = pyro_vae.fit("vae", data=images, display=watching, **(fixed | given))
    ends = watching.ends[1:]
    return run, [after - before for before, after in itertools.pairwise(ends)]


def epoch(where: Where) -> list[Found]:
    """An epoch through ``fit``, with a run directory, and the memory that it takes."""
    if where.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        compiled = "auto" if where.quick else "on"
        _, epochs = _fitted(where, where.of(30, 4), out=f"{folder}/run", compile=compiled)
    seconds = statistics.median(epochs)
    peak = torch.cuda.max_memory_allocated() / 2**20 if where.device == "cuda" else 0.0
    return [
        Found(
            f"epoch of {where.of(60_000, 2_000):,} images", f"{seconds:.3f} s", "0.15 s", where.quick or seconds <= 0.15
        ),
        Found("  peak memory of the GPU", f"{peak:.0f} MiB"),
    ]


def figures(where: Where) -> list[Found]:
    """``evaluate`` with many samples, and NUTS."""
    run, _ = _fitted(where, where.of(10, 3))
    images, samples = run.split("test")[: where.of(1000, 20)], where.of(5000, 10)
    begin = where.wait()
    nll = evaluate(run.probed, images, samples).nll
    evaluated = where.wait() - begin
    target, draws = Target(run.probed, images[: where.of(LOCAL, 2)].x()), where.of(200, 4)
    begin = where.wait()
    chains = nuts(target, num_samples=draws, num_warmup=draws, num_chains=2)
    drawn = where.wait() - begin
    return [
        Found("evaluate", f"{evaluated:.1f} s for {len(images):,} images with {samples:,} samples, NLL {nll:.2f}"),
        Found("NUTS", f"{drawn:.1f} s for {chains.draws.shape[1]} data, 2 chains of {draws} + {draws} draws"),
    ]


ROWS: dict[str, Callable[[Where], list[Found]]] = {"tests": tests, "step": step, "epoch": epoch, "figures": figures}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(ROWS)), help="some rows  [default: all]")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]), help="cpu: for a try")
@click.option("--quick", is_flag=True, help="everything small, and no targets of time")
def main(only: tuple[str, ...], device: str, quick: bool) -> None:
    """Measure what a GPU brings, and print one table."""
    if device == "cuda" and not torch.cuda.is_available():
        click.echo("This machine has no CUDA GPU that torch sees; --device cpu --quick tries the script.", err=True)
        sys.exit(2)
    where, fine = Where(device, quick), True
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    table = Table("what", "found", "target", title=f"{name}, torch {torch.__version__}", box=None, padding=(0, 2, 0, 0))
    for row in [only_row for only_row in ROWS if only_row in (only or ROWS)]:
        try:
            lines = ROWS[row](where)
        except Exception as error:  # of any kind: the other rows are measured
            lines = [
                Found(row, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", "", False)
            ]
        for line in lines:
            fine = fine and (line.fine or quick)
            table.add_row(line.figure, line.value, line.target, style="" if line.fine or quick else "red")
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

"""A training step of pyro_vae beside its peers, in turns: milliseconds per step and ratios of medians.

    python benchmarks/step.py                                # all rows, a few minutes
    python benchmarks/step.py --only svi --only products     # some rows
    python benchmarks/step.py --threads 1 --rounds 40
    python benchmarks/step.py --peers PYTHON                 # of an environment with numpyro and tensorflow-cpu

Every row holds pyro_vae's own step against a reference.  A ratio is a contender's median over the reference's; the
paired one is the median of the ratios round by round.  The losses, of the first and the last round, show that all of
them train, and alike; the data are 60,000 random ellipses, so nothing is downloaded.  A peer that cannot run here says
why in its row.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import timing
from benchmarks.timing import Contender, Timing


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        name: for ``--only``.
        title: what is compared.
        ours: a key of ``own.ours()``.
        reference: the peer that the target is about.
        target: the largest ratio of medians, ours / reference, that is good enough.
        others: peers beside it, for information.
    """

    name: str
    title: str
    ours: str
    reference: str
    target: float
    others: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """What is trained; rows of one setting are timed together."""
        return self.ours.split()[0]


ROWS = (
    Row("svi", "vae, against stock SVI", "vae", "stock Pyro", 0.45, ("stock Pyro, fused Adam",)),
    Row("compile", "vae, against PyTorch by hand", "vae", "torch.compile, float32", 1.0),
    Row("numpyro", "vae, against NumPyro", "vae", "NumPyro, jitted epoch", 1.0, ("NumPyro, jitted step",)),
    Row("products", "vae, against its bare products", "vae", "torch.mm, float32", 1.25, ("oneDNN, float32",)),
    Row(
        "bfloat16",
        "vae in bfloat16, against its bare products in float32",
        "vae bfloat16",
        "torch.mm, float32",
        1.0,
        ("torch.mm, bfloat16", "oneDNN, bfloat16", "torch.compile, bfloat16"),
    ),
    Row("ss_vae", "ss_vae, labels enumerated, against Pyro's M2", "ss_vae", "stock Pyro, M2", 0.35),
    Row("iaf", "vae with iaf, against stock SVI", "iaf", "stock Pyro, iaf", 0.6),
    Row("conv", "vae with conv, against stock SVI", "conv", "stock Pyro, conv", 0.6),
    Row("cuda", "vae on a GPU, against stock SVI there", "cuda", "stock Pyro, on the GPU", 0.05),
    Row("cvae_mnist", "the preset cvae_mnist, against TensorFlow", "cvae_mnist", "TensorFlow, tf.function", 1.0),
)
WHOLES = ("nll", "epoch", "cuda_epoch", "first_step", "memory")  # of benchmarks/whole.py
NAMES = [*(row.name for row in ROWS), *WHOLES]


def peers(python: str) -> dict[str, Contender]:
    """All peers by name; none is built before it starts.

    Args:
        python: the interpreter of the workers.
    """
    from benchmarks.peers.numpyro_epoch import numpyro_vae
    from benchmarks.peers.pyro_m2 import pyro_m2
    from benchmarks.peers.pyro_stock import pyro_stock
    from benchmarks.peers.tensorflow_cvae import tensorflow_cvae
    from benchmarks.peers.torch_vae import DTYPES, MULTIPLY, products, torch_vae

    contenders: list[Contender] = [
        pyro_stock(),
        pyro_stock(fused=True),
        pyro_stock(guide="iaf"),
        pyro_stock(network="conv"),
        pyro_stock(device="cuda"),
        pyro_m2(),
        *(torch_vae(dtype) for dtype in DTYPES),
        *(products(dtype, library) for dtype in DTYPES for library in MULTIPLY),
        *(numpyro_vae(arrangement, python) for arrangement in ("epoch", "step")),
        tensorflow_cvae(python),
    ]
    return {contender.name: contender for contender in contenders}


@click.command()
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="turns of every contender")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="timed steps a turn")
@click.option("--only", multiple=True, metavar="ROW", type=click.Choice(NAMES), help=f"rows, of {', '.join(NAMES)}")
@click.option("--peers", "python", default=sys.executable, metavar="PYTHON", help="one that has NumPyro and TensorFlow")
@click.option(
    "--threads", default=timing.cores(), show_default="all", type=click.IntRange(1, timing.cores()), help="cores to use"
)
def main(rounds: int, steps: int, only: tuple[str, ...], python: str, threads: int) -> None:
    """Time pyro_vae's training step and its peers in turns, and print a table a row."""
    timing.use_threads(threads)
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    available, console, about = peers(python), Console(highlight=False), set()
    from benchmarks.own import ours

    own = {key: make() for key, make in ours().items()}
    for setting, members in groupby((row for row in ROWS if not only or row.name in only), key=lambda row: row.setting):
        rows = list(members)
        with console.status(f"{setting} …"):
            timings = timing.measure(entrants(rows, own, available), rounds, steps)
        about |= {found.about for found in timings.values() if found.about}
        for row in rows:
            show(console, row, timings, own[row.ours].name if row.ours in own else None)
    from benchmarks.whole import WHOLE

    for name in WHOLES:
        if not only or name in only:
            WHOLE[name](console, rounds)
    console.print(f"{rounds} rounds of {steps} steps; {timing.machine(threads, ('torch', 'pyro', 'pyro_vae'))}")
    for versions in sorted(about):
        console.print(f"peers: {versions}")


def entrants(rows: list[Row], own: Mapping[str, Contender], available: Mapping[str, Contender]) -> list[Contender]:
    """The contenders of some rows, each once."""
    ours = dict.fromkeys(row.ours for row in rows if row.ours in own)
    theirs = dict.fromkeys(name for row in rows for name in (row.reference, *row.others))
    return [*(own[key] for key in ours), *(available[name] for name in theirs)]


def show(console: Console, row: Row, timings: Mapping[str, Timing], own: str | None) -> None:
    """Print a row: its heading, its figures, and why some are missing."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("  contender", min_width=25)
    for heading, width in (("ms per step", 9), ("quartiles", 13), ("ratio", 5), ("paired", 6), ("loss, nats", 13)):
        table.add_column(heading, min_width=width, justify="right")
    reference, problems = timings[row.reference], [] if own else ["pyro_vae's own step is not there yet"]
    for name in (*([own] if own else []), row.reference, *row.others):
        found = timings[name]
        if found.problem:
            problems.append(f"{name}: {found.problem}")
            continue
        ratios = [f"{compare(found, reference):.2f}" for compare in RATIOS] if reference.rounds else ["", ""]
        if name == own and reference.rounds:
            colour = "green" if timing.ratio(found, reference) <= row.target else "red"
            ratios[0] = f"[bold {colour}]{ratios[0]}[/]"
        low, high = found.quartiles
        loss = f"{found.losses[0]:.1f} … {found.losses[-1]:.1f}" if found.losses else ""
        table.add_row(f"  {name}", f"{found.median:.2f}", f"{low:.2f} … {high:.2f}", *ratios, loss)
    console.print(f"[bold]{row.title}[/] (target: a ratio of at most {row.target:.2f})")
    if table.row_count:
        console.print(table)
    for problem in problems:
        console.print(f"  {problem}", style="yellow", markup=False)
    console.print()


RATIOS = (timing.ratio, timing.paired_ratio)


if __name__ == "__main__":
    main()

"""Pyro's deep Markov model with its own guide, and with a guide by name from its model alone.

    python benchmarks/sequences.py --pyro PATH           # PATH: a checkout of Pyro; some ten minutes
    python benchmarks/sequences.py --pyro PATH --quick   # less data and fewer epochs, for a look

``examples/dmm.py`` is read unmodified.  Both pairs have its model, begin from the same weights of it, and see the same
minibatches of made sequences of unequal length, in the same order, for as many epochs: its own guide under stock
``Trace_ELBO``, the other one under ``CompiledTrace_ELBO``.  A row gives the held-out bound per time slice, and the step
as the median of steps that take turns, in one thread.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import pyro
import torch
from pyro.contrib.examples.polyphonic_data_loader import get_mini_batch
from pyro.infer import SVI, Trace_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.compatibility.patching import set_way
from pyro_vae.compiled import CompiledTrace_ELBO
from pyro_vae.guides import amortize

SIZES = {"input_dim": 20, "z_dim": 16, "emission_dim": 32, "transition_dim": 32, "rnn_dim": 64}
STEPS, BATCH, PARTICLES = 20, 40, 20

Batch = tuple[Tensor, Any, Tensor, Tensor]


def made(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sequences of 20 bits a step from a turning state of four dimensions, and their lengths, from 8 to 20."""
    random, world = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=world))[0]
    emit = 2 * torch.randn(4, SIZES["input_dim"], generator=world)
    z, x = torch.randn(rows, 4, generator=random), []
    for _ in range(STEPS):
        z = 0.95 * z @ turn + 0.3 * torch.randn(rows, 4, generator=random)
        x.append(torch.bernoulli((z @ emit).sigmoid(), generator=random))
    lengths = torch.randint(8, STEPS + 1, (rows,), generator=random)
    lengths[::BATCH] = STEPS  # so that every minibatch is as long
    mask = torch.arange(STEPS) < lengths.unsqueeze(1)
    return torch.stack(x, 1) * mask.unsqueeze(-1), lengths


def batches(sequences: Tensor, lengths: Tensor, size: int) -> list[Batch]:
    """Minibatches as the example makes them: the longest first, and backwards ones packed."""
    indices = torch.arange(len(sequences)).split(size)
    return [get_mini_batch(some, sequences, lengths) for some in indices]


class Contender:
    """A pair of programs under training.

    Args:
        example: the module of Pyro's example.
        by_name: the guide's family; None for the example's own.
        batch: some data; the backwards ones, which are packed and of another size each time, its own guide alone reads.
        seed: of the weights.
    """

    def __init__(self, example: Any, by_name: str | None, batch: Batch, seed: int) -> None:
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        self.dmm = example.DMM(**SIZES)
        self.store = pyro.get_param_store().get_state()
        self.by_name = by_name is not None
        self.guide = self.dmm.guide if by_name is None else amortize(self.dmm.model, by_name, self._seen(batch))
        elbo = Trace_ELBO() if by_name is None else CompiledTrace_ELBO()
        self.svi = SVI(self.dmm.model, self.guide, pyro.optim.ClippedAdam({"lr": 3e-3}), elbo)
        self.seconds: list[float] = []

    def step(self, batch: Batch, annealing: float) -> None:
        """One step on a minibatch, in a parameter store of its own."""
        with pyro.get_param_store().scope(self.store):
            started = time.perf_counter()
            self.svi.step(*self._seen(batch), annealing)
            self.seconds.append(time.perf_counter() - started)

    def bound(self, batch: Batch) -> float:
        """The bound of sequences in nats per time slice."""
        with pyro.get_param_store().scope(self.store):
            loss = Trace_ELBO(num_particles=PARTICLES).loss(self.dmm.model, self.guide, *self._seen(batch))
        return -loss / batch[3].sum().item()

    def _seen(self, batch: Batch) -> Batch:
        return (batch[0], batch[0], *batch[2:]) if self.by_name else batch


def compare(example: Any, family: str, rows: int, epochs: int, seed: int) -> tuple[list[float], list[float]]:
    """Train both pairs, turn by turn; gives their held-out bounds and the medians of their steps in milliseconds."""
    train, test = batches(*made(rows, seed=1), BATCH), batches(*made(rows // 4, seed=2), rows // 4)[0]
    pair = [Contender(example, None, train[0], seed), Contender(example, family, train[0], seed)]
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        annealing = min(1.0, 0.2 + epoch / (0.2 * epochs))
        for number in torch.randperm(len(train), generator=order).tolist():
            for contender in pair:
                contender.step(train[number], annealing)
    steps = [1000 * statistics.median(one.seconds[len(one.seconds) // 4 :]) for one in pair]
    return [one.bound(test) for one in pair], steps


@click.command()
@click.option("--pyro", "checkout", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--family", default="mean_field", show_default=True, help="of the guide by name")
@click.option("--rows", default=400, show_default=True, help="training sequences")
@click.option("--epochs", default=60, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--at-once", is_flag=True, help="compile the graph when it first runs, whether or not that pays")
@click.option("--quick", is_flag=True, help="80 sequences, 3 epochs, one seed")
def main(checkout: Path, family: str, rows: int, epochs: int, seeds: int, at_once: bool, quick: bool) -> None:
    """Compare the two guides of Pyro's deep Markov model."""
    torch.set_num_threads(1)
    if at_once:
        set_way("at once")
    rows, epochs, seeds = (80, 3, 1) if quick else (rows, epochs, seeds)
    sys.path.insert(0, str(checkout / "examples"))
    spec = importlib.util.spec_from_file_location("dmm", checkout / "examples" / "dmm.py")
    if spec is None or spec.loader is None:
        raise click.ClickException(f"no examples/dmm.py in {checkout}")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    table = Table("seed", "bound, its own guide", f"bound, {family}", "step, stock", "step, compiled", "ratio")
    for seed in range(seeds):
        bounds, steps = compare(example, family, rows, epochs, seed)
        numbers = [*(f"{bound:.4f}" for bound in bounds), *(f"{step:.1f} ms" for step in steps)]
        table.add_row(str(seed), *numbers, f"{steps[1] / steps[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Steps of scripts in notebook style, compiled against stock.

    python benchmarks/notebook_steps.py                 # every script of tests/compiled/scripts; five minutes
    python benchmarks/notebook_steps.py --only frozen

Each script is run twice, with its loops ten times as long: with Pyro's ``Trace_ELBO`` and with the compiled one.  A row
gives the graphs of its programs, the median time of a call of the estimator's users (``SVI.step``, or the loss of a
hand-written loop) after the first tenth, over stock's, and the time of all calls together, over stock's.  Times are of
the processor, in one thread.
"""

from __future__ import annotations

import contextlib
import io
import re
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from pyro_vae.compiled import CompiledTrace_ELBO, payoff

SCRIPTS = Path(__file__).parent.parent / "tests" / "compiled" / "scripts"
LONGER = 10


def run(path: Path, kind: type[Trace_ELBO]) -> tuple[list[float], int]:
    """Run a script with an estimator.

    Args:
        path: the script.
        kind: the class in the place of ``Trace_ELBO``.

    Returns:
        The seconds of each call, and the most graphs of a pair of programs.
    """
    payoff.Credit.shared = payoff.RECORDED_BY_ALL  # as in a process of its own
    seconds: list[float] = []
    pairs: list[Any] = []

    class Timed(kind):  # type: ignore[misc, valid-type]
        def differentiable_loss(self, *args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return super().differentiable_loss(*args, **kwargs)
            finally:
                seconds.append(time.process_time() - start)
                if isinstance(self, CompiledTrace_ELBO):
                    pairs.append(self.num_graphs(*args[:2]))

    class TimedSVI(SVI):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return super().step(*args, **kwargs)  # type: ignore[no-untyped-call]
            finally:
                seconds.append(time.process_time() - start)
                estimator = self.loss.__self__
                if isinstance(estimator, CompiledTrace_ELBO):
                    pairs.append(estimator.num_graphs(self.model, self.guide))

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    source = re.sub(r"(range\(|epochs=)(\d+)", lambda found: f"{found[1]}{LONGER * int(found[2])}", path.read_text())
    source = source.replace("import SVI, Trace_ELBO", "import Trace_ELBO").replace("import Trace_ELBO", "import ELBO")
    space = {"__name__": "__main__", "SVI": TimedSVI, "Trace_ELBO": Timed}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exec(compile(source, path.name, "exec"), space)
    return seconds, max(pairs, default=0)


@click.command()
@click.option("--only", multiple=True, help="scripts whose name has this in it")
def main(only: tuple[str, ...]) -> None:
    """Time the steps of scripts in notebook style."""
    torch.set_num_threads(1)
    table = Table("script", "graphs", "step", "all calls")
    ratios = []
    for path in sorted(SCRIPTS.glob("*.py")):
        if only and not any(word in path.stem for word in only):
            continue
        (stock, _), (ours, graphs) = run(path, Trace_ELBO), run(path, CompiledTrace_ELBO)
        step = statistics.median(ours[len(ours) // LONGER :]) / statistics.median(stock[len(stock) // LONGER :])
        ratios.append(step)
        table.add_row(path.stem, str(graphs), f"{step:.2f}", f"{sum(ours) / sum(stock):.2f}")
    Console().print(table)
    Console().print(f"median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    main()

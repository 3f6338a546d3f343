"""Asking a kind of program for everything, and holding what comes against the exact answers."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import pyro_vae
from benchmarks.programs.kinds import Answers, Kind
from pyro_vae import Run
from pyro_vae.diagnostics import Effort, criticise_pair
from pyro_vae.errors import InputError

SETTINGS: dict[str, Any] = {"epochs": 60, "lr": 0.03, "lr_schedule": "cosine", "batch_size": 60, "patience": "none"}
NUM_SAMPLES, NUM_GENERATED, NUM_SEEDS, NUM_ROWS = 300, 4000, 200, 25


class Wrong(Exception):
    """An answer that is not the exact one."""


@dataclass(frozen=True)
class Cell:
    """What came of one operation on one kind.

    Args:
        word: right, refused, wrong, raises, or a dash where there was no run to ask.
        detail: what is refused, how far off the answer is, or the error.
    """

    word: str
    detail: str = ""


def ask(kind: Kind, log: Callable[[str], None] = lambda text: None) -> dict[str, Cell]:
    """Fit a kind and ask the run for everything.

    Args:
        kind: the kind.
        log: is given the text of unexpected errors.
    """
    with _dtype(torch.float64 if kind.float64 else torch.float32), tempfile.TemporaryDirectory() as folder:
        answers, path = kind.answers(), Path(folder) / "run"
        runs: list[Run] = []

        def fit() -> None:
            torch.manual_seed(0)
            model, guide = kind.programs()
            settings = SETTINGS | kind.settings
            runs.append(
                pyro_vae.fit(model, guide, answers.x, labels="none", out=path, display=False, compile="off", **settings)
            )
            near("the fit", answers.fit(runs[0]), 0.0, 2 * answers.tolerance)

        cells = {"fit": _cell(kind, "fit", fit, log)}
        if cells["fit"].word == "refused" and path.exists():
            cells["fit"] = Cell("wrong", "refused, but something was written")
        for name, operation in OPERATIONS.items():
            asked = Cell("-")
            if runs:
                asked = _cell(kind, name, lambda operation=operation: operation(kind, answers, runs[0]), log)  # type: ignore[misc]
            cells[name] = asked
    return cells


def near(what: str, got: Any, exact: Any, tolerance: Any) -> None:
    """Compare numbers.

    Raises:
        Wrong: if any differs by more than the tolerance, or is not a number.
    """
    got, exact = (torch.as_tensor(value).detach().double().cpu() for value in (got, exact))
    if got.shape != exact.shape:
        raise Wrong(f"{what} has the shape {tuple(got.shape)}, not {tuple(exact.shape)}")
    off = (got - exact).abs() - torch.as_tensor(tolerance).double()
    if not bool((off <= 0).all()):
        worst = off.flatten().nan_to_num(torch.inf).argmax()
        raise Wrong(f"{what} is {got.flatten()[worst]:.4g}, not {exact.flatten()[worst]:.4g}")


def evaluate(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()
    figures = run.evaluate("test", num_samples=NUM_SAMPLES)
    exact = answers.nll(x)
    near("the nll", figures["nll"], exact.mean(), answers.tolerance)
    if kind.exact and not answers.shared:
        near("the ELBO", figures["elbo"], -exact.mean(), 4 * answers.tolerance)


def criticise(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()[:NUM_ROWS]
    effort = Effort(samples=NUM_SAMPLES, simulated=0)
    found = criticise_pair(run.probed, x, effort, seed=1)
    if answers.shared is None and found.importance.log_weights.shape[1] == len(x):
        near("log p(x)", found.importance.log_likelihood, -answers.nll(x), 6 * answers.tolerance)
    if kind.exact and found.importance.log_weights.shape[1] == len(x) and str(found.verdict) == "do not trust":
        raise Wrong(f"the verdict on an exact guide: {found.verdict}")


def encode(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()[:NUM_ROWS]
    found = run.encode(x, kind.site, num_samples=400)
    if answers.mean is not None:
        near("the posterior mean", found, answers.mean(x), 4 * answers.tolerance)
    near("a row alone", run.encode(x[:1], kind.site, num_samples=400), found[:1], 4 * answers.tolerance)


def sample(kind: Kind, answers: Answers, run: Run) -> None:
    draws = run.sample(NUM_GENERATED, mean=False).double()
    if answers.data is None:
        exact = answers.nll(draws).mean()  # of data of the model, and so of its rows
        near("minus log p of draws", exact, answers.nll(run.data.train.values()).mean(), 0.3)
        return
    mean, spread = answers.data
    near("the mean of x", draws.mean(0), mean, 4 * spread.double() / NUM_GENERATED**0.5 + answers.tolerance / 2)
    near("the spread of x", draws.std(0), spread, 0.1 * spread.double())


def reconstruct(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()[:NUM_ROWS]
    if answers.reconstruction is None:
        near("the shape", torch.tensor(run.reconstruct(x).shape), torch.tensor(x.shape), 0)
        return
    found = torch.stack([run.reconstruct(x, seed=seed) for seed in range(NUM_SEEDS)]).double()
    error = 5 * found.std(0) / NUM_SEEDS**0.5 + 2 * answers.tolerance
    near("the reconstruction", found.mean(0), answers.reconstruction(x), error)


def to_arviz(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()[:NUM_ROWS]
    tree = run.to_arviz(num_data=NUM_ROWS, num_draws=400, num_predictive=200)
    observed = tree["observed_data"].to_dataset()
    values = torch.cat([torch.as_tensor(v.to_numpy()).double().flatten() for v in observed.values()])
    near("the observed data", values.nan_to_num(0.0).sort().values[:1], values.nan_to_num(0.0).min().reshape(1), 1e-5)
    if kind.site is not None and answers.mean is not None and not answers.shared:
        draws = torch.as_tensor(tree["posterior"][kind.site].to_numpy())[0].double()
        draws = draws.reshape(*draws.shape[:2], -1)
        near("the posterior mean", draws.mean(0), answers.mean(x), 5 * draws.std(0) / 20 + 2 * answers.tolerance)
    if answers.shared is not None:
        near("log p(x, w)", tree["sample_stats"]["log_weight"].isnull().sum().item(), 0, 0)


def load(kind: Kind, answers: Answers, run: Run) -> None:
    x = run.split("test").x()[:NUM_ROWS]
    torch.manual_seed(1)
    model, guide = kind.programs()
    assert run.path is not None
    again = pyro_vae.load(run.path, model=model, guide=None if isinstance(guide, str) else guide)
    for name, value in run.pair.state_dict().items():
        near(name, again.pair.state_dict()[name], value, 0)
    if run.structure.continuous:
        near("encode after load", again.encode(x), run.encode(x), 1e-6)
    if "evaluate" in kind.refused:
        return
    again._dataset = run.data
    before, after = (each.evaluate("test", num_samples=20)["nll"] for each in (run, again))
    near("evaluate after load", after, before, 1e-6)


OPERATIONS: dict[str, Callable[[Kind, Answers, Run], None]] = {
    operation.__name__: operation for operation in (evaluate, criticise, encode, sample, reconstruct, to_arviz, load)
}


def _cell(kind: Kind, name: str, operation: Callable[[], None], log: Callable[[str], None]) -> Cell:
    try:
        operation()
    except Wrong as error:
        return Cell("wrong", str(error))
    except InputError as error:
        expected = kind.refused.get(name)
        if expected is None or expected not in str(error) or "\n" in str(error):
            log(f"{kind.name}, {name}: {error}")
            return Cell("refused" if expected is None else "wrong", str(error))
        return Cell("refused", str(error))
    except Exception as error:
        log(f"{kind.name}, {name}: {traceback.format_exc()}")
        return Cell("raises", f"{type(error).__name__}: {error}")
    return Cell("right") if name not in kind.refused else Cell("wrong", "not refused")


@contextmanager
def _dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

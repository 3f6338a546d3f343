"""Running a pair for its structure's sake, and what is said of programs that cannot be a pair."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Tensor

from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.pairs.structure import Structure, Traces, read_structure
from pyro_vae.pairs.traces import distribution_at, rows_axis, value_at
from pyro_vae.shapes import Shaped

if TYPE_CHECKING:
    from pyro_vae.pairs.pair import Pair

FEW_ROWS = 5
PROPER = "give the site a proper prior, a wide one where little is known: Normal(0.0, 100.0), LogNormal(0.0, 5.0)"
Densities = dict[tuple[str, str], Tensor]  # by role and name of a site


def probe(pair: Pair, x: Tensor, y: Tensor | None) -> Structure:
    r"""The structure of a pair, which is run twice: on x, and on another number of rows, to see what follows.

    Args:
        pair: the model and the guide.
        x: data of shape (N, \*event_shape).
        y: class labels of shape (N,), or None.

    Raises:
        InputError: if a program stops with an error, or samples a site that the other has not.
    """
    with pair.scope(), pair.evaluating(), torch.no_grad(), torch.random.fork_rng(), poutine.block():
        x = x.contiguous()
        with pyro.validation_enabled(False):  # what is not a number is said by whoever looks at the data
            run = traced(pair, x, y)
        check_sites(run)
        other = _on_other_rows(pair, x, y) if x.dim() else None
        structure = read_structure(run, other)
        if structure.data_dim is not None and len(x) > 1:
            check_independent(pair, run, y, structure.data_dim)
    return structure


def traced(pair: Pair, x: Tensor, y: Tensor | None) -> Traces:
    """One run of a pair, as the context around it has it.

    Raises:
        InputError: if a program stops with an error, or draws its rows at random.
    """
    arguments = pair.arguments(x, y)
    q = run_program("guide", pair.guide, arguments)
    p = run_program("model", poutine.replay(pair.model, q), arguments)
    return Traces(p, q, x)


def check_independent(pair: Pair, run: Traces, y: Tensor | None, dim: int) -> None:
    """Refuse programs in which the density of a row depends on another row: by changing x and latents of the first.

    Args:
        pair: the model and the guide.
        run: a run of both.
        y: class labels of shape (N,), or None.
        dim: the dimension of the plate over data.

    Raises:
        InputError: if the density of another row changes.
    """
    others = run.q.copy()
    for name in run.q.stochastic_nodes:
        value = value_at(run.q, name)
        axis = rows_axis(value, distribution_at(run.q, name).event_dim, dim)
        if axis >= 0 and value.shape[axis] == len(run.x):
            others.nodes[name] = others.nodes[name] | {"value": _with_other_row(value, axis)}
    before = _scored(pair, run.x, y, run.q)
    after = _scored(pair, _with_other_row(run.x, 0), y, others)
    changed = _changed(before, after, dim)
    if changed:
        changed = [key for key in changed if key not in _changed(before, _scored(pair, run.x, y, run.q), dim)]
    for role, name in changed:  # by the other row, and not from one call to the next
        raise InputError(
            "rows that depend on their own x and latents alone",
            f"the site {name!r} of the {role}, whose density depends on other rows too",
            "take what rows have in common, a mean for example, of all training rows before fit, or as a running "
            "mean that evaluation mode keeps",
        )


def _with_other_row(values: Tensor, axis: int) -> Tensor:
    """Values with the second row in the place of the first."""
    return torch.cat([values.narrow(axis, 1, 1), values.narrow(axis, 1, values.shape[axis] - 1)], axis)


def _changed(before: Densities, after: Densities, dim: int) -> list[tuple[str, str]]:
    """The sites whose densities differ in another row than the first."""
    rows = {key: [_rows(found[key], dim) for found in (before, after)] for key in before if key in after}
    return [
        key
        for key, (one, other) in rows.items()
        if one.shape == other.shape and not torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)
    ]


def _scored(pair: Pair, x: Tensor, y: Tensor | None, guided: Trace) -> Densities:
    """The densities of the sites of both programs at some latents, by role and name, with the same noise each time.

    Those that cannot be had are left out: of a program that fails here, or of a transform without an inverse.
    """
    found: Densities = {}
    noise = pyro.util.get_rng_state()
    with pyro.validation_enabled(False):
        for role, program in (("guide", pair.guide), ("model", pair.model)):
            pyro.set_rng_seed(0)
            with suppress(Exception):
                trace = poutine.trace(poutine.replay(program, guided)).get_trace(*pair.arguments(x, y))
                for name, site in prune_subsample_sites(trace).nodes.items():
                    density: Any = site.get("fn")
                    with suppress(Exception):
                        if site["type"] == "sample":
                            found[role, name] = density.log_prob(site["value"], *site["args"], **site["kwargs"])
    pyro.util.set_rng_state(noise)
    return found


def _rows(density: Tensor, dim: int) -> Tensor:
    """All rows but the first; nothing of a density that has no rows."""
    return density.movedim(dim, 0)[1:] if density.dim() >= -dim else density.new_zeros(0)


def check_sites(run: Traces) -> None:
    """Refuse a pair whose latent sites are not those of one posterior.

    Raises:
        InputError: if a latent of the model is neither in the guide nor summed out, or one of the guide is not in the
            model.
    """
    for name in run.p.stochastic_nodes:
        how = (run.p.nodes[name]["infer"] or {}).get("enumerate")
        if name not in run.q.nodes and how != "parallel":
            mend = "sample it there, or, where it is discrete, sum it out: pyro.infer.config_enumerate(model)"
            if name.endswith("_unobserved"):  # of pyro.sample(…, obs_mask=…)
                mend = "sample it there, or leave values out by poutine.mask or .mask(…) in the place of obs_mask"
            raise InputError("every latent site of the model in the guide", f"a guide without {name!r}", mend)
    for name in run.q.stochastic_nodes:
        if name not in run.p.nodes and not (run.q.nodes[name]["infer"] or {}).get("is_auxiliary"):
            raise InputError(
                "every latent site of the guide in the model",
                f"a model without {name!r}",
                'leave it out, or mark it as a step on the way: infer={"is_auxiliary": True}',
            )


def run_program(role: str, program: Callable[..., Any], arguments: tuple[Any, ...]) -> Trace:
    """A run of a program, as the context around it has it.

    Args:
        role: model or guide.
        program: the program.
        arguments: tensors that it is called with.

    Raises:
        InputError: if it stops with an error, or draws its rows at random.
    """
    try:
        trace = poutine.trace(program).get_trace(*arguments)
    except PyroVAEError:
        raise
    except Exception as error:  # whatever a program raises, its author can mend it
        shapes = " and ".join(f"{tuple(argument.shape)}" for argument in arguments)
        raise InputError(f"a {role} that runs on data of shape {shapes}", said(error), _mend(role, error)) from error
    check_takes_every_row(role, trace)
    return prune_subsample_sites(trace)


def check_takes_every_row(role: str, trace: Trace) -> None:
    """Refuse a program that draws some of its rows at random.

    Raises:
        InputError: if it does.
    """
    for site in trace.nodes.values():
        rows: Any = site.get("fn")
        if site_is_subsample(site) and rows.subsample_size not in (None, rows.size):
            raise InputError(
                f"a {role} that takes every row that it is given",
                f"one that draws {rows.subsample_size} of {rows.size} at random in the plate {site['name']!r}",
                f"write pyro.plate({site['name']!r}, len(x)): batches are drawn for it, by batch_size",
            )


def _mend(role: str, error: Exception) -> str:
    if cannot_be_drawn(error):
        return PROPER
    if "Long, Int" in str(error):  # of an embedding, for example
        return "x comes as floating-point numbers: take x.long() where it counts or names something"
    if "dtype" in str(error) or "scalar type" in str(error):
        return "call torch.set_default_dtype(torch.float64) first, for data and programs of doubles"
    if isinstance(error, TypeError) and "required positional argument" in str(error):
        return "give an array for each argument, a tuple of them or a mapping by their names"
    if isinstance(error, TypeError) and "positional argument" in str(error):
        return f"let it take x alone, {role}(x), and read what else belongs to a row off columns of x"
    return f"run it once by itself, on as many rows: {role}(x)"


def cannot_be_drawn(error: Exception) -> bool:
    """Whether a program stopped at a distribution that has no draws, as an improper one has none."""
    return isinstance(error, NotImplementedError) and "support sampling" in str(error)


def said(error: Exception) -> str:
    """What an error of another library or program says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.:')}" if lines else type(error).__name__


def _on_other_rows(pair: Pair, x: Tensor, y: Tensor | None) -> Traces | None:
    """A run on another number of rows; None for programs that are written for just these."""
    try:
        with pyro.validation_enabled(False):
            other = traced(pair, other_rows(x), None if y is None else other_rows(y))
            other.p.compute_log_prob()
    except Exception:  # of whatever kind
        return None
    return other


def other_rows(values: Shaped[Tensor, "N *event"]) -> Shaped[Tensor, "n *event"]:
    """A few rows, but not as many as there are: what follows them in the shapes of a run is told from what does not."""
    few = FEW_ROWS if len(values) != FEW_ROWS else FEW_ROWS + 1
    return values[torch.arange(few, device=values.device) % len(values)]

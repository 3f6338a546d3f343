"""Fitted runs as one ``xarray.DataTree``: the groups of ``tree``, the training trace and what the data were.

    training       the history, dimensions (run, step), a step per epoch; NaN after the end of a shorter run
    constant_data  the pixels as the data set holds them, whole numbers as uint8, and the true labels

A run is a chain.  Restarts of a model whose latents are known only up to a rotation, for example, are restarts of that
too: their z need not agree where their bounds do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

import pyro_vae
from pyro_vae.arviz_bridge.tree import from_guide
from pyro_vae.data import Images
from pyro_vae.errors import InputError
from pyro_vae.posterior.target import Target

if TYPE_CHECKING:
    from pyro_vae.runs.run import Run

MAY_DIFFER = ("seed", "device", "compile")  # between restarts


def to_datatree(
    runs: Run | Sequence[Run],
    num_data: int = 100,
    num_draws: int = 500,
    split: str = "test",
    seed: int = 0,
    num_predictive: int | None = None,
) -> xr.DataTree:
    """The posterior of the first data of a split under one run, or under several restarts of one configuration.

    Args:
        runs: one run, or several that differ in their seeds.
        num_data: how many data, or fewer where there are fewer; all where latents are shared by all data.
        num_draws: draws of each run.
        split: train, validation or test.
        seed: the seed of the draws.
        num_predictive: as for ``arviz_bridge.from_guide``.

    Raises:
        InputError: if the runs differ in more than their seeds, or nothing is asked for.

    Example:
        >>> from pyro_vae import fit
        >>> from pyro_vae.arviz_bridge import to_datatree
        >>> x = torch.randn(30, 3).numpy()
        >>> runs = [fit("linear_gaussian", data=x, latent_dim=2, epochs=2, seed=s, display=False) for s in (0, 1)]
        >>> tree = to_datatree(runs, num_data=3, num_draws=50)
        >>> tree["posterior"]["z"].shape, dict(tree["training"].sizes)
        ((2, 50, 3, 2), {'run': 2, 'step': 2})
    """
    runs = list(runs) if isinstance(runs, Sequence) else [runs]
    _check_restarts(runs)
    first = runs[0]
    per_datum = first.structure.data_dim is not None
    if num_data < 1:
        raise InputError("at least one datum", str(num_data), "use num_data=100")
    targets = []
    for run in runs:
        rows = run.split(split)
        images = rows[slice(0, num_data)] if per_datum else rows
        targets.append(Target(run.probed, images.x()))
    attrs = _attributes(runs, split, len(images))
    tree = from_guide(targets, num_draws, num_predictive=num_predictive, seed=seed, attrs=attrs)
    tree["constant_data"] = xr.DataTree(_constant_data(images, first.facts.class_names, first.facts.scale))
    tree["training"] = xr.DataTree(training_trace([run.history for run in runs], [run.config.seed for run in runs]))
    return tree


def training_trace(histories: Sequence[pd.DataFrame], seeds: Sequence[int]) -> xr.Dataset:
    """Histories side by side, dimensions (run, step).

    No dimension is a chain: the trace of a bound is not a Markov chain, and its R-hat or effective sample size say
    nothing of convergence.

    Args:
        histories: one row per epoch, a column ``epoch`` among them.
        seeds: the seeds of the runs.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae.arviz_bridge import training_trace
        >>> first = pd.DataFrame({"epoch": [1, 2], "validation_elbo": [-98.0, -95.0]})
        >>> second = pd.DataFrame({"epoch": [1], "validation_elbo": [-99.0]})
        >>> trace = training_trace([first, second], seeds=[0, 1])
        >>> trace["validation_elbo"].to_numpy()
        array([[-98., -95.],
               [-99.,  nan]])
    """
    length = max((len(history) for history in histories), default=0)
    columns = dict.fromkeys(name for history in histories for name in history if name != "epoch")
    variables = {}
    for name in columns:
        rows = np.full((len(histories), length), np.nan)
        for row, history in zip(rows, histories, strict=True):
            if name in history:
                row[: len(history)] = history[name].to_numpy(dtype=float)
        variables[name] = (("run", "step"), rows, _units(name))
    longest = max(histories, key=len)
    epochs = longest["epoch"].to_numpy(dtype=int) if len(longest) else np.arange(0)
    coordinates = {"run": np.arange(len(histories)), "seed": ("run", np.asarray(seeds))}
    coordinates |= {"step": np.arange(length), "epoch": ("step", epochs)}
    return xr.Dataset(variables, coordinates)


def _units(name: str) -> dict[str, str]:
    bounds = ("elbo", "kl", "log_likelihood", "loss", "objective")
    return {"units": "nats per datum"} if name.endswith(bounds) else {}


def _constant_data(images: Images, class_names: Sequence[str], scale: float) -> xr.Dataset:
    pixels = images.pixels.cpu().numpy()
    dims = ["datum", *(f"pixels_dim_{i}" for i in range(pixels.ndim - 1))]
    coordinates = {dim: np.arange(size) for dim, size in zip(dims, pixels.shape, strict=True)}
    variables: dict[str, Any] = {"pixels": (dims, pixels, {"scale": scale})}
    if images.missing is not None:
        variables["missing"] = (dims, images.missing.cpu().numpy())
    if images.labels is not None:
        names = {"class_names": json.dumps(list(class_names)), "no_label": -1}
        variables["label"] = ("datum", images.labels.cpu().numpy(), names)
    return xr.Dataset(variables, coordinates)


def _attributes(runs: Sequence[Run], split: str, num_data: int) -> dict[str, Any]:
    config, facts = runs[0].config, runs[0].facts
    names = ("model", "guide", "prior", "likelihood", "objective", "data")
    return {name: getattr(config, name) for name in names} | {
        "data_digest": facts.digest,
        "split": split,
        "num_data": num_data,
        "binarization": runs[0].binarization,
        "seed": _one_or_all([run.config.seed for run in runs]),
        "epochs": _one_or_all([len(run.history) for run in runs]),
        "pyro_vae_version": pyro_vae.__version__,
    }


def _one_or_all(numbers: list[int]) -> int | np.ndarray:
    """A number or an array of several, as a netCDF file gives an attribute back."""
    return numbers[0] if len(numbers) == 1 else np.asarray(numbers)


def _check_restarts(runs: Sequence[Run]) -> None:
    if not runs:
        raise InputError("at least one run", "none", "give the runs of one configuration")
    first = runs[0].config.model_dump()
    for run in runs[1:]:
        config = run.config.model_dump()
        other = [name for name in first if name not in MAY_DIFFER and config[name] != first[name]]
        if other or run.facts.digest != runs[0].facts.digest:
            what = f"another {other[0]}" if other else "other data"
            raise InputError(
                "restarts, which differ in their seeds alone", what, "make one tree for each configuration"
            )

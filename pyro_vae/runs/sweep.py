"""Fits of every combination of some settings, with several seeds, in processes of their own; one table of them.

A sweep is a folder of ordinary runs, named after what differs between them, and ``table.csv``.  Called again it goes
on: runs that are done are left as they are, and one that was cut off resumes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch

from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError, PyroVAEError
from pyro_vae.files.bounded import first_line
from pyro_vae.files.whole import make_folders, write_whole
from pyro_vae.runs import fitting, placing
from pyro_vae.runs.config_file import CONFIG
from pyro_vae.runs.folder import RunFolder

TABLE = "table.csv"
MEASURES = ("elbo", "nll", "kl", "active_units", "accuracy")
LONGEST = 100  # characters of the name of a run
Settings = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A fit of a sweep.

    Args:
        path: its run directory.
        differing: the settings that differ between the fits, as they were written, and the seed.
        config: all its settings.
    """

    path: Path
    differing: Mapping[str, str]
    config: FitConfig


def plan(
    out: Path, layers: Sequence[Mapping[str, Any]], choices: Mapping[str, Sequence[str]], seeds: int
) -> list[Planned]:
    """The fits of a sweep, every combination of the choices with every seed.

    Args:
        out: the folder of the sweep.
        layers: the settings that all fits have, each layer of which wins over those before it.
        choices: the values of each setting that differs.
        seeds: how many seeds, from that of the layers on.

    Raises:
        InputError: if a setting is unknown, a value is out of range or there twice, or two fits have one name.
    """
    first = FitConfig.from_layers(*layers).seed
    planned = []
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        for seed in range(first, first + seeds):
            differing = chosen | {"seed": str(seed)}
            config = FitConfig.from_layers(*layers, differing)
            planned.append(Planned(out / _name(differing), differing, config))
    names = [each.path for each in planned]
    twice = next((path.name for path in names if names.count(path) > 1), None)
    if twice is not None:
        raise InputError("every combination of settings once", f"{twice} twice", "leave one of the values out")
    return planned


def run_all(planned: Sequence[Planned], jobs: int) -> Iterable[tuple[Planned, Settings]]:
    """Fit what is not fitted yet, ``jobs`` at a time; each with its figures, as it ends.

    A fit that fails has ``failed``, the reason, in the place of figures.

    Raises:
        InputError: if something is in the place of a run that is not that run.
    """
    for each in planned:
        _check_place(each)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads if jobs > 1 else None):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        tasks = (joblib.delayed(_numbered)(i, each, threads if jobs > 1 else None) for i, each in enumerate(planned))
        for i, figures in parallel(tasks):
            yield planned[i], figures


def table_of(done: Iterable[tuple[Planned, Settings]], planned: Sequence[Planned]) -> pd.DataFrame:
    """One row per fit, in the order of the plan: what differs, its figures, and why it failed if it did."""
    figures = {each.path: found for each, found in done}
    rows = [{**each.differing, **figures.get(each.path, {}), "run": str(each.path)} for each in planned]
    return pd.DataFrame(rows)


def summary_of(table: pd.DataFrame, choices: Sequence[str]) -> list[dict[str, str]]:
    """One row per combination of settings, with the mean of each figure over the seeds and their standard deviation."""
    groups = table.groupby(list(choices), sort=False) if choices else [((), table)]
    rows = []
    for values, group in groups:
        row = dict(zip(choices, map(str, values if isinstance(values, tuple) else (values,)), strict=True))
        row["runs"] = str(len(group))
        for name in MEASURES:
            if name in group and group[name].notna().any():
                known = group[name].dropna().astype(float)
                spread = f" ± {known.std():.3g}" if len(known) > 1 else ""
                row[name] = f"{known.mean():.5g}{spread}"
        if "failed" in group and group["failed"].notna().any():
            row["failed"] = str(int(group["failed"].notna().sum()))
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in names} for row in rows]


def write_table(out: Path, table: pd.DataFrame) -> Path:
    """Replace the table of a sweep, and say where it is."""
    make_folders(out)
    write_whole(out / TABLE, table.to_csv(index=False).encode())
    return out / TABLE


def _numbered(number: int, planned: Planned, threads: int | None) -> tuple[int, Settings]:
    """The figures of a fit, in whichever process, with its number in the plan."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return number, _figures(planned)
    except PyroVAEError as error:
        return number, {"failed": first_line(error)}


def _figures(planned: Planned) -> Settings:
    path = planned.path
    if not placing.is_run(path):
        fitting.fit(**planned.config.model_dump(), out=path, display=False)
    elif not _is_done(path):
        fitting.resume(path, display=False)
    folder = RunFolder.open(path)
    found = folder.evaluation or {}
    return {"epochs": len(folder.history)} | {name: found[name] for name in MEASURES if found.get(name) is not None}


def _is_done(path: Path) -> bool:
    folder = RunFolder.open(path)
    progress = folder.training()["progress"]
    return bool(progress["stopped"]) or progress["epoch"] >= folder.config.num_epochs


def _check_place(planned: Planned) -> None:
    """Refuse a place where something else is than this run."""
    path = planned.path
    if not os.path.lexists(path):
        return
    if not placing.is_run(path):
        raise InputError(f"nothing, or a run, at {path}", f"something without {CONFIG}", "give another --out")
    found = RunFolder.open(path).config
    for name in planned.config.model_fields_set:
        wanted, has = getattr(planned.config, name), getattr(found, name)
        if wanted != has and wanted != "auto":
            raise InputError(
                f"a run with {name.replace('_', ' ')} {wanted!r} at {path}",
                f"one with {has!r}",
                "give another --out: a sweep goes on with the settings that it began with",
            )


def _name(differing: Mapping[str, str]) -> str:
    """The name of a run's directory, which any file system takes."""
    name = ",".join(f"{key}={value}" for key, value in differing.items())
    plain = re.sub(r"[^\w=.,+-]", "-", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

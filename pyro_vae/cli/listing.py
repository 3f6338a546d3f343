"""The commands that say what there is: a run, the registries, which parts go together."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_vae.cli.app import main
from pyro_vae.cli.options import json_option, run_argument
from pyro_vae.cli.terminal import matrix, print_json, rows, table
from pyro_vae.errors import InputError, nearest
from pyro_vae.option_types import shown
from pyro_vae.presets import PRESETS, describe

if TYPE_CHECKING:
    import pandas as pd

    from pyro_vae.registry import Registry


REGISTRIES = {  # by kind, the module and the name; loaded when it is listed
    "models": ("models", "MODELS"),
    "guides": ("guides", "GUIDES"),
    "priors": ("priors", "PRIORS"),
    "likelihoods": ("likelihoods", "LIKELIHOODS"),
    "networks": ("networks", "NETWORKS"),
    "objectives": ("objectives", "OBJECTIVES"),
    "optimizers": ("training", "OPTIMIZERS"),
    "resamplings": ("training", "RESAMPLINGS"),
    "augmentations": ("data", "AUGMENTATIONS"),
    "data": ("data", "DATA"),
}
KINDS = (*REGISTRIES, "presets")


@main.command(
    epilog="""\b
Examples:
  python cli.py info runs/digits
  python cli.py info runs/digits --json
"""
)
@run_argument
@json_option
def info(run: Path, as_json: bool) -> None:
    """Say what a run is: its settings, data, epochs and last metrics."""
    from dataclasses import asdict

    from pyro_vae.runs.folder import RunFolder

    folder = RunFolder.open(run)
    history, config, evaluation = folder.history, folder.config, folder.evaluation
    done = {
        "epochs": len(history),
        "best_epoch": _best_epoch(history),
        "parameters": sum(w.numel() for w in folder.weights("best").values()),
    }
    if as_json:
        facts = asdict(folder.facts)
        print_json({"run": str(run), "config": config.model_dump(), "data": facts, **done, "evaluation": evaluation})
        return
    settings = config.model_dump(exclude={"epochs"})
    shown = {name: ",".join(map(str, v)) if isinstance(v, tuple) else v for name, v in settings.items()}
    table(
        str(run),
        shown
        | {"split": folder.facts.split, "epochs": f"{done['epochs']} of {config.epochs}"}
        | rows(done, skip="epochs"),
    )
    if evaluation and "split" in evaluation:
        table(f"last evaluation, {evaluation['split']} set", rows(evaluation))
    for finding in (evaluation or {}).get("findings", ()):
        click.echo(f"Note: {finding['found']}; {finding['mend']}")


def _best_epoch(history: pd.DataFrame) -> int:
    """The epoch with the highest validation ELBO; 0 where none has one that is a number."""
    if "validation_elbo" not in history or not history["validation_elbo"].notna().any():
        return 0
    return int(history.loc[history["validation_elbo"].idxmax(), "epoch"])


@main.command(
    name="list",
    epilog="""\b
Examples:
  python cli.py list guides
  python cli.py list --pairs
""",
)
@click.argument("kind", required=False)
@click.option("--pairs", is_flag=True, help="which parts go together, and why others do not")
@json_option
def list_(kind: str | None, pairs: bool, as_json: bool) -> None:
    """List what there is: models, guides, priors, likelihoods, networks, objectives, data, presets and more."""
    if pairs:
        _list_pairs(kind, as_json)
        return
    if kind is not None and kind not in KINDS:
        raise InputError("a kind of thing to list", repr(kind), nearest(kind, KINDS))
    found = {name: _entries(name) for name in KINDS if kind in (None, name)}
    if as_json:
        print_json(found)
        return
    for name, entries in found.items():
        table(name, {entry: _described(entry, **what) for entry, what in entries.items()})


def _list_pairs(kind: str | None, as_json: bool) -> None:
    if kind is not None:
        raise InputError("list --pairs alone", f"{kind} too", f"leave out {kind}")
    from pyro_vae.runs import compatibility

    found = {"models": compatibility.with_models(), "guides": compatibility.with_guides()}
    if as_json:
        print_json(found)
        return
    for columns, matrices in found.items():
        matrix(f"{', '.join(matrices)} with {columns}", matrices)


def _entries(kind: str) -> dict[str, dict[str, Any]]:
    if kind == "presets":
        return {name: {"description": describe(name), "options": {}} for name in PRESETS}
    module, name = REGISTRIES[kind]
    registry: Registry[Any] = getattr(importlib.import_module(f"pyro_vae.{module}"), name)
    return {name: {"description": registry.describe(name), "options": registry.options(name)} for name in registry}


def _described(name: str, description: str, options: dict[str, Any]) -> list[str]:
    """What a thing is and, on a line of its own, how its options are typed after its name."""
    typed = ",".join(f"{option}={shown(default)}" for option, default in options.items())
    return [description, f"{name}:{typed}"] if typed else [description]

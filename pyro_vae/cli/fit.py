"""The commands that fit and evaluate."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from pyro_vae.cli.app import main
from pyro_vae.cli.grouped import Grouped
from pyro_vae.cli.options import (
    UserPath,
    checkpoint_option,
    data_option,
    device_option,
    json_option,
    open_run,
    run_argument,
    seed_option,
    split_option,
)
from pyro_vae.cli.terminal import config_options, print_json, rows, table
from pyro_vae.config import FitConfig
from pyro_vae.distributed import run_before
from pyro_vae.errors import InputError, TakenError
from pyro_vae.files.bounded import first_line
from pyro_vae.presets import preset
from pyro_vae.registry import parse_choice
from pyro_vae.runs.display import listening, track
from pyro_vae.trackers import tracker_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyro_vae.runs.run import Run


@main.command(
    cls=Grouped,
    epilog="""\b
Examples:
  python cli.py fit --model ss_vae --labels 100 --out runs/digits
  python cli.py fit --resume runs/digits --epochs 120
""",
)
@config_options
@click.option("--out", type=UserPath(), help="the run directory  [default: a new one under runs/]")
@click.option("--overwrite", is_flag=True, help="replace the run that is at --out")
@click.option("--resume", "resumed", type=UserPath(), help="go on with the run in this directory")
@click.option("--config", "config_file", type=UserPath(), help="a JSON file of settings; flags win over it")
@click.option(
    "--preset", "preset_name", metavar="NAME", help="start from a known system; flags and --config win over it"
)
@click.option("--download", is_flag=True, help="fetch the data set if it is not in PYRO_VAE_DATA")
@click.option("--log", "logs", multiple=True, metavar="NAME", help="follow the training elsewhere too: tensorboard")
@json_option
def fit(
    out: Path | None,
    overwrite: bool,
    resumed: Path | None,
    config_file: Path | None,
    preset_name: str | None,
    download: bool,
    logs: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit a model and its guide, and write a run directory."""
    source = click.get_current_context().get_parameter_source
    typed = {name: value for name, value in flags.items() if source(name) is ParameterSource.COMMANDLINE}
    from_environment = {name: value for name, value in flags.items() if source(name) is ParameterSource.ENVIRONMENT}
    layers = (
        preset(preset_name) if preset_name is not None else {},
        FitConfig.read(config_file) if config_file is not None else {},
        typed,
    )
    config = FitConfig.from_layers(from_environment, *layers)
    if resumed is not None and (out is not None or overwrite or preset_name is not None):
        _refuse_both()
    trackers = [tracker_by_name(name) for name in dict.fromkeys(logs)]
    from pyro_vae.runs import fitting

    before = run_before() if resumed is None else None
    if before is not None:  # torchrun has started the processes again
        fitted = fitting.resume(before, trackers=trackers)
    elif resumed is not None:
        fitted = fitting.resume(
            resumed, trackers=trackers, **{n: getattr(config, n) for layer in layers for n in layer}
        )
    else:
        data = Path(os.path.realpath(parse_choice(config.data)[0])).stem
        how: dict[str, Any] = {"overwrite": overwrite, "download": download, "trackers": trackers}
        begin = partial(fitting.fit, **config.model_dump(), **how)
        fitted = begin(out=out) if out else _fit_at_next_free(begin, f"{parse_choice(config.model)[0]}-{data}")
    if fitted.folder is None:  # another process of the training has it
        return
    metrics = fitted.folder.evaluated
    if as_json:
        print_json(metrics | {"run": str(fitted.path), "epochs": len(fitted.history), "stopped": fitted.stopped})
        return
    table(f"{fitted.config.model} on {fitted.config.data}, test set", rows(metrics))
    figures = fitted.folder.figures
    click.echo(f"Run:     {fitted.path}")
    click.echo(f"Figures: {', '.join(sorted(p.name for p in figures.glob('*.png')))} in {figures}")
    click.echo(f"Next:    python cli.py evaluate {fitted.path}")


def _refuse_both() -> NoReturn:
    raise InputError(
        "--resume alone, or a new run with --out, --overwrite or --preset",
        "both",
        "leave those out: a run resumes in its place, with its own settings",
    )


@main.command(
    epilog="""\b
Examples:
  python cli.py evaluate runs/digits
  python cli.py evaluate runs/digits --split validation --samples 5000
"""
)
@run_argument
@click.option(
    "--samples",
    type=int,
    envvar="PYRO_VAE_SAMPLES",
    help="importance samples per image; for numbers to publish 5000  [default: 500; fewer if labels are summed over]",
)
@split_option
@checkpoint_option
@data_option
@device_option
@seed_option
@json_option
def evaluate(
    run: Path, samples: int | None, split: str, checkpoint: str, data: str | None, device: str, seed: int, as_json: bool
) -> None:
    """Measure a run: NLL, ELBO, KL, active units; accuracy and calibration where there are labels."""
    from pyro_vae.distributed.group import join  # late: it imports torch

    world = join(device)
    opened = open_run(run, checkpoint, device, data)
    shown = {"track": track} if world.is_writer else {}
    with listening(partial(click.echo, err=True) if world.is_writer else lambda line: None), world.watching(None):
        metrics = opened.evaluate(split=split, num_samples=samples, seed=seed, world=world, **shown)
    if not world.is_writer:
        return
    assert opened.folder is not None
    try:
        metrics = opened.folder.save_evaluation(metrics, opened.findings)
    except OSError as error:
        metrics |= {"findings": [asdict(finding) for finding in opened.findings]}
        click.echo(f"The evaluation is not saved in {run}: {first_line(error)}", err=True)
    if as_json:
        print_json(metrics)
    else:
        table(f"{metrics['model']} + {metrics['guide']} on {metrics['data']}, {split} set", rows(metrics))
        for finding in opened.findings:
            click.echo(f"Note: {finding}")


def _fit_at_next_free(begin: Callable[..., Run], name: str) -> Run:
    """Fit into a folder under ``runs`` that is free; where somebody else took it meanwhile, into the next one."""
    while True:
        out = _next_free(Path("runs"), name)
        try:
            return begin(out=out)
        except TakenError:
            continue


def _next_free(parent: Path, name: str) -> Path:
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path

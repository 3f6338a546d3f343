"""The command line: one function a command, no logic of its own.

Flags are made from the fields of ``FitConfig``.  torch and Pyro load inside the commands, so that ``--help`` is quick.
Exit status: 0 done, 1 a run that failed, 2 bad usage or bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pyro_vae import __version__
from pyro_vae.cli_criticism import compare_mcmc, diagnose
from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError, nearest
from pyro_vae.options import (
    checkpoint_option,
    device_option,
    json_option,
    open_run,
    out_option,
    run_argument,
    seed_option,
    site_option,
    split_option,
)
from pyro_vae.presets import PRESETS, describe, preset
from pyro_vae.progress import track
from pyro_vae.registry import parse_choice
from pyro_vae.terminal import OneLineErrors, config_options, matrix, print_json, rows, table
from pyro_vae.validation import shown

if TYPE_CHECKING:
    from pyro_vae.registry import Registry
    from pyro_vae.run import Run

KINDS = ("models", "guides", "priors", "likelihoods", "networks", "objectives", "resamplings", "data", "presets")


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pyro-vae")
def main() -> None:
    """Variational autoencoders as ordinary Pyro programs, fast, and checked."""


main.add_command(diagnose)
main.add_command(compare_mcmc)


@main.command()
@config_options
@click.option("--out", type=click.Path(path_type=Path), help="the run directory  [default: a new one under runs/]")
@click.option("--overwrite", is_flag=True, help="replace the run that is at --out")
@click.option("--resume", "resumed", type=click.Path(path_type=Path), help="go on with the run in this directory")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="a JSON file of settings; flags win over it"
)
@click.option(
    "--preset", "preset_name", metavar="NAME", help="start from a known system; flags and --config win over it"
)
@click.option("--download", is_flag=True, help="fetch the data set if it is not in PYRO_VAE_DATA")
@click.option(
    "--strict", is_flag=True, help="refuse a folder with an image that cannot be read  [default: leave it out]"
)
@json_option
def fit(
    out: Path | None,
    overwrite: bool,
    resumed: Path | None,
    config_file: Path | None,
    preset_name: str | None,
    download: bool,
    strict: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit a model and its guide, and write a run directory."""
    source = click.get_current_context().get_parameter_source
    typed = {name: value for name, value in flags.items() if source(name) is ParameterSource.COMMANDLINE}
    from_environment = {name: value for name, value in flags.items() if source(name) is ParameterSource.ENVIRONMENT}
    settings = preset(preset_name) if preset_name is not None else {}
    settings |= (FitConfig.read(config_file) if config_file is not None else {}) | typed
    config = FitConfig.of(**(from_environment | settings))
    if resumed is not None and (out is not None or overwrite or preset_name is not None):
        raise InputError(
            "--resume alone, or a new run with --out, --overwrite or --preset",
            "both",
            "leave those out: a run resumes in its place, with its own settings",
        )
    from pyro_vae import fitting

    if resumed is not None:
        fitted = fitting.resume(resumed, **{name: getattr(config, name) for name in settings})
    else:
        data = Path(parse_choice(config.data)[0]).resolve().stem
        out = out or _next_free(Path("runs"), f"{parse_choice(config.model)[0]}-{data}")
        fitted = fitting.fit(**config.model_dump(), out=out, overwrite=overwrite, download=download, strict=strict)
    assert fitted.folder is not None
    figures = fitted.folder.evaluation or {}
    if as_json:
        print_json(figures | {"run": str(fitted.path), "epochs": len(fitted.history), "stopped": fitted.stopped})
        return
    table(f"{fitted.config.model} on {fitted.config.data}, test set", rows(figures))
    click.echo(f"Run:     {fitted.path}")
    click.echo(
        f"Figures: {', '.join(sorted(p.name for p in fitted.folder.figures.glob('*.png')))} in {fitted.folder.figures}"
    )
    click.echo(f"Next:    python cli.py evaluate {fitted.path}")


@main.command()
@run_argument
@click.option(
    "--samples",
    type=int,
    envvar="PYRO_VAE_SAMPLES",
    help="importance samples per image; for figures to publish 5000  [default: 500; fewer if labels are summed over]",
)
@split_option
@checkpoint_option
@device_option
@seed_option
@json_option
def evaluate(
    run: Path, samples: int | None, split: str, checkpoint: str, device: str, seed: int, as_json: bool
) -> None:
    """Measure a run: NLL, ELBO, KL, active units; accuracy and calibration where there are labels."""
    opened = open_run(run, checkpoint, device)
    say = partial(click.echo, err=True)
    figures = opened.evaluate(split=split, num_samples=samples, seed=seed, note=say, track=track)
    assert opened.folder is not None
    figures = opened.folder.save_evaluation(figures, opened.findings)
    if as_json:
        print_json(figures)
    else:
        table(f"{figures['model']} + {figures['guide']} on {figures['data']}, {split} set", rows(figures))
        for finding in opened.findings:
            click.echo(f"Note: {finding}")


@main.command()
@run_argument
@click.option("--num", type=int, default=64, show_default=True, help="how many images")
@click.option("--label", help="the class to generate, by name")
@checkpoint_option
@device_option
@seed_option
@out_option
@json_option
def sample(
    run: Path, num: int, label: str | None, checkpoint: str, device: str, seed: int, out: Path | None, as_json: bool
) -> None:
    """Draw images from the model into a PNG."""
    from pyro_vae import report

    opened = open_run(run, checkpoint, device)
    figure = report.samples_figure(opened, num, _class_index(opened, label), seed)
    _save(opened, figure, out, "samples" if label is None else f"samples-{label}", as_json)


@main.command()
@run_argument
@click.option("--num", type=click.IntRange(min=1), default=30, show_default=True, help="how many images")
@split_option
@checkpoint_option
@device_option
@out_option
@json_option
def reconstruct(run: Path, num: int, split: str, checkpoint: str, device: str, out: Path | None, as_json: bool) -> None:
    """Put images beside their reconstructions into a PNG."""
    from pyro_vae import report

    opened = open_run(run, checkpoint, device)
    _save(opened, report.reconstructions_figure(opened, num, split), out, "reconstructions", as_json)


@main.command()
@run_argument
@site_option
@click.option(
    "--num", type=click.IntRange(min=2), help="the side of the grid, or the images a row  [default: 20, or 11]"
)
@click.option(
    "--dims", type=click.IntRange(min=1), help="rows of the most active dimensions  [default: 10; a plane is a grid]"
)
@click.option("--span", type=click.FloatRange(min=0, min_open=True), help="rows from -span to span in z  [default: 3]")
@click.option("--label", help="the class to hold, by name")
@checkpoint_option
@device_option
@seed_option
@out_option
@json_option
def traverse(
    run: Path,
    site: str | None,
    num: int | None,
    dims: int | None,
    span: float | None,
    label: str | None,
    checkpoint: str,
    device: str,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Walk through the latent space: a grid over a plane, or a row a dimension."""
    from pyro_vae import report

    opened = open_run(run, checkpoint, device)
    figure = report.traverse_figure(opened, site, num, dims, span, _class_index(opened, label), seed)
    _save(opened, figure, out, "traverse" if label is None else f"traverse-{label}", as_json)


@main.command()
@run_argument
@split_option
@site_option
@click.option("--num", type=click.IntRange(min=2), default=2000, show_default=True, help="how many images at most")
@checkpoint_option
@device_option
@out_option
@json_option
def latent(
    run: Path,
    split: str,
    site: str | None,
    num: int,
    checkpoint: str,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Map where the images lie in the latent space, coloured by class."""
    from pyro_vae import report

    opened = open_run(run, checkpoint, device)
    _save(opened, report.latent_figure(opened, split, site, num), out, "latent", as_json)


@main.command()
@run_argument
@click.option("--fps", type=click.IntRange(1, 50), default=10, show_default=True, help="frames a second")
@click.option(
    "--out", type=click.Path(path_type=Path), help="the GIF file  [default: training.gif in the run's figures]"
)
@json_option
def animate(run: Path, fps: int, out: Path | None, as_json: bool) -> None:
    """Show the training as a GIF: the same latent points, epoch after epoch."""
    from pyro_vae import animation
    from pyro_vae.folder import RunFolder

    folder = RunFolder.open(run)
    frames = animation.read_frames(folder)
    path = out or folder.figures / "training.gif"
    animation.write_gif(frames, path, fps)
    _say_written(run, path, as_json)


@main.command()
@run_argument
@json_option
def info(run: Path, as_json: bool) -> None:
    """Say what a run is: its settings, data, epochs and last figures."""
    from dataclasses import asdict

    from pyro_vae.folder import RunFolder

    folder = RunFolder.open(run)
    history, config, evaluation = folder.history, folder.config, folder.evaluation
    done = {
        "epochs": len(history),
        "best_epoch": int(history.loc[history["validation_elbo"].idxmax(), "epoch"]) if len(history) else 0,
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


@main.command(name="list")
@click.argument("kind", required=False)
@click.option("--pairs", is_flag=True, help="which parts go together, and why others do not")
@json_option
def list_(kind: str | None, pairs: bool, as_json: bool) -> None:
    """List what there is: models, guides, priors, likelihoods, networks, objectives, resamplings, data, presets."""
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
    from pyro_vae import pairs

    found = {"models": pairs.with_models(), "guides": pairs.with_guides()}
    if as_json:
        print_json(found)
        return
    for columns, matrices in found.items():
        matrix(f"{', '.join(matrices)} with {columns}", matrices)


def _entries(kind: str) -> dict[str, dict[str, Any]]:
    if kind == "presets":
        return {name: {"description": describe(name), "options": {}} for name in PRESETS}
    from pyro_vae.data import DATA
    from pyro_vae.guides import GUIDES
    from pyro_vae.inference import OBJECTIVES, RESAMPLINGS
    from pyro_vae.likelihoods import LIKELIHOODS
    from pyro_vae.models import MODELS
    from pyro_vae.networks import NETWORKS
    from pyro_vae.priors import PRIORS

    registries: tuple[Registry[Any], ...] = (
        MODELS,
        GUIDES,
        PRIORS,
        LIKELIHOODS,
        NETWORKS,
        OBJECTIVES,
        RESAMPLINGS,
        DATA,
    )
    registry = registries[KINDS.index(kind)]
    return {name: {"description": registry.describe(name), "options": registry.options(name)} for name in registry}


def _described(name: str, description: str, options: dict[str, Any]) -> str:
    """What a thing is and, on a line of its own, how its options are typed after its name."""
    typed = ",".join(f"{option}={shown(default)}" for option, default in options.items())
    return f"{description}\n{name}:{typed}" if typed else description


def _class_index(run: Run, label: str | None) -> int | None:
    names = run.facts.class_names
    if label is None or label not in names:
        if label is not None and names:
            raise InputError("a class of this run", repr(label), nearest(label, names))
        return None if label is None else 0  # without classes, Run.sample says that the model has no labels
    return names.index(label)


def _save(run: Run, figure: Any, out: Path | None, name: str, as_json: bool) -> None:
    from pyro_vae import report

    assert run.folder is not None
    path = out or run.folder.figures / f"{name}.png"
    report.save_figure(figure, path)
    _say_written(run.folder.path, path, as_json)


def _say_written(run: Path, path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"run": str(run), "figure": str(path)})
    else:
        click.echo(f"Wrote {path}")


def _next_free(parent: Path, name: str) -> Path:
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path

"""The commands that ask whether a posterior can be believed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_vae.cli.app import main
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
from pyro_vae.cli.terminal import grid, print_json, verdicts
from pyro_vae.diagnostics.checks import CHECKS
from pyro_vae.errors import InputError, StorageError
from pyro_vae.files.bounded import first_line
from pyro_vae.registry import split_choices
from pyro_vae.runs.display import listening

if TYPE_CHECKING:
    from pyro_vae.runs.diagnosis import Diagnosis


@main.command(
    epilog="""\b
Examples:
  python cli.py diagnose runs/digits
  python cli.py diagnose runs/digits --nuts 4 --check NUTS
"""
)
@run_argument
@click.option("--num-data", type=int, default=1000, show_default=True, help="how many images to look at")
@click.option("--samples", type=int, default=1000, show_default=True, help="importance samples per image")
@click.option("--simulated", type=int, default=500, show_default=True, help="images that the model makes, to calibrate")
@click.option("--split-gap", type=int, default=100, show_default=True, help="images whose inference gap is split")
@click.option("--nuts", type=int, default=0, show_default=True, help="images whose posterior NUTS draws from")
@click.option("--check", "only", multiple=True, metavar="NAME", help=f"only these: {', '.join(CHECKS)}")
@split_option
@checkpoint_option
@data_option
@device_option
@seed_option
@json_option
def diagnose(
    run: Path,
    num_data: int,
    samples: int,
    simulated: int,
    split_gap: int,
    nuts: int,
    only: tuple[str, ...],
    split: str,
    checkpoint: str,
    data: str | None,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Ask whether the posterior of a run can be believed: a verdict per check, figures, and a file for ArviZ."""
    from pyro_vae.diagnostics.effort import Effort
    from pyro_vae.runs import diagnosis

    effort = Effort(samples, simulated, split_gap, nuts, only=only)
    opened = open_run(run, checkpoint, device, data)
    with listening(partial(click.echo, err=True)):
        found = diagnosis.diagnose(opened, num_data, effort, split, seed)
        files = _saved(found)
    if as_json:
        print_json(found.as_dict() | {"run": str(run), "files": [str(file) for file in files]})
        return
    config = opened.config
    verdicts(f"{config.model} + {config.guide} on {config.data}, {len(found.images):,} of {split}", found.criticism)
    worst = ", ".join(f"{each['row']} ({each['k_hat']:.2f})" for each in found.worst[:5])
    click.echo(f"Worst data by k-hat: {worst}")
    names = ", ".join(file.name for file in files if file.suffix != ".png")
    if files:
        click.echo(f"Wrote {names} and {sum(file.suffix == '.png' for file in files)} figures into {run}")


def _saved(found: Diagnosis) -> list[Path]:
    """The files of a diagnosis; none, which is said, where they cannot be written: it is printed all the same."""
    try:
        return found.save()
    except (OSError, InputError, StorageError) as error:
        click.echo(f"The diagnosis is not saved in {found.run.path}: {first_line(error)}", err=True)
        return []


@main.command(
    name="compare-mcmc",
    epilog="""\b
Examples:
  python cli.py compare-mcmc
  python cli.py compare-mcmc --model banana --guides mean_field,iaf --out compared
""",
)
@click.option("--model", default="linear_gaussian", show_default=True, metavar="NAME", help="generated, and held fixed")
@click.option(
    "--guides", default="mean_field,full_rank,iaf", show_default=True, metavar="NAMES", help="fitted to it, by commas"
)
@click.option("--latent-dim", type=int, default=10, show_default=True, help="dimensions of z")
@click.option("--num-data", type=int, default=2, show_default=True, help="data drawn from the model")
@click.option("--samples", type=int, default=2000, show_default=True, help="NUTS draws per chain")
@click.option("--warmup", type=int, default=500, show_default=True, help="NUTS transitions before them")
@click.option("--chains", type=int, default=4, show_default=True, help="NUTS chains")
@click.option("--steps", type=int, default=2000, show_default=True, help="training steps of each guide")
@seed_option
@click.option("--out", type=UserPath(), metavar="DIR", help="a folder for the figures")
@json_option
def compare_mcmc(
    model: str,
    guides: str,
    latent_dim: int,
    num_data: int,
    samples: int,
    warmup: int,
    chains: int,
    steps: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Put guides beside NUTS and, where it is known, the exact posterior, on a toy model."""
    from pyro_vae import comparison
    from pyro_vae.posterior import Sampling

    with listening(partial(click.echo, err=True)):
        found = comparison.compare_mcmc(
            model,
            split_choices(guides),
            latent_dim=latent_dim,
            num_data=num_data,
            sampling=Sampling(samples, warmup, chains),
            num_steps=steps,
            seed=seed,
        )
    figures = _save_comparison(found, out) if out is not None else {}
    if as_json:
        print_json(found.as_dict() | ({"figures": figures} if figures else {}))
        return
    grid(f"{found.model}, against {found.reference or 'no reference'}", found.table())
    for reason in found.reasons:
        click.echo(f"NUTS is not a reference: {reason}")
    for path in figures.values():
        click.echo(f"Wrote {path}")


def _save_comparison(found: Any, out: Path) -> dict[str, str]:
    from pyro_vae.figures.comparison import forest, overlay
    from pyro_vae.figures.saving import save_figure

    figures = {"overlay": overlay(found), "forest": forest(found)}
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")
    return {name: str(out / f"{name}.png") for name in figures}

"""The command that fits many settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pyro_vae.cli.app import main
from pyro_vae.cli.grouped import Grouped
from pyro_vae.cli.options import UserPath, json_option
from pyro_vae.cli.terminal import config_options, grid, print_json
from pyro_vae.config import FitConfig
from pyro_vae.errors import InputError
from pyro_vae.presets import preset


@main.command(
    cls=Grouped,
    first=("choices", "seeds", "jobs", "model", "data", "out"),
    epilog="""\b
Examples:
  python cli.py sweep --model vae --labels none --set beta=1,2,4 --seeds 5
  python cli.py sweep --set guide=mean_field,iaf --set latent_dim=8,16 --jobs 2
""",
)
@config_options
@click.option(
    "--set",
    "choices",
    multiple=True,
    metavar="NAME=VALUES",
    help="values of a setting, separated by commas, or by semicolons where a value has a comma; any number of times",
)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="how many seeds, from --seed on")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="how many fits run at once")
@click.option("--out", type=UserPath(), default="runs/sweep", show_default=True, help="the folder of the sweep's runs")
@click.option("--preset", "preset_name", metavar="NAME", help="start from a known system; flags win over it")
@json_option
def sweep(
    choices: tuple[str, ...],
    seeds: int,
    jobs: int,
    out: Path,
    preset_name: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit every combination of some settings; the same command again goes on where it was stopped."""
    source = click.get_current_context().get_parameter_source
    given = {
        kind: {name: value for name, value in flags.items() if source(name) is kind}
        for kind in (ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE)
    }
    layers = (
        given[ParameterSource.ENVIRONMENT],
        preset(preset_name) if preset_name is not None else {},
        given[ParameterSource.COMMANDLINE],
    )
    chosen = _chosen(choices)
    from pyro_vae.runs import sweep as sweeping

    planned = sweeping.plan(out, layers, chosen, seeds)
    done = []
    try:
        for each, figures in sweeping.run_all(planned, jobs):
            done.append((each, figures))
            said = figures.get("failed") or f"elbo {figures.get('elbo', float('nan')):.2f}"
            click.echo(f"{len(done)} of {len(planned)}: {each.path.name}: {said}", err=True)
    except KeyboardInterrupt:
        click.echo(f"Stopped after {len(done)} of {len(planned)} fits; the same command goes on.", err=True)
        raise SystemExit(130) from None
    table = sweeping.table_of(done, planned)
    path = sweeping.write_table(out, table)
    if as_json:
        print_json({"table": str(path), "runs": [_known(row) for row in table.to_dict("records")]})
    else:
        grid(f"{len(planned)} fits", sweeping.summary_of(table, list(chosen)))
        click.echo(f"Table: {path}")
    if "failed" in table and table["failed"].notna().any():
        raise SystemExit(1)


def _known(row: dict[Any, Any]) -> dict[str, Any]:
    """A row without what it has no value of."""
    return {str(name): value for name, value in row.items() if value == value}


def _chosen(choices: tuple[str, ...]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for choice in choices:
        name, sign, values = choice.partition("=")
        name = name.strip().replace("-", "_")
        listed = [value.strip() for value in values.split(";" if ";" in values else ",") if value.strip()]
        if not sign or not listed:
            raise InputError("a setting and its values, --set NAME=VALUE,VALUE", repr(choice), "use --set beta=1,2,4")
        if name == "seed":
            raise InputError("--seeds for several seeds", repr(choice), "use --seed 3 --seeds 5 for seeds from 3 to 7")
        if name in chosen:
            raise InputError(f"--set {name} once", "twice", "put all its values into one, separated by commas")
        if name not in FitConfig.model_fields:
            FitConfig.from_settings(**{name: listed[0]})  # which says what is near
        chosen[name] = listed
    return chosen

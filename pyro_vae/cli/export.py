"""The command that writes a run's parts as files for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from pyro_vae.cli.app import main
from pyro_vae.cli.options import UserPath, checkpoint_option, data_option, json_option, open_run, run_argument
from pyro_vae.cli.terminal import print_json


@main.command(
    epilog="""\b
Examples:
  python cli.py export runs/digits                      # runs/digits/export/encoder.pt2, …
  python cli.py export runs/digits --to onnx --part encoder --out model
"""
)
@run_argument
@click.option("--to", default="torch", show_default=True, metavar="NAME", help="torch (.pt2) or onnx")
@click.option("--part", "parts", multiple=True, metavar="NAME", help="encoder, decoder, classifier  [default: all]")
@click.option("--out", type=UserPath(), metavar="DIR", help="the folder to write to  [default: export in the run's]")
@checkpoint_option
@data_option
@json_option
def export(
    run: Path, to: str, parts: tuple[str, ...], out: Path | None, checkpoint: str, data: str | None, as_json: bool
) -> None:
    """Write encoder, decoder and classifier as files that need neither Pyro nor this package.

    Each takes any number of rows, and is compared with the run before it is left in place; a JSON file beside them says
    what goes in and comes out.
    """
    from pyro_vae.export import export_run

    files = export_run(open_run(run, checkpoint, "cpu", data), out, to, parts or None)  # type: ignore[arg-type]
    if as_json:
        print_json({"run": str(run), "files": [str(file) for file in files]})
        return
    for file in files:
        click.echo(f"Wrote {file}")

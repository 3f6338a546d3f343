"""The command that writes a new part and its test to begin from."""

from __future__ import annotations

import click

from pyro_vae.cli.app import main
from pyro_vae.cli.options import json_option
from pyro_vae.cli.terminal import print_json


@main.command(
    epilog="""\b
Examples:
  python cli.py new model my_model      # then: python cli.py fit --model my_model
  python cli.py new guide my_guide
"""
)
@click.argument("kind")
@click.argument("name")
@json_option
def new(kind: str, name: str, as_json: bool) -> None:
    """Write a new model, guide, prior, likelihood or objective that works as it is, and its test, to begin from.

    It lies in the checkout where parts of its kind do, is chosen by NAME, and replaces nothing.
    """
    from pyro_vae.skeletons import write_skeleton

    part, test = write_skeleton(kind, name)
    if as_json:
        print_json({"kind": kind, "name": name, "part": str(part), "test": str(test)})
        return
    click.echo(f"Wrote   {part}\n        {test}")
    click.echo(f"Next:   python cli.py fit --{kind} {name}\n        pytest -n 0 {test}")
    click.echo(f'How:    "A new {kind}" in docs/extending.md, and the checklist in docs/design.md')

"""The command that lets a shell complete commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pyro_vae.cli.app import main
from pyro_vae.errors import InputError, nearest

SHELLS = ("bash", "fish", "zsh")
PROGRAM = "pyro-vae"


@main.command(
    epilog="""\b
Examples:
  eval "$(pyro-vae completion bash)"                            # in ~/.bashrc; zsh alike in ~/.zshrc
  pyro-vae completion fish > ~/.config/fish/completions/pyro-vae.fish
"""
)
@click.argument("shell")
def completion(shell: str) -> None:
    """Print the script by which bash, zsh or fish completes commands and flags of pyro-vae."""
    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise InputError(f"a shell: {', '.join(SHELLS)}", repr(shell), nearest(shell, SHELLS))
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    script = kind(main, {}, PROGRAM, variable)
    click.echo(script.source_template % script.source_vars())
